"""Simple codes for tokens, beside whose lengths that of a prior is shown."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lexel.tokens import TokenSet

__all__ = ["batches", "simple_codes"]

AT_ONCE = 1 << 18  # tokens


def simple_codes(tokens: TokenSet, held_out: TokenSet) -> dict[str, float]:
    """Return the bits per token that simple codes need for tokens that are not learnt from.

    `uniform`: log2 K, mean over codebooks. `unigram`: −log2 of the share of a token in `tokens`, each counted half a
    time more, so that one that does not occur there can be coded.
    """
    sizes = tokens.codebook_sizes
    learnt, coded = counts(tokens), counts(held_out)
    unigram = sum(
        float(-(own * ((seen + 0.5) / (seen + 0.5).sum()).log2()).sum())
        for seen, own in zip(learnt, coded, strict=True)
    )
    return {
        "uniform": sum(map(math.log2, sizes)) / len(sizes),
        "unigram": unigram / float(sum(own.sum() for own in coded)),
    }


def counts(tokens: TokenSet) -> list[Tensor]:
    """Return how often each code of each codebook occurs, float64 `(K,)` each."""
    found = [torch.zeros(size, dtype=torch.float64) for size in tokens.codebook_sizes]
    for batch in batches(tokens):
        for own, indices in zip(found, batch["indices"].reshape(-1, len(found)).unbind(1), strict=True):
            own += indices.bincount(minlength=len(own))
    return found


def batches(tokens: TokenSet, at_once: int = AT_ONCE) -> Iterator[dict[str, Tensor]]:
    """Yield all examples, in batches of about so many tokens."""
    size = max(1, at_once // max(1, int(tokens.shapes[0].prod())))
    for numbers in torch.split(torch.arange(len(tokens)), size):
        yield tokens.batch(numbers)
