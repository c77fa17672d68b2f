"""Which examples a rank sees in which step."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Sampler

__all__ = ["Batches"]


class Batches(Sampler[list[int]]):
    """The indices of this rank's share of each batch, from a step on.

    It has no length, so that a restored count of batches means nothing to a loop that asks how many there are.

    Args:
        start: the first step.
        stop: the step after the last one.
        batch_size: examples in a step, over all ranks.
        rank: which of the equal shares of a batch.
        ranks: how many there are.
    """

    def __init__(self, start: int, stop: int, batch_size: int, rank: int, ranks: int) -> None:
        self.steps, self.batch_size = range(start, stop), batch_size
        self.share, self.rank = batch_size // ranks, rank

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            first = step * self.batch_size + self.rank * self.share
            yield list(range(first, first + self.share))
