"""The base of quantizers that are made of several quantizers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from lexel._core.modules import TypedModuleList
from lexel.quantizers.base import Choice, CodebookIndices, Quantizer

__all__ = ["Composite"]


class Composite(Quantizer):
    """Several quantizers as one. Its indices have one trailing axis: all codebooks of all parts, in order.

    The loss is the sum of the parts' losses, and part i's terms are named ``"i.codebook"`` and so on. The perplexity is
    the geometric mean over codebooks, exp(mean entropy), and so lies between 1 and K like that of one. A part may be a
    composite itself. The composite's `channel_dim` counts; those of its parts are ignored.

    Attributes:
        quantizers: the parts.

    Args:
        quantizers: the parts, each once.
        turns: the parts in the order in which they are used; a part with several turns uses the same codebook in each.
        embedding_dim: D.
        channel_dim: which axis of the input holds the channels.
        heads: how many times each part's indices occur in each turn.
    """

    quantizers: TypedModuleList[Quantizer]

    def __init__(
        self,
        quantizers: Sequence[Quantizer],
        turns: Sequence[Quantizer],
        embedding_dim: int,
        channel_dim: int,
        heads: int = 1,
    ) -> None:
        super().__init__(max(part.num_embeddings for part in quantizers), embedding_dim, channel_dim)
        self.quantizers = TypedModuleList(quantizers)
        self.heads = heads
        self._turns = [list(quantizers).index(part) for part in turns]
        self._widths = [heads * math.prod(part.index_shape) for part in turns]  # codebooks that each turn fills

    @property
    def parts(self) -> list[Quantizer]:
        """The quantizer of each turn."""
        return [self.quantizers[turn] for turn in self._turns]

    @property
    @override
    def index_shape(self) -> tuple[int, ...]:
        return (sum(self._widths),)

    @property
    @override
    def bits(self) -> float:
        return self.heads * sum(part.bits for part in self.parts)

    @property
    @override
    def codebook_sizes(self) -> tuple[int, ...]:
        return tuple(size for part in self.parts for size in self.heads * part.codebook_sizes)

    @property
    @override
    def learns_from_task(self) -> bool:
        return any(part.learns_from_task for part in self.quantizers)

    @property
    @override
    def has_own_gradient(self) -> bool:
        return any(part.has_own_gradient for part in self.quantizers)

    @property
    @override
    def leaves_remainder(self) -> bool:
        return self.output_dim == self.embedding_dim and all(part.leaves_remainder for part in self.quantizers)

    @property
    @override
    def could_use_upkeep(self) -> bool:
        return any(part.could_use_upkeep for part in self.quantizers)

    @override
    def by_codebook(self, indices: Tensor) -> list[CodebookIndices]:
        return [
            each._replace(per_position=self.heads * each.per_position)
            for part, own in zip(self.parts, self._split(indices), strict=True)
            for each in part.by_codebook(own)
        ]

    @override
    def check_indices(self, indices: Tensor) -> None:
        if indices.ndim < 1 or indices.shape[-1] != self.index_shape[0]:
            raise ValueError(
                f"{type(self).__name__}.lookup: indices must have a last axis of {self.index_shape[0]} codebooks, "
                f"got shape {tuple(indices.shape)}"
            )
        for part, own in zip(self.parts, self._split(indices), strict=True):
            part.check_indices(own)

    def _split(self, indices: Tensor) -> list[Tensor]:
        """Split indices `(…, Q)` into those of each turn, `(…, heads, *index_shape)`."""
        return [
            own.reshape(*indices.shape[:-1], self.heads, *part.index_shape)
            for part, own in zip(self.parts, torch.split(indices, self._widths, -1), strict=True)
        ]

    def _join(self, choices: Sequence[Choice], quantized: Tensor) -> Choice:
        """Join what the parts chose into one `Choice`."""
        positions = quantized.shape[:-1]
        indices = [
            choice.indices.reshape(*positions, width) for width, choice in zip(self._widths, choices, strict=True)
        ]
        return Choice(torch.cat(indices, -1), quantized, *joined_losses(choices))


def joined_losses(choices: Sequence[Choice]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the sum of the parts' losses, and their terms: those of part i are named ``"i.codebook"`` and so on."""
    terms = {f"{i}.{name}": term for i, choice in enumerate(choices) for name, term in choice.terms.items()}
    return torch.stack([choice.loss for choice in choices if choice.loss is not None]).sum(), terms


def check_parts(name: str, quantizers: Sequence[Quantizer], again: str) -> list[Quantizer]:
    """Return the quantizers of a composite as a list; the error for a repeated one suggests `again` instead.

    Raises:
        TypeError: one quantizes whole maps.
        ValueError: there is none, or one occurs twice.
    """
    parts = list(quantizers)
    if not parts:
        raise ValueError(f"{name}: quantizers must hold at least one")
    for part in parts:
        if not part.positionwise:
            raise TypeError(f"{name}: a {type(part).__name__} quantizes whole maps and cannot be a part")
    if len({id(part) for part in parts}) < len(parts):
        raise ValueError(f"{name}: a quantizer is given more than once; give it once, and {again} for a shared table")
    return parts
