"""A quantizer whose inputs are shifted and scaled to a mean of 0 and a given spread."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from lexel._core.checks import check_number
from lexel._core.collectives import all_sum
from lexel._core.values import Reading, widest
from lexel.quantizers._wrapper import Wrapper
from lexel.quantizers.base import Choice, Quantizer

__all__ = ["NormalisedQuantizer"]


class NormalisedQuantizer(Wrapper):
    """Shifts and scales the inputs of another quantizer to a mean of 0 and a spread of `std` when training begins.

        z' = (z − shift) · scale,    quantized = quantizer(z') / scale + shift

    The vectors of an untrained encoder differ little: nearly all of their length is a mean that they share, and their
    spread about it may be of any size. Codes then start far from them, levels of fixed width are too coarse for them,
    and both learn slowly. The mean of each channel, and one scale for all channels, are measured in the first training
    step whose inputs are not all equal, over all ranks, and then stay as they are (a data-dependent start like
    ActNorm's in Glow, arXiv 1807.03039, §3.1, but with one scale, since channels that hardly vary are hardly worth
    coding). The losses are those of the quantizer, in its own space.

    By default the quantized vectors are scaled and shifted back to where the inputs lie, which a residual quantizer or
    an existing decoder needs. With `scale_back=False` they stay as the quantizer returns them: a decoder that is
    trained with them then sees vectors of spread `std` from its first step, not a large mean that hides what differs.

    Attributes:
        shift: mean of the inputs, `(D,)`; zero until it is measured.
        scale: `std` divided by the standard deviation of the inputs, a scalar; one until it is measured.
        found: bool scalar, whether both have been measured.

    Args:
        quantizer: any quantizer.
        std: the standard deviation of the quantizer's inputs, over all channels; positive.
        scale_back: whether the quantized vectors are scaled and shifted back to where the inputs lie.
        channel_dim: which axis of the input holds the channels.

    Raises:
        TypeError: `quantizer` is not a quantizer.
        ValueError: `std` is not a positive number, or codes of other channels than the inputs are to be scaled back.

    Example:
        >>> import torch, lexel
        >>> fsq = lexel.NormalisedQuantizer(lexel.FiniteScalarQuantizer([8, 5, 5, 5]), std=1.0)
        >>> z = 7 + 0.01 * torch.randn(8, 4, 16, 16)
        >>> (fsq(z).quantized - z).std() < 0.01, fsq.shift.mean().round(), fsq.scale.round(decimals=-1)
        (tensor(True), tensor(7.), tensor(100.))
    """

    shift: Tensor
    scale: Tensor
    found: Tensor

    wide_buffers = ("shift", "scale")

    def __init__(
        self, quantizer: Quantizer, std: float = 0.2, *, scale_back: bool = True, channel_dim: int = 1
    ) -> None:
        if scale_back and quantizer.output_dim != quantizer.embedding_dim:
            raise ValueError(
                "NormalisedQuantizer: codes can be scaled back to where the inputs lie only if they have as many "
                f"channels, and the quantizer turns {quantizer.embedding_dim} into {quantizer.output_dim}: use "
                "scale_back=False"
            )
        super().__init__(quantizer, quantizer.embedding_dim, channel_dim)
        self.std = float(check_number("NormalisedQuantizer", "std", std, above=0))
        self.scale_back = scale_back
        self.register_buffer("shift", torch.zeros(quantizer.embedding_dim))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("found", torch.zeros((), dtype=torch.bool))
        self._known = Reading()  # of `found`, which is True from the first batches on

    @property
    @override
    def leaves_remainder(self) -> bool:
        return self.scale_back and super().leaves_remainder

    @property
    @override
    def prices(self) -> Tensor | None:
        prices = super().prices
        return prices / self.scale.square() if prices is not None and self.scale_back else prices

    @override
    def inward(self, z: Tensor) -> Tensor:
        return (z - self.shift.to(z.dtype)) * self.scale.to(z.dtype)

    @override
    def outward(self, e: Tensor) -> Tensor:
        if not self.scale_back:
            return e
        # In the dtype of the buffers, so that looking a code up gives the very numbers that quantizing gave.
        return (e.to(self.shift.dtype) / self.scale + self.shift).to(e.dtype)

    @override
    def _quantize(self, z: Tensor, valid: Tensor | None, partial: Tensor | None) -> Choice:
        if self.training and not self.frozen:
            self.find_shift_and_scale(z, valid)
        return super()._quantize(z, valid, partial)

    @torch.no_grad()
    def find_shift_and_scale(self, z: Tensor, valid: Tensor | None) -> None:
        """Measure both on these inputs of all ranks, unless they were measured before. Every rank must call it.

        Inputs that are all equal have no spread; then the next batch is measured.

        Args:
            z: inputs, `(…, D)`.
            valid: bool `(…,)`, False where masked; None when all count.
        """
        self.widen()
        if not torch.compiler.is_compiling() and self._known.of(self.found, lambda: self.found):
            return
        # Sums in float64, rounded to float32: how many ranks there are changes the last bits of a sum.
        z, wide = z.reshape(-1, z.shape[-1]), widest(z)
        counted = z.new_ones(z.shape[0], 1, dtype=torch.bool) if valid is None else valid.reshape(-1, 1)
        sums, count = all_sum(torch.where(counted, z, 0).sum(0, dtype=wide), counted.sum(dtype=wide))
        mean = (sums / count.clamp_min(1)).float()
        (squares,) = all_sum(torch.where(counted, z - mean, 0).square().sum(dtype=wide))
        scale = (self.std * torch.rsqrt(squares / (count * z.shape[1]))).float()
        now = ~self.found & (squares > 0)
        self.shift.copy_(torch.where(now, mean, self.shift))
        self.scale.copy_(torch.where(now, scale, self.scale))
        self.found |= now

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"std={self.std}, scale_back={self.scale_back}"
