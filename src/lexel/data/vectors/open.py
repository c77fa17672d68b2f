"""Opening whatever stands at a path as a set of vectors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from lexel._core.errors import blamed_on
from lexel.data.examples import Examples
from lexel.data.tables import USUAL, Columns
from lexel.data.vectors.sources import Source, open_source
from lexel.kmeans import LARGEST

__all__ = ["Vectors", "open_vectors"]

PIECE = 4096  # rows that are read at once
MOST_NAMED = 5


class Vectors(Examples):
    """A set of vectors: float32 `(D,)` each, read when it is needed.

    A slice is many of them, `(n, D)`: `vectors[1000:2000]`. Unlike a damaged picture, a vector that is not finite is
    never left out: it is an error that names its row.

    Args:
        source: where the rows come from.
        dim: D that is expected; None for any.
        origin: the path, which errors name.
        unit: only the directions of vectors count, so that a zero vector is refused as one that is not finite.

    Attributes:
        items: what the vectors belong to, as it stands in the data, all different; row numbers where it does not say.
        named: whether the data names them.
        dim: D.

    Raises:
        ValueError: D is another than expected, or an item is missing or comes twice.
    """

    noun = "vector"

    def __init__(self, source: Source, dim: int | None = None, origin: str = "", *, unit: bool = False) -> None:
        if dim is not None and source.dim != dim:
            raise ValueError(f"{origin} holds vectors of {source.dim} numbers, expected {dim}")
        self.source, self.unit = source, unit
        self.dim = source.dim
        with blamed_on(origin, "does not name its vectors (--id-column chooses another column)"):
            items = source.items()
        self.named = items is not None
        self.items = list(range(len(source))) if items is None else items
        super().__init__([str(item) for item in self.items], self._row, labels=source.labels)
        self.origin = origin

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return len(self), self.dim

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Tensor: ...
    def __getitem__(self, index: int | slice) -> Tensor:
        if not isinstance(index, slice):
            if not -len(self) <= index < len(self):
                raise IndexError(f"there are {len(self)} vectors, got the index {index}")
            return self._row(index % len(self))
        start, stop, step = index.indices(len(self))
        return (
            self._rows(start, max(start, stop))[::step]
            if step > 0
            else self._rows(stop + 1, start + 1).flip(0)[::-step]
        )

    def batch(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Return the vectors of some numbers, `(n, D)`."""
        return self._numbered(torch.as_tensor(indices, dtype=torch.int64).tolist())

    @override
    def available(self, indices: Iterable[int], *, strict: bool = False) -> Iterator[tuple[int, Tensor]]:
        """Read the vectors of `indices` in turn, those that follow each other together.

        Raises:
            ValueError: one is not finite.
        """
        waiting: list[int] = []
        for index in indices:
            if waiting and (index != waiting[-1] + 1 or len(waiting) == PIECE):
                yield from zip(waiting, self._rows(waiting[0], waiting[-1] + 1), strict=True)
                waiting = []
            waiting.append(index)
        if waiting:
            yield from zip(waiting, self._rows(waiting[0], waiting[-1] + 1), strict=True)

    def texts(self, column: str) -> list[str]:
        """Return a text for each vector from a column of the data.

        Raises:
            ValueError: there is no such column.
        """
        return self.source.texts(column)

    def _row(self, index: int) -> Tensor:
        return self._rows(index, index + 1)[0]

    def _rows(self, start: int, stop: int) -> Tensor:
        return self._numbered(range(start, stop))

    def _numbered(self, numbers: Sequence[int]) -> Tensor:
        """Return the rows of these numbers, if each is of use."""
        with blamed_on(self.origin, "does not hold vectors of one length"):
            found = self.source.rows(numbers) if len(numbers) else np.zeros((0, self.dim), np.float32)
        with np.errstate(over="ignore"):  # a number too large for float32 is as little of use as one that is none
            rows = torch.from_numpy(np.array(found, np.float32, order="C"))
        usable = (rows.abs() <= LARGEST).all(1)  # NaN is not
        self._refuse(~usable, numbers, f"not all numbers are within ±{LARGEST:g} and finite")
        if self.unit:
            self._refuse((rows == 0).all(1), numbers, "there is no direction, all numbers are 0,")
        return rows

    def _refuse(self, wrong: Tensor, numbers: Sequence[int], complaint: str) -> None:
        if wrong.any():
            rows = sorted({numbers[place] for place in wrong.nonzero().flatten().tolist()})
            more = f" and {len(rows) - MOST_NAMED} more" if len(rows) > MOST_NAMED else ""
            named = ", ".join(str(row) for row in rows[:MOST_NAMED])
            raise ValueError(f"{self.origin}: {complaint} in the row{'s' * (len(rows) > 1)} {named}{more}")


def open_vectors(
    data: str | os.PathLike[str],
    dim: int | None = None,
    *,
    columns: Columns = USUAL,
    unit: bool = False,
) -> Vectors:
    """Open a set of vectors; rows are read when they are needed, and the set may be larger than the memory.

    Args:
        data: a `.npy` array `(N, D)`, an `.npz` archive, a `.safetensors` file, or anything local that
            `datasets.load_dataset` opens with a column of lists of numbers: a file or folder of Parquet, Arrow, JSON.
        dim: D that is expected; None for any.
        columns: the column, or the array of several, that holds the vectors, by default the only one, or the one named
            embedding, embeddings, vector, vectors, emb or features; and what names each vector's item, by default item,
            item_id, id, ids, items, name or key. Where there is none, items are the numbers of the rows.
        unit: only the directions of vectors count, so that a zero vector is an error when it is read.

    Raises:
        FileNotFoundError: nothing stands at `data`.
        ValueError: there are no vectors, or several columns of them; D is another than expected; an item is missing or
            comes twice.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/embeddings.npy", np.eye(3, dtype=np.float32))
        ...     open_vectors(f"{folder}/embeddings.npy")[1:]
        tensor([[0., 1., 0.],
                [0., 0., 1.]])
    """
    path = Path(data)
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    if not path.is_file() and not path.is_dir():
        raise ValueError(f"{path} is neither a file nor a folder")
    return Vectors(open_source(path, columns), dim, str(path), unit=unit)
