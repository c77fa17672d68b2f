"""Writing vectors into one file, row by row."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO

import numpy as np
from torch import Tensor

from lexel._core.console import messages
from lexel._core.files import written_beside

__all__ = ["WRITERS"]

Write = Callable[[Tensor], None]
GROUP = 4096  # rows of a row group
MOST_DIGITS = 19  # of which every number fits 64 bits


@contextmanager
def write_npy(out: Path, names: Sequence[str]) -> Iterator[Write]:
    """Write an array `(N, D)` of float32, whole or not at all; a message says if it loses names."""
    with written_beside(out) as temporary, temporary.open("wb") as file:
        yield array_writer(file, len(names))
    if items_of(names) != list(range(len(names))):
        messages.print(
            f"{out} does not name its {len(names):,} vectors, such as {names[0]!r}: a .npz or .parquet file does",
            style="yellow",
            soft_wrap=True,
        )


@contextmanager
def write_npz(out: Path, names: Sequence[str]) -> Iterator[Write]:
    """Write an archive of the arrays `item`, whole numbers if all are, and `embedding`; whole or not at all."""
    with written_beside(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open("item.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array(file, np.array(items_of(names)), allow_pickle=False)
        with archive.open("embedding.npy", "w", force_zip64=True) as file:
            yield array_writer(file, len(names))


def array_writer(file: IO[bytes], count: int) -> Write:
    """Return what writes rows of an array `(count, D)` of float32, the first one after its header."""
    begun = False

    def write(vector: Tensor) -> None:
        nonlocal begun
        if not begun:
            shape = {"descr": "<f4", "fortran_order": False, "shape": (count, len(vector))}
            np.lib.format.write_array_header_1_0(file, shape)
            begun = True
        file.write(vector.numpy().astype("<f4").tobytes())

    return write


def items_of(names: Sequence[str]) -> list[int] | list[str]:
    """Return the items that have these names: whole numbers if all are."""
    if all(name.isdecimal() and len(name) < MOST_DIGITS and name == str(int(name)) for name in names):
        return [int(name) for name in names]
    return list(names)


@contextmanager
def write_parquet(out: Path, names: Sequence[str]) -> Iterator[Write]:
    """Write a table of the columns `item`, whole numbers if all are, and `embedding`; whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with written_beside(out) as temporary:
        every = items_of(names)
        item = pa.int64() if every and isinstance(every[0], int) else pa.string()
        schema = pa.schema([("item", item), ("embedding", pa.list_(pa.float32()))])
        waiting: list[Tensor] = []
        written = 0
        with pq.ParquetWriter(temporary, schema) as file:

            def flush() -> None:
                nonlocal written
                cells = [vector.numpy() for vector in waiting]
                items = every[written : written + len(cells)]
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
    {".npy": write_npy, ".npz": write_npz, ".parquet": write_parquet}
)
