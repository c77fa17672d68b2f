"""Tensors that have the value of one expression and the gradient of another."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["LEAST_LENGTH", "carry", "straight_through", "unit_rows"]

# A shorter vector has no direction: the gradient of its unit vector would be larger than the inverse of this.
LEAST_LENGTH = 1e-6


def straight_through(z: Tensor, e: Tensor) -> Tensor:
    """Return the value of `e` with the gradient of the identity at `z` (van den Oord et al. 2017, §3.2).

    The usual way to write it, ``z + (e - z).detach()``, rounds: its value is not exactly the code. Here a zero carries
    the gradient, and the value stays the code's, bit for bit.

    Args:
        z: inputs, of any shape.
        e: their codes, the same shape; no gradient reaches them.

    Example:
        >>> import torch
        >>> straight_through(torch.tensor([0.1], requires_grad=True), torch.tensor([0.3]))
        tensor([0.3000], grad_fn=<AddBackward0>)
    """
    return carry(e.detach(), z)


def carry(value: Tensor, gradient: Tensor) -> Tensor:
    """Return `value` with the gradient of `gradient` added to its own; only a zero is added to the value."""
    return value + (gradient - gradient.detach())


def unit_rows(x: Tensor) -> Tensor:
    """Divide vectors `(…, D)` by their lengths; those shorter than 1e-6 stay as they are, with the identity's gradient.

    Example:
        >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.where(length > LEAST_LENGTH, length, 1)
