"""Soft assignment: how probable each code is for each input, in memory that does not grow with N · K."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["Metric", "by_rows", "logits"]

Metric: TypeAlias = Literal["euclidean", "dot"]

# Size of a chunk's matrix of probabilities, which is not stored but computed again in the backward pass.
CHUNK = 1 << 21


def logits(z: Tensor, codes: Tensor, metric: Metric = "euclidean") -> Tensor:
    """Return unnormalised log-probabilities of the codes for each input, `(N, K)`; the nearest code has the largest.

    Args:
        z: inputs, `(N, D)`.
        codes: `(K, D)`.
        metric: "euclidean" for −‖z − e‖², up to a constant for each input; "dot" for ⟨z, e⟩.

    Example:
        >>> logits(torch.tensor([[1.0]]), torch.tensor([[0.0], [2.0], [3.0]])).softmax(1)
        tensor([[0.4879, 0.4879, 0.0243]])
    """
    if metric == "dot":
        return z @ codes.T
    centre = codes.detach().mean(0)  # a shift of everything leaves the distances as they are, but not their rounding
    z, codes = z - centre, codes - centre
    return torch.addmm(-codes.square().sum(1), z, codes.T, alpha=2)


def by_rows(function: Callable[..., tuple[Tensor, ...]], codes: Tensor, *rows: Tensor) -> list[tuple[Tensor, ...]]:
    """Call `function(codes, *chunks)` on chunks of rows so small that an (n, K) matrix fits, and again in backward.

    Args:
        function: returns a tuple of tensors; may draw random numbers, which the recomputation repeats.
        codes: `(K, D)`, which every call gets whole.
        *rows: tensors `(N, …)`, all divided into the same chunks.

    Returns:
        What each call returned, in order. There is at least one call, even without any rows.
    """
    height = max(1, CHUNK // len(codes))
    chunks = zip(*(torch.split(part, height) for part in rows), strict=True)
    return [checkpoint(function, codes, *chunk, use_reentrant=False) for chunk in chunks]
