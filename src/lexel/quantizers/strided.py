"""A residual quantizer whose stages have rates of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from lexel._core.modules import TypedModuleList
from lexel.quantizers._composite import check_parts, joined_losses
from lexel.quantizers.base import Choice, CodebookIndices, Quantizer
from lexel.quantizers.residual import are_chained, check_remainders, with_gradient_of_stages

__all__ = ["StridedResidualQuantizer"]


class StridedResidualQuantizer(Quantizer):
    """Quantizes a sequence in stages, each the remainder of those before at its own rate (SNAC, arXiv 2410.14411).

        r_1 = z,  e_q = repeat_{s_q}(stage_q(mean_{s_q}(r_q))),  r_{q+1} = r_q − e_q,  quantized = Σ_q e_q

    `mean_s` averages s neighbours along the last axis, `repeat_s` gives each of them the result. So the first stages
    say with few tokens what changes slowly. Gradients are those of `ResidualQuantizer`: they pass straight through the
    whole, unless the task loss must move something in a stage, as in SNAC, where the stages are chained.

    The last axis of `indices` holds all tokens, stage by stage: `(B, Σ_q T/s_q)` of inputs `(B, D, T)`. `by_stage`
    takes them apart. Under a mask, the mean is that of the valid positions, and a token with none has index −1.

    Attributes:
        quantizers: the stages.

    Args:
        quantizers: the stages, each given once, each with one codebook, of the same `embedding_dim`.
        strides: s_q for each stage. T must be a multiple of each.
        channel_dim: which axis of the input holds the channels.

    Raises:
        TypeError: `quantizers` holds something else.
        ValueError: there are no quantizers, one is given twice or has several codebooks, their sizes differ, or
            `strides` does not hold a positive integer for each.

    Example:
        >>> import torch, lexel
        >>> stages = [lexel.VectorQuantizer(1024, 16) for _ in range(3)]
        >>> snac = lexel.StridedResidualQuantizer(stages, strides=[4, 2, 1])
        >>> output = snac(torch.randn(2, 16, 40))
        >>> output.indices.shape, [own.shape[1] for own in snac.by_stage(output.indices)]
        (torch.Size([2, 70]), [10, 20, 40])
    """

    positionwise = False
    quantizers: TypedModuleList[Quantizer]

    def __init__(self, quantizers: Sequence[Quantizer], strides: Sequence[int], *, channel_dim: int = 1) -> None:
        name = type(self).__name__
        stages = check_parts(name, quantizers, "use a copy")
        check_remainders(name, stages)
        if any(stage.index_shape for stage in stages):
            raise ValueError(f"{name}: each quantizer must have one codebook")
        if len(strides) != len(stages) or min(strides) < 1:
            raise ValueError(f"{name}: strides must hold a positive int for each of {len(stages)}, got {strides!r}")
        super().__init__(max(stage.num_embeddings for stage in stages), stages[0].embedding_dim, channel_dim)
        self.quantizers = TypedModuleList(stages)
        self.strides = list(strides)

    @property
    @override
    def bits(self) -> float:
        return sum(stage.bits / stride for stage, stride in zip(self.quantizers, self.strides, strict=True))

    @property
    @override
    def learns_from_task(self) -> bool:
        return any(stage.learns_from_task for stage in self.quantizers)

    @property
    @override
    def has_own_gradient(self) -> bool:
        return any(stage.has_own_gradient for stage in self.quantizers)

    @property
    @override
    def could_use_upkeep(self) -> bool:
        return any(stage.could_use_upkeep for stage in self.quantizers)

    @property
    def _tokens(self) -> list[int]:
        """How many tokens each stage has in the shortest sequence."""
        return [math.lcm(*self.strides) // stride for stride in self.strides]

    def by_stage(self, indices: Tensor) -> list[Tensor]:
        """Split `(…, Σ_q T/s_q)` into the tokens `(…, T/s_q)` of each stage."""
        blocks = indices.shape[-1] // sum(self._tokens)
        return list(torch.split(indices, [blocks * tokens for tokens in self._tokens], -1))

    @override
    def quantize_positions(self, z: Tensor, valid: Tensor | None) -> Choice:
        if z.ndim < 3 or z.shape[-2] % math.lcm(*self.strides):
            raise ValueError(
                f"{type(self).__name__}: inputs must be sequences (B, D, T) with T a multiple of "
                f"{math.lcm(*self.strides)}, got positions of shape {tuple(z.shape[:-1])}"
            )
        chained = are_chained(self)
        remainder, total = z, torch.zeros_like(z)
        choices = []
        for stage, stride in zip(self.quantizers, self.strides, strict=True):
            tokens, present = _averaged(remainder, valid, stride)
            choice = stage.choose(tokens, present)
            e = choice.quantized if present is None else torch.where(present.unsqueeze(-1), choice.quantized, 0)
            e = (e if chained else e.detach()).repeat_interleave(stride, -2)
            remainder, total = remainder - e, total + e
            choices.append(choice)
        indices = torch.cat([choice.indices for choice in choices], -1)
        return Choice(indices, with_gradient_of_stages(self, z, total, indices), *joined_losses(choices))

    @override
    def by_codebook(self, indices: Tensor) -> list[CodebookIndices]:
        return [
            each
            for stage, own in zip(self.quantizers, self.by_stage(indices), strict=True)
            for each in stage.by_codebook(own)
        ]

    @override
    def lookup_positions(self, indices: Tensor) -> Tensor:
        """Return `(…, T, D)` for the tokens `(…, Σ_q T/s_q)` of all stages."""
        total: Tensor | None = None
        for stage, stride, own in zip(self.quantizers, self.strides, self.by_stage(indices), strict=True):
            e = stage.lookup_positions(own).repeat_interleave(stride, -2)
            total = e if total is None else total + e
        assert total is not None  # there is at least one stage
        return total

    @override
    def check_indices(self, indices: Tensor) -> None:
        if indices.ndim < 2 or indices.shape[-1] % sum(self._tokens):
            raise ValueError(
                f"{type(self).__name__}.lookup: indices must have shape (B, N) with N a multiple of "
                f"{sum(self._tokens)}, got {tuple(indices.shape)}"
            )
        for stage, own in zip(self.quantizers, self.by_stage(indices), strict=True):
            stage.check_indices(own)

    def extra_repr(self) -> str:
        """Show the strides."""
        return f"strides={self.strides}"


def _averaged(z: Tensor, valid: Tensor | None, stride: int) -> tuple[Tensor, Tensor | None]:
    """The mean `(…, T/s, D)` of each s neighbours that are valid, and whether there is one, `(…, T/s)`."""
    length = z.shape[-2] // stride
    blocks = z.reshape(*z.shape[:-2], length, stride, z.shape[-1])
    if valid is None:
        return blocks.mean(-2), None
    counted = valid.reshape(*valid.shape[:-1], length, stride, 1)
    count = counted.sum(-2)
    return torch.where(counted, blocks, 0).sum(-2) / count.clamp_min(1), count.squeeze(-1) > 0
