"""Values with other gradients than their own."""

from __future__ import annotations

from torch import Tensor

__all__ = ["carry", "straight_through"]


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
    """Return `value`, with the gradient of `gradient` besides its own: a zero is added, so the value stays exact."""
    return value + (gradient - gradient.detach())
