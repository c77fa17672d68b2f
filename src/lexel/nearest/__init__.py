"""Nearest-code search: which row of the codebook lies closest to each input."""

from __future__ import annotations

from torch import Tensor

from lexel.nearest import portable

__all__ = ["nearest_code"]


def nearest_code(x: Tensor, codebook: Tensor, *, metric: str = "euclidean") -> Tensor:
    """Find the nearest code of every input by Euclidean distance, without ever building the (N, K) distance matrix.

    Args:
        x: inputs, `(N, D)`, floating.
        codebook: codes, `(K, D)`, the same dtype.
        metric: "euclidean" for the least distance, "dot" for the largest dot product.

    Returns:
        int64 `(N,)`; on a tie the lowest index.

    Example:
        >>> import torch
        >>> nearest_code(torch.tensor([[0.9], [-3.0]]), torch.tensor([[0.0], [1.0]]))
        tensor([1, 0])
    """
    return portable.nearest_code(x, codebook, metric)
