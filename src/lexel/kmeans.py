"""K-means: K centres of vectors, by splitting and merging, then Lloyd's iterations.

**Start.** One code grows to K on a random sample of the rows: each round splits half as many codes as there are, those
whose rows have the largest error. At K codes, a few rounds also remove the codes that are missed least, and split
others in their place (Kaukoranta, Fränti and Nevalainen 1998), which takes Lloyd's iterations out of the poor local
minima that seeds leave them in. How much a code is missed is known without the rows: to merge it with its nearest code
costs nm/(n + m)·‖a − b‖² (Ward 1963). An empty code costs nothing, so it goes first.

**Sums are integers.** Rows are multiplied by a power of two so large that the sum of all just fits into int64, and
rounded. Integer sums are exact: neither the number of threads or ranks nor the order of the rows changes a bit of the
result, and the sum of a million rows is right to 2⁻⁴² of the largest of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lexel._core.by_code import add_by_code
from lexel._core.checks import check_integer, check_number, checked
from lexel._core.collectives import all_min, all_sum, gather_rows, rank, world_size
from lexel._core.rows import Rows, read, spans, tensor_of
from lexel._core.values import double, widest
from lexel.nearest import nearest_code

__all__ = ["LARGEST", "Clustering", "Rows", "common_row", "kmeans"]

PIECE, LARGE_PIECE = 1 << 20, 1 << 24  # numbers that are read at a time on a CPU, and elsewhere
SAMPLE = 1 << 27  # numbers that a sample holds, at most
GROWING, MOVING, SETTLING = 16, 64, 256  # rows of the sample for each code,
LEAST = 1 << 15  # and at least so many in all
GROWTH = 1.5  # codes after a round of growing, for each before it
ROUNDS = 12  # of splitting and merging at K codes,
SHARE = 0.5  # of the codes in the first of these rounds, and fewer in each that follows
BITS = 62  # of a sum
LARGEST = 1e16  # number in a row: the squares of larger ones overflow float32
NAMED = 5  # rows in an error


class Clustering(NamedTuple):
    """What `kmeans` found.

    Attributes:
        codebook: `(K, D)`, float32; float64 for rows in float64.
        counts: how many rows are nearest to each code, int64 `(K,)`; with weights their sums, float64.
        error: mean squared distance of a row to its nearest code.
        iterations: how many were made.
    """

    codebook: Tensor
    counts: Tensor
    error: float
    iterations: int


@checked
def kmeans(
    rows: Rows,
    num_embeddings: int,
    *,
    iterations: int = 10,
    tolerance: float = 1e-3,
    init: Literal["split-merge", "split", "random"] | Tensor = "split-merge",
    seed: int = 0,
    minibatch: int | None = None,
    weights: Tensor | None = None,
    unit: bool = False,
    device: str | int | torch.device | None = None,
) -> Clustering:
    """Find K codes that make the mean squared distance of a row to its nearest code small.

    Rows are read in pieces of a few megabytes: once to check them, once for the sample, and once in each iteration. A
    code that is nearest to no row moves to where the error is. If fewer than K rows differ, each of them is a code, and
    the remaining codes are copies that count no rows.

    Under `torch.distributed` each rank gives its share of the rows and of the weights. All ranks then get what one
    process gets that has the rows of rank 0, then those of rank 1, and so on: the same, to the bit.

    Args:
        rows: `(N, D)`, at least K of them, of any floating type.
        num_embeddings: K.
        iterations: at most so many of Lloyd's iterations follow the start.
        tolerance: stop when an iteration lowers the error by a smaller share. With 0 only a fixed point stops: each
            code is the mean of its rows, and no row is nearer to another.
        init: how codes start: by splitting and merging; by splitting alone, which takes a fifth of the time and ends
            higher; as random rows; as the codes of a tensor `(K, D)`.
        seed: of the random sample or rows.
        minibatch: each iteration takes so many random rows instead of all, and a code becomes the mean of the rows of
            all iterations that chose it (Sculley 2010). `tolerance` has no effect then.
        weights: how often each row counts, `(N,)`, not negative.
        unit: divide rows and codes by their lengths (spherical k-means).
        device: where to compute; None for where the rows are.

    Returns:
        The codes, and what is known of them.

    Raises:
        TypeError: rows, weights or `init` are of another type.
        ValueError: a shape or a number is out of its range; there are fewer rows than codes; rows hold NaN, infinity or
            a number beyond 1e16; a row is zero, with `unit`; all rows are equal, with more than one code.

    Example:
        >>> found = kmeans(torch.tensor([[0.0], [1.0], [10.0], [11.0]]), 2)
        >>> found.codebook.sort(0).values
        tensor([[ 0.5000],
                [10.5000]])
        >>> found.counts, found.error
        (tensor([2, 2]), 0.25)
    """
    K = num_embeddings
    for name, value, least in (("num_embeddings", K, 1), ("iterations", iterations, 0), ("minibatch", minibatch, 1)):
        if value is not None:
            check_integer("kmeans", name, value, least=least)
    check_number("kmeans", "tolerance", tolerance, least=0, below=1)
    every = _open(rows, K, weights, unit, device, (minibatch or 0) * iterations)
    codes = _start(every, K, init, seed)
    before, made, seen = math.inf, 0, None
    while True:
        last = made == iterations
        if minibatch is not None and not last:
            found = _assign(_sample(every, min(minibatch, every.total), seed + 1 + made), codes)
            found = seen = found if seen is None else found.after(seen)
        else:
            found = _assign(every, codes)
            last = last or (tolerance > 0 and found.error >= (1 - tolerance) * before)
            before = found.error
        moved = codes if last else _split_and_merge(found, K, 0)
        if last or (minibatch is None and torch.equal(moved, codes)):
            return Clustering(codes, found.counts if weights is not None else found.counts.long(), found.error, made)
        codes, made = moved, made + 1


def common_row(rows: Rows) -> Tensor | None:
    """Return the row that all rows of all ranks are equal to, `(1, D)`; None if some differ: k-means divides those.

    Example:
        >>> common_row(torch.ones(3, 2))
        tensor([[1., 1.]])
    """
    first = read(rows, slice(0, 1))
    ends = first.new_full((2, first.shape[1]), math.inf)
    for span in spans(len(rows), first.shape[1], PIECE):
        piece = read(rows, span)
        ends = torch.minimum(ends, torch.stack([piece.amin(0), -piece.amax(0)]))
    found = all_min(ends)
    return found[:1] if torch.equal(found[0], -found[1]) else None


@dataclass(frozen=True)
class _Data:
    """Rows of this rank, all or a sample, and what all ranks know of them.

    Attributes:
        source: the rows.
        weights: of the rows, float64; None when each counts once.
        numbers: of the rows, ascending: a single process would number them so. None when they follow `first`.
        first: the number of the first row of all that this rank has.
        total: how many rows all ranks have.
        unit: whether rows are divided by their lengths.
        like: an empty tensor with the device and dtype of the codes, `(0, D)`.
        scales: powers of two that make sums integers: of rows `(D,)`, of squared distances and of weights.
    """

    source: Rows
    weights: Tensor | None
    numbers: Tensor | None
    first: int
    total: int
    unit: bool
    like: Tensor
    scales: tuple[Tensor, float, float]

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yield where each piece begins and ends."""
        piece = PIECE if self.like.device.type == "cpu" else LARGE_PIECE
        for span in spans(len(self.source), self.like.shape[1], piece):
            yield span.start, span.stop

    def read(self, start: int, end: int, chosen: Tensor | None = None) -> Tensor:
        """Return rows `[start, end)`, or those `chosen` of them, ready for the search."""
        piece = tensor_of(self.source[start:end])
        piece = (piece if chosen is None else piece[chosen.to(piece.device)]).to(self.like)
        return F.normalize(piece, dim=1) if self.unit else piece

    def number(self, start: int, end: int) -> Tensor:
        """Return the numbers of rows `[start, end)`."""
        if self.numbers is not None:
            return self.numbers[start:end]
        return torch.arange(self.first + start, self.first + end, device=self.like.device)

    def below(self, total: int) -> _Data:
        """Return the rows of a sample whose numbers are below `total`."""
        assert self.numbers is not None
        held = int(torch.searchsorted(self.numbers, total))
        weights = None if self.weights is None else self.weights[:held]
        return replace(self, source=self.source[:held], weights=weights, numbers=self.numbers[:held], total=total)


