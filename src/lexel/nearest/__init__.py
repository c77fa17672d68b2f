"""Nearest-code search: which row of the codebook lies closest to each input.

The answer is exact: that of a float64 brute force, with the lowest index on a tie, whatever the batch, the tiling or
the number of threads. docs/nearest-code-search.md proves it and explains why the search is still fast. No (N, K)
matrix is ever built. A device's backend does the work where it has one (on CPU, a compiled kernel); plain torch does it
everywhere else. `_dispatch.py` has the table of backends and says how to add one.
"""

from __future__ import annotations

from typing import Literal, overload

from torch import Tensor

from lexel.nearest import _dispatch
from lexel.nearest._dispatch import available_backends, backend, use_backend
from lexel.nearest._interface import METRICS, Metric

__all__ = ["Metric", "available_backends", "backend", "nearest_code", "use_backend"]


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
        x: inputs, `(N, D)` or any other shape that ends in D, `(*positions, D)`; any floating dtype and any strides;
            finite. On a GPU inputs with the channels first, such as ``features.movedim(1, -1)``, are read where they
            lie.
        codebook: codes, `(K, D)`, likewise, on the same device.
        metric: `"euclidean"` (smallest distance), `"cosine"` (largest cosine; that of a zero vector is 0) or `"dot"`
            (largest dot product).
        k: how many codes for each input.
        return_scores: also return the squared distances, cosines or products of the codes found. They carry no
            gradient; recompute them from `codebook[indices]` where one is needed.

    Returns:
        int64 indices, `(N,)` or `(*positions,)` if `k` is 1, otherwise `(N, k)` or `(*positions, k)` with the best
        first; the lowest index on a tie. With `return_scores`, a pair of the indices and of scores in that shape,
        float32 (float64 for float64 input).

    Raises:
        TypeError: `x` or `codebook` is not a floating tensor, or the metric is not one of the three.
        ValueError: shapes do not match, the codebook is empty, `k` is not in 1 .. K, the devices differ, or a number is
            NaN or infinite (under torch.compile only a backend checks for that, under torch.export nothing does).

    Example:
        >>> import torch
        >>> codebook = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
        >>> nearest_code(torch.tensor([[0.9, 0.2], [0.0, 2.0]]), codebook)
        tensor([1, 2])
        >>> nearest_code(torch.tensor([[0.0, 2.0]]), codebook, k=2, return_scores=True)
        (tensor([[2, 0]]), tensor([[1., 4.]]))
    """
    _check(x, codebook, metric, k)
    indices, scores = _dispatch.search(x.detach(), codebook.detach(), metric, k, return_scores)
    if k == 1:
        indices, scores = indices[..., 0], scores[..., 0]
    return (indices, scores) if return_scores else indices


def _check(x: Tensor, codebook: Tensor, metric: str, k: int) -> None:
    for name, tensor, shape in (("x", x, "(*positions, D)"), ("codebook", codebook, "(K, D)")):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name} must be a floating tensor, not {kind}; convert it with .float()")
        if tensor.ndim < 2 or (name == "codebook" and tensor.ndim > 2):
            raise ValueError(f"{name} must be {shape}, not of shape {tuple(tensor.shape)}")
    if metric not in METRICS:
        raise TypeError(f"metric must be one of {', '.join(METRICS)}, not {metric!r}")
    if x.device != codebook.device:
        raise ValueError(f"x is on {x.device} and codebook on {codebook.device}; move one of them")
    if x.shape[-1] != codebook.shape[1]:
        raise ValueError(f"x has {x.shape[-1]} dimensions and codebook has {codebook.shape[1]}")
    if codebook.shape[0] == 0 or codebook.shape[1] == 0:
        raise ValueError(f"codebook is empty: its shape is {tuple(codebook.shape)}")
    if not 1 <= k <= codebook.shape[0]:
        raise ValueError(f"k must be between 1 and the {codebook.shape[0]} codes, not {k}")
