"""Where the rows of vectors come from: an array of numpy, a tensor of safetensors, or a column of a table.

Each source is read piece by piece and can be pickled, so that any process may read it: it then opens its file anew.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from safetensors import safe_open
from typing_extensions import override

from lexel._core.errors import blamed_on
from lexel._core.files import refuse_bomb
from lexel.data.labels import Labels
from lexel.data.tables import (
    LABEL,
    Columns,
    checked_items,
    is_saved,
    items_of,
    kinds_of_columns,
    load_table,
    read_labels,
    tables_among,
)

__all__ = ["Source", "open_source"]

# Names that a column of vectors, or of the items that they belong to, often has; in the order of preference.
VECTOR_NAMES = ("embedding", "embeddings", "vector", "vectors", "emb", "features")
ITEM_NAMES = ("item", "item_id", "id", "ids", "items", "name", "key")


class Source(ABC):
    """Rows of vectors, `(N, D)`, and what each belongs to.

    Attributes:
        dim: D.
    """

    dim: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def rows(self, numbers: Sequence[int]) -> NDArray[Any]:
        """Return the rows of one or more numbers, `(n, D)`; those of a range are read as one piece.

        Raises:
            ValueError: a row has another length than the others, or is empty.
        """

    def items(self) -> list[Any] | None:
        """Return what each row belongs to, as it stands in the data; None if the data does not say it."""
        return None

    def labels(self) -> Labels | None:
        """Return the class of each row; None if there are none."""
        return None

    def texts(self, column: str) -> list[str]:
        """Return a text for each row from a column of the data.

        Raises:
            ValueError: there is no such column.
        """
        raise ValueError(f"there is no column {column!r}: the data is an array")


class Array(Source):
    """An array of numpy, mapped from a `.npy` file; one of an `.npz` archive is loaded.

    Args:
        path: of the file.
        columns: which array of an archive holds the vectors, and which says what they belong to.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self.arguments = path, columns
        self._items: NDArray[Any] | None = None
        with blamed_on(path, "cannot be read as vectors"):
            with path.open("rb") as file:
                if file.read(4) not in (b"\x93NUM", b"PK\x03\x04"):  # numpy would advise to load it unsafely
                    raise ValueError("it does not begin as an array of numpy")
            found = np.load(path, mmap_mode="r", allow_pickle=False)
            if isinstance(found, np.ndarray):
                columns.refuse(path)
                self.array = found
            else:
                with found:
                    refuse_bomb(found.zip)
                    ranks = {name: found[name].ndim for name in found.files}
                    self.array = found[chosen(ranks, columns.examples)]
                    flat = [name for name, rank in ranks.items() if rank == 1]
                    self.item_name = picked(columns.items, flat, ITEM_NAMES, "array") or ""
                    self._items = found[self.item_name] if self.item_name else None
            check_matrix(self.array.shape, str(self.array.dtype), self.array.dtype.kind in "fiu")
        self.dim = self.array.shape[1]

    @override
    def __len__(self) -> int:
        return len(self.array)

    def __reduce__(self) -> Any:
        return Array, self.arguments

    @override
    def rows(self, numbers: Sequence[int]) -> NDArray[Any]:
        return np.asarray(self.array[place_of(numbers)])

    @override
    def items(self) -> list[Any] | None:
        return None if self._items is None else checked_items(self._items.tolist(), self.item_name)


