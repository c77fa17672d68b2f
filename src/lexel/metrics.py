"""How much of a codebook is alive."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["perplexity", "usage_counts"]


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
