"""Which search serves which tensors: a table of backends by device, and the choice that `LEXEL_NEAREST` makes.

To add a backend for another device, write a module beside this one with a function and a `Backend` that says what the
function serves (`_cpu.py` is an example), and add a line to `BACKENDS`. Eager and compiled code then call it through
the operator `lexel::nearest_code`. The portable search takes all that it does not serve, and all that torch.export or
an ONNX export traces.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lexel._core.values import is_exporting
from lexel.nearest import _cpu, _portable, _triton
from lexel.nearest._interface import Backend

# A backend for each type of device that has one.
BACKENDS: dict[str, Backend] = {
    "cpu": _cpu.BACKEND,
    "cuda": _triton.BACKEND,
}

_choice = os.environ.get("LEXEL_NEAREST", "")
_kept = False


def available_backends() -> tuple[str, ...]:
    """Return the names that the environment variable `LEXEL_NEAREST` and `use_backend` take on this machine.

    Example:
        >>> available_backends()[0]
        'portable'
    """
    return ("portable", *(variant for backend in BACKENDS.values() for variant in backend.variants))


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Search with another backend within a `with` block, in the whole process; `LEXEL_NEAREST` does so from the start.

    Args:
        name: one of `available_backends()`.

    Raises:
        ValueError: this machine has no such backend.

    Example:
        >>> with use_backend("portable"):
        ...     print(backend())
        portable
    """
    global _choice
    if name not in available_backends():
        raise ValueError(f"name must be one of {', '.join(available_backends())}, not {name!r}")
    before, _choice = _choice, name
    try:
        yield
    finally:
        _choice = before


@contextmanager
def operator_kept() -> Iterator[None]:
    """Let exports within a `with` block hold `lexel::nearest_code` of one neighbour as an operator, to translate it."""
    global _kept
    before, _kept = _kept, True
    try:
        yield
    finally:
        _kept = before


def backend(device: str | torch.device = "cpu") -> str:
    """Say which search the tensors of a device get on this machine.

    The environment variable `LEXEL_NEAREST`, read when lexel is imported, chooses another one: `portable` for plain
    torch on all devices, or one of the compiled levels for the CPU (`plain`, `avx2`, `avx512`, `avx512_bf16`, `amx`,
    `neon`) that this machine has.

    Raises:
        ValueError: `LEXEL_NEAREST` names a backend that this machine does not have.

    Example:
        >>> backend("meta")
        'portable'
    """
    kind = torch.device(device).type
    variant, entry = variant_for(kind), BACKENDS.get(kind)
    missing = entry.missing() if entry else ""
    if entry and variant and not missing:
        return f"{entry.name}: {variant}"
    return f"portable ({missing})" if missing else "portable"


def variant_for(device_type: str) -> str | None:
    """Return the variant of the device's backend that is in use; None if the portable search is."""
    if _choice and _choice not in available_backends():
        raise ValueError(f"LEXEL_NEAREST={_choice}: expected one of {', '.join(available_backends())}")
    variants = BACKENDS[device_type].variants if device_type in BACKENDS else ()
    if _choice == "portable" or not variants:
        return None
    return _choice if _choice in variants else variants[-1]


def search(x: Tensor, codebook: Tensor, metric: str, k: int, scores: bool) -> tuple[Tensor, Tensor]:
    """Search with the backend of the tensors' device if it serves them, otherwise with the portable search.

    Arguments are already checked and without gradients. Indices are `(*positions, k)`, and so are scores if wanted.
    """
    if x.ndim > 2 and (is_exporting() or not _is_served(x, codebook, k) or not BACKENDS[x.device.type].in_place):
        return _by_rows(search, x, codebook, metric, k, scores)
    if x.is_meta:
        return _describe(x, codebook, metric, k, scores)
    if _kept and is_exporting() and k == 1 and not scores:
        wide = _wide(x, codebook)
        found, none = _operator(x.to(wide), codebook.to(wide), metric, k, scores)
        return found, none
    if is_exporting() or not _is_served(x, codebook, k):
        return _search_portably(x, codebook, metric, k, scores)
    dtypes, wide = BACKENDS[x.device.type].dtypes, _wide(x, codebook)
    x, codebook = (tensor if tensor.dtype in dtypes else tensor.to(wide) for tensor in (x, codebook))
    indices, values = _operator(x, codebook, metric, k, scores)
    return indices, values


def _by_rows(
    search_rows: Callable[[Tensor, Tensor, str, int, bool], tuple[Tensor, Tensor]],
    x: Tensor, codebook: Tensor, metric: str, k: int, scores: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Search at positions of any shape with a search that takes rows."""
    indices, values = search_rows(x.flatten(0, -2), codebook, metric, k, scores)
    shape = *x.shape[:-1], k
    return indices.reshape(shape), values.reshape(shape) if scores else values


def _wide(x: Tensor, codebook: Tensor) -> torch.dtype:
    """Return the dtype of scores."""
    return torch.promote_types(torch.promote_types(x.dtype, codebook.dtype), torch.float32)


def _is_served(x: Tensor, codebook: Tensor, k: int) -> bool:
    kind = x.device.type
    if variant_for(kind) is None:
        return False
    entry = BACKENDS[kind]
    return (
        _wide(x, codebook) in entry.dtypes
        and k <= entry.most_neighbours
        and x.shape[:-1].numel() <= entry.most_rows
        and codebook.shape[0] <= entry.most_rows
    )


def _search_portably(x: Tensor, codebook: Tensor, metric: str, k: int, scores: bool) -> tuple[Tensor, Tensor]:
    wide = _wide(x, codebook)
    return _portable.search(x.to(wide), codebook.to(wide), metric, k, scores)


def _run(x: Tensor, codebook: Tensor, metric: str, k: int, scores: bool) -> tuple[Tensor, Tensor]:
    kind = x.device.type
    variant = variant_for(kind)
    # A graph may have been compiled for a backend, and the portable search chosen since.
    if variant is None or BACKENDS[kind].missing():
        return _by_rows(_search_portably, x, codebook, metric, k, scores)
    return BACKENDS[kind].search(x, codebook, metric, k, scores, variant)


def _describe(x: Tensor, codebook: Tensor, metric: str, k: int, scores: bool) -> tuple[Tensor, Tensor]:
    shape = *x.shape[:-1], k
    return x.new_empty(shape, dtype=torch.int64), x.new_empty(shape if scores else (0, k), dtype=_wide(x, codebook))


# The operator, which torch.compile does not look into. It is registered with torch.library.impl because an operator of
# torch.library.custom_op takes 30 microseconds a call instead of 8.
torch.library.define(
    "lexel::nearest_code",
    "(Tensor x, Tensor codebook, str metric, int k, bool scores) -> (Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
torch.library.impl("lexel::nearest_code", tuple(BACKENDS), _run)
torch.library.register_fake("lexel::nearest_code", _describe)
_operator = torch.ops.lexel.nearest_code.default
