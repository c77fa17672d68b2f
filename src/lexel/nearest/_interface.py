"""The interface between the search and its backends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

__all__ = ["METRICS", "Backend", "Metric", "Search"]

Metric = Literal["euclidean", "cosine", "dot"]
METRICS: tuple[str, ...] = get_args(Metric)


class Search(Protocol):
    """The search function of a backend.

    `x` `(N, D)` and `codebook` `(K, D)` lie on the backend's device and have dtypes that it serves, any strides and no
    gradient. `variant` is one of the backend's. Returns int64 indices `(N, k)`, the best first, the lowest index on a
    tie, and their scores `(N, k)` in float32, or in float64 if one of the two is, or `(0, k)` unless `scores` is true.
    NaN and infinity are a ValueError.

    A backend that declares `in_place` gets `x` `(*positions, D)`, and returns `(*positions, k)` for `(N, k)`.
    """

    def __call__(
        self, x: Tensor, codebook: Tensor, metric: str, k: int, scores: bool, variant: str, /
    ) -> tuple[Tensor, Tensor]:
        """Find the `k` nearest codes of every row."""
        ...


@dataclass(frozen=True)
class Backend:
    """A search for the tensors of one type of device, with its limits; the portable search serves the rest.

    Args:
        name: the name that `lexel.nearest.backend()` shows.
        search: the search function.
        variants: the names that `LEXEL_NEAREST` can choose, the default last; none if it is not installed.
        missing: says what this machine lacks to run it, nothing if it can. It is asked when a search runs, and not
            while torch.compile traces one.
        dtypes: the dtypes of `x` and `codebook` that it serves. float16 and bfloat16 arrive as float32 if it does not
            serve them.
        most_rows: the largest N and the largest K.
        most_neighbours: the largest k.
        in_place: whether it takes inputs at positions of any shape, and reads them where they lie. Other backends get
            rows, for which inputs with the channels first are copied.
    """

    name: str
    search: Search
    variants: tuple[str, ...]
    missing: Callable[[], str]
    dtypes: tuple[torch.dtype, ...]
    most_rows: int
    most_neighbours: int
    in_place: bool = False
