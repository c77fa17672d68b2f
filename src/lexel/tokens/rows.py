"""Rows of tokens, and the columns of the table that they make."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

try:
    import pyarrow as pa
except ImportError as error:
    raise ImportError("token data sets need pyarrow: pip install 'lexel[train]'") from error

from lexel.tokens.facts import Facts, smallest_dtype

__all__ = ["METADATA", "Row", "Table"]

METADATA = b"lexel"  # the entry of the schema's metadata that holds all facts


@dataclass(frozen=True)
class Row:
    """The tokens of one example.

    Attributes:
        name: of the example.
        extent: its size by name, such as height and width.
        indices: its tokens, of any integer type.
        label: its class; None where the data has no labels.
    """

    name: str
    extent: Mapping[str, int]
    indices: np.ndarray[Any, Any]
    label: int | None = None


@dataclass(frozen=True)
class Table:
    """What the columns of rows are.

    Attributes:
        facts: what is true of all tokens.
        extents: the names of the columns that hold an example's size.
        labelled: whether there is a column `label`.
    """

    facts: Facts
    extents: tuple[str, ...]
    labelled: bool

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The smallest type that holds the indices."""
        return smallest_dtype(self.facts.codebook_sizes)

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns in Arrow's types, with the facts as metadata."""
        columns = [("name", pa.string()), *((extent, pa.int32()) for extent in self.extents)]
        columns += [("shape", pa.list_(pa.int32())), ("indices", pa.list_(pa.from_numpy_dtype(self.dtype)))]
        columns += [("label", pa.int64())] if self.labelled else []
        return pa.schema(columns, metadata={METADATA: json.dumps(self.facts.as_json(), sort_keys=True)})

    def columns(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the columns of rows by name: those of numbers and lists as arrays, lists with their offsets."""
        shapes = [np.array(row.indices.shape, np.int32) for row in rows]
        return {
            "name": [row.name for row in rows],
            **{extent: np.array([row.extent[extent] for row in rows], np.int32) for extent in self.extents},
            "shape": joined(shapes, np.dtype(np.int32)),
            "indices": joined([row.indices.reshape(-1) for row in rows], self.dtype),
            **({"label": np.array([row.label for row in rows], np.int64)} if self.labelled else {}),
        }

    def arrow(self, rows: Sequence[Row]) -> pa.Table:
        """Return rows as an Arrow table."""
        arrays = [
            pa.ListArray.from_arrays(pa.array(values[0], pa.int32()), pa.array(values[1]))
            if isinstance(values, tuple)
            else pa.array(values)
            for values in self.columns(rows).values()
        ]
        return pa.table(arrays, schema=self.schema)


def joined(lists: Sequence[np.ndarray[Any, Any]], dtype: np.dtype[Any]) -> tuple[np.ndarray[Any, Any], ...]:
    """Return where each list begins and the last one ends, and all values one after the other."""
    starts = np.cumsum([0, *map(len, lists)])
    return starts, np.concatenate([np.zeros(0, dtype), *(each.astype(dtype) for each in lists)])
