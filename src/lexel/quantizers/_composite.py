"""What quantizers made of quantizers share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from lexel.quantizers.base import Quantized, Quantizer

__all__ = ["Composite"]


class Composite(Quantizer, abstract=True):
    """Several quantizers as one. Its indices have one trailing axis: all codebooks of all parts, in order.

    The loss is the sum of the parts' losses, and part i's terms are named ``"i.codebook"`` and so on. The perplexity is
    the geometric mean over codebooks, exp(mean entropy), and so lies between 1 and K like that of one. A part may be a
    composite itself. Where the channels are is the composite's affair, whatever the parts' own `channel_dim`.

    Attributes:
        quantizers: the parts that were given.

    Args:
        quantizers: the parts, each once.
        turns: the parts in the order in which they are used; one part may take several turns, with one table.
        embedding_dim: D.
        channel_dim: which axis of the input holds the channels.
        heads: how many times each part's indices occur in each turn.
    """

    quantizers: nn.ModuleList

    def __init__(
        self,
        quantizers: Sequence[Quantizer],
        turns: Sequence[Quantizer],
        embedding_dim: int,
        channel_dim: int,
        heads: int = 1,
    ) -> None:
        super().__init__(max(part.num_embeddings for part in quantizers), embedding_dim, channel_dim)
        self.quantizers = nn.ModuleList(quantizers)
        self.heads = heads
        self._turns = [list(quantizers).index(part) for part in turns]
        self._widths = [heads * math.prod(part.index_shape) for part in turns]  # codebooks that each turn fills

    @property
    def parts(self) -> list[Quantizer]:
        """The quantizer of each turn."""
        return [cast(Quantizer, self.quantizers[turn]) for turn in self._turns]

    @property
    def index_shape(self) -> tuple[int, ...]:
        """`(Q,)`: one index for each codebook."""
        return (sum(self._widths),)

    @property
    def bits(self) -> float:
        """Bits that the indices of one position carry at most: the sum over all codebooks."""
        return self.heads * sum(part.bits for part in self.parts)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """How many different values each index of a position takes, in their order."""
        return tuple(size for part in self.parts for size in self.heads * part.codebook_sizes)

    def check_indices(self, indices: Tensor) -> None:
        if indices.ndim < 1 or indices.shape[-1] != self.index_shape[0]:
            raise ValueError(
                f"{type(self).__name__}.lookup: indices must have a last axis of {self.index_shape[0]} codebooks, "
                f"got shape {tuple(indices.shape)}"
            )
        for part, own in zip(self.parts, self._split(indices), strict=True):
            part.check_indices(own)

    def _split(self, indices: Tensor) -> list[Tensor]:
        """Indices `(…, Q)` as each turn knows them, `(…, heads, *index_shape)`."""
        return [
            own.reshape(*indices.shape[:-1], self.heads, *part.index_shape)
            for part, own in zip(self.parts, torch.split(indices, self._widths, -1), strict=True)
        ]

    def _join(self, results: Sequence[Quantized], quantized: Tensor) -> Quantized:
        """What the parts returned, as one."""
        positions, widths = quantized.shape[:-1], self._widths
        terms = {f"{i}.{name}": term for i, result in enumerate(results) for name, term in result.terms.items()}
        entropy = sum(width * result.perplexity.log() for width, result in zip(widths, results, strict=True))
        return Quantized(
            torch.stack([result.loss for result in results]).sum(),
            quantized,
            torch.exp(torch.as_tensor(entropy) / sum(widths)),
            torch.cat(
                [result.indices.reshape(*positions, width) for width, result in zip(widths, results, strict=True)], -1
            ),
            terms,
            self.num_embeddings,
        )


def check_parts(name: str, quantizers: Sequence[Quantizer], again: str) -> list[Quantizer]:
    """Return the quantizers of a composite as a list.

    Raises:
        TypeError: `quantizers` is not a sequence of quantizers, or holds one that quantizes whole maps.
        ValueError: there is none, or one of them twice.
    """
    if isinstance(quantizers, Quantizer) or not all(isinstance(part, Quantizer) for part in quantizers):
        raise TypeError(f"{name}: quantizers must be a list of quantizers, got {quantizers!r}")
    parts = list(quantizers)
    if not parts:
        raise ValueError(f"{name}: quantizers must hold at least one")
    for part in parts:
        if not part.positionwise:
            raise TypeError(f"{name}: a {type(part).__name__} quantizes whole maps and cannot be a part")
    if len({id(part) for part in parts}) < len(parts):
        raise ValueError(f"{name}: a quantizer is given more than once; give it once, and {again} for a shared table")
    return parts