@dataclass(frozen=True)
class _Found:
    """What a pass over rows of all ranks finds of codes `(k, D)`: the sums of the rows nearest to each, and more.

    Attributes:
        codes: the codes.
        sums, weights, errors: sums of rows `(k, D)`, of weights and of squared distances `(k,)`, scaled, int64.
        far: for each code one of its rows that are far away, `(k, D)`.
        data: the rows.
    """

    codes: Tensor
    sums: Tensor
    weights: Tensor
    errors: Tensor
    far: Tensor
    data: _Data

    def after(self, other: _Found) -> _Found:
        """Add what an earlier pass found."""
        return replace(self, sums=self.sums + other.sums, weights=self.weights + other.weights)

    @property
    def counts(self) -> Tensor:
        """How many rows each code has, `(k,)`, float64."""
        return double(self.weights) / self.data.scales[2]

    @property
    def error(self) -> float:
        """Mean squared distance."""
        return float(self.errors.sum()) / self.data.scales[1] / float(self.counts.sum())

    @property
    def means(self) -> Tensor:
        """The mean of each code's rows `(k, D)`; the code where it has none."""
        means = double(self.sums) / double(self.data.scales[0]) / self.counts.unsqueeze(1).clamp_min(1e-300)
        means = torch.where(self.weights.unsqueeze(1) > 0, means, double(self.codes)).to(self.codes.dtype)
        return F.normalize(means, dim=1) if self.data.unit else means


