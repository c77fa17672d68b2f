"""Embeddings that may be larger than memory: they are read a slice at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

__all__ = ["Rows", "picked", "pieces"]

PIECE = 1 << 22  # numbers that are read at once


class Rows(Protocol):
    """Embeddings `(N, D)`: a tensor, an array, a memory map, or whatever else returns slices."""

    def __len__(self) -> int:
        """N."""
        ...

    def __getitem__(self, rows: slice, /) -> Any:
        """Return some rows as a tensor or an array of numbers."""
        ...


def pieces(rows: Rows) -> list[slice]:
    """Return the slices in which embeddings are read."""
    every = max(1, PIECE // max(rows[:1].shape[1], 1))
    return [slice(start, min(start + every, len(rows))) for start in range(0, len(rows), every)]


def picked(rows: Rows, chosen: np.ndarray[Any, Any]) -> Iterator[tuple[np.ndarray[Any, Any], Tensor]]:
    """Yield some embeddings, `chosen` rising: which of them, and their numbers, a piece at a time."""
    for piece in pieces(rows) if len(chosen) else ():
        low, high = np.searchsorted(chosen, [piece.start, piece.stop])
        if low < high:
            yield np.arange(low, high), read(rows, piece)[torch.from_numpy(chosen[low:high] - piece.start)]


def read(rows: Rows, piece: slice) -> Tensor:
    """Return some embeddings `(n, D)` in float32, or float64 if they are."""
    found = rows[piece]
    found = found if isinstance(found, Tensor) else torch.from_numpy(np.array(found))
    return found.to(torch.promote_types(found.dtype, torch.float32))