class Safetensors(Source):
    """A tensor of a safetensors file, of which only the rows that are asked for are read.

    Args:
        path: of the file.
        columns: which tensor holds the vectors, and which says what they belong to.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self.arguments = path, columns
        with blamed_on(path, "cannot be read as vectors"):
            self.file: Any = _opened(path)
            names: list[str] = list(self.file.keys())
            ranks = {name: len(self.file.get_slice(name).get_shape()) for name in names}
            self.name = chosen(ranks, columns.examples)
            self.item_name = picked(
                columns.items, [each for each, rank in ranks.items() if rank == 1], ITEM_NAMES, "tensor"
            )
            piece: Any = self.file.get_slice(self.name)
            self.length, self.dim = piece.get_shape()
            dtype = str(piece.get_dtype())
            check_matrix((self.length, self.dim), dtype, dtype[0] in "FBIU")

    @override
    def __len__(self) -> int:
        return int(self.length)

    def __reduce__(self) -> Any:
        return Safetensors, self.arguments

    @override
    def rows(self, numbers: Sequence[int]) -> NDArray[Any]:
        places, part = place_of(numbers), self.file.get_slice(self.name)  # which takes slices alone
        parts = [places] if isinstance(places, slice) else [slice(place, place + 1) for place in places]
        return np.concatenate([part[each].float().numpy() for each in parts])

    @override
    def items(self) -> list[Any] | None:
        if self.item_name is None:
            return None
        return checked_items(self.file.get_tensor(self.item_name).tolist(), self.item_name)


class Column(Source):
    """A column of lists of numbers, of a table that `datasets` maps from files.

    Args:
        path: a file or a folder.
        columns: which holds the vectors, and which says what they belong to.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self.arguments = path, columns
        files = [] if is_saved(path) else sorted(each for each in path.rglob("*") if each.is_file())
        self.table = load_table(path, tables_among(str(each.relative_to(path)) for each in files), "vectors")
        lists = [name for name, feature in self.table.features.items() if is_list_of_numbers(feature)]
        self.path = path
        try:
            found = picked(columns.examples, lists, VECTOR_NAMES, "column of lists of numbers", several=len(lists) > 1)
            found = lists[0] if found is None and len(lists) == 1 else found
            if found is None:
                raise ValueError("it has no column of lists of numbers")
            self.name = found
            others = [name for name in self.table.column_names if name != found]
            self.item_name = picked(columns.items, others, ITEM_NAMES, "column")
        except ValueError as error:
            raise ValueError(
                f"no vectors found in {path}: {error}; its columns are {kinds_of_columns(self.table)}"
            ) from error
        self.vectors = self.table.select_columns([self.name]).with_format("arrow")
        self.dim = len(self._cell(0)) if len(self.table) else 0
        with blamed_on(path, "cannot be read as vectors"):
            check_matrix((len(self.table), self.dim), "numbers", True)

    @override
    def __len__(self) -> int:
        return len(self.table)

    def __reduce__(self) -> Any:
        return Column, self.arguments

    @override
    def rows(self, numbers: Sequence[int]) -> NDArray[Any]:
        cells = self.vectors[place_of(numbers)].column(self.name).combine_chunks()
        cells = cells.combine_chunks() if hasattr(cells, "combine_chunks") else cells
        if hasattr(cells, "storage"):  # an extension type of `datasets`, such as Array2D
            cells = cells.storage
        wrong = pc.list_value_length(cells).fill_null(-1).to_numpy(zero_copy_only=False) != self.dim
        if wrong.any():
            place = int(wrong.argmax())
            size = "nothing" if cells[place].as_py() is None else f"{len(cells[place].as_py())} numbers"
            raise ValueError(f"the row {numbers[place]} of the column {self.name!r} holds {size}, the first {self.dim}")
        flat: NDArray[Any] = cells.flatten().to_numpy(zero_copy_only=False)  # nothing in a list becomes NaN
        return flat.reshape(-1, self.dim)

    @override
    def items(self) -> list[Any] | None:
        return None if self.item_name is None else items_of(self.table, self.item_name)

    @override
    def labels(self) -> Labels | None:
        if LABEL not in self.table.features or LABEL in (self.name, self.item_name):
            return None
        return read_labels(self.table.select_columns([LABEL]))

    @override
    def texts(self, column: str) -> list[str]:
        if column not in self.table.features:
            raise ValueError(f"{self.path} has no column {column!r}; its columns are {kinds_of_columns(self.table)}")
        return [str(value) for value in self._values(column)]

    def _values(self, column: str) -> list[Any]:
        values = self.table.select_columns([column]).with_format("arrow")[:].column(column)
        return list(values.to_pylist())

    def _cell(self, index: int) -> list[Any]:
        return list(self.table[index][self.name] or [])


def place_of(numbers: Sequence[int]) -> slice | list[int]:
    """Return what indexes the rows of some numbers: of a range a slice, so that they are read as one piece."""
    return slice(numbers.start, numbers.stop) if isinstance(numbers, range) else list(numbers)


def _opened(path: Path) -> Any:
    return safe_open(path, "pt")


def open_source(path: Path, columns: Columns) -> Source:
    """Open the source at a path, by its name and its first bytes.

    Raises:
        ValueError: it holds no vectors, or more than one array of them.
    """
    if path.is_dir():
        return Column(path, columns)
    if path.suffix.lower() == ".safetensors":
        return Safetensors(path, columns)
    with path.open("rb") as file:
        head = file.read(6)
    if path.suffix.lower() in (".npy", ".npz") or head == b"\x93NUMPY":
        return Array(path, columns)
    return Column(path, columns)


def check_matrix(shape: tuple[int, ...], dtype: str, numeric: bool) -> None:
    """Refuse what is not N vectors of D numbers.

    Raises:
        ValueError: it is not.
    """
    if not numeric:
        raise ValueError(f"it holds {dtype}, expected numbers")
    if len(shape) != 2:
        raise ValueError(f"its shape is {tuple(shape)}, expected (N, D): a vector in each row")
    if 0 in shape:
        raise ValueError(f"it holds no vectors, its shape is {tuple(shape)}")


def chosen(ranks: dict[str, int], name: str | None) -> str:
    """Return the name of the array of vectors among several.

    Raises:
        ValueError: there is none, or more than one.
    """
    candidates = [each for each, found in ranks.items() if found == 2]
    found = picked(name, list(ranks) if name else candidates, VECTOR_NAMES, "array", several=len(candidates) > 1)
    if found is None and len(candidates) == 1:
        return candidates[0]
    if found is None:
        raise ValueError(f"it has no array of shape (N, D), only {', '.join(map(repr, ranks)) or 'none at all'}")
    return found


def picked(
    name: str | None, known: list[str], usual: tuple[str, ...], what: str, *, several: bool = False
) -> str | None:
    """Return the name that is asked for, or else the first usual one that there is.

    Raises:
        ValueError: there is none of that name; or there are several to choose from.
    """
    if name is not None:
        if name not in known:
            raise ValueError(f"there is no {what} {name!r}, only {', '.join(map(repr, known)) or 'none'}")
        return name
    found = next((each for each in usual if each in known), None)
    if found is None and several:
        raise ValueError(f"there are several: {', '.join(map(repr, known))}; choose one with --column")
    return found


def is_list_of_numbers(feature: Any) -> bool:
    """Whether a column of `datasets` holds a list of numbers in each row."""
    inner = getattr(feature, "feature", None)
    dtype = str(getattr(inner, "dtype", ""))
    return dtype.startswith(("float", "double", "int", "uint"))
