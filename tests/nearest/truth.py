"""What the search must say: float64 over everything, row by row."""

import torch
from torch import Tensor


def scores(x: Tensor, codebook: Tensor, metric: str) -> Tensor:
    """Larger is nearer, `(N, K)`."""
    x, codebook = x.double()[:, None], codebook.double()
    if metric == "euclidean":
        return -(x - codebook).square().sum(-1)
    products = (x * codebook).sum(-1)
    if metric == "dot":
        return products
    norms = codebook.norm(dim=1)
    return torch.where(norms > 0, products / norms.where(norms > 0, 1), 0)


def assert_nearest(found: Tensor, x: Tensor, codebook: Tensor, metric: str) -> None:
    """The true scores of what was found are the k best, in order, and the index is the lowest among exact ties.

    float64 itself rounds: scores that agree to some 1e-13 of what they are summed from count as a tie here, unless the
    codes are equal, when the lower index must win.
    """
    k = 1 if found.ndim == 1 else found.shape[1]
    found = found.reshape(-1, k)
    true = scores(x, codebook, metric)
    best = true.sort(dim=1, descending=True, stable=True)
    size = true.abs().amax(1, keepdim=True)
    if metric != "euclidean":
        size = (x.double()[:, None] * codebook.double()).abs().sum(-1)
        size = size.amax(1, keepdim=True) if metric == "dot" else x.double().norm(dim=1, keepdim=True)
    else:
        size = best.values[:, :k].abs()
    close = (true.gather(1, found) - best.values[:, :k]).abs() <= 1e-13 * x.shape[1] * size
    assert close.all(), "a code that is not the nearest"
    twins = (codebook[found[:, 0]][:, None] == codebook).all(-1)
    assert (twins.int().argmax(1) == found[:, 0]).all(), "not the lowest index among equal codes"
    assert all(len(set(row)) == k for row in found.tolist()), "a code twice"
