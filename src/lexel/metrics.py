"""How much of a codebook is alive."""

from __future__ import annotations

import torch
from torch import Tensor

from lexel.distributed import all_sum, gather_rows

__all__ = ["perplexity", "usage_counts", "usage_perplexity"]

# Above this many codes their usage is counted by sorting the indices rather than in a vector of K numbers.
MOST_COUNTED = 1 << 16


def usage_counts(indices: Tensor, num_embeddings: int) -> Tensor:
    """Count how often each code was chosen.

    Args:
        indices: int64, any shape; negative entries (masked positions) are not counted.
        num_embeddings: K.

    Returns:
        float32 `(K,)`.

    Example:
        >>> usage_counts(torch.tensor([0, 2, 2, -1]), 3)
        tensor([1., 0., 2.])
    """
    indices = indices.reshape(-1)
    # index_add_ rather than bincount: its output has a static shape, which torch.compile needs.
    counts = torch.zeros(num_embeddings, dtype=torch.float32, device=indices.device)
    return counts.index_add_(0, indices.clamp_min(0), (indices >= 0).to(counts.dtype))


def perplexity(counts: Tensor) -> Tensor:
    """Exponential of the entropy of code usage: K when all codes are used alike, 1 when one code takes everything.

    exp(−Σ p_k log(p_k + 1e-10)) with p the usage frequencies, as in the VQ-VAE module of van den Oord et al. (2017).

    Args:
        counts: `(K,)`, how often each code was chosen.

    Returns:
        A scalar; 1 when nothing was counted.

    Example:
        >>> perplexity(torch.tensor([5.0, 5.0, 0.0])).round(decimals=4)
        tensor(2.)
    """
    frequencies = counts / counts.sum().clamp_min(1)
    return torch.exp(-torch.sum(frequencies * torch.log(frequencies + 1e-10)))


def usage_perplexity(indices: Tensor, num_embeddings: int, *, over_ranks: bool = True) -> Tensor:
    """Perplexity of the usage of any number of codes, over all ranks, in memory that does not grow with K.

    With more than 65,536 codes no vector of counts is made. The indices are sorted, so that each sees its own count n_i
    as the length of the run that it stands in, and the same sum is taken over positions instead of codes:
    Σ_k p_k log(p_k + 1e-10) = 1/N Σ_i log(n_i/N + 1e-10).

    Args:
        indices: int64, any shape; negative entries (masked positions) are not counted.
        num_embeddings: K.
        over_ranks: False for the indices of this rank alone, without a collective.

    Returns:
        A scalar; 1 when nothing was counted.

    Example:
        >>> usage_perplexity(torch.tensor([7, 7, 2**60, 2**60, -1]), 2**62).round(decimals=4)
        tensor(2.)
    """
    indices = indices.reshape(-1)
    if num_embeddings <= MOST_COUNTED:
        counts = usage_counts(indices, num_embeddings)
        return perplexity(*all_sum(counts) if over_ranks else (counts,))
    indices = (gather_rows(indices, absent=-1) if over_ranks else indices).sort().values
    counted = (indices >= 0).to(torch.float32)
    run = torch.searchsorted(indices, indices, right=True) - torch.searchsorted(indices, indices)
    total = counted.sum().clamp_min(1)
    return torch.exp(-torch.sum(counted * torch.log(run / total + 1e-10)) / total)
