"""Product quantization: each group of channels has a quantizer of its own."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from typing_extensions import override

from lexel._core.checks import check_integer
from lexel.quantizers._composite import Composite, check_parts
from lexel.quantizers.base import Choice, Quantizer

__all__ = ["ProductQuantizer"]

TILE = 1 << 22  # numbers in one tile of candidates


class ProductQuantizer(Composite):
    """Splits the channels into consecutive groups and quantizes each on its own (Jégou et al. 2011).

    The number of codes is the product over the groups. A list of vector quantizers is grouped quantization; a list of
    residual quantizers is HiFi-Codec's group-residual quantization (arXiv 2305.02765); one vector quantizer with
    `heads=8` is multi-head quantization with a shared codebook, eight with `heads=1` have a codebook for each head.

    With `heads`, each quantizer takes that many consecutive groups of its `embedding_dim` channels as if they were
    further positions: it quantizes them all at once, its loss is their mean, and an EMA is updated once.

    Args:
        quantizers: one for each group, each given once.
        heads: how many groups each quantizer takes.
        channel_dim: which axis of the input holds the channels; there are `heads` times the sum of the quantizers'
            `embedding_dim`.

    Raises:
        TypeError: `quantizers` holds something that is not a quantizer of single positions.
        ValueError: there are no quantizers, one is given twice, or `heads` is below 1.

    Example:
        >>> import torch, lexel
        >>> pq = lexel.ProductQuantizer([lexel.VectorQuantizer(256, 16) for _ in range(4)])
        >>> pq(torch.randn(2, 64, 10)).indices.shape, pq.bits
        (torch.Size([2, 10, 4]), 32.0)
        >>> lexel.ProductQuantizer([lexel.VectorQuantizer(256, 16)], heads=4).bits
        32.0
    """

    def __init__(self, quantizers: Sequence[Quantizer], *, heads: int = 1, channel_dim: int = 1) -> None:
        name = type(self).__name__
        groups = check_parts(name, quantizers, "set heads")
        heads = check_integer(name, "heads", heads, least=1)
        channels = heads * sum(group.embedding_dim for group in groups)
        super().__init__(groups, groups, channels, channel_dim, heads)

    @property
    @override
    def output_dim(self) -> int:
        return self.heads * sum(group.output_dim for group in self.parts)

    @override
    def quantize_positions(self, z: Tensor, valid: Tensor | None) -> Choice:
        if valid is not None:
            valid = valid.unsqueeze(-1).expand(*valid.shape, self.heads)
        choices = [group.choose(own, valid) for group, own in zip(self.parts, self._grouped(z), strict=True)]
        return self._join(choices, torch.cat([choice.quantized.flatten(-2) for choice in choices], -1))

    @override
    def search_positions(self, z: Tensor, beam_size: int) -> Tensor:
        found = [
            group.search_positions(own, beam_size).reshape(*z.shape[:-1], width)
            for group, own, width in zip(self.parts, self._grouped(z), self._widths, strict=True)
        ]
        return torch.cat(found, -1)

    @override
    def search_candidates(self, z: Tensor, count: int) -> Tensor:
        most = max(min(count, part.num_embeddings) for part in self.parts)
        tiles = torch.split(z, max(1, TILE // (count * most * self.index_shape[0])))
        return torch.cat([self._best_sums(tile, count) for tile in tiles])

    def _best_sums(self, z: Tensor, count: int) -> Tensor:
        """Return the indices `(N, n, Q)` whose errors, summed over the groups, are the n smallest."""
        indices = torch.zeros(len(z), 1, 0, dtype=torch.int64, device=z.device)
        errors = z.new_zeros(len(z), 1)
        for group, own in zip(self.parts, self._grouped(z), strict=True):
            for head in own.unbind(1):
                # What is not among the best of the groups so far is not among the best of all.
                found = group.candidates_of_rows(head, count)
                sums = (errors.unsqueeze(2) + found.errors.unsqueeze(1)).flatten(1)
                errors, best = sums.topk(min(count, sums.shape[1]), largest=False)
                width = found.errors.shape[1]
                parts = (
                    (indices, best // width),
                    (found.indices.reshape(len(z), width, prod(group.index_shape)), best % width),
                )
                indices = torch.cat([each.take_along_dim(place.unsqueeze(2), 1) for each, place in parts], 2)
        return indices

    @override
    def lookup_positions(self, indices: Tensor) -> Tensor:
        codes = zip(self.parts, self._split(indices), strict=True)
        return torch.cat([group.lookup_positions(own).flatten(-2) for group, own in codes], -1)

    @override
    def unquantized_positions(self, z: Tensor) -> Tensor:
        targets = zip(self.parts, self._grouped(z), strict=True)
        return torch.cat([group.unquantized_positions(own).flatten(-2) for group, own in targets], -1)

    def _grouped(self, z: Tensor) -> list[Tensor]:
        """The channels of each group, `(*positions, heads, D of the group)`."""
        channels = torch.split(z, [self.heads * group.embedding_dim for group in self.parts], -1)
        return [
            own.reshape(*z.shape[:-1], self.heads, group.embedding_dim)
            for group, own in zip(self.parts, channels, strict=True)
        ]

    def extra_repr(self) -> str:
        """Show what the groups' own lines do not."""
        return f"heads={self.heads}"
