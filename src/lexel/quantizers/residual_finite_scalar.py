"""Residual finite scalar quantization: grids that grow finer from stage to stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from lexel._core.checks import check_integer
from lexel._core.gradients import carry
from lexel._core.values import constant
from lexel.quantizers.base import Choice, CodebookIndices, RowQuantizer
from lexel.quantizers.finite_scalar import FiniteScalarQuantizer

__all__ = ["ResidualFiniteScalarQuantizer"]


class ResidualFiniteScalarQuantizer(RowQuantizer):
    """Rounds each channel to levels, and what remains to finer ones: the `ResidualFSQ` of vector-quantize-pytorch.

    The levels of a `FiniteScalarQuantizer` have a fixed width, and a remainder is narrower than that. So the input is
    bounded once, and stage q sees its remainder in units that shrink with q:

        r_1 = b(z),  e_q = s_q · FSQ(r_q / s_q),  r_{q+1} = r_q − sg[e_q],  quantized = Σ_q e_q

    With `bound="symmetric"`, as in the package today, b(z) = c tanh(z/c) with c = L/(L − 1), FSQ has levels that are
    symmetric about zero and clamps its input, and s_q = L^{1−q}. With `bound="artanh"`, as in the package up to 1.22
    and in XCodec2 (arXiv 2502.04128) and NeuCodec, which have one stage, b is FSQ's own bound, so that it acts twice,
    and s_q = (L − 1)^{1−q}.

    The gradient is that of the package: each stage's own, and so up to Q times that of b. The loss is zero.

    Attributes:
        stage: the `FiniteScalarQuantizer` of every stage.

    Args:
        levels: L_i for each channel.
        depth: Q, how many stages there are.
        bound: `"symmetric"` or `"artanh"`.
        channel_dim: which axis of the input holds the channels, `len(levels)` of them.

    Raises:
        TypeError: `levels` is not a sequence of integers.
        ValueError: `depth` is below 1, `bound` is neither, or `FiniteScalarQuantizer` refuses the levels.

    Example:
        >>> import torch, lexel
        >>> fsq = lexel.ResidualFiniteScalarQuantizer([8, 5, 5, 5], depth=3)
        >>> output = fsq(torch.randn(2, 4, 50))
        >>> output.indices.shape, round(fsq.bits)
        (torch.Size([2, 50, 3]), 30)
    """

    def __init__(
        self,
        levels: Sequence[int],
        depth: int,
        *,
        bound: Literal["symmetric", "artanh"] = "symmetric",
        channel_dim: int = 1,
    ) -> None:
        depth = check_integer(type(self).__name__, "depth", depth, least=1)
        stage = FiniteScalarQuantizer(levels, bound="clamp" if bound == "symmetric" else "artanh")
        super().__init__(stage.num_embeddings, stage.embedding_dim, channel_dim)
        self.levels = stage.levels
        self.depth = depth
        self.bound = bound
        self.stage = stage

    @property
    @override
    def index_shape(self) -> tuple[int, ...]:
        return (self.depth,)

    @property
    @override
    def codebook_sizes(self) -> tuple[int, ...]:
        return (self.num_embeddings,) * self.depth

    @property
    @override
    def bits(self) -> float:
        return self.depth * math.log2(self.num_embeddings)

    @override
    def by_codebook(self, indices: Tensor) -> list[CodebookIndices]:
        return [CodebookIndices(own, self.num_embeddings, 1) for own in indices.unbind(-1)]

    @override
    def quantize_rows(self, z: Tensor, valid: Tensor | None) -> Choice:
        remainder = self._bounded(z)
        total = torch.zeros_like(z)
        indices = []
        for number in range(self.depth):
            scale = self._scale(z, number)
            choice = self.stage.choose(remainder / scale, valid)
            e = choice.quantized * scale
            remainder, total = remainder - e.detach(), total + e
            indices.append(choice.indices)
        stacked = torch.stack(indices, 1)
        if not self.training:  # the same sum in the codes' own precision
            total = carry(self.lookup_rows(stacked).to(z.dtype), total)
        return Choice(stacked, total)

    @override
    def lookup_rows(self, indices: Tensor) -> Tensor:
        codes = self.stage.lookup_rows(indices)
        total = torch.zeros_like(codes[:, 0])
        for number in range(self.depth):
            total = total + codes[:, number] * self._scale(codes, number)
        return total

    @override
    def unquantized_positions(self, z: Tensor) -> Tensor:
        bounded = self._bounded(z)
        return bounded if self.bound == "symmetric" else self.stage.unquantized_positions(bounded)

    def _bounded(self, z: Tensor) -> Tensor:
        """What the first stage is given, b(z)."""
        if self.bound != "symmetric":
            return self.stage.bounded(z)
        limit = constant((level / (level - 1) for level in self.levels), z)
        return limit * torch.tanh(z / limit)

    def _scale(self, like: Tensor, number: int) -> Tensor:
        """The unit of a stage, for each channel."""
        less = 0 if self.bound == "symmetric" else 1
        return constant((float(level - less) ** -number for level in self.levels), like)

    def extra_repr(self) -> str:
        """Show the levels."""
        return f"levels={list(self.levels)}, depth={self.depth}, bound={self.bound!r}"
