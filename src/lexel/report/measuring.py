"""Encode and decode images with a model: figures over all of them, and the first few as examples to draw."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lexel._core.console import track
from lexel.data.images import Images, psnr, to_pixels
from lexel.data.pictures import centre
from lexel.metrics import Usage
from lexel.models import ImageAutoencoder

__all__ = ["Example", "Measurement", "measure"]

MAX_SIDE = 384  # pixels: of a larger image only the centre is measured
ENOUGH_POSITIONS = 1 << 18  # enough to tell how often each code is used
LARGE_EXAMPLES, SMALL_EXAMPLES = 4, 12
SMALL_SIDE = 128  # pixels: the largest side of a small image


@dataclass(frozen=True)
class Example:
    """An image, its codes and its reconstruction.

    Attributes:
        original: float32 in [0, 1], `(C, H, W)`.
        indices: its codes, `(h, w)` or `(h, w, Q)`.
        reconstruction: `(C, H, W)`.
        psnr: PSNR of the reconstruction in 8-bit pixels, in dB.
    """

    original: Tensor
    indices: Tensor
    reconstruction: Tensor
    psnr: float

    @property
    def error(self) -> Tensor:
        """Absolute error of each pixel, averaged over the channels, `(H, W)`."""
        return (self.original - self.reconstruction).abs().mean(0)

    @property
    def small(self) -> bool:
        """Whether the page can show many such images."""
        return max(self.original.shape[1:]) <= SMALL_SIDE


@dataclass(frozen=True)
class Measurement:
    """Figures over all images that a model has encoded and decoded, and examples.

    Attributes:
        usages: how often each code of each codebook occurs.
        examples: the first few images.
        images: how many were measured.
        psnr: mean over the images, in dB.
        positions: how many positions of the grids the images have.
        bits: bits of the images' indices as they are.
        pixels: how many pixels the images have.
    """

    usages: tuple[Usage, ...]
    examples: tuple[Example, ...]
    images: int
    psnr: float
    positions: int
    bits: float
    pixels: int

    @property
    def highest_error(self) -> float:
        """The error that has the brightest colour in the examples' pictures: 99.8 % of the pixels do not exceed it."""
        # With the maximum instead, a single bright edge would leave everything else black.
        errors = torch.cat([example.error.flatten() for example in self.examples])
        return max(float(errors.kthvalue(-(-998 * len(errors) // 1000)).values), 1 / 255)


@torch.no_grad()
def measure(model: ImageAutoencoder, images: Images) -> Measurement:
    """Encode and decode the centres of images, evenly spread over all of them, until there are enough positions.

    Besides the examples, only one image is held at a time.

    Args:
        model: in eval mode.
        images: one or more.

    Raises:
        ValueError: no image is readable.
    """
    height, width = model.image_size or (MAX_SIDE, MAX_SIDE)
    usages = tuple(Usage(size) for quantizer in model.quantizers for size in quantizer.codebook_sizes)
    examples: list[Example] = []
    number = positions = pixels = 0
    bits = ratios = 0.0
    for _, image in images.readable(track(_spread(model, images, height, width), "measuring")):
        original = centre(image, height, width).float() / 255
        size = original.shape[1], original.shape[2]
        grid = model.encode(original[None])
        reconstruction = model.decode(grid, size)[0]
        example = Example(original, grid[0], reconstruction, psnr(original, to_pixels(reconstruction).float() / 255))
        for usage, indices in zip(usages, model.by_codebook(grid, size), strict=True):
            usage.update(indices)
        if len(examples) < (SMALL_EXAMPLES if example.small else LARGE_EXAMPLES):
            examples.append(example)
        number += 1
        ratios += example.psnr
        positions += sum(h * w for h, w in model.maps(size))
        bits += model.bits(size)
        pixels += original[0].numel()
        if positions > 2 * ENOUGH_POSITIONS:  # the first image was smaller than the others
            break
    return Measurement(usages, tuple(examples), number, ratios / number, positions, bits, pixels)


def _spread(model: ImageAutoencoder, images: Images, height: int, width: int) -> list[int]:
    """Return the indices of as many images as should have enough positions, judging by the size of the first."""
    _, first = next(images.readable(range(len(images))))
    one = centre(first, height, width)[0].numel()
    count = min(len(images), max(LARGE_EXAMPLES, ENOUGH_POSITIONS * min(model.factors) ** 2 // one))
    return [number * len(images) // count for number in range(count)]
