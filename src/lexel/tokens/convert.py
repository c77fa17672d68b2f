"""Images to tokens and back."""

from __future__ import annotations

import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

import torch

from lexel._core.console import track
from lexel._core.files import inside, written_beside
from lexel.data.images import open_images, save_image, to_pixels
from lexel.models import VQVAE
from lexel.tokens.file import TokenFile, fingerprint

__all__ = ["decode_images", "encode_images", "png_names"]

LONGEST_NAME = 255  # bytes, of a file or folder, on nearly every file system


def encode_images(model: VQVAE, data: str | Path, *, strict: bool = False) -> tuple[TokenFile, dict[str, str]]:
    """Turn a set of images into tokens.

    Args:
        model: in eval mode.
        data: as `lexel.data.images.open_images` takes it.
        strict: refuse data with unreadable files instead of skipping them.

    Returns:
        The tokens, and the files that could not be read, by name, with the reason.

    Raises:
        FileNotFoundError: `data` does not exist.
        ValueError: there is no readable image in `data`.
    """
    images = open_images(data, model.image_channels)
    indices, sizes = {}, {}
    for index, pixels in images.readable(track(range(len(images)), "encoding"), strict=strict):
        name = images.names[index]
        indices[name] = model.encode(pixels[None].float() / 255)[0]
        sizes[name] = (pixels.shape[1], pixels.shape[2])
    return TokenFile(indices, sizes, model.quantizer.num_embeddings, fingerprint(model)), images.skipped


@torch.no_grad()
def decode_images(model: VQVAE, tokens: TokenFile, out: Path) -> None:
    """Write the image of every entry of a token file as PNG, in the tree that their names describe (`png_names`).

    A file takes the place of one with the same name, whole or not at all; others in `out` are left alone.

    Args:
        model: the one that made the tokens, in eval mode.
        tokens: what to decode.
        out: the folder to write into; made when missing.

    Raises:
        ValueError: the tokens do not fit the model.
    """
    if tokens.num_embeddings != model.quantizer.num_embeddings:
        raise ValueError(
            f"the tokens come from a quantizer with {tokens.num_embeddings} codes, "
            f"this model has {model.quantizer.num_embeddings}"
        )
    out.mkdir(parents=True, exist_ok=True)
    targets = png_names(tokens.indices, same=_same_name(out))
    for name in track(list(tokens.indices), "decoding"):
        try:
            image = model.decode(tokens.indices[name][None], tokens.sizes[name])[0]
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"the tokens of {name!r} do not fit this model: {error}") from error
        with written_beside(inside(out, targets[name])) as temporary:
            save_image(to_pixels(image), temporary)


def png_names(names: Iterable[str], same: Callable[[str], str] = str) -> dict[str, str]:
    """Give each name one that ends in .png, other than all others, and at most 255 bytes long between slashes.

    The extension makes way for .png. Where that would give two the same name, .png stands after it; where that is taken
    too, a number before it.

    Args:
        names: relative paths.
        same: what two names have in common that mean the same file.

    Example:
        >>> png_names(["a.jpg", "b.jpg", "b.webp"])
        {'a.jpg': 'a.png', 'b.jpg': 'b.jpg.png', 'b.webp': 'b.webp.png'}
    """
    paths = {name: PurePosixPath(name) for name in names}
    wanted = {name: _shortened(path, path.suffix, ".png") for name, path in paths.items()}
    claims = Counter(same(target) for target in wanted.values())
    # A folder may be called as an image would be.
    taken = {same(str(folder)) for path in paths.values() for folder in path.parents}
    targets = {}
    for name in sorted(paths, key=lambda name: claims[same(wanted[name])] > 1):  # who shares a name gives way
        target, number = wanted[name], 1
        if claims[same(target)] > 1:
            target = _shortened(paths[name], "", ".png")
        while same(target) in taken:
            number += 1
            target = _shortened(paths[name], "", f".{number}.png")
        taken.add(same(target))
        targets[name] = target
    return targets


def _shortened(path: PurePosixPath, suffix: str, ending: str) -> str:
    """Put `ending` in the place of `suffix`; the part before it gives up what is too long."""
    stem = path.name[: len(path.name) - len(suffix)]
    room = LONGEST_NAME - len(ending)
    return str(path.parent / (stem.encode("utf-8", "replace")[:room].decode("utf-8", "ignore") + ending))


def _same_name(folder: Path) -> Callable[[str], str]:
    """Find out whether a folder tells names apart that differ by case or by how their accents are composed.

    Not every system does: two images must not become one file there.
    """
    with tempfile.TemporaryDirectory(prefix=".lexel.É.", dir=folder) as probe:
        name = Path(probe).name
        alike = name.lower(), unicodedata.normalize("NFD", name)
        if any((folder / other).exists() for other in alike):
            return lambda name: unicodedata.normalize("NFC", name.casefold())
    return str
