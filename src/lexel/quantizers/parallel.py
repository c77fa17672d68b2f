"""Several quantizers that all see the same input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from lexel._core.gradients import carry
from lexel.quantizers._composite import Composite, check_parts
from lexel.quantizers.base import Choice, Quantizer

__all__ = ["ParallelQuantizer"]


class ParallelQuantizer(Composite):
    """Gives the same input to several quantizers, and adds up what they make of it, or puts it side by side.

        quantized = Σ_q quantizer_q(z),  or their channels one after the other

    The sum is Mimi's split residual quantizer (Défossez et al. 2024, arXiv 2410.00037, §3.3.3): one table that learns
    to be like a speech model's features, and a residual quantizer for the rest, both of the same z, each between maps
    of its own. Putting side by side is the product quantizer of wav2vec 2.0 (arXiv 2006.11477, §2), whose groups all
    see the whole input. Each part keeps its own gradient.

    The indices of a position are ordered as the parts are; of a sum, `lookup(indices[..., :q])` decodes the first q
    alone.

    Args:
        quantizers: the parts, each given once, of the same `embedding_dim`.
        combine: `"sum"` or `"concatenate"`.
        channel_dim: which axis of the input holds the channels.

    Raises:
        TypeError: `quantizers` holds something else.
        ValueError: there are no quantizers, one is given twice, their sizes differ, or `combine` is neither.

    Example:
        >>> import torch, lexel
        >>> acoustic = lexel.ResidualQuantizer([lexel.VectorQuantizer(2048, 8) for _ in range(7)])
        >>> split = lexel.ParallelQuantizer(
        ...     [lexel.ProjectedQuantizer(part, 16, bias=False) for part in (lexel.VectorQuantizer(2048, 8), acoustic)]
        ... )
        >>> split(torch.randn(2, 16, 50)).indices.shape
        torch.Size([2, 50, 8])
    """

    def __init__(
        self,
        quantizers: Sequence[Quantizer],
        *,
        combine: Literal["sum", "concatenate"] = "sum",
        channel_dim: int = 1,
    ) -> None:
        name = type(self).__name__
        parts = check_parts(name, quantizers, "use a copy")
        for argument, sizes in (
            ("embedding_dim", [part.embedding_dim for part in parts]),
            ("output_dim", [part.output_dim for part in parts] if combine == "sum" else [0]),
        ):
            if len(set(sizes)) > 1:
                raise ValueError(f"{name}: all quantizers must have the same {argument}, got {sizes}")
        super().__init__(parts, parts, parts[0].embedding_dim, channel_dim)
        self.combine = combine

    @property
    @override
    def output_dim(self) -> int:
        sizes = [part.output_dim for part in self.parts]
        return sizes[0] if self.combine == "sum" else sum(sizes)

    @override
    def quantize_positions(self, z: Tensor, valid: Tensor | None) -> Choice:
        choices = [part.choose(z, valid) for part in self.parts]
        joined = self._join(choices, self._combined([choice.quantized for choice in choices]))
        if self.training:
            return joined
        # The same sum in the codes' own precision, with the parts' gradients.
        value = self.lookup_positions(joined.indices).to(z.dtype)
        return replace(joined, quantized=carry(value, joined.quantized))

    @override
    def lookup_positions(self, indices: Tensor) -> Tensor:
        codes = zip(self.parts, self._split(self._padded(indices)), strict=True)
        return self._combined([part.lookup_positions(own.squeeze(indices.ndim - 1)) for part, own in codes])

    @override
    def unquantized_positions(self, z: Tensor) -> Tensor:
        return self._combined([part.unquantized_positions(z) for part in self.parts])

    @override
    def check_indices(self, indices: Tensor) -> None:
        super().check_indices(self._padded(indices))

    def _combined(self, vectors: Sequence[Tensor]) -> Tensor:
        if self.combine == "concatenate":
            return torch.cat(list(vectors), -1)
        total = vectors[0]
        for vector in vectors[1:]:
            total = total + vector
        return total

    def _padded(self, indices: Tensor) -> Tensor:
        """Indices of the first codebooks of a sum, with −1 for the others."""
        missing = self.index_shape[0] - indices.shape[-1] if indices.ndim else 0
        return F.pad(indices, (0, missing), value=-1) if self.combine == "sum" and missing > 0 else indices

    def extra_repr(self) -> str:
        """Show how the parts are combined."""
        return f"combine={self.combine!r}"
