"""IDs of which no two are equal: by a code more, or by the nearest tuple that is free."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lexel._core.rows import Rows
from lexel.tokens.embeddings import picked
from lexel.tokens.ids import UNIQUE, IDs, Item
from lexel.tokens.trie import Trie

__all__ = ["SHOWN_ITEMS", "Candidates", "Uniqueness", "duplicates", "make_unique"]

FIRST_WIDTH = 8  # candidates of an item at first
SHOWN_GROUPS, SHOWN_ITEMS = 10, 10

# Given embeddings (n, D) and a count, returns the codes (n, B, Q) of the nearest tuples, the best first, and their
# squared distances (n, B), as `Quantizer.candidates` does. B is the count, or less if there are no more.
Candidates = Callable[[Tensor, int], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Uniqueness:
    """What it took to make IDs unique.

    Attributes:
        method: `"suffix"` or `"nearest-free"`.
        items: how many there are.
        shared: how many had the codes of another item, new or there before.
        largest: the most items that had the same codes.
        moved: how many have other codes of the same codebooks now.
        distortion_before: the mean squared distance of the embeddings from what their codes stood for.
        distortion_after: from what they stand for now.
        duplicates: how many items have the embedding of one before them; None where the embeddings are not known.
        duplicate_items: the items of equal embeddings, for the first few such groups.
    """

    method: str
    items: int
    shared: int
    largest: int
    moved: int
    distortion_before: float
    distortion_after: float
    duplicates: int | None
    duplicate_items: list[list[Item]]

    @property
    def cost(self) -> float:
        """By which share the distortion has grown; 0 where there was none and is none."""
        return self.distortion_after / self.distortion_before - 1 if self.distortion_before else self.distortion_after

    def as_json(self) -> dict[str, Any]:
        """Return the figures as JSON can hold them: one that is not defined is null."""
        content = {**asdict(self), "cost": self.cost}
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in content.items()
        }


def make_unique(
    ids: IDs,
    method: str,
    rows: Rows | None = None,
    candidates: Candidates | None = None,
    *,
    taken: IDs | None = None,
) -> tuple[IDs, Uniqueness]:
    """Make the IDs of items different from each other, and from those that are taken.

    `"suffix"` gives each ID a code more, which numbers the items of equal codes in their order, from 0.

    `"nearest-free"` leaves the codes of an item as they are if it has them alone. All others are given tuples, each
    another one and none that an item has alone, so that the sum of their squared distances is the least: an assignment
    problem, which is solved exactly over all candidates. So of the items that share a tuple the one keeps it that would
    lose most elsewhere. An item is given more candidates until nothing beyond them could make the sum less, as the
    prices of the assignment prove; where the candidates are those of a beam, that is nothing that a wider beam would
    find farther away.

    Args:
        ids: of the items, as the model encodes them.
        method: `"suffix"` or `"nearest-free"`.
        rows: their embeddings, in the same order. A suffix needs none, and then duplicates are not looked for.
        candidates: returns the nearest tuples of embeddings; only `"nearest-free"` needs them.
        taken: unique IDs that were made before in the same way, of other items: none of them changes.

    Returns:
        The unique IDs of the same items in the same order, and what it took.

    Raises:
        ValueError: there are fewer tuples than items, the IDs are unique already or have no distances, `taken` is of
            another model or method, or something is missing.

    Example:
        >>> from lexel.tokens.facts import Facts
        >>> ids = IDs(["lute", "harp", "drum"], [[3], [3], [0]], Facts("vectors", 4, (4,), ""), [0.0, 0.01, 0.0])
        >>> codebook, x = torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([[3.0], [2.9], [0.0]])
        >>> def candidates(x, count):
        ...     indices, errors = lexel.nearest_code(x, codebook, k=count, return_scores=True)
        ...     return indices.reshape(len(x), -1, 1), errors.reshape(len(x), -1)
        >>> import lexel
        >>> unique, figures = make_unique(ids, "nearest-free", x, candidates)
        >>> unique.items[[3]], unique.items[[2]], figures.moved
        (['lute'], ['harp'], 1)
        >>> make_unique(ids, "suffix")[0].codes.tolist()
        [[3, 0], [3, 1], [0, 0]]
    """
    if ids.unique is not None:
        raise ValueError(f"the IDs are unique already, by {ids.unique!r}")
    if method not in UNIQUE:
        raise ValueError(f"method must be one of {', '.join(UNIQUE)}, got {method!r}")
    if taken is not None and (taken.unique, taken.facts.model) != (method, ids.facts.model):
        raise ValueError(
            f"the IDs that are taken are unique by {taken.unique!r} and of the model {taken.facts.model}, "
            f"expected {method!r} and {ids.facts.model}"
        )
    if rows is not None and len(rows) != len(ids):
        raise ValueError(f"there are {len(rows)} embeddings for {len(ids)} items")
    groups = _Groups(ids, taken)
    alike = None if rows is None else _alike(rows, groups.shared)
    same = None if alike is None else _groups_of(alike, groups.shared)
    moved = 0
    if method == "suffix":
        found = IDs(
            ids.items.array,
            np.concatenate([ids.codes.astype(np.int64), groups.numbers[:, None]], 1),
            ids.facts,
            ids.distances,
            ids.labels,
            unique=method,
            version=ids.version,
        )
    else:
        if rows is None or alike is None or candidates is None:
            raise ValueError("nearest-free needs the embeddings and their candidates")
        if not np.isfinite(ids.distances[groups.shared]).all():
            raise ValueError("nearest-free needs the distances of the embeddings from what their codes stand for")
        codes, distances = ids.codes.astype(np.int64), ids.distances
        if len(groups.shared):
            codes[groups.shared], errors = _nearest_free(ids, taken, rows, candidates, groups.shared, alike)
            changed = (codes != ids.codes).any(1)
            distances = distances.copy()
            distances[groups.shared] = np.where(changed[groups.shared], errors, distances[groups.shared])
            moved = int(changed.sum())
        found = IDs(ids.items.array, codes, ids.facts, distances, ids.labels, unique=method, version=ids.version)
    return found, Uniqueness(
        method,
        len(ids),
        len(groups.shared),
        groups.largest,
        moved,
        float(ids.distances.mean(dtype=np.float64)),
        float(found.distances.mean(dtype=np.float64)),
        None if same is None else sum(len(group) - 1 for group in same),
        [] if same is None else _named(ids, same[:SHOWN_GROUPS]),
    )


def duplicates(ids: IDs, rows: Rows) -> list[list[Item]]:
    """Return the items of equal embeddings, group by group, in the order of their first ones."""
    every = np.arange(len(ids))
    return [_items(ids, np.array(group)) for group in _groups_of(_alike(rows, every), every)]


class _Groups:
    """Which items share their codes.

    Attributes:
        numbers: how many items before an item have its codes, the taken ones first: int64 `(N,)`.
        shared: the rows of the items that do not have their codes alone, rising.
        largest: the most items with the same codes.
    """

    def __init__(self, ids: IDs, taken: IDs | None) -> None:
        trie = ids.trie()
        starts, order = trie.starts[-1].numpy(), trie.order.numpy()
        counts = np.diff(starts)
        before = np.zeros(len(counts), np.int64)  # of each tuple: how many items had it before
        if taken is not None:
            level = ids.codes.shape[1] - 1
            node = taken.trie().find(torch.from_numpy(ids.codes[order[starts[:-1]]].astype(np.int64))).numpy()
            ends = taken.trie().starts[level].numpy()
            held = np.diff(ends)[node]
            if taken.unique == "suffix":  # the largest suffix comes last
                held = taken.codes[taken.trie().order.numpy()[ends[node + 1] - 1], -1].astype(np.int64) + 1
            before = np.where(node >= 0, held, 0)
        self.numbers = np.empty(len(ids), np.int64)
        self.numbers[order] = np.arange(len(ids)) - np.repeat(starts[:-1] - before, counts)
        self.shared = np.sort(order[np.repeat(counts + before > 1, counts)])
        self.largest = int((counts + before).max())


class _Edges:
    """The tuples that items may have which shared theirs, as edges, for each the nearest first; one of equal items.

    Attributes:
        item: which of these items, from 0, rising: int64 `(E,)`.
        codes: int64 `(E, Q)`.
        cost: the squared distance, float64 `(E,)`.
        starts: where the edges of each item begin: int64 `(items + 1,)`.
        beyond: for each item, what all tuples cost at least that are not among its edges; infinite without any.
        width: how many candidates each item was given; they count those that are not free.
    """

    def __init__(
        self, held: Trie, sizes: tuple[int, ...], rows: Rows, candidates: Candidates, sharing: np.ndarray[Any, Any]
    ) -> None:
        self.held, self.tuples, self.rows, self.candidates, self.sharing = (
            held,
            math.prod(sizes),
            rows,
            candidates,
            sharing,
        )
        self.item, self.cost = np.zeros(0, np.int64), np.zeros(0)
        self.codes = np.zeros((0, len(sizes)), np.int64)
        self.starts = np.zeros(len(sharing) + 1, np.int64)
        self.beyond = np.zeros(len(sharing))
        self.width = np.full(len(sharing), FIRST_WIDTH // 2)

    def lengthen(self, least: np.ndarray[Any, Any]) -> None:
        """Find so many edges for each item at least, or all that there are."""
        while len(some := np.flatnonzero((np.diff(self.starts) < least) & np.isfinite(self.beyond))):
            self.width[some] *= 2
            kept = ~np.isin(self.item, some)
            parts: list[tuple[np.ndarray[Any, Any], ...]] = [(self.item[kept], self.codes[kept], self.cost[kept])]
            for width in np.unique(self.width[some]):
                parts += self._found(some[self.width[some] == width], min(int(width), self.tuples))
            item, codes, cost = (np.concatenate(column) for column in zip(*parts, strict=True))
            order = np.argsort(item, kind="stable")
            self.item, self.codes, self.cost = item[order], codes[order], cost[order]
            self.starts = np.searchsorted(self.item, np.arange(len(self.sharing) + 1))

    def _found(self, some: np.ndarray[Any, Any], width: int) -> Iterator[tuple[np.ndarray[Any, Any], ...]]:
        for own, x in picked(self.rows, self.sharing[some]):
            indices, errors = self.candidates(x, width)
            flat, cost = indices.reshape(-1, self.codes.shape[1]).cpu(), errors.double().numpy(force=True)
            free = self.held.find(flat).reshape(errors.shape).numpy() < 0
            self.beyond[some[own]] = np.inf if width == self.tuples or cost.shape[1] < width else cost[:, -1]
            yield np.repeat(some[own], free.sum(1)), flat.numpy()[free.reshape(-1)], cost[free]


def _nearest_free(
    ids: IDs,
    taken: IDs | None,
    rows: Rows,
    candidates: Candidates,
    sharing: np.ndarray[Any, Any],
    node: np.ndarray[Any, Any],
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the codes and distances that the items get which do not have their codes alone.

    Those of equal embeddings have the same number in `node`: they are one node of the assignment, with a demand.
    """
    sizes = ids.facts.codebook_sizes
    alone = np.delete(ids.codes, sharing, 0)
    held = Trie.of(alone if taken is None else np.concatenate([alone, taken.codes]), sizes)
    if len(held) + len(sharing) > math.prod(sizes):
        raise ValueError(
            f"there are {math.prod(sizes)} tuples of {' x '.join(map(str, sizes))} codes for "
            f"{len(held) + len(sharing)} items: use more codebooks, larger ones, or a suffix"
        )
    _, first, demand = np.unique(node, return_index=True, return_counts=True)
    edges = _Edges(held, sizes, rows, candidates, sharing[first])
    # Few tuples for each node make an assignment that is solved soon, and its prices say who must look farther.
    spare, wanting = np.full(len(demand), -1), np.arange(len(demand))
    while len(wanting):
        spare[wanting] = np.maximum(2 * spare[wanting] + 1, 0)
        shown = demand + spare
        edges.lengthen(shown)
        rank = np.arange(len(edges.item)) - edges.starts[edges.item]
        some = np.flatnonzero(rank < shown[edges.item])
        following = edges.starts[:-1] + shown
        more = following < edges.starts[1:]
        farther = np.where(more, edges.cost[np.where(more, following, 0)], edges.beyond)
        choice, wanting = _assignment(edges.item[some], edges.codes[some], edges.cost[some], farther, demand)
    order = np.argsort(node, kind="stable")
    codes, cost = np.empty((len(sharing), len(sizes)), np.int64), np.empty(len(sharing), np.float32)
    codes[order], cost[order] = edges.codes[some[choice]], edges.cost[some[choice]]
    return codes, cost


