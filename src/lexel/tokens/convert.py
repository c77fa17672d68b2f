"""Images to tokens and back."""

from __future__ import annotations

import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from lexel._core.console import track
from lexel._core.files import inside, written_beside
from lexel.data.batches import batches
from lexel.data.images import open_images, save_image, to_pixels
from lexel.models import Autoencoder
from lexel.tokens.file import TokenFile, fingerprint, smallest_dtype

__all__ = ["decode_images", "encode_images", "png_names"]

LONGEST_NAME = 255  # bytes, of a file or folder, on nearly every file system


def encode_images(
    model: Autoencoder, data: str | Path, *, strict: bool = False, batch_size: int = 1
) -> tuple[TokenFile, dict[str, str]]:
    """Turn a set of images into tokens.

    Args:
        model: in eval mode, on any device.
        data: as `lexel.data.images.open_images` takes it.
        strict: refuse data with unreadable files instead of skipping them.
        batch_size: how many images of one size are encoded at once. Sums of floating numbers come out differently in
            the last bit when they are taken together, so that a few tokens on the edge between two codes may differ.

    Returns:
        The tokens, and the files that could not be read, by name, with the reason.

    Raises:
        FileNotFoundError: `data` does not exist.
        ValueError: there is no readable image in `data`.
    """
    images = open_images(data, model.image_channels)
    device = next(model.parameters()).device
    dtype = smallest_dtype(model.num_embeddings)
    grids: dict[int, Tensor] = {}
    sizes: dict[int, tuple[int, int]] = {}
    readable = images.readable(track(range(len(images)), "encoding"), strict=strict)
    for numbers, pixels in batches(readable, batch_size):
        found = model.encode(pixels.to(device).float() / 255).to("cpu", dtype)
        for number, grid in zip(numbers, found, strict=True):
            grids[number], sizes[number] = grid.clone(), (pixels.shape[2], pixels.shape[3])
    order = sorted(grids)
    indices = {images.names[number]: grids[number] for number in order}
    return (
        TokenFile(
            indices,
            {images.names[number]: sizes[number] for number in order},
            model.num_embeddings,
            fingerprint(model),
        ),
        images.skipped,
    )


@torch.no_grad()
def decode_images(model: Autoencoder, tokens: TokenFile, out: Path, *, batch_size: int = 1) -> None:
    """Write the image of every entry of a token file as PNG, in the tree that their names describe (`png_names`).

    An image replaces a file of the same name, whole or not at all; other files in `out` stay.

    Args:
        model: the model that made the tokens, in eval mode, on any device.
        tokens: what to decode.
        out: the folder to write into; created if it is missing.
        batch_size: how many images of one size are decoded at once; a pixel may then differ by 1/255.

    Raises:
        ValueError: the tokens do not fit the model, or another model made them.
    """
    if tokens.num_embeddings != model.num_embeddings:
        raise ValueError(
            f"the tokens come from a quantizer with {tokens.num_embeddings} codes, "
            f"this model has {model.num_embeddings}"
        )
    own = fingerprint(model)
    if tokens.model != own:
        raise ValueError(
            f"the tokens come from the model with the fingerprint {tokens.model}, this model has {own}: "
            "decode them with the model that made them"
        )
    out.mkdir(parents=True, exist_ok=True)
    targets = png_names(tokens.indices, same=_same_name(out))
    device = next(model.parameters()).device
    names = list(tokens.indices)
    # Images of one size have grids of one shape, but grids of one shape may come from images of several sizes.
    by_size = sorted(range(len(names)), key=lambda number: tokens.sizes[names[number]])
    for _, group in groupby(track(by_size, "decoding"), key=lambda number: tokens.sizes[names[number]]):
        for numbers, grids in batches(((number, tokens.indices[names[number]]) for number in group), batch_size):
            first = names[numbers[0]]
            try:
                decoded = model.decode(grids.to(device).long(), tokens.sizes[first])
            except (ValueError, RuntimeError) as error:
                raise ValueError(f"the tokens of {first!r} do not fit this model: {error}") from error
            for number, image in zip(numbers, decoded, strict=True):
                with written_beside(inside(out, targets[names[number]])) as temporary:
                    save_image(to_pixels(image), temporary)


def png_names(names: Iterable[str], same: Callable[[str], str] = str) -> dict[str, str]:
    """Give each image the name of a PNG file: all different, and at most 255 bytes long between slashes.

    .png replaces the extension. Images that would then have the same name keep their extension before .png, and a
    number comes before .png if even that name is taken.

    Args:
        names: relative paths of the images.
        same: a function that returns the same text for names that mean the same file.

    Example:
        >>> png_names(["a.jpg", "b.jpg", "b.webp"])
        {'a.jpg': 'a.png', 'b.jpg': 'b.jpg.png', 'b.webp': 'b.webp.png'}
    """
    paths = {name: PurePosixPath(name) for name in names}
    wanted = {name: _shortened(path, path.suffix, ".png") for name, path in paths.items()}
    claims = Counter(same(target) for target in wanted.values())
    # A folder may have the name that an image would get.
    taken = {same(str(folder)) for path in paths.values() for folder in path.parents}
    targets = {}
    for name in sorted(paths, key=lambda name: claims[same(wanted[name])] > 1):  # those without a rival choose first
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
    """Replace `suffix` by `ending`, and cut the part before it if the name would be too long."""
    stem = path.name[: len(path.name) - len(suffix)]
    room = LONGEST_NAME - len(ending)
    return str(path.parent / (stem.encode("utf-8", "replace")[:room].decode("utf-8", "ignore") + ending))


def _same_name(folder: Path) -> Callable[[str], str]:
    """Find out whether names that differ in case or in the encoding of accents are different files in a folder.

    On some systems they are not, and two images must not become one file there.
    """
    with tempfile.TemporaryDirectory(prefix=".lexel.É.", dir=folder) as probe:
        name = Path(probe).name
        alike = name.lower(), unicodedata.normalize("NFD", name)
        if any((folder / other).exists() for other in alike):
            return lambda name: unicodedata.normalize("NFC", name.casefold())
    return str
