"""Mixed-radix numbers: several small digits become one large index, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from lexel._core.values import constant

__all__ = ["check_levels", "from_digits", "to_digits"]


def check_levels(name: str, levels: Sequence[int]) -> tuple[int, ...]:
    """Check `levels` and return them as a tuple.

    Raises:
        ValueError: it is empty, or a number of levels is below 2.
    """
    if not levels or min(levels) < 2:
        raise ValueError(f"{name}: levels must hold one or more numbers of at least 2, got {list(levels)}")
    return tuple(levels)


def from_digits(digits: Tensor, levels: Sequence[int]) -> Tensor:
    """Return the index Σ_i digit_i · Π_{j<i} L_j; the first digit is the least significant.

    Args:
        digits: int64 `(…, d)`, digit i in [0, L_i).
        levels: the d radices L_i, whose product fits int64.

    Example:
        >>> import torch
        >>> from_digits(torch.tensor([1, 0, 2]), (4, 3, 5))
        tensor(25)
    """
    # Horner's rule rather than a sum of products, because onnxruntime sums int64 in floating point.
    *rest, index = digits.unbind(-1)
    for digit, level in zip(reversed(rest), reversed(levels[:-1]), strict=True):
        index = index * level + digit
    return index


def to_digits(indices: Tensor, levels: Sequence[int]) -> Tensor:
    """Return the digits `(…, d)` of indices `(…)`; the inverse of `from_digits`.

    Example:
        >>> import torch
        >>> to_digits(torch.tensor(25), (4, 3, 5))
        tensor([1, 0, 2])
    """
    places = constant((math.prod(levels[:i]) for i in range(len(levels))), indices)
    return indices.unsqueeze(-1) // places % constant(levels, indices)
