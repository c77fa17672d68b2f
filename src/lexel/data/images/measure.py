"""How far a copy of an image is from its original, and how far images are from a constant one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor

__all__ = ["SSIM_WINDOW", "constant_error", "psnr", "ssim"]

SSIM_WINDOW = 11


def psnr(image: Tensor, copy: Tensor) -> float:
    """Return the peak signal-to-noise ratio of two images in [0, 1], in dB; at most 100, for equal ones.

    Example:
        >>> round(psnr(torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.1)), 4)
        20.0
    """
    return -10 * math.log10(max(float((copy - image).square().mean()), 1e-10))


def ssim(image: Tensor, copy: Tensor, tile: int = 512) -> float:
    """Return the mean structural similarity of two images (Wang et al. 2004): windows of 11 × 11, σ = 1.5.

    A window stands on every pixel; beyond the border the image is mirrored. Worked out in tiles: the value is that of
    the whole image, the memory that of one tile.

    Args:
        image: floating in [0, 1], `(C, H, W)`, with H and W at least 11.
        copy: likewise.
        tile: side of a tile in pixels.

    Raises:
        ImportError: torchmetrics is missing.

    Example:
        >>> ssim(torch.zeros(3, 16, 16), torch.zeros(3, 16, 16))
        1.0
    """
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError as error:
        raise ImportError("SSIM needs torchmetrics: pip install 'lexel[train]'") from error

    total = 0.0
    for rows, inner_rows in _tiles(image.shape[-2], tile):
        for columns, inner_columns in _tiles(image.shape[-1], tile):
            mine, theirs = image[None, :, rows, columns], copy[None, :, rows, columns]
            _, similarities = structural_similarity_index_measure(
                theirs,
                mine,
                data_range=1.0,
                return_full_image=True,
            )
            total += float(similarities[..., inner_rows, inner_columns].sum(dtype=torch.float64))
    return total / image.numel()


def _tiles(length: int, tile: int) -> Iterator[tuple[slice, slice]]:
    """Cut a side into tiles: each with what its windows reach on both sides, and where in that the tile itself lies."""
    reach = SSIM_WINDOW // 2
    for start in range(0, length, tile):
        stop, first = min(start + tile, length), max(start - reach, 0)
        yield slice(first, min(stop + reach, length)), slice(start - first, stop - first)


def constant_error(images: Iterable[Tensor], loss: Literal["mse", "l1"]) -> float:
    """Return the error of the best constant image: each channel's mean over all pixels of all `images`.

    Counted by value, so that it takes no more memory than one image.

    Args:
        images: uint8 `(C, H, W)`.
        loss: the mean over all values of the squared error, or of the absolute one, of pixels in [0, 1].

    Example:
        >>> constant_error([torch.tensor([[[0, 255]]], dtype=torch.uint8)], "mse")
        0.25
    """
    counts = torch.zeros(1, 256, dtype=torch.int64)
    for image in images:
        counts = counts + torch.stack([_counts(channel) for channel in image])
    values = torch.arange(256, dtype=torch.float64) / 255
    shares = counts / counts.sum(1, keepdim=True, dtype=torch.float64)
    deviations = values - shares @ values.unsqueeze(1)
    errors = deviations.square() if loss == "mse" else deviations.abs()
    return float((shares * errors).sum(1).mean())


def _counts(values: Tensor) -> Tensor:
    """How often each value occurs; in pieces, since bincount copies what it counts to eight bytes a value."""
    counts = torch.zeros(256, dtype=torch.int64)
    for piece in torch.split(values.flatten(), 1 << 20):
        counts += torch.bincount(piece, minlength=256)
    return counts
