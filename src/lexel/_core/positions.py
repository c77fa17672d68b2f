"""Vectors at positions of any shape, for what reads them where they lie."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

__all__ = ["collapse"]

MOST = 1 << 30  # positions in a batch, so that 32 bits hold the number of each


def collapse(z: Tensor) -> Tensor:
    """Merge the positions of vectors into one axis, or into two where that needs no copy and one would.

    Channels-first inputs, whose channels have been moved to the end, become `(B, S, D)`, as in `(B, H·W, D)`.

    Args:
        z: `(*positions, D)`, of at least one position axis; D is positive.

    Returns:
        `(N, D)` or `(B, S, D)`: a view of `z` wherever there is one.

    Example:
        >>> import torch
        >>> collapse(torch.zeros(2, 3, 4, 5).movedim(1, -1)).shape, collapse(torch.zeros(2, 4, 5, 3)).shape
        (torch.Size([2, 20, 3]), torch.Size([40, 3]))
    """
    axes = [axis for axis in range(z.ndim - 1) if z.shape[axis] != 1]
    gaps = [right for left, right in pairwise(axes) if z.stride(left) != z.stride(right) * z.shape[right]]
    if len(gaps) != 1:
        return z.reshape(-1, z.shape[-1])
    batches = z.flatten(0, gaps[0] - 1).flatten(1, -2)
    return batches if batches.shape[1] <= MOST else z.reshape(-1, z.shape[-1])