def _assign(data: _Data, codes: Tensor) -> _Found:
    """Find the nearest code of every row of all ranks. The sums are integers, so their order does not matter."""
    whole, (row_scale, error_scale, weight_scale) = torch.zeros_like(codes, dtype=torch.int64), data.scales
    sums, weights, errors = whole, whole[:, 0].clone(), whole[:, 0].clone()
    farthest, far = weights - 1, torch.zeros_like(codes)
    for start, end in data.spans():
        x, number = data.read(start, end), data.number(start, end)
        nearest, distance = nearest_code(x, codes, return_scores=True)
        if data.weights is None:
            weight, scaled = torch.ones_like(distance), x * row_scale
        else:
            weight = data.weights[start:end].to(distance)
            scaled = x * weight.unsqueeze(1) * row_scale
        integers = scaled.round_(), (weight * weight_scale).round_(), (weight * distance * error_scale).round_()
        add_by_code((sums, weights, errors), nearest, [part.long() for part in integers])
        # One of a code's rows wins, far ones most often: its distance times random odds is largest.
        chance = _uniform(number)
        lot = (weight * distance * (chance / (1 - chance))).float().view(torch.int32).long()
        key = (lot << 32) + number % 2**32  # its number decides ties
        farthest = farthest.scatter_reduce(0, nearest, key, "amax")
        (winners,) = torch.where(farthest[nearest] == key)
        far[nearest[winners]] = x[winners]
    if world_size() > 1:
        sums, weights, errors = all_sum(sums, weights, errors)
        holds = (farthest == -all_min(-farthest)) & (farthest >= 0)
        (far,) = all_sum(torch.where(holds.unsqueeze(1), far, 0))
    return _Found(codes, sums, weights, errors, far, data)


def _split_and_merge(found: _Found, size: int, share: float) -> Tensor:
    """Move codes to the means of their rows, split some until there are `size`, and move a share of them elsewhere.

    Returns:
        At most `size` codes; fewer where no row is left that is not a code itself.
    """
    codes, k = found.means, len(found.codes)
    grow, empty = size - k, int((found.weights == 0).sum())
    if grow == 0 and share == 0 and empty == 0:
        return codes
    missed, worst = torch.full_like(found.counts, math.inf), found.errors.argsort(descending=True, stable=True)
    gone = torch.zeros_like(worst, dtype=torch.bool)
    if k > 1 and (share or empty):
        own = torch.arange(k, device=codes.device)
        pair, distance = nearest_code(codes, codes, k=2, return_scores=True)
        other = (pair[:, 0] == own).long().unsqueeze(1)  # copies of a code may come before it
        partner, apart = pair.gather(1, other)[:, 0], distance.gather(1, other)[:, 0]
        counts = found.counts
        missed = counts * counts[partner] / (counts + counts[partner]).clamp_min(1e-300) * apart
        least = missed.argsort(stable=True)
        saved = found.errors[worst[max(grow, 0) :]].to(missed) / found.data.scales[1] / 2
        pays = (missed[least[: len(saved)]] < saved).long().cumprod(0).sum()
        gone[least[: min(int(pays), max(empty, int(share * k)))]] = True
        gone &= ~(gone[partner] & (partner < own))  # of two that would merge with each other, one stays
        least = least[gone[least]]
        split = worst[(~gone & (found.errors > 0))[worst]][: grow + len(least)]
        gone[least[max(0, len(split) - grow) :]] = False
    else:
        split = worst[(found.errors > 0)[worst]][:grow]
    step = (found.far[split] - codes[split]) / 2
    fresh = codes[split] + step
    codes[split] -= step
    codes = torch.cat([codes[~gone], fresh])
    return F.normalize(codes, dim=1) if found.data.unit else codes


