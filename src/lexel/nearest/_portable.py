"""Nearest-code search in plain torch, for every device.

There are two passes, as in the compiled kernel. The first scores codes by a matrix product, tile by tile, and keeps the
few best for every input. A bound on its rounding error shows for which inputs the k best codes are certain; for the
others, the second pass compares true differences in float64. See docs/nearest-code-search.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lexel._core.values import double, is_exporting

# Numbers in one tile of scores: enough for an efficient matrix product, and the memory does not grow with N or K.
TILE = 1 << 20
WIDTH = 1 << 13  # codes in a tile, at most
SPARE = 15  # candidates beyond k that are compared where k + 1 do not suffice


def search(x: Tensor, codebook: Tensor, metric: str, k: int, scores: bool) -> tuple[Tensor, Tensor]:
    """Find the nearest codes `(N, k)`, and their scores (`(0, k)` unless asked for). Arguments are already checked."""
    traced = torch.compiler.is_compiling() or is_exporting()
    if not traced:
        for name, tensor in (("codebook", codebook), ("x", x)):
            if tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
                raise ValueError(f"{name} contains NaN or infinity")
    with torch.autocast(x.device.type, enabled=False):
        first = _FirstPass(codebook, metric)
        if traced:  # a graph cannot depend on the data: it always takes three more candidates
            indices = decide(x, codebook, first.best(x, min(k + 3, len(codebook)))[1], metric, k)
        else:
            indices = torch.empty((len(x), k), dtype=torch.int64, device=x.device)
            height = TILE // min(len(codebook), WIDTH)
            for start in range(0, len(x), height):
                rows = x[start : start + height]
                indices[start : start + len(rows)] = _exactly(first, rows, codebook, metric, k)
        if not scores:
            return indices, x.new_empty((0, k))
        values = sliced_scores(x, codebook, indices, metric)
        return indices, (-values if metric == "euclidean" else values).to(x.dtype)


def _exactly(first: _FirstPass, x: Tensor, codebook: Tensor, metric: str, k: int) -> Tensor:
    """Decide as much as k + 1 candidates can, then as much as a few more can, then the rest by brute force."""
    count = len(codebook)
    values, indices = first.best(x, min(k + 1, count))
    doubt = first.doubt(x, values, k)
    indices = indices[:, :k] if k == 1 else decide(x, codebook, indices, metric, k)
    rows = doubt.nonzero()[:, 0]
    if len(rows) and count > k:
        again = x[rows]
        values, candidates = first.best(again, min(k + SPARE, count))
        indices[rows] = decide(again, codebook, candidates, metric, k)
        if count > k + SPARE:
            rows = rows[first.doubt(again, values, k)]
            indices[rows] = _brute_force_without_copies(x[rows], codebook, metric, k)
    return indices


def _brute_force_without_copies(x: Tensor, codebook: Tensor, metric: str, k: int) -> Tensor:
    """Do as `brute_force`, but search only the first of equal codes, which no bound can tell apart."""
    if k == 1 and len(x) > SPARE:
        place = torch.unique(codebook, dim=0, return_inverse=True)[1]
        every = torch.arange(len(codebook), device=x.device)
        firsts = torch.full_like(every, len(codebook)).scatter_reduce(0, place, every, "amin")
        firsts = firsts[firsts < len(codebook)].sort()[0]
        if len(firsts) < len(codebook):
            return firsts[search(x, codebook[firsts], metric, 1, False)[0]]
    return brute_force(x, codebook, metric, k)


class _FirstPass:
    """Scores `<x, w> + bias`, larger is nearer, over codes `w` that are centred and scaled, so that less is rounded."""

    def __init__(self, codebook: Tensor, metric: str) -> None:
        self.codebook, self.metric = codebook, metric
        # Centring all codes does not change the order of the scores, but reduces the rounding of their sums.
        self.centre = codebook.mean(0) if metric != "cosine" else torch.zeros_like(codebook[0])
        low, high = codebook.aminmax(dim=0)
        top = torch.maximum(high - self.centre, self.centre - low).max()
        self.scale = _power_of_two(top) if metric != "cosine" else torch.ones_like(top)
        # A codebook of several tiles is centred and scaled again for each tile: a second copy might not fit in memory.
        self.whole = self._pack(codebook) if len(codebook) <= WIDTH else None
        self.norm = codebook.new_zeros(())
        for _, codes, _ in self.tiles():
            self.norm = torch.maximum(self.norm, torch.linalg.vecdot(codes, codes).max().sqrt())

    def _pack(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        codes = _unit(codes) if self.metric == "cosine" else (codes - self.centre) * self.scale
        bias = torch.linalg.vecdot(codes, codes) / -2
        return codes, bias if self.metric == "euclidean" else torch.zeros_like(bias)

    def tiles(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield the first index, the codes and the biases of every tile."""
        if self.whole:
            yield 0, *self.whole
            return
        for start in range(0, len(self.codebook), WIDTH):
            yield start, *self._pack(self.codebook[start : start + WIDTH])

    def rows(self, x: Tensor) -> Tensor:
        """Centre and scale the inputs for the scores."""
        if self.metric == "euclidean":
            return (x - self.centre) * self.scale
        return x * _power_of_two(x.abs().amax(1, keepdim=True))

    def best(self, x: Tensor, keep: int) -> tuple[Tensor, Tensor]:
        """Return the `keep` best scores of every row, best first, and the indices of their codes."""
        rows, found = self.rows(x), None
        for start, codes, bias in self.tiles():
            values, indices = _top(torch.addmm(bias, rows, codes.T), min(keep, len(codes)))
            if found is None:
                found = values, indices
            else:
                values, indices = torch.cat([found[0], values], 1), torch.cat([found[1], indices + start], 1)
                values, order = values.topk(min(keep, values.shape[1]), 1)
                found = values, indices.gather(1, order)
        assert found is not None
        return found

    def doubt(self, x: Tensor, values: Tensor, k: int) -> Tensor:
        """Return for each row whether codes beyond its scores may be among the k best; the docs derive the bound."""
        length, norm = self.rows(x).norm(dim=1) + 1e-18, self.norm
        terms = (x.shape[1] + 8) * 2.0**-24 if x.dtype != torch.float64 else (x.shape[1] + 8) * 2.0**-53
        error = 1.1 * (terms + 2 * _rounding(x)) * norm * (length + norm) + 1e-30
        if self.metric == "euclidean":
            error = error + (x.shape[1] + 8) * 2.0**-52 * length.square()
        certain: Tensor = values[:, -1] + error < values[:, k - 1] - error
        return ~certain  # NaN is doubt


