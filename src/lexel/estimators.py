"""Estimators: what gradient the encoder gets through the choice of a code, which has none of its own."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lexel.parts import Configurable

__all__ = ["Estimator", "StraightThrough"]


class Estimator(Configurable, abstract=True):
    """Maps an input and its code to the quantized output, whose gradient stands in for that of the choice."""

    def __call__(self, z: Tensor, e: Tensor) -> Tensor:
        """Return the quantized rows `(N, D)` for inputs `z` and their codes `e`, both `(N, D)`."""
        raise NotImplementedError


@dataclass(frozen=True)
class StraightThrough(Estimator):
    """The value of the code with the gradient of the identity: ∂L/∂z = ∂L/∂quantized (van den Oord et al. 2017, §3.2).

    The usual way to write it, ``z + (e - z).detach()``, rounds: its value is not exactly the code. Here the zero
    ``z - z.detach()`` carries the gradient and the value stays the code's, bit for bit.

    Example:
        >>> import torch
        >>> z, e = torch.tensor([[0.1]], requires_grad=True), torch.tensor([[0.3]])
        >>> StraightThrough()(z, e)
        tensor([[0.3000]], grad_fn=<AddBackward0>)
    """

    def __call__(self, z: Tensor, e: Tensor) -> Tensor:  # noqa: D102
        return e.detach() + (z - z.detach())
