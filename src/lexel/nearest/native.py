"""The compiled search: finds the library, calls it through its C interface, and makes it an operator of torch."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import torch
from torch import Tensor

LIBRARY = "_kernel.so"
METRICS = {"euclidean": 0, "cosine": 1, "dot": 2}
# Beyond these the portable path serves: the lists of the first pass hold 4 k groups, and rows are numbered in 32 bits.
MOST_NEIGHBOURS = 64
MOST_ROWS = 2**31


def _load() -> ctypes.CDLL | None:
    here = Path(__file__).with_name(LIBRARY)
    # An editable install leaves the Python files here and puts the library among the installed packages.
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
    """Address of `GOMP_parallel` in the OpenMP runtime that torch has loaded; None if torch brings none of its own."""
    folder = Path(torch.__file__).parent
    for path in (*folder.glob("lib/lib*omp*.so*"), *folder.parent.glob("torch.libs/lib*omp*.so*")):
        try:
            loaded = ctypes.CDLL(str(path), os.RTLD_NOW | os.RTLD_NOLOAD)
            return ctypes.cast(loaded.GOMP_parallel, ctypes.c_void_p).value
        except (OSError, AttributeError):  # not loaded, or not an OpenMP runtime
            continue
    return None


_library = _load()
# Instruction sets that both the library and this processor know, the preferred one last; empty without the library.
LEVELS: tuple[str, ...] = tuple(_library.lexel_levels().decode().split()) if _library else ()


def level() -> str | None:
    """The level in use: the best, or what `LEXEL_NEAREST` asks for; None for the portable path."""
    wanted = os.environ.get("LEXEL_NEAREST", "")
    if wanted == "portable":
        return None
    if wanted and wanted not in LEVELS:
        raise ValueError(f"LEXEL_NEAREST={wanted}: expected portable or one of {', '.join(LEVELS) or '(none built)'}")
    return wanted or (LEVELS[-1] if LEVELS else None)


def search(x: Tensor, codebook: Tensor, metric: str, k: int, scores: bool) -> tuple[Tensor, Tensor]:
    """Nearest codes `(N, k)` of CPU tensors, and their scores (empty unless asked for); arguments already checked."""
    name = level()
    assert _library is not None
    assert name is not None
    x, codebook = x.float(), codebook.float()
    indices = torch.empty((len(x), k), dtype=torch.int64)
    values = torch.empty((len(x), k) if scores else (0, k), dtype=torch.float32)
    status = _library.lexel_nearest(
        x.data_ptr(), len(x), *x.stride(),
        codebook.data_ptr(), len(codebook), *codebook.stride(),
        x.shape[1], METRICS[metric], k, torch.get_num_threads(), name.encode(),
        indices.data_ptr(), values.data_ptr() if scores else None,
    )  # fmt: skip
    if status:
        raise {
            1: ValueError("codebook contains NaN or infinity"),
            2: ValueError("x contains NaN or infinity"),
        }.get(status, MemoryError(f"nearest-code search failed (status {status})"))
    return indices, values


@torch.library.custom_op("lexel::nearest_code", mutates_args=(), device_types="cpu")
def search_op(x: Tensor, codebook: Tensor, metric: str, k: int, scores: bool) -> tuple[Tensor, Tensor]:
    """`search` as an operator: what torch.compile puts into its graph."""
    return search(x, codebook, metric, k, scores)


@search_op.register_fake
def _(x: Tensor, codebook: Tensor, metric: str, k: int, scores: bool) -> tuple[Tensor, Tensor]:
    rows = x.shape[0]
    return (
        x.new_empty((rows, k), dtype=torch.int64),
        x.new_empty((rows if scores else 0, k), dtype=torch.float32),
    )