def _assignment(
    node: np.ndarray[Any, Any],
    codes: np.ndarray[Any, Any],
    cost: np.ndarray[Any, Any],
    farther: np.ndarray[Any, Any],
    demand: np.ndarray[Any, Any],
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the edges that items have in the cheapest assignment, and the nodes that may do better with others.

    A node stands for as many items as its demand says, which cost the same everywhere. They may be taken to have their
    tuples in order, so the i-th of m items has the i-th best of n tuples, or one of the n - m that follow it.

    Args:
        node: of each edge, rising.
        codes: the tuple of each edge; those of a node with the cheapest first.
        cost: of each edge.
        farther: for each node, what all tuples cost at least to which it has no edge.
        demand: how many tuples each node needs.

    Returns:
        The edge of every item, node by node, and the nodes.
    """
    try:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import (
            connected_components,
            maximum_bipartite_matching,
            min_weight_full_bipartite_matching,
        )
    except ImportError as error:
        raise ImportError("nearest-free needs scipy: pip install 'lexel[train]'") from error
    nodes, items = len(demand), int(demand.sum())
    trie = Trie.of(codes, (codes.max(0) + 1).tolist())
    column, columns = trie.nodes(codes.shape[1] - 1).numpy(), len(trie)
    counts = np.bincount(node, minlength=nodes)
    starts = np.cumsum(counts) - counts
    owner = np.repeat(np.arange(nodes), demand)  # the node of each item
    place = np.arange(items) - np.repeat(np.cumsum(demand) - demand, demand)  # its place in the order
    width = np.maximum(counts - demand, 0)[owner] + 1
    item = np.repeat(np.arange(items), width)
    rank = place[item] + np.arange(len(item)) - np.repeat(np.cumsum(width) - width, width)
    item, edge = item[there := rank < counts[owner[item]]], (starts[owner[item]] + rank)[there]
    # Costs above zero, which a sparse matrix would not hold; the same is added to all, and the best stays the best.
    above = cost - cost.min() + max(float(np.ptp(cost)), 1.0)
    graph = coo_array((above[edge], (item, column[edge])), shape=(items, columns)).tocsr()
    lonely = owner[maximum_bipartite_matching(graph, perm_type="column") < 0]
    if len(lonely):
        whole = coo_array((above, (node, nodes + column)), shape=(nodes + columns, nodes + columns))
        part = connected_components(whole, directed=False)[1][:nodes]
        return np.zeros(0, np.int64), np.flatnonzero(np.isin(part, part[lonely]) & np.isfinite(farther))
    matched = min_weight_full_bipartite_matching(graph)[1]
    choice = edge[matched[item] == column[edge]]
    # The least prices of the tuples for which everybody prefers the own one. With them, an item whose own cost and
    # price are not above the cost of all that it has not seen would gain nothing there.
    price, tolerance = np.zeros(columns), 1e-9 * float(cost.max())
    for _ in range(items):
        spent, raised = np.full(nodes, -np.inf), price.copy()
        np.maximum.at(spent, owner, cost[choice] + price[matched])
        np.maximum.at(raised, column, spent[node] - cost)
        if (raised <= price + tolerance).all():
            break
        price = raised
    return choice, np.flatnonzero(spent > farther + tolerance)


def _alike(rows: Rows, chosen: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a number for each of the chosen rows, the same for equal embeddings, from 0."""
    digests = np.zeros(len(chosen), "S16")
    for own, x in picked(rows, chosen):
        contents = (x + 0).numpy(force=True)  # + 0: −0 is 0
        digests[own] = [hashlib.blake2b(content.tobytes(), digest_size=16).digest() for content in contents]
    return np.unique(digests, return_inverse=True)[1]


def _groups_of(alike: np.ndarray[Any, Any], chosen: np.ndarray[Any, Any]) -> list[list[int]]:
    """Return those of the chosen rows that have a number of `alike` in common, group by group."""
    counts = np.bincount(alike)
    grouped, ends = chosen[np.argsort(alike, kind="stable")], np.cumsum(counts)
    same = counts > 1
    return sorted(grouped[end - count : end].tolist() for end, count in zip(ends[same], counts[same], strict=True))


def _named(ids: IDs, groups: list[list[int]]) -> list[list[Item]]:
    return [_items(ids, np.array(group[:SHOWN_ITEMS])) for group in groups]


def _items(ids: IDs, rows: np.ndarray[Any, Any]) -> list[Item]:
    found: list[Item] = ids.items.array.take(rows).to_pylist()
    return found
