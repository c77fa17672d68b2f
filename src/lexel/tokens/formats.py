"""The formats of a shard. Lexel reads Parquet and safetensors again; the others are for other programs."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from lexel.tokens.facts import Grids, levels_as_json
from lexel.tokens.file import write_file
from lexel.tokens.rows import Row, Table

__all__ = ["FORMATS", "Format"]

Levels = Mapping[tuple[int, ...], Grids]


class Format(NamedTuple):
    """How a shard is written.

    Attributes:
        suffix: of its file.
        write: writes groups of rows into a file at a path. It is also given the grids of examples by their extent,
            where their shape does not say it; they are complete when the last group has come.
    """

    suffix: str
    write: Callable[[Path, Iterable[Sequence[Row]], Table, Levels], None]


def write_parquet(path: Path, groups: Iterable[Sequence[Row]], table: Table, levels: Levels) -> None:
    """Write Parquet, with a row group for each group of rows; the list of shards has the grids."""
    del levels
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for rows in groups:
            writer.write_table(table.arrow(rows), row_group_size=max(len(rows), 1))


def write_safetensors(path: Path, groups: Iterable[Sequence[Row]], table: Table, levels: Levels) -> None:
    """Write safetensors: a tensor for each example."""
    write_file(path, (row for rows in groups for row in rows), table.facts, levels)


def write_npz(path: Path, groups: Iterable[Sequence[Row]], table: Table, levels: Levels) -> None:
    """Write an array for each column, which numpy reads without pickle.

    `indices` and `shape` are those of all examples one after the other; those of example i begin at
    `indices_starts[i]` and `shape_starts[i]`. `lexel` is the text of the facts as JSON, with the grids of examples that
    consist of several as `levels`.
    """
    arrays: dict[str, Any] = {}
    for name, values in table.columns([row for rows in groups for row in rows]).items():
        if isinstance(values, tuple):
            arrays[f"{name}_starts"], arrays[name] = values
        else:
            arrays[name] = np.array(values, np.str_ if name == "name" else None)
    facts = {**table.facts.as_json(), **({"levels": levels_as_json(levels)} if levels else {})}
    arrays["lexel"] = np.array(json.dumps(facts, sort_keys=True))
    with path.open("wb") as file:  # given a path, numpy would add a suffix to it
        np.savez_compressed(file, **arrays)


def write_webdataset(path: Path, groups: Iterable[Sequence[Row]], table: Table, levels: Levels) -> None:
    """Write a tar archive for WebDataset: `KEY.npy`, the indices, and `KEY.json`, the other columns."""
    # The key is the number of the shard and of the row: WebDataset takes a name's first dot for the end of the key.
    numbers = count()
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for row in (row for rows in groups for row in rows):
            facts = {"name": row.name, **row.extent, "shape": row.indices.shape}
            facts |= {"label": row.label} if table.labelled else {}
            grids = levels.get(tuple(row.extent.values()))
            facts |= {"levels": grids} if grids else {}
            key, grid = f"{path.stem}-{next(numbers):06d}", io.BytesIO()
            np.save(grid, row.indices.astype(table.dtype))
            for suffix, content in (("npy", grid.getvalue()), ("json", json.dumps(facts).encode())):
                entry = tarfile.TarInfo(f"{key}.{suffix}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))


FORMATS = {
    "parquet": Format(".parquet", write_parquet),
    "safetensors": Format(".safetensors", write_safetensors),
    "npz": Format(".npz", write_npz),
    "webdataset": Format(".tar", write_webdataset),
}
