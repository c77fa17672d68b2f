"""The base of quantizers that wrap another quantizer."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

import torch
from torch import Tensor
from typing_extensions import override

from lexel.quantizers.base import Choice, CodebookIndices, Quantizer

__all__ = ["Wrapper"]


class Wrapper(Quantizer):
    """Maps the inputs, quantizes them with another quantizer, and maps back: quantized = outward(quantizer(inward(z))).

    Indices and codebooks are those of the inner quantizer, and so are the losses, in its own space.

    Attributes:
        quantizer: the inner quantizer.
    """

    quantizer: Quantizer

    def __init__(self, quantizer: Quantizer, embedding_dim: int, channel_dim: int) -> None:
        super().__init__(quantizer.num_embeddings, embedding_dim, channel_dim)
        self.quantizer = quantizer
        self.positionwise = quantizer.positionwise  # type: ignore[misc]
        self.needs_partial_sum = quantizer.needs_partial_sum  # type: ignore[misc]

    @abstractmethod
    def inward(self, z: Tensor) -> Tensor:
        """Map inputs `(…, D)` to inputs of the inner quantizer."""

    @abstractmethod
    def outward(self, e: Tensor) -> Tensor:
        """Map the inner quantizer's output to `(…, output_dim)`."""

    @property
    @override
    def bits(self) -> float:
        return self.quantizer.bits

    @property
    @override
    def index_shape(self) -> tuple[int, ...]:
        return self.quantizer.index_shape

    @property
    @override
    def codebook_sizes(self) -> tuple[int, ...]:
        return self.quantizer.codebook_sizes

    @property
    @override
    def output_dim(self) -> int:
        return self.quantizer.output_dim

    @property
    @override
    def learns_from_task(self) -> bool:
        return self.quantizer.learns_from_task

    @property
    @override
    def has_own_gradient(self) -> bool:
        return self.quantizer.has_own_gradient

    @property
    @override
    def leaves_remainder(self) -> bool:
        return self.quantizer.leaves_remainder

    @property
    @override
    def prices(self) -> Tensor | None:
        return self.quantizer.prices  # as long as distances are the same in both spaces

    @property
    @override
    def could_use_upkeep(self) -> bool:
        return self.quantizer.could_use_upkeep

    @property
    @override
    def map_size(self) -> tuple[int, int] | None:
        return self.quantizer.map_size

    @override
    def grids(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        return self.quantizer.grids(size)

    @override
    def by_codebook(self, indices: Tensor) -> list[CodebookIndices]:
        return self.quantizer.by_codebook(indices)

    @override
    def check_indices(self, indices: Tensor) -> None:
        self.quantizer.check_indices(indices)

    @override
    def quantize_positions(self, z: Tensor, valid: Tensor | None) -> Choice:
        return self._quantize(z, valid, None)

    @override
    def quantize_after(self, z: Tensor, valid: Tensor | None, partial: Tensor) -> Choice:
        return self._quantize(z, valid, self.inward(partial) if self.needs_partial_sum else None)

    @override
    def lookup_positions(self, indices: Tensor) -> Tensor:
        return self._zero_masked(indices, self.outward(self.quantizer.lookup_positions(indices)))

    @override
    def lookup_after(self, indices: Tensor, partial: Tensor) -> Tensor:
        if not self.needs_partial_sum:
            return self.lookup_positions(indices)
        return self._zero_masked(indices, self.outward(self.quantizer.lookup_after(indices, self.inward(partial))))

    @override
    def search_positions(self, z: Tensor, beam_size: int) -> Tensor:
        return self.quantizer.search_positions(self.inward(z), beam_size)

    @override
    def search_candidates(self, z: Tensor, count: int) -> Tensor:
        return self.quantizer.search_candidates(self.inward(z), count)

    @override
    def unquantized_positions(self, z: Tensor) -> Tensor:
        return self.outward(self.quantizer.unquantized_positions(self.inward(z)))

    def _quantize(self, z: Tensor, valid: Tensor | None, partial: Tensor | None) -> Choice:
        inner = self.inward(z)
        if valid is not None:
            inner = torch.where(valid.unsqueeze(-1), inner, 0)
        choice = self.quantizer.choose(inner, valid, partial)
        return replace(choice, quantized=self.outward(choice.quantized))

    def _zero_masked(self, indices: Tensor, rows: Tensor) -> Tensor:
        """Set the rows of positions without an index (−1) to zero."""
        if not self.positionwise:
            return rows
        absent = (indices < 0).all(-1) if self.index_shape else indices < 0
        return torch.where(absent.unsqueeze(-1), 0, rows)
