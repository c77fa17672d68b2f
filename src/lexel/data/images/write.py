"""Pixels to an image file."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from lexel.data.images.decode import MODES

__all__ = ["save_image", "to_pixels"]


def to_pixels(images: Tensor) -> Tensor:
    """Turn floating images in [0, 1], of any shape, into uint8, rounded."""
    return (images.detach().clamp(0, 1) * 255).round().to(torch.uint8)


def save_image(pixels: Tensor, path: Path) -> None:
    """Write uint8 `(C, H, W)` as an image file, in the format of the path's extension; C is 1, 3 or 4.

    Raises:
        ValueError: there is no image file of C channels.
    """
    if len(pixels) not in MODES:
        raise ValueError(f"an image file has 1, 3 or 4 channels, not {len(pixels)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    array = pixels.movedim(0, -1).cpu().numpy()
    Image.fromarray(array[..., 0] if len(pixels) == 1 else array).save(path)
