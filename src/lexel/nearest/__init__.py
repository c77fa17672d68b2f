"""Nearest-code search: which row of the codebook lies closest to each input.

The answer is exact: what a float64 brute force would say, the lowest index on a tie, whatever the batch, the tiling or
the number of threads; docs/nearest-code-search.md says how that is proven and why it is nevertheless fast. No (N, K)
matrix is ever built. On CPU a compiled kernel does the work where it could be built; everywhere else plain torch does.
"""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from lexel.nearest import native, portable

__all__ = ["Metric", "backend", "nearest_code"]

Metric = Literal["euclidean", "cosine", "dot"]


def backend() -> str:
    """Say which search CPU tensors get on this machine.

    The environment variable `LEXEL_NEAREST` chooses another one: `portable`, or one of the compiled levels
    (`plain`, `avx2`, `avx512`, `avx512_bf16`, `amx`, `neon`) that this machine has.

    Example:
        >>> backend().split(":")[0] in ("native", "portable", "portable (no compiled kernel)")
        True
    """
    level = native.level()
    if level:
        return f"native: {level}"
    return "portable" if native.LEVELS else "portable (no compiled kernel)"


@overload
def nearest_code(
    x: Tensor, codebook: Tensor, *, metric: Metric = ..., k: int = ..., return_scores: Literal[False] = ...
) -> Tensor: ...
@overload
def nearest_code(
    x: Tensor, codebook: Tensor, *, metric: Metric = ..., k: int = ..., return_scores: Literal[True]
) -> tuple[Tensor, Tensor]: ...
def nearest_code(
    x: Tensor, codebook: Tensor, *, metric: Metric = "euclidean", k: int = 1, return_scores: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Find the nearest code, or the `k` nearest codes, of every input.

    Args:
        x: inputs, `(N, D)`, any floating dtype and any strides; finite.
        codebook: codes, `(K, D)`, likewise, on the same device.
        metric: `"euclidean"` (least distance), `"cosine"` (largest cosine; a zero vector has cosine 0 with everything)
            or `"dot"` (largest product).
        k: how many codes for each input.
        return_scores: also return the squared distances, cosines or products of the codes found. They carry no
            gradient; recompute them from `codebook[indices]` where one is needed.

    Returns:
        int64 indices, `(N,)` if `k` is 1, otherwise `(N, k)` with the best first; the lowest index on a tie. With
        `return_scores`, a pair of the indices and of scores in that shape, float32 (float64 for float64 input).

    Raises:
        TypeError: `x` or `codebook` is not a floating tensor, or the metric is not one of the three.
        ValueError: shapes do not match, the codebook is empty, `k` is not in 1 .. K, the devices differ, or something
            is NaN or infinite (under torch.compile and torch.export the last is left to the kernel, or unchecked).

    Example:
        >>> codebook = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
        >>> nearest_code(torch.tensor([[0.9, 0.2], [0.0, 2.0]]), codebook)
        tensor([1, 2])
        >>> nearest_code(torch.tensor([[0.0, 2.0]]), codebook, k=2, return_scores=True)
        (tensor([[2, 0]]), tensor([[1., 4.]]))
    """
    _check(x, codebook, metric, k)
    x, codebook = x.detach(), codebook.detach()
    dtype = torch.promote_types(torch.promote_types(x.dtype, codebook.dtype), torch.float32)
    if _use_native(x, dtype, k):
        find = native.search_op if torch.compiler.is_compiling() else native.search
        indices, scores = find(x, codebook, metric, k, return_scores)
    else:
        indices, scores = portable.search(x.to(dtype), codebook.to(dtype), metric, k, return_scores)
    if k == 1:
        indices, scores = indices[:, 0], scores[:, 0]
    return (indices, scores) if return_scores else indices


def _use_native(x: Tensor, dtype: torch.dtype, k: int) -> bool:
    return (
        x.device.type == "cpu"
        and dtype == torch.float32
        and k <= native.MOST_NEIGHBOURS
        and not portable.is_exporting()
        and x.shape[0] < native.MOST_ROWS
        and native.level() is not None
    )


def _check(x: Tensor, codebook: Tensor, metric: str, k: int) -> None:
    for name, tensor, rows in (("x", x, "N"), ("codebook", codebook, "K")):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name} must be a floating tensor, not {kind}; convert it with .float()")
        if tensor.ndim != 2:
            raise ValueError(f"{name} must be ({rows}, D), not of shape {tuple(tensor.shape)}")
    if metric not in native.METRICS:
        raise TypeError(f"metric must be one of {', '.join(native.METRICS)}, not {metric!r}")
    if x.device != codebook.device:
        raise ValueError(f"x is on {x.device} and codebook on {codebook.device}; move one of them")
    if x.shape[1] != codebook.shape[1]:
        raise ValueError(f"x has {x.shape[1]} dimensions and codebook has {codebook.shape[1]}")
    if codebook.shape[0] == 0 or codebook.shape[1] == 0:
        raise ValueError(f"codebook is empty: its shape is {tuple(codebook.shape)}")
    if not 1 <= k <= codebook.shape[0]:
        raise ValueError(f"k must be between 1 and the {codebook.shape[0]} codes, not {k}")
