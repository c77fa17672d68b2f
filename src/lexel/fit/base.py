"""What all fits of quantizers to vectors share: how rows are read, and one iteration.

Results are a function of the rows, the settings and the state alone, to the bit: sums over rows are exact, so that no
number of threads, pieces or processes changes them, and small systems are solved by one thread.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lexel._core.by_code import add_by_code
from lexel._core.checks import check_integer, check_number
from lexel._core.collectives import all_min, all_sum
from lexel._core.config import Configurable
from lexel._core.gradients import LEAST_LENGTH, unit_rows
from lexel._core.rows import Rows, read, spans
from lexel.kmeans import common_row, kmeans
from lexel.quantizers.base import Quantizer

__all__ = ["Fit", "Rows", "State", "Tables", "Totals", "centres", "one_thread", "pieces"]

# Numbers of the rows that are read at a time.
PIECE = 1 << 21
# A cluster may have so many times the mean and count as balanced; ⌈N/K⌉ is allowed in any case.
SLACK = 1.03
# Iterations that balance: prices alone, then prices with codes that follow in every fifth, then prices alone.
BEFORE, BOTH, AFTER, BETWEEN = 16, 80, 50, 5
# The part of the way that prices go at once, which falls in the last iterations; the part of a step that is repeated.
DAMPING, LEAST_DAMPING, MOMENTUM = 0.3, 0.1, 0.7
# A price moves by less than so many mean squared errors at once; how far, is told by a histogram with so many bins
# either way, of which so many halve the distance; numbers that are held for it.
REACH, BINS, HALVING, TILE = 0.5, 64, 4, 1 << 23

State = dict[str, Tensor]


def pieces(rows: Rows, *, unit: bool = False) -> Iterator[Tensor]:
    """Read rows, never all at once; at least one piece, which is empty where there are no rows.

    Args:
        rows: `(N, D)`, of any floating type.
        unit: scale each to length 1.

    Yields:
        `(n, D)`, float32, or float64 for float64 rows.

    Example:
        >>> [len(piece) for piece in pieces(torch.zeros(5, 1 << 20))]
        [2, 2, 1]
    """
    for span in spans(max(1, len(rows)), rows[0:1].shape[-1], PIECE):
        piece = read(rows, span)
        yield unit_rows(piece) if unit else piece


def centres(rows: Rows, num_embeddings: int, *, iterations: int, seed: int, unit: bool = False) -> Tensor:
    """Return the codebook `(K, D)` that k-means finds; K times the row if all are equal."""
    same = common_row(rows)  # of what the stages before leave, or of a group of channels
    if same is not None:
        return same.repeat(num_embeddings, 1)
    return kmeans(rows, num_embeddings, iterations=iterations, seed=seed, unit=unit).codebook


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, so that sums have one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Tables(NamedTuple):
    """What an iteration tries.

    Attributes:
        codebooks: Q of `(K_q, d)`.
        prices: Q of `(K_q,)`, with `balanced`; none otherwise.
        speeds: how far the prices went last, Q of `(K_q,)` float64.
        rotation: `(D, D)`, for fits that rotate.
    """

    codebooks: list[Tensor]
    prices: list[Tensor]
    speeds: list[Tensor]
    rotation: Tensor | None = None

    def state(self, prefix: str) -> State:
        """Return all tensors with their names."""
        named = {f"{prefix}codebook.{q}": codes for q, codes in enumerate(self.codebooks)}
        named |= {f"{prefix}price.{q}": price for q, price in enumerate(self.prices)}
        named |= {f"{prefix}speed.{q}": speed for q, speed in enumerate(self.speeds)}
        return named if self.rotation is None else {**named, f"{prefix}rotation": self.rotation}

    @classmethod
    def of(cls, state: State, prefix: str) -> Tables:
        """Find what `state` has named."""

        def numbered(name: str) -> list[Tensor]:
            count = sum(key.startswith(f"{prefix}{name}.") for key in state)
            return [state[f"{prefix}{name}.{q}"] for q in range(count)]

        return cls(numbered("codebook"), numbered("price"), numbered("speed"), state.get(f"{prefix}rotation"))


@dataclass
class Totals:
    """Sums over all rows of all ranks, float64, and exact.

    Attributes:
        sizes: the K_q.
        counts: rows of each code of all codebooks one after the other, `(ΣK,)`.
        pairs: rows that have both codes, `(ΣK, ΣK)`; only the counts on its diagonal where nobody needs more.
        sums: sum of the rows of each code, `(ΣK, D)`.
        errors: sum of the squared errors of the rows of each code, `(ΣK,)`.
        error: sum of all squared errors, a scalar.
        gaps: how many rows come to or leave a code when its price changes by how much, `(ΣK, 2 · BINS)`, where prices
            are looked for.
    """

    sizes: list[int]
    counts: Tensor
    pairs: Tensor | None
    sums: Tensor
    errors: Tensor
    error: Tensor
    gaps: Tensor

    def by_codebook(self, tensor: Tensor) -> list[Tensor]:
        """Split one of them."""
        return list(torch.split(tensor, self.sizes))


@dataclass(frozen=True)
class Fit(Configurable):
    """Settings that fit a quantizer to vectors, until it no longer improves.

    One iteration encodes all rows with the tables at hand and moves these to where the rows want them. The tables of
    the least error so far are kept, and are the quantizer's.

    Example:
        >>> from lexel.fit import FlatFit
        >>> rows = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
        >>> fit = FlatFit(2)
        >>> state = fit.run(rows)  # or fit.start(rows), and fit.advance(rows, state) until fit.finished(state)
        >>> fit.quantizer(state)(rows).quantized.squeeze().tolist(), float(state["error"])
        ([0.5, 0.5, 10.5, 10.5], 0.009900990099009901)

    Attributes:
        num_embeddings: K; or one for each codebook.
        iterations: at most so many.
        tolerance: stop when the error has fallen by less than this share of it in three iterations.
        seed: of all that is drawn.
        unit: whether the directions of the rows count, not their lengths.
        balanced: whether each code shall be that of equally many rows, by `Prices`: after the other iterations, at most
            146 more find the prices and move the codes, until the largest cluster of each codebook has at most 1.03
            times the mean, or ⌈N/K⌉. The tables with the fewest rows beyond that are kept. No function of a vector can
            part equal rows: a group of them that is larger than this stays one cluster, and smaller groups may be too
            many for a code as well.
        noise: how far codes are moved at random at first, in standard deviations of the rows, as LSQ++ does (Martinez
            et al. 2018, §4.2, SR-D). It falls to zero linearly in the first three quarters of the iterations. What is
            best depends on the rows: 0.7 for sparse texts, 0.3 for patches of pictures, 0.1 for Gaussian vectors.
    """

    num_embeddings: int | tuple[int, ...] = 256
    iterations: int = 30
    tolerance: float = 1e-4
    seed: int = 0
    unit: bool = False
    balanced: bool = False
    noise: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        many = self.num_embeddings if isinstance(self.num_embeddings, tuple) else (self.num_embeddings,)
        for size in many:
            check_integer(name, "num_embeddings", size, least=1)
        if len(many) not in (1, self.levels):
            raise ValueError(
                f"{name}: num_embeddings must be one number or one for each of the {self.levels} codebooks, got {many}"
            )
        check_integer(name, "iterations", self.iterations, least=1)
        check_integer(name, "seed", self.seed, least=0)
        for argument in ("tolerance", "noise"):
            check_number(name, argument, getattr(self, argument), least=0)

    @property
    def levels(self) -> int:
        """Q, how many codebooks there are."""
        return 1

    @property
    def sizes(self) -> list[int]:
        """K of each codebook."""
        many = self.num_embeddings if isinstance(self.num_embeddings, tuple) else (self.num_embeddings,)
        return list(many * self.levels if len(many) == 1 else many)

    @property
    def beam(self) -> int:
        """How many partial sums `encode` keeps for each row."""
        return 1

    needs_pairs: ClassVar[bool] = False

    @abstractmethod
    def first(self, rows: Rows, state: State) -> Tables:
        """Return the tables to begin with.

        Args:
            rows: this rank's.
            state: what `start` knows of them: `mean` and `deviation` of each channel `(D,)`.
        """

    @abstractmethod
    def encode(self, piece: Tensor, tables: Tables, *, rough: bool) -> Tensor:
        """Return the codes of the rows of a piece, `(n, Q)`; `rough` ones will do while there is noise."""

    @abstractmethod
    def decode(self, indices: Tensor, tables: Tables) -> Tensor:
        """Return what codes `(n, Q)` stand for, `(n, D)`."""

    @abstractmethod
    def share(self, piece: Tensor, indices: Tensor, tables: Tables, q: int) -> Tensor:
        """Return what codebook q has to stand for, the codes `(n, Q)` of the others given, `(n, d)`."""

    @abstractmethod
    def moved(self, tables: Tables, totals: Totals) -> Tables:
        """Return better tables for the codes that the rows have now."""

    @abstractmethod
    def quantizer(self, state: State) -> Quantizer:
        """Return the quantizer of the least error so far, in eval mode."""

    def check(self, dim: int) -> None:
        """Refuse rows of D channels.

        Raises:
            ValueError: they cannot be split as the settings say.
        """

    @torch.no_grad()
    def start(self, rows: Rows) -> State:
        """Look at the rows and find the first tables.

        Args:
            rows: `(N, D)`; under `torch.distributed` this rank's share of them.

        Returns:
            A state: tensors by name, with `iteration` (int64 scalar) and `error` (float64 scalar: mean squared error
            of a row ÷ mean squared distance of the rows from their mean, of the tables that the quantizer gets) and
            `trial` (the same of the tables tried last, which may still hold noise).

        Raises:
            ValueError: a row holds NaN or infinity, or is zero and `unit` is set; all rows are equal; or they are fewer
                than the codes of a codebook.
        """
        state = self._survey(rows)
        tables = self.first(rows, state)
        if self.balanced and not tables.prices:
            prices = [codes.new_zeros(len(codes)) for codes in tables.codebooks]
            tables = tables._replace(prices=prices, speeds=[price.double() for price in prices])
        unknown = torch.tensor(torch.inf, dtype=torch.float64)
        state |= {"error": unknown, "excess": unknown, "iteration": torch.tensor(-1), "stale": torch.tensor(0)}
        return self.advance(rows, {**state, **tables.state("next.")})

    @torch.no_grad()
    def advance(self, rows: Rows, state: State) -> State:
        """Make one iteration; the state that is given stays as it is."""
        tables = Tables.of(state, "next.")
        done = int(state["iteration"]) + 1
        rough = 0 < done < self._calm
        balancing = done - self.iterations if self.balanced else -1
        totals = self._totals(rows, state, tables, rough=rough, gaps=balancing >= 0)
        error = totals.error / state["count"] / state["energy"]
        excess = self._excess(totals, state)
        better = not rough and (float(excess), float(error)) < (float(state["excess"]), float(state["error"]))
        better = better or balancing == 0  # noise may have been balanced
        falls = better and float(error) < float(state["error"]) * (1 - self.tolerance)
        with one_thread():
            if balancing < 0:
                following = self._disturbed(self.moved(tables, totals), totals, state, done)
            else:
                following = self._charged(tables, totals, state, balancing)
                if BEFORE <= balancing < BEFORE + BOTH and balancing % BETWEEN == 0:
                    following = self.moved(following, totals)
        return {
            **state,
            **following.state("next."),
            **(tables.state("") | {"error": error, "excess": excess} if better else {}),
            "trial": error,
            "iteration": torch.tensor(done),
            "stale": torch.tensor(0) if falls else state["stale"] + 1,
        }

    def run(self, rows: Rows) -> State:
        """Start, and go on until there is nothing more to do.

        Raises:
            ValueError: as `start`.
        """
        state = self.start(rows)
        while not self.finished(state):
            state = self.advance(rows, state)
        return state

    def finished(self, state: State) -> bool:
        """Whether there is nothing more to do."""
        done = int(state["iteration"])
        if self.balanced:
            last = done > self.iterations + BEFORE + BOTH
            return done + 1 >= self.length or (last and float(state["excess"]) == 0)
        return done >= self.iterations or (done > self._calm and int(state["stale"]) >= 3)

    @property
    def length(self) -> int:
        """How many iterations there are at most, with that of `start`."""
        return self.iterations + 1 + (BEFORE + BOTH + AFTER if self.balanced else 0)

    @property
    def _calm(self) -> int:
        """The first iteration without noise."""
        return self.iterations * 3 // 4 if self.noise else 0

    def spread(self, tables: Tables, state: State, q: int) -> Tensor:
        """The standard deviation that noise for codebook q is measured in, `(d,)`."""
        return state["deviation"]

    def placed(self, codes: Tensor) -> Tensor:
        """Return the nearest codes that a codebook can have."""
        return codes

    def _disturbed(self, tables: Tables, totals: Totals, state: State, done: int) -> Tables:
        """Move codes at random, and those that no row has to where the error is."""
        scale = self.noise * max(0.0, 1 - (done + 1) / (self._calm + 1))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + done)
        codebooks = []
        for q, (codes, counts, errors) in enumerate(
            zip(tables.codebooks, totals.by_codebook(totals.counts), totals.by_codebook(totals.errors), strict=True)
        ):
            noise = torch.randn(codes.shape, generator=generator, dtype=codes.dtype).to(codes.device)
            noise = noise * self.spread(tables, state, q).to(codes.dtype)
            unused = (counts == 0).nonzero()[:, 0]
            costly = errors.argsort(descending=True, stable=True)[: len(unused)]
            codes = codes.index_copy(0, unused, codes[costly] + 0.01 * noise[unused])
            codebooks.append(self.placed(codes + scale * noise))
        return tables._replace(codebooks=codebooks)

    def _allowed(self, state: State) -> list[int]:
        """How many rows a code of each codebook may have."""
        means = [float(state["count"]) / size for size in self.sizes]
        return [max(math.ceil(mean), math.floor(SLACK * mean)) for mean in means]

    def _excess(self, totals: Totals, state: State) -> Tensor:
        """The rows that codes have beyond what they may, of all rows; 0 unless `balanced`."""
        excess = totals.counts.new_zeros(())
        for most, counts in zip(self._allowed(state), totals.by_codebook(totals.counts), strict=True):
            excess += (counts - most).clamp_min(0).sum() / state["count"]
        return excess if self.balanced else torch.zeros_like(excess)

    def _charged(self, tables: Tables, totals: Totals, state: State, balancing: int) -> Tables:
        """Move each price towards the one at which its code, the others' prices given, has as many rows as it may.

        That is coordinate ascent of the dual of the assignment problem, of all coordinates at once and hence damped.
        Codes in one dense region raise their prices by turns, by little each; so a price that goes on in one direction
        keeps part of its speed.
        """
        calm = max(0, balancing - BEFORE - BOTH) / AFTER
        damping = DAMPING * (LEAST_DAMPING / DAMPING) ** calm
        steps = torch.arange(1 - BINS, 1, dtype=torch.float64, device=totals.gaps.device) / HALVING
        edges = REACH * state["trial"] * state["energy"] * torch.exp2(steps)
        edges = torch.cat([-edges.flip(0), edges.new_zeros(1), edges])
        prices, speeds = [], []
        for price, speed, gaps, most in zip(
            tables.prices, tables.speeds, totals.by_codebook(totals.gaps), self._allowed(state), strict=True
        ):
            # Rows that the code has if its price rises by an edge; the bin in which it has as many as it may.
            kept = F.pad(gaps.flip(1).cumsum(1).flip(1), (0, 1))
            above = (kept > most).sum(1, keepdim=True).clamp(1, 2 * BINS)
            more, fewer = kept.gather(1, above - 1)[:, 0], kept.gather(1, above)[:, 0]
            part = ((more - most) / (more - fewer).clamp_min(1)).clamp(0, 1)
            low, high = edges[above[:, 0] - 1], edges[above[:, 0]]
            change = low + part * (high - low)
            speed = torch.where(speed * change > 0, MOMENTUM * speed, 0) + damping * change
            moved = price + speed
            prices.append((moved - moved.mean()).to(price.dtype))
            speeds.append(speed)
        return tables._replace(prices=prices, speeds=speeds)

    def _gaps(self, piece: Tensor, indices: Tensor, tables: Tables, reach: float) -> Tensor:
        """Count the rows that the codes would lose or win at other prices, `(ΣK, 2 · BINS)`."""

        def bins(gaps: Tensor) -> Tensor:
            return (BINS + HALVING * (gaps / reach).log2()).floor().clamp(0, BINS - 1).long()

        counted = []
        for q, (codes, prices) in enumerate(zip(tables.codebooks, tables.prices, strict=True)):
            wide, found = codes.double(), torch.zeros(len(codes) * 2 * BINS, device=codes.device).double()
            rows, height = self.share(piece, indices, tables, q).double(), max(1, TILE // len(codes))
            for tile, own in zip(torch.split(rows, height), torch.split(indices[:, q], height), strict=True):
                costs = torch.addmm(wide.square().sum(1) + prices, tile, wide.T, alpha=-2)
                paid = costs.gather(1, own.unsqueeze(1))
                costs.scatter_(1, own.unsqueeze(1), torch.inf)
                loses = bins((costs.amin(1) - paid[:, 0]).clamp_min(0))
                row, code = (costs < paid + reach).nonzero(as_tuple=True)
                wins = bins((costs[row, code] - paid[row, 0]).clamp_min(0))
                places = torch.cat([own * 2 * BINS + BINS + loses, code * 2 * BINS + BINS - 1 - wins])
                found += torch.bincount(places, minlength=len(found))
            counted.append(found.reshape(-1, 2 * BINS))
        return torch.cat(counted)

    def _survey(self, rows: Rows) -> State:
        """Return what must be known of all rows.

        Raises:
            ValueError: there are rows that no quantizer can be fitted to.
        """
        name = type(self).__name__
        count, faults, ends = 0, [], None
        for piece in pieces(rows):
            if piece.ndim != 2 or not piece.shape[1]:
                raise ValueError(f"{name}: rows must be (N, D), got a slice of shape {tuple(piece.shape)}")
            bad = ~piece.isfinite().all(1)
            faults += [f"row {count + int(row)} holds NaN or infinity" for row in bad.nonzero()[:3, 0]]
            if self.unit:
                short = torch.linalg.vector_norm(piece, dim=1) <= LEAST_LENGTH
                faults += [f"row {count + int(row)} is zero and has no direction" for row in short.nonzero()[:3, 0]]
                piece = unit_rows(piece)
            if ends is None:
                ends = piece.new_full((2, piece.shape[1]), torch.inf)
            if len(piece):
                ends = torch.minimum(ends, torch.stack([piece.amin(0), -piece.amax(0)]))
            count += len(piece)
        assert ends is not None
        self.check(ends.shape[1])
        own = ends.new_tensor([float(count), float(bool(faults))], dtype=torch.float64)
        total, faulty = all_sum(own)[0].tolist()
        low, high = all_min(ends.nan_to_num(-torch.inf))
        high = -high
        if faulty:
            raise ValueError(f"{name}: {'; '.join(faults[:5]) or 'rows of another rank cannot be fitted'}")
        if total < max(self.sizes):
            raise ValueError(f"{name}: {int(total)} rows are fewer than the {max(self.sizes)} codes of a codebook")
        if bool((low == high).all()):
            raise ValueError(f"{name}: all {int(total)} rows are equal")
        peak = float(torch.maximum(low.abs(), high.abs()).max())
        sums = torch.zeros(2, ends.shape[1], dtype=torch.float64, device=ends.device)
        middle = (low.double() + high.double()) / 2
        for piece in pieces(rows, unit=self.unit):
            centred = piece.double() - middle
            sums[0] += snapped(centred, 2 * peak * total).sum(0)
            sums[1] += snapped(centred.square(), 4 * peak**2 * total).sum(0)
        mean, square = all_sum(sums)[0] / total
        variance = (square - mean.square()).clamp_min(0)
        return {
            "count": torch.tensor(total, dtype=torch.float64),
            "peak": torch.tensor(peak, dtype=torch.float64),
            "mean": middle + mean,
            "deviation": variance.sqrt(),
            "energy": variance.sum(),
        }

    def _totals(self, rows: Rows, state: State, tables: Tables, *, rough: bool, gaps: bool) -> Totals:
        """Encode all rows and sum up what the next tables need."""
        sizes, dim, (total, peak) = self.sizes, len(state["mean"]), (float(state[name]) for name in ("count", "peak"))
        many, device = sum(sizes), state["mean"].device
        starts = torch.tensor([sum(sizes[:q]) for q in range(len(sizes))], device=device)
        counts, errors = (torch.zeros(many, dtype=torch.float64, device=device) for _ in range(2))
        sums = torch.zeros(many, dim, dtype=torch.float64, device=device)
        pairs = torch.zeros(many * many if self.needs_pairs else 0, dtype=torch.float64, device=device)
        error = torch.zeros((), dtype=torch.float64, device=device)
        counted = torch.zeros(many, 2 * BINS if gaps else 0, dtype=torch.float64, device=device)
        for piece in pieces(rows, unit=self.unit):
            indices = self.encode(piece, tables, rough=rough)
            if gaps:
                counted += self._gaps(piece, indices, tables, REACH * float(state["trial"] * state["energy"]))
            wide = piece.double()
            squares = snapped((wide - self.decode(indices, tables)).square().sum(1), 4 * dim * peak**2 * total)
            error += squares.sum()
            wide = snapped(wide, peak * total)
            for own in (indices + starts).T:
                counts += torch.bincount(own, minlength=many)
                add_by_code((sums, errors), own, (wide, squares))
                if self.needs_pairs:
                    for other in (indices + starts).T:
                        pairs += torch.bincount(own * many + other, minlength=many * many)
        counts, sums, pairs, errors, error, counted = all_sum(counts, sums, pairs, errors, error, counted)
        pairs_of = pairs.reshape(many, -1) if self.needs_pairs else None
        return Totals(sizes, counts, pairs_of, sums, errors, error, counted)


def snapped(values: Tensor, bound: float) -> Tensor:
    """Round float64 values to multiples of a power of two that is so large that sums of them are exact.

    Whoever adds them up, in whatever order, gets the same sum to the bit.

    Args:
        values: of any shape.
        bound: what the sum of all absolute values is below.

    Example:
        >>> values = snapped(torch.rand(1000, dtype=torch.float64), 1000)
        >>> bool(values.sum() == values.flip(0).cumsum(0)[-1])
        True
    """
    # At 1.5 · 2^52 steps, neighbouring float64 numbers are a step apart.
    far = 1.5 * 2.0 ** math.ceil(math.log2(bound))
    return (values + far) - far
