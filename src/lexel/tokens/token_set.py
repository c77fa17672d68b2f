"""A set of tokens in memory or mapped from a file: a data set for a DataLoader."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lexel.tokens.facts import Facts, Grids

__all__ = ["Columns", "TokenSet"]


HASHED_AT_ONCE = 1 << 24  # indices


@dataclass(frozen=True)
class Columns:
    """The tokens and what belongs to them, example by example.

    Attributes:
        names: of the examples, N.
        extents: the size of each example, as columns of N: int64 height and width for images.
        shapes: int64 `(N, axes)`, the shape of each example's indices.
        flat: all indices one after the other, unsigned or int64; may be mapped from a file.
        labels: int64 `(N,)`, or None.
        levels: the grids of examples with several levels, by the values of their extent.
    """

    names: Sequence[str]
    extents: Mapping[str, np.ndarray[Any, Any]]
    shapes: np.ndarray[Any, Any]
    flat: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any] | None = None
    levels: Mapping[tuple[int, ...], Grids] | None = None

    @cached_property
    def starts(self) -> np.ndarray[Any, Any]:
        """Where the indices of each example begin in `flat`, and where the last ones end: int64 `(N + 1,)`."""
        return np.concatenate([[0], np.cumsum(self.shapes.prod(1))])


class TokenSet(Dataset[dict[str, Tensor]]):
    """The tokens of many examples, `lexel.tokens.open` returns one.

    `tokens[i]` is `{"indices": int64 tensor of the example's shape}`, and `"label"`, an int64 scalar, if the examples
    have labels. A DataLoader fetches whole batches at once (`__getitems__`). A set that was opened from a folder is
    mapped from a temporary file, so that it may be larger than the memory; it can be pickled, and then is opened anew.

    Args:
        facts: what is true of all tokens.
        columns: the tokens.
        source: opens the whole set anew, in another process, if it can be; it must be picklable.
        order: which examples, in which order; all of them as they are by default.

    Attributes:
        facts: kind, K, quantizer and model; each is also an attribute of the set.
        shapes: int64 `(N, axes)`, the shape of each example's indices.
        extents: the size of the original examples: int64 `(N,)` by name, `height` and `width` for images.
        labels: int64 `(N,)`, or None.

    Example:
        >>> facts = Facts("images", 16, (16,), "0123456789abcdef")
        >>> flat = np.arange(12, dtype=np.uint8)
        >>> size = np.array([8, 8])
        >>> grids = Columns(["a", "b"], {"height": size, "width": size}, np.array([[2, 3], [2, 3]]), flat)
        >>> tokens = TokenSet(facts, grids)
        >>> tokens[1]["indices"]
        tensor([[ 6,  7,  8],
                [ 9, 10, 11]])
    """

    def __init__(
        self,
        facts: Facts,
        columns: Columns,
        source: Callable[[], TokenSet] | None = None,
        order: np.ndarray[Any, Any] | None = None,
    ) -> None:
        self.facts = facts
        self._columns, self._source = columns, source
        self._order = np.arange(len(columns.shapes)) if order is None else order
        self.shapes = torch.from_numpy(columns.shapes[self._order].astype(np.int64))
        self.extents = {name: torch.from_numpy(sizes[self._order]) for name, sizes in columns.extents.items()}
        self.labels = None if columns.labels is None else torch.from_numpy(columns.labels[self._order])
        self._starts = columns.starts[:-1][self._order]
        self._equal = bool((self.shapes == self.shapes[:1]).all())

    @property
    def kind(self) -> str:
        """The kind of data that was encoded, such as `"images"`."""
        return self.facts.kind

    @property
    def num_embeddings(self) -> int:
        """K of the quantizer."""
        return self.facts.num_embeddings

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """How many values each index of a position takes, in their order."""
        return self.facts.codebook_sizes

    @property
    def model(self) -> str:
        """Fingerprint of the model that made the tokens."""
        return self.facts.model

    @property
    def quantizer(self) -> Mapping[str, Any] | None:
        """Configuration of the model's quantizer; None where the file does not say it."""
        return self.facts.quantizer

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """The name of each class; None where they have no names."""
        return self.facts.label_names

    @cached_property
    def names(self) -> list[str]:
        """Names of the examples."""
        return [str(self._columns.names[number]) for number in self._order.tolist()]

    @property
    def total(self) -> int:
        """How many tokens there are."""
        return int(self.shapes.prod(1).sum())

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} examples, got the index {index}")
        start, shape = self._starts[index], self.shapes[index].tolist()
        indices = np.array(self._columns.flat[start : start + int(np.prod(shape))], np.int64)
        item = {"indices": torch.from_numpy(indices).reshape(shape)}
        return item if self.labels is None else {**item, "label": self.labels[index]}

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Tensor]]:
        """Return many examples; if all of the set have one shape, they are gathered together."""
        if not (self._equal and len(indices)):
            return [self[index] for index in indices]
        batch = self.batch(indices)
        rows = zip(*(batch[name].unbind() for name in batch), strict=True)
        return [dict(zip(batch, row, strict=True)) for row in rows]

    def batch(self, indices: Sequence[int] | Tensor) -> dict[str, Tensor]:
        """Return examples of one shape as one batch: `(B, *shape)` indices, and `(B,)` labels if there are any.

        Raises:
            ValueError: their shapes differ.
        """
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        shapes = self.shapes[chosen]
        if not len(chosen) or not (shapes == shapes[0]).all():
            found = sorted({*map(tuple, shapes.tolist())})
            raise ValueError(f"a batch needs one or more examples of one shape, got {found}")
        shape = shapes[0].tolist()
        places = self._starts[chosen.numpy()][:, None] + np.arange(int(np.prod(shape)))
        grids = torch.from_numpy(self._columns.flat[places].astype(np.int64)).reshape(len(chosen), *shape)
        return {"indices": grids} if self.labels is None else {"indices": grids, "label": self.labels[chosen]}

    def extent(self, index: int) -> tuple[int, ...]:
        """Return the size of an original example: (height, width) of an image."""
        return tuple(int(sizes[index]) for sizes in self.extents.values())

    def levels(self, index: int) -> Grids:
        """Return the grids of which an example's indices consist, coarse to fine: one for most quantizers."""
        if self._columns.levels:
            return self._columns.levels[self.extent(index)]
        rows, columns = [1, 1, *self.shapes[index].tolist()[: len(self.extents)]][-2:]
        return [(rows, columns)]

    def digest(self) -> str:
        """Return the SHA-256 of all tokens in their order, with their shapes and labels."""
        found = hashlib.sha256(self._order.tobytes())
        for start in range(0, len(self._columns.flat), HASHED_AT_ONCE):
            found.update(np.ascontiguousarray(self._columns.flat[start : start + HASHED_AT_ONCE]).data)
        found.update(self.shapes.numpy().tobytes())
        found.update(b"" if self.labels is None else self.labels.numpy().tobytes())
        return found.hexdigest()

    def select(self, indices: Sequence[int] | Tensor) -> TokenSet:
        """Return some examples as a set, in the order given, without a copy of their tokens."""
        chosen = torch.as_tensor(indices, dtype=torch.int64).numpy()
        return TokenSet(self.facts, self._columns, self._source, self._order[chosen])

    def shuffled(self, seed: int) -> TokenSet:
        """Return the same set in an order that depends on the seed alone, without a copy of the tokens."""
        return self.select(torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)))

    def __reduce__(self) -> Any:
        if self._source is None:
            return TokenSet, (self.facts, self._columns, None, self._order)
        return _opened_anew, (self._source, self._order)


def _opened_anew(source: Callable[[], TokenSet], order: np.ndarray[Any, Any]) -> TokenSet:
    whole = source()
    return TokenSet(whole.facts, whole._columns, source, order)
