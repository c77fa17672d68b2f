"""Online training on sources that stand still, beside converged k-means and the limits of rate-distortion theory.

    python -m benchmarks.static

writes `benchmarks/results/static.md` and `static.png`, and the summary in `docs/quality.md`;

    python -m benchmarks.static revival

what revival by error changes, in `docs/quality.md`. Every run is stored, so that an interrupted benchmark goes on where
it stopped.

Distortion is the mean squared error for each component of held-out vectors; every source has a variance of 1 for each
component. Online training sees STEPS batches of BATCH vectors: new ones each time from the Gaussian and Laplacian
sources, random patches from the set that k-means gets as a whole.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import faiss
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor, nn
from vector_quantize_pytorch import VectorQuantize

import lexel
from benchmarks.cache import BUILD, cached
from lexel.data.images import open_images
from lexel.demo import copy_photographs

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "quality.md"
BLOCK = "static sources"
REVIVAL_BLOCK = "revival by error"
STEPS, BATCH, SEEDS = 1000, 4096, (0, 1, 2)
TRAINING, HELD_OUT = 1 << 20, 1 << 19
SIZES = (64, 512, 4096)
STARTS = {64: 5, 512: 3, 4096: 1}
ITERATIONS = {64: 100, 512: 60, 4096: 40}
COMPOSITES = ((2, 64), (4, 64))
LEVELS = (4, 8, 16, 32)
MAX = {4: 0.1175, 8: 0.03454, 16: 0.009497, 32: 0.002499}
"""Distortion of a unit normal, rounded to the best levels, as Max (1960, table I) computed it."""
BEAM = 5

EMA = lexel.EMA()
WARM = lexel.EMA(decay=0.999, warmup=10)
ALIVE = (lexel.KMeansStart(), lexel.Revival())
BEST = (lexel.KMeansStart(), lexel.Revival(decay=0.97))
ONLINE: dict[str, dict[str, Any]] = {
    "Lexel, defaults": {"learning": EMA, "upkeep": ALIVE},
    "Lexel, best": {"learning": WARM, "upkeep": BEST},
}
PARTS: dict[str, dict[str, Any]] = {
    **ONLINE,
    "defaults, with a warm-up": {"learning": WARM, "upkeep": ALIVE},
    "best, without a warm-up": {"learning": EMA, "upkeep": BEST},
    "best, without revival": {"learning": WARM, "upkeep": ALIVE[:1]},
    "best, with Revival(threshold=0.1)": {"learning": WARM, "upkeep": (ALIVE[0], lexel.Revival(threshold=0.1))},
    "best, without k-means start": {"learning": WARM, "upkeep": BEST[1:]},
}
BY_ERROR: dict[str, dict[str, Any]] = {
    "defaults": ONLINE["Lexel, defaults"],
    "defaults, by error": {"learning": EMA, "upkeep": (ALIVE[0], lexel.Revival(threshold=0.1, by="error"))},
    "best": ONLINE["Lexel, best"],
    "best, by error": {
        "learning": WARM,
        "upkeep": (ALIVE[0], lexel.Revival(threshold=0.1, decay=0.97, by="error")),
    },
    "warm-up of 100, by error": {
        "learning": lexel.EMA(decay=0.999, warmup=100),
        "upkeep": (ALIVE[0], lexel.Revival(threshold=0.1, decay=0.97, by="error")),
    },
}
RIVALS: dict[str, dict[str, Any]] = {
    "vector-quantize-pytorch, defaults": {},
    "vector-quantize-pytorch, EMA 0.99, k-means start": {"decay": 0.99, "kmeans_init": True},
}
RIVAL_SEEDS = {64: SEEDS, 512: SEEDS[:1], 4096: ()}  # they are slow


def gaussian(count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, 8, generator=generator)


def laplacian(count: int, generator: torch.Generator) -> Tensor:
    """Independent components, of variance 1."""
    signed = torch.empty(count, 8).exponential_(math.sqrt(2), generator=generator)
    return torch.where(torch.rand(count, 8, generator=generator) < 0.5, signed, -signed)


@cache
def patches() -> tuple[Tensor, Tensor]:
    """Training and held-out 4×4 patches of the luminance, less its mean.

    They come from the ten photographs that the demo trains on, cut into squares of 64×64: one in five is held out, and
    no patch crosses an edge, so that no pixel is in both.
    """
    weights, squares = torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1), []
    with tempfile.TemporaryDirectory() as folder:
        photographs, _ = copy_photographs(Path(folder))
        for _, image in open_images(photographs).readable(range(10)):
            luminance = (image * weights).sum(0)
            tiles = luminance.unfold(0, 64, 64).unfold(1, 64, 64).reshape(-1, 64, 64)
            squares += [tile.unfold(0, 4, 1).unfold(1, 4, 1).reshape(-1, 16) for tile in tiles]
    generator = torch.Generator().manual_seed(0)
    both = []
    for chosen, count in ((lambda n: n % 5 != 4, TRAINING), (lambda n: n % 5 == 4, HELD_OUT)):
        rows = torch.cat([square for number, square in enumerate(squares) if chosen(number)])
        both.append(rows[torch.randperm(len(rows), generator=generator)[:count]])
    training, held_out = both
    return (training - training.mean()) / training.std(), (held_out - training.mean()) / training.std()


@dataclass(frozen=True)
class Source:
    """Where vectors come from, and what theory says of it.

    Attributes:
        name: as shown.
        dim: D.
        draw: new vectors; None for the patches, which are finite.
        limit: a distortion for a rate in bits per component, and how it is called.
        bound: what the limit is.
        quantile: of a scalar source, the number below which a share of it lies. Its held-out numbers are evenly spaced
            shares, since the rare and large numbers among as many random ones would shift the distortion by 1 %.
    """

    name: str
    dim: int
    draw: Callable[[int, torch.Generator], Tensor] | None
    limit: Callable[[float], float]
    bound: str
    quantile: Callable[[Tensor], Tensor] | None = None

    def training(self) -> Tensor:
        return self.draw(TRAINING, torch.Generator().manual_seed(10**6)) if self.draw else patches()[0]

    def held_out(self) -> Tensor:
        if self.quantile:
            shares = (torch.arange(HELD_OUT, dtype=torch.float64) + 0.5) / HELD_OUT
            return self.quantile(shares).float().unsqueeze(1)
        return self.draw(HELD_OUT, torch.Generator().manual_seed(10**6 + 1)) if self.draw else patches()[1]

    def batches(self, seed: int, steps: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            if self.draw:
                yield self.draw(BATCH, generator)
            else:
                yield patches()[0][torch.randint(TRAINING, (BATCH,), generator=generator)]


def gaussian_of_the_same_covariance(rate: float) -> float:
    """Distortion of a Gaussian source with the patches' covariance, by reverse water-filling (Cover and Thomas, 10.3).

    Of all sources with a covariance the Gaussian has the largest distortion at each rate: for the patches it is an
    upper bound of what codes of unlimited length can reach.
    """
    variances = torch.linalg.eigvalsh(torch.cov(patches()[0].T.double())).clamp_min(1e-12)
    low, high = 0.0, float(variances.max())
    for _ in range(100):
        level = (low + high) / 2
        bits = float((variances / level).clamp_min(1).log2().mean() / 2)
        low, high = (level, high) if bits > rate else (low, level)
    return float(variances.clamp_max(high).mean())


SOURCES = (
    Source("Gaussian", 8, gaussian, lambda rate: 2 ** (-2 * rate), "D(R)"),
    # Differential entropy log2(2 e b) with b = 1/√2, in (1 / 2πe) 2^(2h) 2^(-2R).
    Source("Laplacian", 8, laplacian, lambda rate: math.e / math.pi * 2 ** (-2 * rate), "Shannon's lower bound"),
    Source("patches", 16, None, gaussian_of_the_same_covariance, "D(R) of a Gaussian"),
)


def scalars(draw: Callable[[int, torch.Generator], Tensor]) -> Callable[[int, torch.Generator], Tensor]:
    """Draw the components of vectors one by one."""
    return lambda count, generator: draw(count // 8, generator).reshape(-1, 1)


def laplacian_quantile(share: Tensor) -> Tensor:
    return -(share - 0.5).sign() * (1 - 2 * (share - 0.5).abs()).log() / math.sqrt(2)


SCALARS = (
    replace(SOURCES[0], name="normal", dim=1, draw=scalars(gaussian), quantile=torch.special.ndtri),
    replace(SOURCES[1], name="Laplacian", dim=1, draw=scalars(laplacian), quantile=laplacian_quantile),
)


def best_levels(source: Source, count: int) -> Tensor:
    """Return the levels of least distortion, by Lloyd's iterations on the held-out numbers until nothing moves."""
    numbers = source.held_out().double().flatten()
    sums = F.pad(numbers.cumsum(0), (1, 0))
    levels = numbers[torch.arange(count) * len(numbers) // count + len(numbers) // (2 * count)] * math.sqrt(3)
    for _ in range(20_000):
        ends = torch.searchsorted(numbers, (levels[1:] + levels[:-1]) / 2)
        ends = F.pad(F.pad(ends, (1, 0)), (0, 1), value=len(numbers))
        before, levels = levels, sums[ends].diff() / ends.diff()
        if torch.equal(before, levels):
            break
    return levels.float().unsqueeze(1)


def distortion(rows: Tensor, codes: Tensor) -> float:
    """Mean squared error for each component when each row takes its nearest code."""
    return sum(
        float((tile - codes[lexel.nearest_code(tile, codes)]).double().square().sum()) for tile in rows.split(1 << 16)
    ) / float(rows.numel())


def both_sets(source: Source, codes: Tensor) -> dict[str, float]:
    return {"training": distortion(source.training(), codes), "held-out": distortion(source.held_out(), codes)}


def by_faiss(source: Source, num_embeddings: int, seed: int) -> dict[str, Any]:
    """One start of Lloyd's iterations from k-means++ seeds."""
    settings = {"iterations": ITERATIONS[num_embeddings], "rows": min(TRAINING, 4096 * num_embeddings)}

    def compute() -> dict[str, Any]:
        kmeans = faiss.Kmeans(
            source.dim, num_embeddings, niter=settings["iterations"], seed=seed, max_points_per_centroid=1 << 20
        )
        kmeans.cp.init_method = faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS
        kmeans.train(source.training()[: settings["rows"]].numpy())
        return both_sets(source, torch.from_numpy(kmeans.centroids))

    return run(source, "faiss.Kmeans", compute, num_embeddings=num_embeddings, seed=seed, **settings)


def by_sklearn(source: Source, num_embeddings: int, seed: int) -> dict[str, Any]:
    rows = min(TRAINING, 4096 * num_embeddings)

    def compute() -> dict[str, Any]:
        kmeans = KMeans(num_embeddings, n_init=1, random_state=seed).fit(source.training()[:rows].numpy())
        return both_sets(source, torch.from_numpy(kmeans.cluster_centers_))

    return run(source, "sklearn", compute, num_embeddings=num_embeddings, seed=seed, rows=rows)


def online(source: Source, quantizer: Callable[[], lexel.Quantizer], seed: int, steps: int = STEPS) -> dict[str, Any]:
    """Train on the stream. A quantizer of one codebook is measured on both sets, a composite on the held-out one."""

    def compute() -> dict[str, Any]:
        vq = trained(quantizer(), source, seed, steps)
        if isinstance(vq, lexel.VectorQuantizer):
            return both_sets(source, vq.codebook().detach())
        rows = source.held_out()
        found = {"held-out": error(rows, vq.lookup(vq(rows).indices))}
        if isinstance(vq, lexel.ResidualQuantizer):
            found["beam"] = error(rows, vq.lookup(vq.beam_search(rows, BEAM)))
        return found

    torch.manual_seed(seed)
    return run(source, "online", compute, quantizer=quantizer().config, seed=seed, steps=steps, batch=BATCH)


def rival(source: Source, num_embeddings: int, arguments: dict[str, Any], seed: int) -> dict[str, Any]:
    def compute() -> dict[str, Any]:
        torch.manual_seed(seed)
        vq = trained(VectorQuantize(dim=source.dim, codebook_size=num_embeddings, **arguments), source, seed, STEPS)
        return both_sets(source, vq._codebook.embed[0])

    settings = {"num_embeddings": num_embeddings, "arguments": arguments, "steps": STEPS, "batch": BATCH}
    return run(source, "vector-quantize-pytorch", compute, seed=seed, **settings)


def by_faiss_composite(source: Source, kind: str, count: int, num_embeddings: int) -> dict[str, Any]:
    """Train faiss's own composite, with and without a beam, on an eighth of the training set."""
    rows, held_out = source.training()[: TRAINING // 8].numpy(), source.held_out().numpy()
    bits = int(math.log2(num_embeddings))

    def measured(quantizer: Any) -> float:
        quantizer.train(rows)
        return error(source.held_out(), torch.from_numpy(quantizer.decode(quantizer.compute_codes(held_out))))

    def compute() -> dict[str, Any]:
        if kind == "product":
            grouped = faiss.ProductQuantizer(source.dim, count, bits)
            grouped.cp.niter, grouped.cp.max_points_per_centroid = 100, 1 << 20
            return {"held-out": measured(grouped)}
        found = {}
        for name, beam in (("held-out", 1), ("beam", BEAM)):
            residual = faiss.ResidualQuantizer(source.dim, count, bits)
            residual.max_beam_size = beam
            residual.cp.niter, residual.cp.max_points_per_centroid = 100, 1 << 20
            found[name] = measured(residual)
        return found

    return run(source, f"faiss, {kind}", compute, count=count, num_embeddings=num_embeddings, rows=len(rows))


def trained(vq: nn.Module, source: Source, seed: int, steps: int) -> Any:
    with torch.no_grad():
        for batch in source.batches(seed, steps):
            vq(batch)
    return vq.eval()


def error(rows: Tensor, quantized: Tensor) -> float:
    return float((rows - quantized).square().double().mean())


def run(source: Source, method: str, compute: Callable[[], dict[str, Any]], **settings: Any) -> dict[str, Any]:
    settings = {"benchmark": "static", "source": source.name, "method": method, **settings}

    def compute_and_print() -> dict[str, Any]:
        found = compute()
        print(settings, found, flush=True)
        return found

    return cached(settings, compute_and_print, BUILD / "static.jsonl")


def composite(
    source: Source, kind: str, count: int, num_embeddings: int, parts: dict[str, Any]
) -> Callable[[], lexel.Quantizer]:
    def make() -> lexel.Quantizer:
        if kind == "residual":
            stages = [lexel.VectorQuantizer(num_embeddings, source.dim, **parts) for _ in range(count)]
            return lexel.ResidualQuantizer(stages, channel_dim=-1)
        groups = [lexel.VectorQuantizer(num_embeddings, source.dim // count, **parts) for _ in range(count)]
        return lexel.ProductQuantizer(groups, channel_dim=-1)

    return make


def vector(source: Source, num_embeddings: int, parts: dict[str, Any]) -> Callable[[], lexel.Quantizer]:
    return lambda: lexel.VectorQuantizer(num_embeddings, source.dim, channel_dim=-1, **parts)


@dataclass(frozen=True)
class Line:
    """One method at one source and size; distortions of each of its runs."""

    held_out: list[float]
    training: list[float]

    @classmethod
    def of(cls, found: Sequence[dict[str, Any]]) -> Line:
        return cls([one["held-out"] for one in found], [one["training"] for one in found])

    def cells(self, reference: Line, digits: int = 5) -> list[str]:
        mean = statistics.mean(self.held_out)
        spread = f" ± {statistics.stdev(self.held_out):.{digits}f}" if len(self.held_out) > 1 else ""
        return [
            f"{mean:.{digits}f}{spread}",
            f"{mean / reference.held_out[0] - 1:+.1%}",
            f"{statistics.mean(self.training):.{digits}f}",
        ]


def lines(source: Source, num_embeddings: int) -> dict[str, Line]:
    """All methods at one source and size; the first is k-means."""
    starts = [by_faiss(source, num_embeddings, seed) for seed in range(STARTS[num_embeddings])]
    if num_embeddings == min(SIZES):
        starts += [by_sklearn(source, num_embeddings, seed) for seed in range(STARTS[num_embeddings])]
    best = min(starts, key=lambda start: float(start["training"]))
    found = {"converged k-means": Line.of([best])}
    if len(starts) > 1:
        found["k-means, any start"] = Line.of(starts)
    for name, parts in ONLINE.items():
        found[name] = Line.of([online(source, vector(source, num_embeddings, parts), seed) for seed in SEEDS])
    for name, arguments in RIVALS.items():
        found[name] = Line.of([rival(source, num_embeddings, arguments, seed) for seed in RIVAL_SEEDS[num_embeddings]])
    return {name: line for name, line in found.items() if line.held_out}


def table(source: Source, found: dict[int, dict[str, Line]]) -> list[str]:
    text = ["| K | | held out | beside k-means | training set |", "|---|---|---|---|---|"]
    for num_embeddings, methods in found.items():
        reference = next(iter(methods.values()))
        for name, line in methods.items():
            text.append(f"| {num_embeddings:,} | {name} | {' | '.join(line.cells(reference))} |")
        limit = source.limit(math.log2(num_embeddings) / source.dim)
        text.append(
            f"| {num_embeddings:,} | {source.bound} | {limit:.5f} | {limit / reference.held_out[0] - 1:+.1%} | |"
        )
    return text


def summary(found: dict[str, dict[int, dict[str, Line]]]) -> list[str]:
    """Held-out distortion beside converged k-means, at a glance."""
    methods = [*ONLINE, *RIVALS]
    text = [f"| source | K | k-means | {' | '.join(methods)} | bound |", f"|---|---|---|{'---|' * len(methods)}---|"]
    for source in SOURCES:
        for size, lines in found[source.name].items():
            reference = lines["converged k-means"]
            cells = [lines[name].cells(reference)[1] if name in lines else "–" for name in methods]
            bound = source.limit(math.log2(size) / source.dim)
            text.append(
                f"| {source.name} | {size:,} | {reference.held_out[0]:.5f} | {' | '.join(cells)} | {bound:.5f} |"
            )
    return text


def parts_table(found: dict[str, dict[int, dict[str, Line]]]) -> list[str]:
    """What each part does, where it does most."""
    places = [(SOURCES[1], 512), (SOURCES[2], 512), (SOURCES[2], 4096)]
    text = [f"| | {' | '.join(f'{source.name}, K = {size:,}' for source, size in places)} |", "|---|---|---|---|"]
    for (name, parts), steps in [*product(PARTS.items(), [STEPS]), (("best", ONLINE["Lexel, best"]), 4 * STEPS)]:
        cells = []
        for source, size in places:
            reference = found[source.name][size]["converged k-means"].held_out[0]
            runs = [
                online(source, vector(source, size, parts), seed, steps)["held-out"]
                for seed in SEEDS[: 2 if steps == STEPS else 1]
            ]
            cells.append(f"{statistics.mean(runs) / reference - 1:+.1%}")
        text.append(f"| {name}{f', {steps:,} steps' if steps > STEPS else ''} | {' | '.join(cells)} |")
    return text


def scalars_table() -> list[str]:
    """Scalar sources beside the best levels that there are."""
    text = [
        f"| source | levels | best levels | Max 1960 | {' | '.join(ONLINE)} |",
        f"|---|---|---|---|{'---|' * len(ONLINE)}",
    ]
    for source, count in product(SCALARS, LEVELS):
        least = distortion(source.held_out(), best_levels(source, count))
        cells = []
        for parts in ONLINE.values():
            found = [online(source, vector(source, count, parts), seed)["held-out"] / least - 1 for seed in SEEDS]
            cells.append(f"{statistics.mean(found):+.1%} ± {statistics.stdev(found):.1%}")
        published = f"{MAX[count]}" if source.name == "normal" else "–"
        text.append(f"| {source.name} | {count} | {least:.6f} | {published} | {' | '.join(cells)} |")
    return text


def revival_table() -> list[str]:
    """What revival by error changes: scalars beside the best levels, and the patches' distortion."""
    text = [f"| source | K | {' | '.join(BY_ERROR)} |", f"|---|---|{'---|' * len(BY_ERROR)}"]
    for source, size, seeds in (*((source, 32, SEEDS) for source in SCALARS), (SOURCES[2], 512, SEEDS[:2])):
        least = distortion(source.held_out(), best_levels(source, size)) if source.quantile else None
        cells = []
        for parts in BY_ERROR.values():
            found = [online(source, vector(source, size, parts), seed)["held-out"] for seed in seeds]
            if least is None:
                cells.append(f"{statistics.mean(found):.5f} ± {statistics.stdev(found):.5f}")
            else:
                beyond = [one / least - 1 for one in found]
                cells.append(f"{statistics.mean(beyond):+.1%} ± {statistics.stdev(beyond):.1%}")
        text.append(f"| {source.name} | {size} | {' | '.join(cells)} |")
    return text


def composites_table() -> list[str]:
    text = ["| | | Lexel, defaults | Lexel, best | faiss | best beside faiss |", "|---|---|---|---|---|---|"]
    for source, kind, (count, size) in product((SOURCES[0], SOURCES[2]), ("residual", "product"), COMPOSITES):
        theirs = by_faiss_composite(source, kind, count, size)
        ours = [
            [online(source, composite(source, kind, count, size, parts), seed) for seed in SEEDS]
            for parts in ONLINE.values()
        ]
        for search, distortion_of_faiss in theirs.items():
            values = [[one[search] for one in each] for each in ours]
            cells = [f"{statistics.mean(each):.5f} ± {statistics.stdev(each):.5f}" for each in values]
            cells += [f"{distortion_of_faiss:.5f}", f"{statistics.mean(values[1]) / distortion_of_faiss - 1:+.1%}"]
            searched = f", beam of {BEAM}" if search == "beam" else ", greedy" if kind == "residual" else ""
            text.append(f"| {source.name} | {kind}, {count} × {size}{searched} | {' | '.join(cells)} |")
    return text


def plot(found: dict[str, dict[int, dict[str, Line]]]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(SOURCES), figsize=(11, 3.6), sharey=True, layout="constrained")
    for axis, source in zip(axes, SOURCES, strict=True):
        sizes = list(found[source.name])
        for number, name in enumerate([*ONLINE, *RIVALS]):
            values = {size: lines[name] for size, lines in found[source.name].items() if name in lines}
            ratios = [
                [100 * (one / found[source.name][size]["converged k-means"].held_out[0] - 1) for one in line.held_out]
                for size, line in values.items()
            ]
            axis.errorbar(
                [sizes.index(size) + 0.12 * (number - 1.5) for size in values],
                [statistics.mean(each) for each in ratios],
                [statistics.stdev(each) if len(each) > 1 else 0 for each in ratios],
                fmt="osD^"[number],
                capsize=3,
                label=name,
            )
        axis.axhline(0, color="black", linewidth=0.8)
        axis.axhline(1, color="grey", linewidth=0.8, linestyle="--")
        axis.set_xticks(range(len(sizes)), [f"{size:,}" for size in sizes])
        axis.set(title=f"{source.name}, D = {source.dim}", xlabel="K", yscale="symlog")
        axis.set_ylim(-1, 30)
        axis.set_yticks([-1, 0, 1, 10], ["-1", "0", "1", "10"])
    axes[0].set_ylabel("held-out distortion beyond\nconverged k-means, %")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")
    figure.savefig(RESULTS / "static.png", dpi=110, metadata={"Software": None})


def written(part: Any) -> str:
    """A part as one would write it, without what it is by default."""
    changed = [f"{f.name}={getattr(part, f.name)!r}" for f in fields(part) if getattr(part, f.name) != f.default]
    return f"{type(part).__name__}({', '.join(changed)})"


HEAD = f"""`python -m benchmarks.static`: online training sees {STEPS:,} batches of {BATCH:,} vectors; mean over
{len(SEEDS)} seeds, one for vector-quantize-pytorch at K = 512 and none at 4,096. K-means sees 2^20 vectors as a whole
(2^18 of them at K = 64): the best on its training set of {STARTS[64]} starts with faiss and {STARTS[64]} with
scikit-learn at K = 64, of {STARTS[512]} with faiss at K = 512, and one at K = 4,096. Distortion is the mean squared
error for each component; the sources have variance 1. The 2^19 held-out vectors are the same for all. *Defaults*:
`learning=EMA(), upkeep=(KMeansStart(), Revival())`. *Best*, one setting for all sources:
`learning={written(WARM)}, upkeep=({", ".join(map(written, BEST))})`.

*Bound*: the Gaussian's D(R), Shannon's lower bound for the Laplacian; both are out of reach for vectors this short. For
the patches no bound is known: D(R) of a Gaussian with their covariance is at least theirs, and good codes go below it.
"""


SCALARS_HEAD = f"""Of scalar sources the best levels are known (Lloyd–Max): distortion beyond theirs after {STEPS:,}
batches of {BATCH:,} numbers, mean ± standard deviation over {len(SEEDS)} seeds.
"""


REVIVAL_HEAD = f"""`python -m benchmarks.static revival`: {STEPS:,} batches of {BATCH:,}, mean ± standard deviation over
{len(SEEDS)} seeds, two of patches; of scalars the distortion beyond the best levels, of patches the held-out distortion
itself. *By error* is `{written(BY_ERROR["defaults, by error"]["upkeep"][1])}` with the defaults, and
`{written(BY_ERROR["best, by error"]["upkeep"][1])}` otherwise; *warm-up of 100* is
`{written(BY_ERROR["warm-up of 100, by error"]["learning"])}`.
"""


def write_block(name: str, lines: Sequence[str]) -> None:
    """Put lines between the two marks of a name on the page."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    PAGE.write_text(before + begin + "\n".join(lines) + "\n" + end + rest.partition(end)[2], encoding="utf-8")


def main() -> None:
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    if sys.argv[1:] == ["revival"]:
        write_block(REVIVAL_BLOCK, [REVIVAL_HEAD, *revival_table()])
        return
    found = {source.name: {size: lines(source, size) for size in SIZES} for source in SOURCES}
    overview = [HEAD, *summary(found)]
    text = ["# Static sources", "", *overview]
    numbers = scalars_table()
    for source in SOURCES:
        text += ["", f"## {source.name}, D = {source.dim}", "", "Mean ± standard deviation over seeds.", ""]
        text += table(source, found[source.name])
    parts = [
        "Held-out distortion beside converged k-means, two seeds, one for the longer runs.",
        "",
        *parts_table(found),
    ]
    text += ["", "## Scalar sources", "", SCALARS_HEAD, *numbers]
    text += ["", "## What each part does", "", *parts, "", "## Several codebooks", "", *composites_table()]
    (RESULTS / "static.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    plot(found)
    write_block(BLOCK, [*overview, "", SCALARS_HEAD, *numbers, "", *parts])


if __name__ == "__main__":
    main()
