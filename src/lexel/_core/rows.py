"""Rows that may be larger than memory, and are read a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["Rows", "read", "spans", "tensor_of"]


class Rows(Protocol):
    """Rows `(N, D)`: a tensor, an array in memory or on disk, or anything else that has a length and returns slices."""

    def __len__(self) -> int:
        """Return N."""
        ...

    def __getitem__(self, rows: slice, /) -> Any:
        """Return some rows, `(n, D)`, as a tensor or an array."""
        ...


def spans(count: int, dim: int, numbers: int) -> Iterator[slice]:
    """Yield slices that cover `count` rows of `dim` numbers, each of about so many numbers and one row at least.

    Example:
        >>> list(spans(5, 3, 6))
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    step = max(1, numbers // max(1, dim))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def tensor_of(rows: Any) -> Tensor:
    """Return rows as a tensor without a gradient; of an array a copy, since a memory map may be read-only."""
    return rows.detach() if isinstance(rows, Tensor) else torch.tensor(rows)


def read(rows: Rows, span: slice) -> Tensor:
    """Return some rows as a tensor, float32 or, if they are, float64.

    Example:
        >>> read(torch.ones(5, 2, dtype=torch.float16), slice(1, 3)).dtype
        torch.float32
    """
    piece = tensor_of(rows[span])
    return piece.to(torch.promote_types(piece.dtype, torch.float32))
