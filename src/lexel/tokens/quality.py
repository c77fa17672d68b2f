"""How good IDs are without a recommender: what they keep of the embeddings, and how they divide the items."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lexel._core.console import track
from lexel._core.rows import Rows, read
from lexel.nearest import nearest_code
from lexel.tokens.embeddings import picked, pieces
from lexel.tokens.ids import IDs
from lexel.tokens.statistics import entropy_of

__all__ = ["IDQuality", "LevelQuality", "quality_of"]

NEIGHBOURS = 10
MOST_QUERIES = 2048


@dataclass(frozen=True)
class LevelQuality:
    """What the codes of a level are like, and the prefixes that end with it.

    Attributes:
        num_embeddings: K.
        used: how many codes occur.
        entropy: of a code, in bits; at most log2 K.
        gini: inequality of the counts of all K codes: 0 where all are equal, toward 1 where one has everything.
        balance: the largest count ÷ the mean over all K codes; 1 at best.
        distortion: the mean squared distance of the embeddings from what the codes up to here stand for.
        relative_distortion: that ÷ the mean squared distance of the embeddings from their mean.
        prefixes: how many different prefixes occur.
        neighbours: the share of an item's nearest neighbours that share its prefix; NaN with a single item.
        chance: the share of all other items that do.
        purity: the share of items whose class is the most frequent of those with their prefix; None without labels.
        nmi: the normalised mutual information of prefix and class, I ÷ the mean of both entropies.
    """

    num_embeddings: int
    used: int
    entropy: float
    gini: float
    balance: float
    distortion: float
    relative_distortion: float
    prefixes: int
    neighbours: float
    chance: float
    purity: float | None
    nmi: float | None


@dataclass(frozen=True)
class IDQuality:
    """How good IDs are.

    Attributes:
        items: how many there are.
        unique: how equal IDs were made different; None if they were not.
        shared: the share of items whose whole ID another item has too.
        largest_collision: the most items with one ID.
        energy: the mean squared distance of the embeddings from their mean.
        levels: the figures of each level, without a suffix.
        recall: the share of an item's exact nearest neighbours that are among as many of the embeddings as the IDs give
            them back, nearest to the item's own embedding; NaN with a single item.
        recall_at: how many neighbours that are: 10, if there are so many items.
        queries: of how many items the neighbours were looked for: all, or a sample that the seed fixes.
    """

    items: int
    unique: str | None
    shared: float
    largest_collision: int
    energy: float
    levels: tuple[LevelQuality, ...]
    recall: float
    recall_at: int
    queries: int

    @property
    def distortion(self) -> float:
        """The mean squared distance of the embeddings from what their IDs stand for."""
        return self.levels[-1].distortion

    def as_json(self) -> dict[str, Any]:
        """Return the figures as JSON can hold them: one that is not defined is null."""

        def plain(content: dict[str, Any]) -> dict[str, Any]:
            return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in content.items()}

        return {**plain(asdict(self)), "levels": [plain(asdict(level)) for level in self.levels]}


@torch.no_grad()
def quality_of(
    ids: IDs, rows: Rows, decode: Callable[[Tensor], Tensor], *, queries: int = MOST_QUERIES, seed: int = 0
) -> IDQuality:
    """Judge IDs beside the embeddings that they are of. These are read twice, a piece at a time.

    Args:
        ids: of the items.
        rows: their embeddings `(N, D)`, in the same order.
        decode: returns the vectors `(n, D)` of codes `(n, Q)`, int64; −1 for those after the prefix that is judged.
        queries: of how many items the neighbours are looked for, at most.
        seed: which ones.

    Raises:
        ValueError: there are not as many embeddings as items, or what `decode` returns has another shape.

    Example:
        >>> import lexel
        >>> from lexel.tokens.facts import Facts
        >>> vq = lexel.VectorQuantizer(2, 1)
        >>> vq.load_codes(torch.tensor([[0.0], [4.0]]))
        >>> ids = IDs(["lute", "harp", "drum"], [[0], [0], [1]], Facts("vectors", 2, (2,), ""), labels=[0, 0, 1])
        >>> found = quality_of(ids, torch.tensor([[0.0], [1.0], [5.0]]), lambda codes: vq.lookup(codes[:, 0]))
        >>> round(found.shared, 3), found.largest_collision, round(found.distortion, 3), found.levels[0].nmi
        (0.667, 2, 0.667, 1.0)
    """
    if len(rows) != len(ids):
        raise ValueError(f"there are {len(rows)} embeddings for {len(ids)} items")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(ids), generator=generator)[:queries].sort().values
    count = min(NEIGHBOURS, len(ids) - 1)
    books, codes = len(ids.facts.codebook_sizes), torch.from_numpy(ids.indices.astype(np.int64))
    total = sum(read(rows, piece).double().sum(0) for piece in track(pieces(rows), "averaging"))
    mean = torch.as_tensor(total / len(ids))
    sought = torch.cat([x for _, x in picked(rows, chosen.numpy())])
    exact, given = _Nearest(sought, count + 1), _Nearest(sought, count + 1)
    energy, errors = 0.0, np.zeros(books)
    for piece in track(pieces(rows), "judging"):
        x = read(rows, piece)
        energy += float((x.double() - mean).square().sum())
        for level in range(books):
            prefix = codes[piece].clone()
            prefix[:, level + 1 :] = -1
            back = decode(prefix).to(x.device)
            if back.shape != x.shape:
                raise ValueError(f"decode must return vectors of shape {tuple(x.shape)}, got {tuple(back.shape)}")
            errors[level] += float((x.double() - back.double()).square().sum())
        exact.update(x, piece.start)
        given.update(back.to(x.dtype), piece.start)
    found = exact.others(chosen)
    hits = (found.unsqueeze(2) == given.others(chosen).unsqueeze(1)).any(2)
    groups = ids.trie().starts[-1].diff()
    nodes = [ids.trie().nodes(level) for level in range(books)]
    mean_energy = energy / len(ids)
    return IDQuality(
        len(ids),
        ids.unique,
        float(groups[groups > 1].sum()) / len(ids),
        int(groups.max()),
        mean_energy,
        tuple(
            _level(ids, level, float(errors[level]) / len(ids), mean_energy, nodes[level], found, chosen)
            for level in range(books)
        ),
        _mean(hits),
        count,
        len(chosen),
    )


class _Nearest:
    """The nearest of all rows to some queries, as the rows come."""

    def __init__(self, queries: Tensor, count: int) -> None:
        self.queries, self.count = queries, count
        self.rows = torch.zeros(len(queries), 0, dtype=torch.int64, device=queries.device)
        self.scores = queries.new_zeros(len(queries), 0)

    def update(self, x: Tensor, start: int) -> None:
        """Look among the rows from `start` on; of equally near ones the first stays."""
        k = min(self.count, len(x))
        rows, scores = nearest_code(self.queries, x, k=k, return_scores=True)
        self.rows = torch.cat([self.rows, rows.reshape(-1, k) + start], 1)
        self.scores, order = torch.cat([self.scores, scores.reshape(-1, k)], 1).sort(dim=1, stable=True)
        self.rows = self.rows.gather(1, order)[:, : self.count]
        self.scores = self.scores[:, : self.count]

    def others(self, own: Tensor) -> Tensor:
        """Return the rows without the query's own one."""
        itself = self.rows == own.to(self.rows.device)[:, None]
        itself[:, -1] |= ~itself.any(1)  # equal ones before it may have crowded it out
        return self.rows[~itself].reshape(len(own), -1).cpu()


