"""How a set of tokens uses its codes, and how much a token's neighbours say about it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lexel._core.console import track
from lexel.tokens.facts import Grids
from lexel.tokens.token_set import TokenSet

__all__ = ["CodebookStatistics", "TokenStatistics", "entropy_of", "statistics_of"]

CHUNK_TOKENS = 1 << 22  # counted at once
SHOWN_CODES, SHOWN_GROUPS = 10, 10


@dataclass(frozen=True)
class CodebookStatistics:
    """How the codes of one codebook are used. Entropies are in bits for each token.

    Attributes:
        num_embeddings: K.
        tokens: how many indices were counted.
        used: how many different codes occur.
        entropy: of a token of which nothing is known.
        left_entropy: of a token whose left neighbour in the grid is known, over those that have one; NaN without any.
        up_entropy: likewise, for the neighbour above.
        most_used: codes with their counts, the most frequent first.
        least_used: of those that occur, the rarest first.
    """

    num_embeddings: int
    tokens: int
    used: int
    entropy: float
    left_entropy: float
    up_entropy: float
    most_used: list[tuple[int, int]]
    least_used: list[tuple[int, int]]

    @property
    def perplexity(self) -> float:
        """2^entropy: how many equally frequent codes would carry as much."""
        return 2**self.entropy


@dataclass(frozen=True)
class TokenStatistics:
    """Statistics of a set of tokens.

    Attributes:
        kind: the kind of data that was encoded.
        examples: how many there are.
        tokens: how many indices they have.
        codebooks: the statistics of each codebook.
        duplicates: how many examples have the same tokens as one before them.
        duplicate_names: the names of examples that share their tokens, for the first few such groups.
        labels: how many examples each class has, by its name or number; empty without labels.
    """

    kind: str
    examples: int
    tokens: int
    codebooks: list[CodebookStatistics]
    duplicates: int
    duplicate_names: list[list[str]]
    labels: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """Return the statistics as JSON can hold them: a figure that is not defined is null."""
        content = asdict(self)
        for book in content["codebooks"]:
            book.update({name: None for name, value in book.items() if isinstance(value, float) and math.isnan(value)})
        return content


def entropy_of(counts: np.ndarray[Any, Any]) -> float:
    """Return the entropy of counts in bits."""
    shares = counts[counts > 0] / counts.sum()
    return abs(float(-(shares * np.log2(shares)).sum()))  # abs: no −0 for a single value


@dataclass
class Counter:
    """How often each value of int64 occurs: sorted values and their counts."""

    values: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    counts: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def update(self, found: Tensor) -> None:
        """Count further values."""
        values, counts = np.unique(found.numpy(), return_counts=True)  # which sorts faster than torch
        self.add(torch.from_numpy(values), torch.from_numpy(counts))

    def add(self, values: Tensor, counts: Tensor) -> None:
        """Add counts of values."""
        self.values, places = torch.unique(torch.cat([self.values, values]), return_inverse=True)
        summed = torch.zeros(len(self.values), dtype=torch.int64)
        self.counts = summed.index_add_(0, places, torch.cat([self.counts, counts]))

    @property
    def entropy(self) -> float:
        """In bits."""
        return entropy_of(self.counts.numpy())


class Neighbours:
    """Counts pairs of a token and its neighbour, as one number each; no K × K matrix is made.

    Args:
        codes: the codes that occur, sorted: pairs are of their ranks, so that they fit in int64 for any K.
    """

    def __init__(self, codes: Tensor) -> None:
        self.codes, self.pairs = codes, Counter()

    def update(self, contexts: Tensor, tokens: Tensor) -> None:
        """Count further pairs."""
        self.pairs.update(contexts * len(self.codes) + tokens)

    @property
    def entropy(self) -> float:
        """H(token | neighbour) = H(both) − H(neighbour), in bits; NaN without any pair."""
        if not len(self.pairs.values):
            return math.nan
        contexts = Counter()
        contexts.add(self.pairs.values.div(len(self.codes), rounding_mode="floor"), self.pairs.counts)
        return max(self.pairs.entropy - contexts.entropy, 0.0)


def statistics_of(tokens: TokenSet) -> TokenStatistics:
    """Return the statistics of a set of tokens. The tokens are read twice, a part of them at a time.

    Example:
        >>> import numpy as np
        >>> from lexel.tokens.facts import Facts
        >>> from lexel.tokens.token_set import Columns
        >>> side = np.array([2])
        >>> grid = Columns(["a"], {"height": side, "width": side}, np.array([[2, 2]]), np.array([0, 1, 0, 1]))
        >>> found = statistics_of(TokenSet(Facts("images", 4, (4,), ""), grid)).codebooks[0]
        >>> found.used, found.entropy, found.left_entropy, found.up_entropy
        (2, 1.0, 0.0, 0.0)
    """
    books = len(tokens.codebook_sizes)
    unigrams = [Counter() for _ in range(books)]
    seen: dict[bytes, int] = {}
    same: dict[int, list[int]] = {}
    chunks = list(_chunks(tokens))
    for numbers, _ in track(chunks, "counting"):
        rows = tokens.batch(numbers)["indices"]
        for counter, own in zip(unigrams, rows.reshape(-1, books).unbind(1), strict=True):
            counter.update(own)
        for number, row in zip(numbers, rows.flatten(1).numpy(), strict=True):
            digest = hashlib.blake2b(row.tobytes(), digest_size=16, salt=str(tuple(rows.shape[1:])).encode()[:16])
            first = seen.setdefault(digest.digest(), number)
            if first != number:
                same.setdefault(first, [first]).append(number)
    left = [Neighbours(counter.values) for counter in unigrams]
    up = [Neighbours(counter.values) for counter in unigrams]
    for numbers, grids in track(chunks, "counting pairs"):
        rows = tokens.batch(numbers)["indices"].reshape(len(numbers), -1, books)
        for book in range(books):
            start = 0
            for height, width in grids:
                own = rows[:, start : start + height * width, book].reshape(-1, height, width)
                ranks = torch.searchsorted(unigrams[book].values, own.contiguous())
                left[book].update(ranks[:, :, :-1], ranks[:, :, 1:])
                up[book].update(ranks[:, :-1], ranks[:, 1:])
                start += height * width
    return TokenStatistics(
        tokens.kind,
        len(tokens),
        tokens.total,
        [
            _codebook(size, unigrams[book], left[book], up[book])
            for book, size in enumerate(tokens.codebook_sizes)
        ],
        sum(len(group) - 1 for group in same.values()),
        [[tokens.names[number] for number in sorted(group)] for _, group in sorted(same.items())[:SHOWN_GROUPS]],
        _classes(tokens),
    )  # fmt: skip


def _codebook(size: int, unigrams: Counter, left: Neighbours, up: Neighbours) -> CodebookStatistics:
    ordered = torch.argsort(unigrams.counts, descending=True, stable=True)
    pairs = list(zip(unigrams.values[ordered].tolist(), unigrams.counts[ordered].tolist(), strict=True))
    total = int(unigrams.counts.sum())
    return CodebookStatistics(
        size,
        total,
        len(unigrams.values),
        unigrams.entropy,
        left.entropy,
        up.entropy,
        pairs[:SHOWN_CODES],
        pairs[: -SHOWN_CODES - 1 : -1],
    )


def _chunks(tokens: TokenSet) -> Iterator[tuple[list[int], Grids]]:
    """Yield examples with the same grids together: their numbers, a chunk of them at a time, and the grids."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for number, shape in enumerate(tokens.shapes.tolist()):
        groups.setdefault((*shape, *tokens.levels(number)), []).append(number)
    for numbers in groups.values():
        every = max(1, CHUNK_TOKENS // max(int(tokens.shapes[numbers[0]].prod()), 1))
        for start in range(0, len(numbers), every):
            yield numbers[start : start + every], tokens.levels(numbers[0])


def _classes(tokens: TokenSet) -> dict[str, int]:
    if tokens.labels is None:
        return {}
    values, counts = torch.unique(tokens.labels, return_counts=True)
    names = tokens.label_names
    found = zip(values.tolist(), counts.tolist(), strict=True)
    return {names[value] if names else str(value): count for value, count in found}
