"""Simple codes for tokens, beside whose lengths that of a prior is shown."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lexel.tokens import TokenSet, context_bits

__all__ = ["batches", "simple_codes"]

AT_ONCE = 1 << 18  # tokens
CONTEXT_TOKENS = 1 << 15  # on which the adaptive coder is measured, which takes one token after the other


def simple_codes(tokens: TokenSet, held_out: TokenSet) -> dict[str, float]:
    """Return the bits per token that simple codes need for tokens that are not learnt from.

    `uniform`: log2 K, mean over codebooks. `unigram`: −log2 of the share of a token in `tokens`, each counted half a
    time more, so that one that does not occur there can be coded. `context`: the coder of `lexel compress`, which
    learns from the neighbours of a token as it goes, after it has coded others of `tokens`; it is measured on the first
    examples alone if there are many.
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
        "context": _context_bits(tokens, held_out),
    }


def _context_bits(tokens: TokenSet, held_out: TokenSet) -> float:
    """Return the bits per token of the adaptive coder, after it has seen other tokens."""
    each = int(held_out.shapes[0].prod())
    most = max(1, CONTEXT_TOKENS // each)
    before, after = (_grids(chosen, min(most, len(chosen))) for chosen in (tokens, held_out))
    learnt, both = (context_bits(grids, tokens.codebook_sizes, together=True) for grids in (before, [*before, *after]))
    return (both - learnt) / (len(after) * each)


def _grids(tokens: TokenSet, count: int) -> list[Any]:
    return [*tokens.batch(range(count))["indices"].numpy()]


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
