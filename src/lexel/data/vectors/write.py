"""Writing vectors into one file, row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import MappingProxyType

import numpy as np
from torch import Tensor

from lexel._core.files import written_beside

__all__ = ["WRITERS"]

Write = Callable[[Tensor], None]
GROUP = 4096  # rows of a row group
MOST_DIGITS = 19  # of which every number fits 64 bits


@contextmanager
def write_npy(out: Path, names: Sequence[str]) -> Iterator[Write]:
    """Write an array `(N, D)` of float32, whole or not at all; the names are left out."""
    with written_beside(out) as temporary, temporary.open("wb") as file:
        written = 0

        def write(vector: Tensor) -> None:
            nonlocal written
            if not written:
                shape = {"descr": "<f4", "fortran_order": False, "shape": (len(names), len(vector))}
                np.lib.format.write_array_header_1_0(file, shape)
            file.write(vector.numpy().astype("<f4").tobytes())
            written += 1

        yield write


@contextmanager
def write_parquet(out: Path, names: Sequence[str]) -> Iterator[Write]:
    """Write a table of the columns `item`, whole numbers if all are, and `embedding`; whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with written_beside(out) as temporary:
        numbers = all(name.isdecimal() and len(name) < MOST_DIGITS and name == str(int(name)) for name in names)
        schema = pa.schema([("item", pa.int64() if numbers else pa.string()), ("embedding", pa.list_(pa.float32()))])
        waiting: list[Tensor] = []
        written = 0
        with pq.ParquetWriter(temporary, schema) as file:

            def flush() -> None:
                nonlocal written
                cells = [vector.numpy() for vector in waiting]
                items: list[int] | list[str] = list(names[written : written + len(cells)])
                items = list(map(int, items)) if numbers else items
                file.write_table(pa.table({"item": items, "embedding": cells}, schema=schema))
                written += len(cells)
                waiting.clear()

            def write(vector: Tensor) -> None:
                waiting.append(vector.float())
                if len(waiting) == GROUP:
                    flush()

            yield write
            flush()


WRITERS: Mapping[str, Callable[[Path, Sequence[str]], AbstractContextManager[Write]]] = MappingProxyType(
    {".npy": write_npy, ".parquet": write_parquet}
)