def decide(x: Tensor, codebook: Tensor, candidates: Tensor, metric: str, k: int) -> Tensor:
    """Choose the `k` best of the candidates `(N, C)` by their true scores; the lowest index on a tie."""
    best = [
        _lowest_first(true_scores(x[s], codebook, candidates[s], metric), candidates[s], k)
        for s in _slices(x, candidates.shape[1])
    ]
    return best[0] if len(best) == 1 else torch.cat([*best, candidates[:0, :k]])


def brute_force(x: Tensor, codebook: Tensor, metric: str, k: int) -> Tensor:
    """Choose the `k` best of all codes by their true scores."""
    every, best = torch.arange(len(codebook), device=x.device), []
    for row in x:
        found = torch.empty((1, 0), dtype=torch.int64, device=x.device)
        for part in torch.split(every, max(k, TILE // x.shape[1])):
            candidates = torch.cat([found, part[None]], 1)
            found = _lowest_first(true_scores(row[None], codebook, candidates, metric), candidates, k)
        best.append(found)
    return torch.cat([*best, every[:0, None].expand(0, k)])


def sliced_scores(x: Tensor, codebook: Tensor, indices: Tensor, metric: str) -> Tensor:
    """Do as `true_scores`, for so many rows at a time that memory suffices."""
    parts = [true_scores(x[s], codebook, indices[s], metric) for s in _slices(x, indices.shape[1])]
    return torch.cat(parts or [x.new_empty(indices.shape)])


def true_scores(x: Tensor, codebook: Tensor, indices: Tensor, metric: str) -> Tensor:
    """Return the negative squared distance, the cosine, or the dot product of every row and each of its codes.

    They are computed in float64, or in float32 on MPS, which has no float64.
    """
    x, codes = double(x)[:, None], double(codebook[indices])
    if metric == "euclidean":
        return -(x - codes).square().sum(-1)
    products = (x * codes).sum(-1)
    if metric == "dot":
        return products
    norms = codes.square().sum(-1).sqrt() * x.square().sum(-1).sqrt()
    return torch.where(norms > 0, products / norms.where(norms > 0, 1), 0)


def _lowest_first(scores: Tensor, indices: Tensor, k: int) -> Tensor:
    if k == 1:
        tied = scores == scores.amax(1, keepdim=True)
        return indices.where(tied, torch.iinfo(torch.int64).max).amin(1, keepdim=True)
    indices, order = indices.sort(1)
    return indices.gather(1, scores.gather(1, order).sort(dim=1, descending=True, stable=True)[1][:, :k])


def _top(scores: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    if keep > 2 or scores.device.type != "cpu":
        return scores.topk(keep, 1)
    best, index = scores.max(1, keepdim=True)
    if keep == 1:
        return best, index
    second, other = scores.scatter_(1, index, -math.inf).max(1, keepdim=True)
    return torch.cat([best, second], 1), torch.cat([index, other], 1)


def _slices(x: Tensor, width: int) -> Iterator[slice]:
    if torch.compiler.is_compiling() or is_exporting():
        yield slice(None)  # a graph cannot contain a loop whose length depends on the batch
        return
    step = max(1, TILE // (width * x.shape[1]))
    for start in range(0, len(x), step):
        yield slice(start, start + step)


def _rounding(tensor: Tensor) -> float:
    """Return by how much, relatively, this device's matrix products round a factor before they multiply."""
    if tensor.dtype == torch.float64:
        return 2.0**-53
    tf32 = tensor.is_cuda and torch.backends.cuda.matmul.allow_tf32
    low = {"highest": 2.0**-24, "high": 2.0**-11, "medium": 2.0**-8}[torch.get_float32_matmul_precision()]
    return max(low, 2.0**-11 if tf32 else 2.0**-24)


def _power_of_two(top: Tensor) -> Tensor:
    """Return the power of two that brings `top` near 1, or 1 where `top` is 0."""
    exponent = (top.log2().floor() + 1).clamp(-126, 126)  # ONNX has no frexp
    return torch.exp2(-exponent).where(top > 0, 1)


def _unit(codes: Tensor) -> Tensor:
    wide = double(codes)
    norms = wide.square().sum(1, keepdim=True).sqrt()
    return (wide / norms.where(norms > 0, 1)).to(codes.dtype)
