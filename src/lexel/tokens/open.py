"""Opening tokens: a folder of shards, or one file."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lexel._core.files import require_inside
from lexel._core.places import MANIFEST, instead, stands_at
from lexel.data.kind import kind_of
from lexel.tokens.facts import Facts, Grids, check_range, smallest_dtype
from lexel.tokens.file import read_file
from lexel.tokens.ids import IDs
from lexel.tokens.rows import METADATA, Table
from lexel.tokens.shards import Manifest, check_shard, read_manifest
from lexel.tokens.token_set import Columns, TokenSet

__all__ = ["open_tokens"]

ROWS_AT_ONCE = 1024  # read from a shard


def open_tokens(path: str | os.PathLike[str]) -> TokenSet:
    """Open tokens that `lexel encode` wrote: a folder of Parquet shards, one .safetensors file, or a .parquet of IDs.

    Every shard is checked against its checksum, and every index against K. The tokens of a folder are unpacked into a
    temporary file, from which the set is mapped; it is gone when the set is.

    Args:
        path: of the folder or the file.

    Raises:
        FileNotFoundError: nothing stands there, or a shard is missing.
        ValueError: the folder is unfinished, a shard is damaged or was changed, the tokens are out of range, or their
            shards are of a format that Lexel writes for other programs alone.
    """
    found = Path(path)
    if not found.exists():
        raise FileNotFoundError(f"no such file or folder: {found}")
    if stands_at(found) not in (None, "tokens"):
        raise ValueError(f"{found} is not a set of tokens{instead(found)}")
    if found.suffix.lower() == ".parquet" and found.is_file():
        return IDs.open(found).tokens()
    if not found.is_dir():
        return read_file(found)
    if not (found / MANIFEST).is_file():
        raise ValueError(f"{found} is not a set of tokens: it has no {MANIFEST}")
    manifest = read_manifest(found)
    if any(Path(shard.file).suffix != ".parquet" for shard in manifest.shards):
        raise ValueError(
            f"{found} holds {Path(manifest.shards[0].file).suffix} files, for other programs; Lexel reads Parquet"
        )
    return TokenSet(manifest.facts, _read(found, manifest), partial(open_tokens, found.absolute()))


def _read(folder: Path, manifest: Manifest) -> Columns:
    facts, dtype = manifest.facts, smallest_dtype(manifest.facts.codebook_sizes)
    tables = []
    with tempfile.TemporaryFile() as file:
        for shard in manifest.shards:
            path = check_shard(folder, shard)
            try:
                parts = list(_unpacked(path, facts, file))
                if sum(map(len, parts)) != shard.rows:
                    raise ValueError(f"it has {sum(map(len, parts))} examples, {MANIFEST} says {shard.rows}")
            except (pa.ArrowException, ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{path} does not hold tokens of this set: {error}") from error
            tables += parts
        file.flush()
        flat = np.memmap(file, dtype, "r") if file.tell() else np.zeros(0, dtype)
    if not tables:
        raise ValueError(f"{folder} has no examples")
    whole = pa.concat_tables(tables)
    schema = whole.schema
    names = whole.column("name")
    if pc.count_distinct(names).as_py() != len(names):
        raise ValueError(f"{folder} has several examples of one name")
    shapes = pc.list_flatten(whole.column("shape")).to_numpy()
    extents = {name: whole.column(name).to_numpy().astype(np.int64) for name in _extents(schema)}
    labels = whole.column("label").to_numpy() if "label" in schema.names else None
    if labels is not None and facts.label_names and not (labels.min() >= 0 and labels.max() < len(facts.label_names)):
        raise ValueError(
            f"{folder} has labels from {labels.min()} to {labels.max()}, but {len(facts.label_names)} classes"
        )
    levels = dict(manifest.levels)
    columns = Columns(names, extents, shapes.reshape(len(whole), -1), flat, labels, levels)
    if levels:
        _check_levels(folder, columns, levels)
    return columns


def _unpacked(path: Path, facts: Facts, file: IO[bytes]) -> Iterator[pa.Table]:
    """Append the indices of a shard to a file, and yield its other columns."""
    dtype = smallest_dtype(facts.codebook_sizes)
    with pq.ParquetFile(path, memory_map=True) as shard:
        schema = shard.schema_arrow
        if schema != Table(facts, tuple(_extents(schema)), "label" in schema.names).schema:
            raise ValueError(f"its columns are {', '.join(f'{field.name} {field.type}' for field in schema)}")
        if Facts.from_json(json.loads(schema.metadata[METADATA])) != facts:
            raise ValueError(f"its metadata is not what {MANIFEST} says")
        for batch in shard.iter_batches(ROWS_AT_ONCE):
            table = pa.Table.from_batches([batch])
            if any(column.null_count for column in table.columns):
                raise ValueError("it has empty cells")
            flat = pc.list_flatten(table.column("indices")).to_numpy().astype(dtype, copy=False)
            _check(table, flat, facts)
            file.write(np.ascontiguousarray(flat).data)
            yield table.drop_columns("indices")


def _extents(schema: pa.Schema) -> list[str]:
    """Return the columns that hold the size of an example."""
    return [name for name in schema.names if name not in ("name", "shape", "indices", "label")]


def _check(table: pa.Table, flat: np.ndarray[Any, Any], facts: Facts) -> None:
    """Check that names stay in their folder, that shapes and sizes are some, and that the indices are in range."""
    if not kind_of(facts).has_ids:  # items may have any name
        require_inside(table.column("name").to_pylist())
    axes = pc.list_value_length(table.column("shape")).to_numpy()
    shapes = pc.list_flatten(table.column("shape")).to_numpy().astype(np.int64)
    if len(axes) and (axes != axes[0]).any():
        raise ValueError("its shapes have different numbers of axes")
    if (shapes < 1).any() or any((table.column(name).to_numpy() < 1).any() for name in _extents(table.schema)):
        raise ValueError("a shape or a size is below 1")
    counts = pc.list_value_length(table.column("indices")).to_numpy()
    wrong = np.flatnonzero(counts != shapes.reshape(len(axes), -1).prod(1))
    if len(wrong):
        name, shape = (table.column(column)[int(wrong[0])].as_py() for column in ("name", "shape"))
        raise ValueError(f"the example {name!r} has {counts[wrong[0]]} tokens, its shape is {shape}")
    check_range(flat, counts, facts, lambda row: table.column("name")[row].as_py())


def _check_levels(folder: Path, columns: Columns, levels: dict[tuple[int, ...], Grids]) -> None:
    """Check that every size of an example has its levels, and as many tokens as they have."""
    extents = np.stack([*columns.extents.values()], 1)
    for extent, count in {
        (tuple(row), int(shape[0])) for row, shape in zip(extents.tolist(), columns.shapes, strict=True)
    }:
        grids = levels.get(extent)
        if grids is None or sum(rows * across for rows, across in grids) != count:
            raise ValueError(f"{folder} has examples of size {extent} and {count} tokens, but levels {grids}")
