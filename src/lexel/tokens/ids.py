"""Semantic IDs: the codes of items, both ways, as one Parquet file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError as error:
    raise ImportError("IDs need pyarrow: pip install 'lexel[train]'") from error

from lexel._core.checks import check_integer
from lexel._core.errors import blamed_on
from lexel._core.files import require_file, written_beside
from lexel.tokens.facts import Facts, smallest_dtype
from lexel.tokens.rows import METADATA
from lexel.tokens.token_set import Columns, TokenSet
from lexel.tokens.trie import Trie

__all__ = ["UNIQUE", "IDs", "Items", "check_unique"]

FORMAT = "lexel-ids-1"
UNIQUE = ("suffix", "nearest-free")
GROUP = 1 << 17  # rows of a row group
Item = str | int


class IDs:
    """The IDs of N items: Q codes each, as `lexel encode` makes them of embeddings.

    `ids[item]` is the ID of an item, `ids.items[codes]` are the items with an ID, or with a beginning of one. Both take
    many at once, too. Iteration goes over the items in the order of the rows.

    Args:
        items: their names or numbers: strings, or integers that fit int64; each once.
        codes: `(N, Q)` or, for one codebook, `(N,)`, of any integer type.
        facts: what is true of all IDs: K, and the model that made them.
        distances: `(N,)`, the squared distance of each embedding from what its codes stand for; NaN if unknown.
        labels: int64 `(N,)`, the class of each item, if they have any.
        unique: how equal IDs were made different: `"suffix"`, by a code more, the last column, which counts the items
            that share the others; `"nearest-free"`, by another tuple of the same codebooks; None if they were not.
        version: how many times the file was written: 1, and one more for each `append`.

    Attributes:
        codes: `(N, Q)`, of the smallest type that holds them.
        distances: float32 `(N,)`.
        labels: int64 `(N,)`, or None.
        facts: those given.
        unique: that given.
        version: that given.

    Raises:
        TypeError: the items are neither strings nor integers, or the codes no integers.
        ValueError: there is no item, one occurs twice, the shapes do not fit each other, a code is out of range, or IDs
            that are said to be unique are not.

    Example:
        >>> facts = Facts("vectors", 4, (4, 4), "0123456789abcdef")
        >>> ids = IDs(["lute", "harp", "drum"], [[0, 1], [0, 3], [2, 1]], facts)
        >>> ids["harp"], ids.items[0, 3], ids.items[0,]
        ((0, 3), ['harp'], ['lute', 'harp'])
        >>> ids.vocabulary(start=2)
        array([[2, 7],
               [2, 9],
               [4, 7]])
    """

    def __init__(
        self,
        items: Any,
        codes: Any,
        facts: Facts,
        distances: Any = None,
        labels: Any = None,
        *,
        unique: str | None = None,
        version: int = 1,
    ) -> None:
        self.facts, self.version = facts, check_integer("IDs", "version", version, least=1)
        check_unique(unique)
        self.unique = unique
        names = as_items(items)
        if not len(names):
            raise ValueError("IDs need one item at least")
        found = _integers("codes", codes)
        found = found[:, None] if found.ndim == 1 else found
        books = len(facts.codebook_sizes) + (unique == "suffix")
        if found.shape != (len(names), books):
            raise ValueError(f"codes must have shape {(len(names), books)}, got {found.shape}")
        sizes = facts.codebook_sizes
        if unique == "suffix":
            if found[:, -1].min() < 0:
                raise ValueError(f"a suffix must be at least 0, got {found[:, -1].min()}")
            sizes = (*sizes, int(found[:, -1].max()) + 1)
        self._sizes = tuple(sizes)
        for book, size in enumerate(self._sizes):
            own = found[:, book]
            if own.min() < 0 or own.max() >= size:
                row = int(((own < 0) | (own >= size)).argmax())
                raise ValueError(f"code {book} of the item {names[row].as_py()!r} is {own[row]}, not in [0, {size})")
        self.codes: np.ndarray[Any, Any] = found.astype(smallest_dtype(self._sizes))
        shape = (len(names),)
        self.distances: np.ndarray[Any, Any] = np.full(shape, np.nan, np.float32)
        if distances is not None:
            self.distances = _array(distances).astype(np.float32)
        self.labels: np.ndarray[Any, Any] | None = None if labels is None else _integers("labels", labels)
        for name, column in (("distances", self.distances), ("labels", self.labels)):
            if column is not None and column.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {column.shape}")
        if self.labels is not None and facts.label_names:
            low, high = self.labels.min(), self.labels.max()
            if low < 0 or high >= len(facts.label_names):
                raise ValueError(f"the labels go from {low} to {high}, but there are {len(facts.label_names)} classes")
        self.items = Items(self, names)
        if unique is not None and len(self.trie()) < len(self):
            group = int(np.diff(self.trie().starts[-1].numpy()).argmax())
            same = self.trie().order[int(self.trie().starts[-1][group]) :][:2]
            one, other = (names[row].as_py() for row in same.tolist())
            raise ValueError(f"the IDs are not unique: {one!r} and {other!r} have the same codes")

    @classmethod
    def from_tokens(cls, tokens: TokenSet, distances: Any = None) -> IDs:
        """Return the IDs that stand in a set of tokens of vectors, whose examples are the items.

        Raises:
            ValueError: an example has more than one position.
        """
        books = len(tokens.codebook_sizes)
        if not len(tokens) or (tokens.shapes.prod(1) != books).any():
            raise ValueError(
                f"IDs need examples of {books} tokens, one for each codebook, got the shapes "
                f"{torch.unique(tokens.shapes, dim=0).tolist()}"
            )
        codes = tokens.batch(range(len(tokens)))["indices"].reshape(len(tokens), books)
        return cls(tokens.names, codes, tokens.facts, distances, tokens.labels)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, model: str | None = None) -> IDs:
        """Open a file of IDs and check its content against its checksum.

        Args:
            path: of the file.
            model: the fingerprint of the model that must have made the IDs; any by default.

        Raises:
            FileNotFoundError: nothing stands there.
            ValueError: the file is no file of IDs, is damaged or was changed, or another model made its IDs.
        """
        path = Path(path)
        require_file(path)
        with blamed_on(path, "is not a file of IDs"):
            ids = _read(path)
        if model is not None and ids.facts.model != model:
            raise ValueError(
                f"{path} holds IDs of the model with the fingerprint {ids.facts.model}, not of {model}: "
                "use the model that made them"
            )
        return ids

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write one Parquet file, whole or not at all; it replaces what stands there.

        Its columns are `item`, `codes` (a list of the smallest unsigned integers that hold them), `distance` and, if
        there are any, `label`; the metadata of its schema has the facts and a checksum under `lexel`.

        Raises:
            OSError: it cannot be written.
        """
        table = self._arrow()
        facts = self._facts_as_json()
        facts["sha256"] = _checksum(facts, table)
        table = table.replace_schema_metadata({METADATA: json.dumps(facts, sort_keys=True)})
        with written_beside(Path(path)) as temporary:
            pq.write_table(table, temporary, row_group_size=GROUP, compression="zstd", write_page_checksum=True)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """How many values each code takes; the last of a suffix is the size of the largest group of equal IDs."""
        return self._sizes

    @property
    def indices(self) -> np.ndarray[Any, Any]:
        """The codes without a suffix, `(N, Q)`: what the model decodes."""
        return self.codes[:, : len(self.facts.codebook_sizes)]

    def tokens(self) -> TokenSet:
        """Return what the model decodes, without a suffix, as a set of tokens whose examples are the items."""
        names = [str(item) for item in self.items]
        shape = [self.indices.shape[1]] if len(self.facts.codebook_sizes) > 1 else []
        shapes = np.full((len(self), len(shape)), shape, np.int64)
        return TokenSet(self.facts, Columns(names, {}, shapes, self.indices.reshape(-1), self.labels))

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where the codes of each level begin in a vocabulary in which each level's follow those of the one before.

        Example:
            >>> IDs(["harp"], [[1, 3, 5]], Facts("vectors", 16, (8, 16, 8), "")).offsets
            (0, 8, 24)
        """
        return tuple(np.cumsum([0, *self.codebook_sizes[:-1]]).tolist())

    def vocabulary(self, start: int = 0) -> np.ndarray[Any, Any]:
        """Return all IDs as tokens of one vocabulary, `codes + offsets + start`: int64 `(N, Q)`.

        Args:
            start: how many special tokens come before the codes. There are `start + sum(codebook_sizes)` tokens in all.
        """
        tokens: np.ndarray[Any, Any] = self.codes.astype(np.int64) + (np.array(self.offsets) + start)
        return tokens

    def codes_of(self, tokens: Any, start: int = 0) -> np.ndarray[Any, Any]:
        """Return the codes of tokens `(…, Q)` of the vocabulary: the inverse of `vocabulary`, int64.

        Raises:
            ValueError: a token is not one of its level.

        Example:
            >>> ids = IDs(["lute", "harp"], [[0, 1], [3, 3]], Facts("vectors", 4, (4, 4), ""))
            >>> ids.items[ids.codes_of([[5, 9]], start=2)]
            [['harp']]
        """
        found = _integers("tokens", tokens)
        if found.ndim < 1 or found.shape[-1] != len(self.codebook_sizes):
            raise ValueError(f"tokens must have a last axis of {len(self.codebook_sizes)} codes, got {found.shape}")
        codes: np.ndarray[Any, Any] = found - (np.array(self.offsets) + start)
        if ((codes < 0) | (codes >= np.array(self.codebook_sizes))).any():
            level = int(((codes < 0) | (codes >= np.array(self.codebook_sizes))).reshape(-1, codes.shape[-1]).argmax())
            level, token = level % codes.shape[-1], found.reshape(-1)[level]
            first = self.offsets[level] + start
            raise ValueError(
                f"the token {token} is not one of level {level}: they are {first} to "
                f"{first + self.codebook_sizes[level] - 1}"
            )
        return codes

    def trie(self) -> Trie:
        """Return the prefixes of all IDs: which codes may follow which, for constrained generation."""
        return self._trie

    @cached_property
    def _trie(self) -> Trie:
        return Trie.of(self.codes, self.codebook_sizes)

    def rows(self, items: Any) -> np.ndarray[Any, Any]:
        """Return the row of each item: int64 `(n,)`.

        Raises:
            KeyError: there is no such item.
        """
        wanted = as_items(items)
        rows = self.items.find(wanted)
        if (rows < 0).any():
            raise KeyError(f"there is no item {wanted[int((rows < 0).argmax())].as_py()!r}")
        return rows

    def take(self, rows: Any) -> IDs:
        """Return the IDs of some rows, each once, in the order that is given.

        Example:
            >>> ids = IDs(["lute", "harp", "drum"], [[0], [2], [1]], Facts("vectors", 4, (4,), ""))
            >>> list(ids.take([2, 0]))
            ['drum', 'lute']
        """
        rows = _integers("rows", rows)
        return IDs(
            self.items.array.take(pa.array(rows)),
            self.codes[rows],
            self.facts,
            self.distances[rows],
            None if self.labels is None else self.labels[rows],
            unique=self.unique,
            version=self.version,
        )

    def __len__(self) -> int:
        return len(self.codes)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __contains__(self, item: object) -> bool:
        return isinstance(item, (str, int, np.integer)) and bool(self.items.find(as_items([item]))[0] >= 0)

    def __getitem__(self, item: Any) -> Any:
        """Return the ID of an item as a tuple, or those of n items, a list or an array, as an array `(n, Q)`."""
        if isinstance(item, (str, int, np.integer)):
            return tuple(self.codes[self.rows([item])[0]].tolist())
        return self.codes[self.rows(item)]

    def __repr__(self) -> str:
        sizes = "x".join(map(str, self.codebook_sizes))
        return f"IDs({len(self)} items, codebooks {sizes}, unique={self.unique!r}, version={self.version})"

    def append(self, new: IDs) -> IDs:
        """Return these IDs with further items after them. All that is here stays as it is, and the version grows by 1.

        Args:
            new: the IDs of the further items, made by the same model and unique in the same way.

        Raises:
            ValueError: another model made them, they are unique in another way or not among those here, or an item is
                here already.
        """
        for what, own, other in (
            ("model", self.facts.model, new.facts.model),
            ("codebook_sizes", self.facts.codebook_sizes, new.facts.codebook_sizes),
            ("kind", self.facts.kind, new.facts.kind),
            ("unique", self.unique, new.unique),
            ("type of items", self.items.array.type, new.items.array.type),
        ):
            if own != other:
                raise ValueError(f"append: the {what} of the new IDs is {other}, expected {own}")
        facts, labels = self._labels_with(new)
        there = self.items.find(new.items.array) >= 0
        count, first = int(there.sum()), new.items.array[int(there.argmax())].as_py()
        if count == 1:
            raise ValueError(f"append: the item {first!r} already has an ID; leave it out")
        if count:
            raise ValueError(f"append: {count} items already have an ID, the first is {first!r}; leave them out")
        return IDs(
            pa.concat_arrays([self.items.array, new.items.array]),
            np.concatenate([self.codes, new.codes]),  # the wider type of the two
            facts,
            np.concatenate([self.distances, new.distances]),
            labels,
            unique=self.unique,
            version=self.version + 1,
        )

    def _labels_with(self, new: IDs) -> tuple[Facts, np.ndarray[Any, Any] | None]:
        """Return the facts and the labels of these IDs and further ones; classes that are new here come last."""
        if self.labels is None or new.labels is None:
            if self.labels is not new.labels:
                own, other = ("no labels" if ids.labels is None else "labels" for ids in (self, new))
                raise ValueError(f"append: the IDs here have {own}, the new ones {other}")
            return self.facts, None
        names, more = self.facts.label_names, new.facts.label_names
        if (names is None) != (more is None):
            own, other = ("numbers" if each is None else "names" for each in (names, more))
            raise ValueError(f"append: the classes here have {own}, those of the new IDs {other}")
        if names is None or more is None:
            return self.facts, np.concatenate([self.labels, new.labels])
        every = {name: number for number, name in enumerate(dict.fromkeys((*names, *more)))}
        renumbered = np.array([every[name] for name in more], np.int64)[new.labels]
        return replace(self.facts, label_names=(*every,)), np.concatenate([self.labels, renumbered])

    def _facts_as_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **self.facts.as_json(), "unique": self.unique, "version": self.version}

    def _arrow(self) -> pa.Table:
        width = self.codes.shape[1]
        ends = np.arange(len(self) + 1, dtype=np.int64) * width
        columns = {
            "item": self.items.array,
            "codes": pa.LargeListArray.from_arrays(pa.array(ends), pa.array(self.codes.reshape(-1))),
            "distance": pa.array(self.distances),
        }
        table = pa.table(columns if self.labels is None else {**columns, "label": pa.array(self.labels)})
        return table.cast(_schema(self.items.array.type, self.codes.dtype, labelled=self.labels is not None))


class Items:
    """The items of IDs: `ids.items[codes]`.

    `items[codes]` lists the items whose ID is `codes`, a tuple of Q codes, or begins with them, if there are fewer. For
    codes `(B, L)` it is a list of B lists.

    Attributes:
        array: all items in the order of the rows, as an Arrow array of strings or int64.
    """

    def __init__(self, ids: IDs, array: pa.Array) -> None:
        self._ids, self.array = ids, array
        if len(pc.unique(array)) < len(array):  # several times faster than count_distinct
            counts = pc.value_counts(array)
            item, count = counts.filter(pc.greater(counts.field("counts"), 1))[0].as_py().values()
            raise ValueError(f"items must be given once each, and {item!r} occurs {count} times")

    @cached_property
    def _order(self) -> np.ndarray[Any, Any]:
        return np.asarray(pc.sort_indices(self.array)).astype(np.int64)

    def find(self, items: pa.Array) -> np.ndarray[Any, Any]:
        """Return the row of each item, −1 for one that is not here: int64 `(n,)`."""
        if items.type != self.array.type:
            return np.full(len(items), -1, np.int64)
        # A binary search for all at once: Arrow's own look-up would hash every item for each call.
        low, high = np.zeros(len(items), np.int64), np.full(len(items), len(self.array))
        for _ in range(len(self.array).bit_length()):
            middle = np.minimum((low + high) // 2, len(self.array) - 1)
            less = np.asarray(pc.less(self.array.take(pa.array(self._order[middle])), items)) & (low < high)
            low, high = np.where(less, middle + 1, low), np.where(less, high, np.maximum(middle, low))
        rows: np.ndarray[Any, Any] = self._order[np.minimum(low, len(self.array) - 1)]
        found = np.asarray(pc.equal(self.array.take(pa.array(rows)), items))
        return np.where(found & (low < len(self.array)), rows, -1)

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> Iterator[Item]:
        for start in range(0, len(self.array), GROUP):
            yield from self.array.slice(start, GROUP).to_pylist()

    def __getitem__(self, codes: Any) -> Any:
        if isinstance(codes, (int, np.integer, str, slice)):
            raise TypeError(f"items[codes] takes a tuple of codes, or an array of them, got {codes!r}")
        wanted = np.zeros(0, np.int64) if isinstance(codes, Sequence) and not codes else _integers("codes", codes)
        trie = self._ids.trie()
        if wanted.ndim == 1:
            return self.array.take(pa.array(trie.rows(wanted.tolist()).numpy())).to_pylist()
        node, length = trie.find(torch.from_numpy(wanted)), wanted.shape[-1]
        if not length:
            return [self[()] for _ in node]
        starts, order = trie.starts[length - 1], trie.order
        low, high = starts[node.clamp_min(0)], starts[node.clamp_min(0) + 1]
        counts = torch.where(node >= 0, high - low, 0)
        places = torch.arange(int(counts.sum())) + torch.repeat_interleave(low - counts.cumsum(0) + counts, counts)
        ends = pa.array(np.append(0, counts.cumsum(0).numpy()))
        return pa.LargeListArray.from_arrays(ends, self.array.take(pa.array(order[places].numpy()))).to_pylist()


def check_unique(unique: str | None) -> None:
    """Check a name of how IDs are made unique.

    Raises:
        ValueError: there is no such way.
    """
    if unique not in (None, *UNIQUE):
        raise ValueError(f"unique must be one of {', '.join(UNIQUE)}, or None, got {unique!r}")


def as_items(items: Any) -> pa.Array:
    """Return items as one Arrow array, of strings or of int64.

    Raises:
        TypeError: they are something else, or of both kinds.

    Example:
        >>> as_items(["lute", "harp"]).type, as_items(np.arange(3, dtype=np.uint8)).type
        (DataType(large_string), DataType(int64))
    """
    try:
        if not isinstance(items, (pa.Array, pa.ChunkedArray)):
            items = pa.array(_array(items) if isinstance(items, Tensor) else items)
        found = items.combine_chunks() if isinstance(items, pa.ChunkedArray) else items
        found = found.dictionary_decode() if pa.types.is_dictionary(found.type) else found
        text = pa.types.is_string(found.type) or pa.types.is_large_string(found.type)
        if not (text or pa.types.is_integer(found.type)) or found.null_count:
            if not len(found):
                return pa.array([], pa.int64())
            raise TypeError(f"they are {found.type}{', some of them missing' * bool(found.null_count)}")
        return found.cast(pa.large_string() if text else pa.int64())
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"items must be strings, or integers that fit int64: {error}") from error


def _array(values: Any) -> np.ndarray[Any, Any]:
    return values.numpy(force=True) if isinstance(values, Tensor) else np.asarray(values)


def _integers(name: str, values: Any) -> np.ndarray[Any, Any]:
    found = _array(values)
    if found.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {found.dtype}")
    if found.dtype == np.uint64 and found.size and found.max() >= 1 << 63:
        raise ValueError(f"{name} must fit int64, got {found.max()}")
    return found.astype(np.int64)


def _schema(item: pa.DataType, codes: np.dtype[Any], *, labelled: bool) -> pa.Schema:
    columns = [
        ("item", item),
        ("codes", pa.large_list(pa.field("element", pa.from_numpy_dtype(codes)))),
        ("distance", pa.float32()),
    ]
    return pa.schema(columns + [("label", pa.int64())] * labelled)


def _read(path: Path) -> IDs:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        schema = file.schema_arrow
        facts = json.loads((schema.metadata or {}).get(METADATA, b"{}"))
        if facts.get("format") != FORMAT:
            raise ValueError(f"its format is {facts.get('format')!r}, expected {FORMAT!r}")
        table = file.read()
    checksum = facts.pop("sha256", None)
    if any(column.null_count for column in table.columns):
        raise ValueError("it has empty cells")
    if checksum != _checksum(facts, table):
        raise ValueError("it is damaged or was changed: its checksum is not that of its content")
    counts = pc.list_value_length(table.column("codes")).to_numpy()
    if len(counts) and (counts != counts[0]).any():
        raise ValueError("its items have different numbers of codes")
    flat = pc.list_flatten(table.column("codes")).to_numpy()
    labelled = "label" in schema.names
    ids = IDs(
        table.column("item"),
        flat.reshape(len(table), -1),
        Facts.from_json(facts),
        table.column("distance").to_numpy(),
        table.column("label").to_numpy() if labelled else None,
        unique=facts["unique"],
        version=facts["version"],
    )
    expected = _schema(ids.items.array.type, ids.codes.dtype, labelled=labelled)
    if not schema.remove_metadata().equals(expected):
        raise ValueError(f"its columns are {', '.join(f'{field.name} {field.type}' for field in schema)}")
    return ids


def _checksum(facts: dict[str, Any], table: pa.Table) -> str:
    """Return the SHA-256 of the facts and of all columns, however they are divided into pieces."""
    found = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in table.column_names:
        column = table.column(name)
        found.update(f"{name} {column.type} {len(column)} ".encode())
        for start in range(0, len(column), GROUP):
            piece = column.slice(start, GROUP).combine_chunks()
            if pa.types.is_large_string(piece.type):
                ends = np.frombuffer(piece.buffers()[1], np.int64)[piece.offset : piece.offset + len(piece) + 1]
                found.update(np.diff(ends).data)
                found.update(memoryview(piece.buffers()[2] or b"")[ends[0] : ends[-1]])
            elif pa.types.is_large_list(piece.type):
                found.update(np.ascontiguousarray(pc.list_value_length(piece)).data)
                found.update(np.ascontiguousarray(pc.list_flatten(piece)).data)
            else:
                found.update(np.ascontiguousarray(piece).data)
    return found.hexdigest()
