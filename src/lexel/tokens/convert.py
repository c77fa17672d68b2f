"""Images to tokens and back."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import torch

from lexel._core.console import track
from lexel._core.files import inside, written_beside
from lexel.data.images import open_images, save_image, to_pixels
from lexel.models import VQVAE
from lexel.tokens.file import TokenFile, fingerprint

__all__ = ["decode_images", "encode_images"]


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
    """Write the image of every entry of a token file as PNG, in the tree that their names describe.

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
    targets = _png_names(list(tokens.indices))
    for name in track(list(tokens.indices), "decoding"):
        try:
            image = model.decode(tokens.indices[name][None], tokens.sizes[name])[0]
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"the tokens of {name!r} do not fit this model: {error}") from error
        with written_beside(inside(out, targets[name])) as temporary:
            save_image(to_pixels(image), temporary)


def _png_names(names: list[str]) -> dict[str, str]:
    """Give every name the extension .png: in place of its own, or after it when two would else become the same."""
    replaced = {name: str(PurePosixPath(name).with_suffix(".png")) for name in names}
    return replaced if len(set(replaced.values())) == len(names) else {name: f"{name}.png" for name in names}
