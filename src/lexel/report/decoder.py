"""How far around its own position a code changes the decoded image."""

from __future__ import annotations

import torch
from torch import Tensor

from lexel.models import ImageAutoencoder

__all__ = ["middle_cell", "reach"]


def reach(model: ImageAutoencoder) -> int:
    """Return how many positions away from its own a code can change the decoded image, in either direction.

    Example:
        >>> import lexel
        >>> reach(lexel.models.VQVAE(lexel.VectorQuantizer(8, 4), residual_layers=0, downsampling=1))
        2
    """
    for radius in (8, 16, 32):
        generator = torch.Generator().manual_seed(0)
        side = 2 * radius + 1
        z = torch.randn(1, model.quantizers[0].output_dim, side, side, generator=generator)
        with torch.enable_grad():
            z.requires_grad_()
            middle = middle_cell(model.synthesize([z]), radius, model.factors[0])
            (gradient,) = torch.autograd.grad(middle.square().sum(), z)
        touched = (gradient[0] != 0).any(0).nonzero()
        distance = int((touched - radius).abs().max())
        if distance < radius:
            break
    return distance


def middle_cell(pixels: Tensor, radius: int, side: int) -> Tensor:
    """Return the pixels of the position in the middle of a grid.

    Args:
        pixels: `(…, (2r+1)·f, (2r+1)·f)`.
        radius: r, how many positions stand on each side of the middle one.
        side: f, the side of a position in pixels.

    Returns:
        `(…, f, f)`.
    """
    middle = slice(radius * side, (radius + 1) * side)
    return pixels[..., middle, middle]