def _start(every: _Data, num_embeddings: int, init: str | Tensor, seed: int) -> Tensor:
    """Return codes to start from."""
    K = num_embeddings
    if isinstance(init, Tensor):
        if init.shape != (K, every.like.shape[1]) or not init.is_floating_point() or not init.isfinite().all():
            raise ValueError(
                f"kmeans: init must be finite floating codes {(K, every.like.shape[1])}, got {init.dtype} "
                f"of shape {tuple(init.shape)}"
            )
        return init.detach().to(every.like, copy=True)
    if not isinstance(init, str) or init not in ("split-merge", "split", "random"):  # a sequence compares item by item
        raise ValueError(f"kmeans: init must be 'split-merge', 'split', 'random' or codes (K, D), got {init!r}")
    if init == "random":
        drawn = _sample(every, K, seed)
        assert drawn.numbers is not None
        codes = every.like.new_zeros(K, every.like.shape[1])
        codes[drawn.numbers] = drawn.read(0, len(drawn.source))
        return all_sum(codes)[0]
    size = min(every.total, max(SETTLING * K, LEAST), max(SAMPLE // every.like.shape[1], 1))
    sample, moving = _sample(every, size, seed), min(every.total, max(MOVING * K, LEAST))

    def first(count: int) -> _Data:
        # So many rows of the sample; all rows where it has fewer and is not all.
        return sample.below(min(count, size)) if count <= size or size == every.total else every

    codes, count = every.like.new_zeros(1, every.like.shape[1]), 0
    while (k := len(codes)) < K:
        count = max(count, GROWING * k)
        codes = _split_and_merge(_assign(first(count), codes), min(K, math.ceil(k * GROWTH)), 0)
        if len(codes) == k and count < size:  # all these rows are codes already
            count *= 2
        elif len(codes) == k:
            codes = torch.cat([codes, codes[:1].expand(K - k, -1)])
    for turn in range(ROUNDS if K > 1 and init == "split-merge" else 0):  # on more and more rows
        count = moving * (ROUNDS + turn + 1) // (2 * ROUNDS)
        codes = _split_and_merge(_assign(first(count), codes), K, SHARE * (1 - turn / ROUNDS))
    while (moving := 2 * moving) < size:
        codes = _split_and_merge(_assign(sample.below(moving), codes), K, 0)
    return codes


def _sample(every: _Data, size: int, seed: int) -> _Data:
    """Draw `size` different rows, the same on any number of ranks, and number them in a random order."""
    generator = torch.Generator().manual_seed(seed)
    edges = torch.arange(size + 1, device="cpu") * every.total // size  # one row between each two
    rows = edges[:-1] + torch.randint(1 << 62, (size,), generator=generator, device="cpu") % edges.diff()
    order = torch.randperm(size, generator=generator, device="cpu")
    own = (rows >= every.first) & (rows < every.first + len(every.source))
    rows, order = rows[own] - every.first, order[own]
    found = [every.like]
    for start, end in every.spans():
        low, high = torch.searchsorted(rows, torch.tensor([start, end], device="cpu")).tolist()
        if low < high:
            found.append(every.read(start, end, rows[low:high] - start))
    sort = order.argsort()
    device = every.like.device
    return replace(
        every,
        source=torch.cat(found)[sort.to(device)],
        weights=None if every.weights is None else every.weights[rows[sort].to(device)],
        numbers=order[sort].to(device),
        total=size,
    )


def _open(
    rows: Rows,
    num_embeddings: int,
    weights: Tensor | None,
    unit: bool,
    device: str | int | torch.device | None,
    least_total: int,
) -> _Data:
    """Read all rows once, check them, and choose scales for sums of them all, or of `least_total` if those are more."""
    try:
        piece = tensor_of(rows[0:1])
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"kmeans: rows must be a tensor or an array (N, D), got {rows!r}") from error
    if not piece.is_floating_point():
        raise TypeError(f"kmeans: rows must be of a floating type, got {piece.dtype}")
    if piece.ndim != 2 or piece.shape[1] == 0:
        raise ValueError(f"kmeans: rows must be (N, D), got {(len(rows), *piece.shape[1:])}")
    dtype = torch.promote_types(piece.dtype, torch.float32)
    like = torch.empty(0, piece.shape[1], dtype=dtype, device=device or piece.device)
    held = torch.zeros(world_size(), dtype=torch.int64, device=like.device)
    held[rank()] = len(rows)
    (held,) = all_sum(held)
    total = int(held.sum())
    if total < num_embeddings:
        raise ValueError(f"kmeans: {num_embeddings} codes need at least as many rows, got {total}")
    heaviest = 1.0
    if weights is not None:
        weights = torch.as_tensor(weights).detach().to(like.device, widest(like))
        fit = weights.shape == (len(rows),) and bool(((weights >= 0) & weights.isfinite()).all())
        top = weights.max().reshape(1) if fit and len(rows) else weights.new_zeros(1)
        fit, heaviest = all_min(torch.cat([weights.new_full((1,), float(fit)), -top])).tolist()
        heaviest = -heaviest
        if not fit or heaviest == 0:
            raise ValueError(
                f"kmeans: weights must have shape {(len(rows),)} and be finite, not negative and not all 0; "
                f"got shape {tuple(weights.shape)}"
            )
    data = _Data(rows, weights, None, int(held[: rank()].sum()), total, False, like, (like, 1.0, 1.0))
    low, high = like.new_full(like.shape[1:], math.inf), like.new_full(like.shape[1:], -math.inf)
    wild, zero = [held[:0]], [held[:0]]
    for start, end in data.spans():
        x, number = data.read(start, end), data.number(start, end)
        wild.append(number[~(x.abs().amax(1) <= LARGEST)])
        if unit:
            weighs = True if weights is None else weights[start:end] > 0
            zero.append(number[(x == 0).all(1) & weighs])
            x = F.normalize(x, dim=1)
        low, high = torch.minimum(low, x.amin(0)), torch.maximum(high, x.amax(0))
    _refuse(f"are NaN, infinite or beyond {LARGEST:g}", wild)
    _refuse("are zero, and have no direction for unit=True", zero)
    low, high = all_min(low), -all_min(-high)
    if num_embeddings > 1 and bool((low == high).all()):
        raise ValueError(
            f"kmeans: all {total} rows are equal, which leaves nothing to divide among {num_embeddings} codes"
        )
    most = torch.maximum(low.abs(), high.abs()).double().cpu()
    counted = max(total, least_total) * heaviest
    scales = (_power_of_two(counted * most), _power_of_two(4 * counted * most.square().sum()), _power_of_two(counted))
    return replace(data, unit=unit, scales=(scales[0].to(like), float(scales[1]), float(scales[2])))


def _refuse(fault: str, numbers: list[Tensor]) -> None:
    """Raise on all ranks if one has rows of a fault."""
    own = torch.cat(numbers)
    (count,) = all_sum(own.new_tensor(len(own)))
    if count:
        named = gather_rows(own[:NAMED], absent=-1)
        listed = ", ".join(map(str, named[named >= 0][:NAMED].tolist())) + (", …" if count > NAMED else "")
        raise ValueError(f"kmeans: {int(count)} rows {fault}: {listed}")


def _power_of_two(bound: Tensor | float) -> Tensor:
    """Return the power of two that makes integers of sums up to `bound`; at most 2¹²⁶, which float32 can hold."""
    return torch.exp2((BITS - torch.as_tensor(bound, dtype=torch.float64).log2().ceil()).clamp(-126, 126))


def _uniform(numbers: Tensor) -> Tensor:
    """Return a pseudo-random float32 in (0, 1) for each number, by operations that every processor rounds alike."""
    x = numbers * 2654435761 + 40503
    for multiplier in (73244475, 73244475, 1):
        x = (x & 0xFFFFFFFF) * multiplier
        x = (x & 0xFFFFFFFF) ^ ((x & 0xFFFFFFFF) >> 16)
    return (((x >> 8).float() + 0.5) / (1 << 24)).clamp_max(1 - 2**-24)  # float32 rounds the last one up to 1
