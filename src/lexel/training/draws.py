"""Examples in random orders, which depend on the seed alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch.utils.data import Dataset

__all__ = ["Draws", "together"]


class Source(Protocol):
    """A set of examples that can be read one by one or many at once."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...
    def batch(self, indices: Sequence[int], /) -> Any:
        """Return some examples together."""


class Draws(Dataset[Any]):
    """The i-th example of a training run: all in an order of the seed, then all in another one, and so on.

    It is a function of the seed and i alone.

    Args:
        source: the examples.
        length: how many are drawn.
        seed: seed of the orders.
    """

    def __init__(self, source: Source, length: int, seed: int) -> None:
        self.source, self.length, self.seed = source, length, seed
        self.round, self.order = -1, torch.empty(0)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.source[self._number(index)]

    def __getitems__(self, indices: Sequence[int]) -> Any:
        return self.source.batch([self._number(index) for index in indices])

    def _number(self, index: int) -> int:
        """Return which example the i-th is."""
        number, place = divmod(index, len(self.source))
        if number != self.round:
            digest = hashlib.blake2b(f"{self.seed}/{number}".encode(), digest_size=8).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
            self.round, self.order = number, torch.randperm(len(self.source), generator=generator)
        return int(self.order[place])


def together(batch: Any) -> Any:
    """Return a batch as `Draws` gives it: a DataLoader's `collate_fn`."""
    return batch
