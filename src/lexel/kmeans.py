"""K-means: centres of vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lexel.nearest import nearest_code

__all__ = ["kmeans"]


def kmeans(rows: Tensor, num_embeddings: int, iterations: int = 10, seed: int = 0, unit: bool = False) -> Tensor:
    """Find K centres of `rows` `(N, D)` by k-means++ (Arthur and Vassilvitskii 2007) and Lloyd's iterations.

    Seeds are drawn with probability proportional to their squared distance to the seeds before them: one by one at
    first, then several at a time, never more than a sixteenth of those already drawn, which hardly changes the result
    and makes K = 262,144 possible. A centre that is nearest to no row stays where it is.

    Args:
        rows: `(N, D)`, at least K of them.
        num_embeddings: K.
        iterations: number of Lloyd's iterations.
        seed: seed of the draws; the same seed and rows give the same centres.
        unit: keep the centres at length 1 (spherical k-means).

    Returns:
        `(K, D)`.

    Example:
        >>> kmeans(torch.tensor([[0.0], [1.0], [10.0], [11.0]]), 2).sort(0).values
        tensor([[ 0.5000],
                [10.5000]])
    """
    generator = torch.Generator(rows.device).manual_seed(seed)
    drawn = torch.randint(len(rows), (1,), generator=generator, device=rows.device)
    centres = rows[drawn]
    distance = (rows - centres).square().sum(1)
    while (missing := num_embeddings - len(centres)) > 0:
        distance[drawn] = -1  # below any other: no row is drawn twice
        # The rows with the largest weight / exponential are a draw without replacement with these weights.
        waits = torch.empty_like(distance).exponential_(generator=generator)
        drawn = (distance / waits).topk(min(missing, max(1, len(centres) // 16))).indices
        fresh = rows[drawn]
        distance = torch.minimum(distance, (rows - fresh[nearest_code(rows, fresh)]).square().sum(1))
        centres = torch.cat([centres, fresh])
    for _ in range(iterations):
        chosen = nearest_code(rows, centres)
        counts = rows.new_zeros(num_embeddings).index_add_(0, chosen, rows.new_ones(len(rows)))
        sums = torch.zeros_like(centres).index_add_(0, chosen, rows)
        centres = torch.where(counts.unsqueeze(1) > 0, sums / counts.clamp_min(1).unsqueeze(1), centres)
        if unit:
            centres = F.normalize(centres, dim=1)
    return centres