def _level(
    ids: IDs, level: int, distortion: float, energy: float, node: Tensor, neighbours: Tensor, chosen: Tensor
) -> LevelQuality:
    """Return the figures of a level, given the prefix of each item there, and the neighbours of the chosen items."""
    size = ids.codebook_sizes[level]
    counts = np.sort(np.unique(ids.codes[:, level], return_counts=True)[1]).astype(np.float64)
    shares, items = counts / len(ids), len(ids)
    # Of all K codes the unused ones come first, and add nothing to the sum.
    ranks = np.arange(size - len(counts), size) + 1.0
    prefixes = node.bincount().double()
    same = float((prefixes * (prefixes - 1)).sum()) / (items * (items - 1)) if items > 1 else math.nan
    purity, nmi = (None, None) if ids.labels is None else _agreement(node.numpy(), ids.labels)
    return LevelQuality(
        size,
        len(counts),
        entropy_of(counts),
        float(2 * (ranks * shares).sum() / size - (size + 1) / size),
        float(counts[-1] * size / items),
        distortion,
        distortion / energy if energy else math.nan,
        len(prefixes),
        _mean(node[neighbours] == node[chosen][:, None]),
        same,
        purity,
        nmi,
    )


def _agreement(prefix: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Return the purity of prefixes and their normalised mutual information with the labels."""
    classes, label = np.unique(labels, return_inverse=True)
    pairs, both = np.unique(prefix * len(classes) + label, return_counts=True)
    most = np.zeros(int(prefix.max()) + 1, np.int64)
    np.maximum.at(most, pairs // len(classes), both)
    one, other = entropy_of(np.bincount(prefix)), entropy_of(np.bincount(label))
    information = max(one + other - entropy_of(both), 0.0)
    return float(most.sum()) / len(prefix), 2 * information / (one + other) if one + other else 1.0


def _mean(hits: Tensor) -> float:
    return float(hits.double().mean()) if hits.numel() else math.nan
