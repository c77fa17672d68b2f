"""Embeddings that may be larger than memory: which pieces of them to read, and some of their rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lexel._core.rows import Rows, read, spans

__all__ = ["picked", "pieces"]

PIECE = 1 << 22  # numbers that are read at once


def pieces(rows: Rows) -> list[slice]:
    """Return the slices in which embeddings are read."""
    return list(spans(len(rows), rows[:1].shape[1], PIECE))


def picked(rows: Rows, chosen: np.ndarray[Any, Any]) -> Iterator[tuple[np.ndarray[Any, Any], Tensor]]:
    """Yield some embeddings, `chosen` rising: which of them, and their numbers, a piece at a time."""
    for piece in pieces(rows) if len(chosen) else ():
        low, high = np.searchsorted(chosen, [piece.start, piece.stop])
        if low < high:
            yield np.arange(low, high), read(rows, piece)[torch.from_numpy(chosen[low:high] - piece.start)]
