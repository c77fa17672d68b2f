"""A quantizer that lets some examples pass as they are, in training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from lexel._core.checks import check_number
from lexel.quantizers._wrapper import Wrapper
from lexel.quantizers.base import Choice, Quantizer

__all__ = ["QuantizationDropout"]


class QuantizationDropout(Wrapper):
    """Leaves some examples of each training batch unquantized, each with a probability of `rate`.

        quantized = quantizer(z), or in training unquantized(z) for an example that is dropped

    The decoder then also sees what the codes approximate, and the encoder gets the exact gradient for it; the straight
    through one is that of another place. Mimi drops half of its sequences (Défossez et al. 2024, arXiv 2410.00037,
    §3.3); a tenth is enough for the gradient, and the decoder goes on learning the codes. Dropped examples take part in
    all else: they choose codes, which learn from them, and count in the losses and the perplexity. In eval mode nothing
    is dropped. Which examples are is drawn from torch's global generator, as by `torch.nn.Dropout`.

    Attributes:
        rate: the probability with which an example is left unquantized.

    Args:
        quantizer: any quantizer.
        rate: the probability, in [0, 1).
        channel_dim: which axis of the input holds the channels. The first of the others is that of the examples.

    Raises:
        TypeError: `quantizer` is not a quantizer, or `rate` not a number.
        ValueError: `rate` is not in [0, 1).

    Example:
        >>> import torch, lexel
        >>> vq = QuantizationDropout(lexel.VectorQuantizer(2, 1, upkeep=lexel.KMeansStart()), rate=0.5)
        >>> _ = torch.manual_seed(0), vq(torch.tensor([[1.0], [3.0]]))
        >>> vq(torch.tensor([[1.5], [1.5], [1.5], [1.5]])).quantized.detach().flatten()
        tensor([1.5000, 1.5000, 1.5000, 1.0000])
    """

    def __init__(self, quantizer: Quantizer, rate: float = 0.1, *, channel_dim: int = 1) -> None:
        name = type(self).__name__
        super().__init__(quantizer, quantizer.embedding_dim, channel_dim)
        self.rate = float(check_number(name, "rate", rate, least=0, below=1))

    @override
    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Load the state of the quantizer alone as well: this wrapper has none, and models got it later."""
        names = [name for name, _ in (*self.quantizer.named_parameters(), *self.quantizer.named_buffers())]
        outer, inner = ([f"{prefix}{path}{name}" for name in names] for path in ("", "quantizer."))
        if state_dict.keys().isdisjoint(inner) and state_dict.keys() & set(outer):
            for name, own in zip(outer, inner, strict=True):
                if name in state_dict:
                    state_dict[own] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    @property
    @override
    def has_own_gradient(self) -> bool:
        return True

    @override
    def inward(self, z: Tensor) -> Tensor:
        return z

    @override
    def outward(self, e: Tensor) -> Tensor:
        return e

    @override
    def _quantize(self, z: Tensor, valid: Tensor | None, partial: Tensor | None) -> Choice:
        choice = super()._quantize(z, valid, partial)
        if not self.training or not self.rate:
            return choice
        dropped = torch.rand(len(z), *[1] * (z.ndim - 1), device=z.device) < self.rate
        passed = self.quantizer.unquantized_positions(z).to(choice.quantized.dtype)
        return replace(choice, quantized=torch.where(dropped, passed, choice.quantized))

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"rate={self.rate}"
