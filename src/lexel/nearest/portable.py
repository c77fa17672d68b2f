"""Nearest-code search in plain torch, for every device."""

from __future__ import annotations

import torch
from torch import Tensor

# One tile of distances holds this many numbers: large enough for the matrix product to be efficient, small enough for
# the memory not to grow with N or K.
TILE = 1 << 20


def nearest_code(x: Tensor, codebook: Tensor, metric: str = "euclidean") -> Tensor:
    """Index of the nearest row of `codebook` (K, D) for every row of `x` (N, D); the lowest index on a tie."""
    # Distances do not change when everything moves together; the rounding of their expanded form does.
    if metric == "euclidean":
        centre = codebook.mean(0)
        x, codebook = x - centre, codebook - centre
    half_norms = codebook.square().sum(1) / 2 if metric == "euclidean" else codebook.new_zeros(len(codebook))
    indices = torch.empty(len(x), dtype=torch.int64, device=x.device)
    width = min(len(codebook), TILE)
    height = max(1, TILE // width)
    for start in range(0, len(x), height):
        rows = x[start : start + height]
        best = index = None
        for offset in range(0, len(codebook), width):
            codes = slice(offset, offset + width)
            values, positions = torch.addmm(half_norms[codes], rows, codebook[codes].T, alpha=-1).min(1)
            positions += offset
            if best is None or index is None:
                best, index = values, positions
            else:
                nearer = values < best
                best, index = torch.where(nearer, values, best), torch.where(nearer, positions, index)
        if index is not None:
            indices[start : start + height] = index
    return indices
