"""The backend for CPU tensors: finds the compiled kernel (csrc/) and calls it through its C interface."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import torch
from torch import Tensor

from lexel.nearest._interface import Backend

_FILE = "_kernel.so"
_METRICS = {"euclidean": 0, "cosine": 1, "dot": 2}  # as csrc/level.h numbers them
_ERRORS: dict[int, tuple[type[Exception], str]] = {  # by the status that csrc/nearest.h lists
    1: (ValueError, "codebook contains NaN or infinity"),
    2: (ValueError, "x contains NaN or infinity"),
    4: (MemoryError, "nearest-code search: out of memory or threads"),
}


def _load() -> ctypes.CDLL | None:
    here = Path(__file__).with_name(_FILE)
    # An editable install leaves the Python files here and puts the kernel among the installed packages.
    for path in (here, *(Path(entry, *here.parts[-3:]) for entry in sys.path)):
        if path.is_file():
            try:
                library = ctypes.CDLL(str(path))
            except OSError:
                continue
            library.lexel_levels.restype = ctypes.c_char_p
            pointer, integer = ctypes.c_void_p, ctypes.c_int64
            library.lexel_nearest.argtypes = [
                pointer, integer, integer, integer, pointer, integer, integer, integer, integer,
                ctypes.c_int, integer, ctypes.c_int, ctypes.c_char_p, pointer, pointer,
            ]  # fmt: skip
            if pool := _openmp_pool():
                library.lexel_use_pool(ctypes.c_void_p(pool))
            return library
    return None


def _openmp_pool() -> int | None:
    """Return the address of `GOMP_parallel` in the OpenMP runtime that torch brought along and loaded, or None."""
    folder = Path(torch.__file__).parent
    for path in (*folder.glob("lib/lib*omp*.so*"), *folder.parent.glob("torch.libs/lib*omp*.so*")):
        try:
            loaded = ctypes.CDLL(str(path), os.RTLD_NOW | os.RTLD_NOLOAD)
            return ctypes.cast(loaded.GOMP_parallel, ctypes.c_void_p).value
        except (OSError, AttributeError):  # not loaded, or not an OpenMP runtime
            continue
    return None


def _search(x: Tensor, codebook: Tensor, metric: str, k: int, scores: bool, variant: str) -> tuple[Tensor, Tensor]:
    assert _library is not None
    indices = torch.empty((len(x), k), dtype=torch.int64)
    values = torch.empty((len(x), k) if scores else (0, k), dtype=torch.float32)
    status = _library.lexel_nearest(
        x.data_ptr(), len(x), *x.stride(),
        codebook.data_ptr(), len(codebook), *codebook.stride(),
        x.shape[1], _METRICS[metric], k, torch.get_num_threads(), variant.encode(),
        indices.data_ptr(), values.data_ptr() if scores else None,
    )  # fmt: skip
    if status:
        kind, message = _ERRORS.get(status, (RuntimeError, f"nearest-code search failed with status {status}"))
        raise kind(message)
    return indices, values


_library = _load()

BACKEND = Backend(
    name="native",
    search=_search,
    # The instruction sets that both the kernel and this processor know.
    variants=tuple(_library.lexel_levels().decode().split()) if _library else (),
    missing=lambda: "" if _library else "no compiled kernel",
    dtypes=(torch.float32,),
    most_rows=2**31 - 1,  # csrc/level.h: MOST_ROWS
    most_neighbours=64,  # csrc/level.h: MOST_NEIGHBOURS
)
