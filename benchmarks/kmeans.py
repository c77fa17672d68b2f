"""K-means against its rivals: processor time, error and memory, on patches of photographs and on texts.

    python -m benchmarks.kmeans [--quick] [--runs N] [--threads N] [--only NAME ...] [--methods NAME ...]

writes what it measures to `benchmarks/results/kmeans.md`, in place of earlier figures of the same case. In each run
every method works once on the same rows with another seed, one after the other. On one thread, times are processor
seconds, which others' work on the machine hardly changes; on more, they are those of the clock. The error is that of
all rows with their nearest codes, found exactly for every method, over the energy of the rows about their mean.
The texts are the glosses of WordNet (Debian's `wordnet-base`); without it these cases are left out.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import faiss
import numpy as np
import skimage
import torch
from PIL import Image
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.datasets import load_sample_images
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from superkmeans import SuperKMeans
from threadpoolctl import threadpool_limits
from torch import Tensor

import lexel
from benchmarks.search import machine

RESULTS = Path(__file__).parent / "results" / "kmeans.md"
WORDNET = Path("/usr/share/wordnet")
SMALLEST = 200  # pixels of a photograph's side
EVERYTHING = 10**9  # rows for each code, where a rival would take a sample
ALL_ROWS = {"hierarchical": False, "sampling_fraction": 1.0, "max_points_per_cluster": EVERYTHING}  # of superkmeans


@dataclass(frozen=True)
class Case:
    """Rows, K and how many runs; whether scikit-learn's `KMeans` runs; which methods, if not all."""

    rows: str
    count: int
    K: int
    runs: int = 1
    sklearn: bool = False
    methods: tuple[str, ...] = ()


FEW = (
    "Lexel, split, no iterations",
    "Lexel, split, 2 iterations",
    "superkmeans",
    "superkmeans, 10 iterations, all rows",
    "faiss, 10 iterations, all rows",
)
CASES = {
    "texts-256": Case("texts", 30_000, 256, 5),
    "patches-64-256": Case("patches 8×8", 40_000, 256, sklearn=True),
    "texts-1024": Case("texts", 60_000, 1024),
    "patches-768-1024": Case("patches 16×16×3", 20_000, 1024),
    "patches-16-256": Case("patches 4×4", 1_000_000, 256),
    "texts-4096": Case("texts", 117_000, 4096),
    "patches-16-16384": Case("patches 4×4", 131_072, 16_384),
    "patches-768-4096": Case("patches 16×16×3", 100_000, 4096, methods=(*FEW, "Lexel")),
    # These take an hour, and several.
    "patches-64-65536": Case("patches 8×8", 262_144, 65_536, methods=FEW),
    "patches-64-65536-million": Case("patches 8×8", 1_000_000, 65_536, methods=FEW),
}
MEMORY_TABLE = "memory"
QUICK = list(CASES)[:8]


@cache
def photographs() -> list[Tensor]:
    """Those that scikit-learn and scikit-image ship, `(H, W, 3)`."""
    files = sorted(
        file for kind in ("png", "jpg") for file in (Path(skimage.__file__).parent / "data").glob(f"*.{kind}")
    )
    pictures = [np.array(Image.open(file).convert("RGB")) for file in files]
    pictures = [*load_sample_images().images, *(each for each in pictures if min(each.shape[:2]) >= SMALLEST)]
    return [torch.from_numpy(each.copy()).float() / 255 for each in pictures]


@cache
def texts() -> Tensor:
    """The synsets of WordNet, words and gloss, as TF-IDF, reduced to 128 dimensions, of length 1."""
    lines = [
        line
        for part in ("noun", "verb", "adj", "adv")
        for line in (WORDNET / f"data.{part}").read_text(encoding="utf-8").splitlines()
        if not line.startswith("  ")
    ]
    words = [
        head.split()[4 : 4 + 2 * int(head.split()[3], 16) : 2] for head, _, _ in (x.partition(" | ") for x in lines)
    ]
    glosses = [
        " ".join(names).replace("_", " ") + line.partition(" | ")[2] for names, line in zip(words, lines, strict=True)
    ]
    counts = TfidfVectorizer(sublinear_tf=True, min_df=2, stop_words="english").fit_transform(glosses)
    rows = torch.from_numpy(TruncatedSVD(128, n_iter=2, random_state=0).fit_transform(counts)).float()
    rows = torch.nn.functional.normalize(rows[rows.norm(dim=1) > 1e-6], dim=1)
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]


def load(kind: str, count: int) -> Tensor:
    if kind == "texts":
        return texts()[:count].contiguous()
    generator, found = torch.Generator().manual_seed(0), []
    size = {"patches 4×4": 4, "patches 8×8": 8, "patches 16×16×3": 16}[kind]
    pixels = sum(each.shape[0] * each.shape[1] for each in photographs())
    for picture in photographs():
        if size < 16:
            picture = (picture @ torch.tensor([0.299, 0.587, 0.114]))[:, :, None]
        windows = picture.unfold(0, size, 1).unfold(1, size, 1)
        share = count * picture.shape[0] * picture.shape[1] // pixels + 1
        places = [torch.randint(edge, (share,), generator=generator) for edge in windows.shape[:2]]
        found.append(windows[tuple(places)].flatten(1))
    rows = torch.cat(found)
    return rows[torch.randperm(len(rows), generator=generator)[:count]].contiguous()


def ours(rows: Tensor, size: int, **settings: object) -> Callable[[int], object]:
    return lambda seed: lexel.kmeans(rows, size, seed=seed, **settings).codebook


def by_faiss(rows: Tensor, size: int, iterations: int, most: int) -> Callable[[int], object]:
    def call(seed: int) -> object:
        kmeans = faiss.Kmeans(rows.shape[1], size, niter=iterations, max_points_per_centroid=most, seed=seed + 1)
        kmeans.cp.min_points_per_centroid = 1
        kmeans.train(rows.numpy())
        return kmeans.centroids

    return call


def by_superkmeans(rows: Tensor, size: int, **settings: object) -> Callable[[int], object]:
    threads = torch.get_num_threads()
    return lambda seed: SuperKMeans(size, rows.shape[1], n_threads=threads, seed=seed + 1, **settings).train(
        rows.numpy()
    )


def ladder(rows: Tensor, size: int) -> dict[str, Callable[[int], object]]:
    """Lexel, from the least work to the most: what it takes to reach a rival's error."""
    return {
        "Lexel, random rows, 1 iteration": ours(rows, size, init="random", iterations=1),
        "Lexel, random rows, 3 iterations": ours(rows, size, init="random", iterations=3),
        "Lexel, split, no iterations": ours(rows, size, init="split", iterations=0),
        "Lexel, split, 2 iterations": ours(rows, size, init="split", iterations=2),
        "Lexel, no iterations": ours(rows, size, iterations=0),
        "Lexel, 2 iterations": ours(rows, size, iterations=2),
        "Lexel": ours(rows, size),
    }


def rivals(rows: Tensor, case: Case) -> dict[str, Callable[[int], object]]:
    K = case.K
    found = {
        "faiss": by_faiss(rows, K, 25, 256),
        "faiss, 10 iterations, all rows": by_faiss(rows, K, 10, EVERYTHING),
        "superkmeans": by_superkmeans(rows, K),
        "superkmeans, 10 iterations, all rows": by_superkmeans(rows, K, **ALL_ROWS),
        "superkmeans, 25 iterations, all rows": by_superkmeans(rows, K, **ALL_ROWS, iters=25, early_termination=False),
        "sklearn MiniBatchKMeans": lambda seed: (
            MiniBatchKMeans(K, random_state=seed, n_init=1).fit(rows.numpy()).cluster_centers_
        ),
    }
    if case.sklearn:

        def best_of_three(seed: int) -> object:
            starts = [KMeans(K, random_state=3 * seed + each).fit(rows.numpy()) for each in range(3)]
            return min(starts, key=lambda each: each.inertia_).cluster_centers_

        found["sklearn KMeans, best of three"] = best_of_three
    return found


def measured(case: Case, runs: int, methods: tuple[str, ...]) -> list[str]:
    """Measure the methods, and return the lines of their table."""
    threads = torch.get_num_threads()
    clock = time.process_time if threads == 1 else time.perf_counter
    rows = load(case.rows, case.count)
    energy = float(rows.double().var(0, correction=0).sum())
    own, others = ladder(rows, case.K), rivals(rows, case)
    every = {name: call for name, call in (own | others).items() if not methods or name in methods}
    times: dict[str, list[float]] = {name: [] for name in every}
    errors: dict[str, list[float]] = {name: [] for name in every}
    for run in range(runs):
        for name, call in every.items():
            start = clock()
            codebook = torch.as_tensor(np.asarray(call(run))).float()
            times[name].append(clock() - start)
            distance = lexel.nearest_code(rows, codebook, return_scores=True)[1]
            errors[name].append(float(distance.double().mean()) / energy)
            print(f"{run} {name}: {times[name][-1]:.2f} s, {errors[name][-1]:.5f}", flush=True)
    lines = [
        f"### {case.rows}: N = {len(rows):,}, D = {rows.shape[1]}, K = {case.K:,}"
        + (f", {threads} threads" if threads > 1 else ""),
        "",
        f"{provenance()} " + (f"{runs} runs; median (range)." if runs > 1 else "1 run."),
        "",
        "| method | seconds | error ÷ energy | Lexel reaches this error in | times as fast |",
        "|---|---|---|---|---|",
    ]
    for name in times:
        cells = [spread(times[name], 2), spread(errors[name], 5), "", ""]
        if name in others:
            # In each run, the least of Lexel's times whose error is at most the rival's.
            least = [
                min(
                    (times[each][run] for each in own if each in times and errors[each][run] <= errors[name][run]),
                    default=None,
                )
                for run in range(runs)
            ]
            if None in least:
                cells[2:] = [f"not in {least.count(None)} of {runs} runs", ""]
            else:
                cells[2] = spread(least, 2)
                cells[3] = spread([theirs / mine for theirs, mine in zip(times[name], least, strict=True)], 1)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def provenance() -> str:
    """How the figures of this process come about."""
    threads = torch.get_num_threads()
    seconds = "processor time" if threads == 1 else f"those of the clock, load average {os.getloadavg()[0]:.1f}"
    return (
        f"`python -m benchmarks.kmeans {' '.join(sys.argv[1:])}` on {machine()}; threads: {threads}, torch "
        f"{torch.__version__}, faiss {faiss.__version__}, search {lexel.nearest.backend()}. Seconds are {seconds}."
    )


def record(lines: list[str]) -> None:
    """Write a table to the page, in place of the one that has the same heading."""
    print("\n".join(lines), flush=True)
    page = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# K-means\n"
    head, *parts = re.split(r"\n+(?=### )", page.rstrip())
    by_heading = {part.partition("\n")[0]: part for part in parts} | {lines[0]: "\n".join(lines)}
    RESULTS.write_text("\n\n".join([head, *by_heading.values()]) + "\n", encoding="utf-8")


def spread(values: list[float], digits: int) -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f}" + (f" ({low:.{digits}f}–{high:.{digits}f})" if len(values) > 1 else "")


MEMORY = """
import re, sys, tempfile, threading, time, warnings
import numpy as np, torch
from benchmarks.kmeans import *
from pathlib import Path
warnings.simplefilter("ignore")
torch.set_num_threads(1)
def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024
with tempfile.TemporaryDirectory() as folder:
    N, D, K = {N}, {D}, {K}
    rows = np.lib.format.open_memmap(folder + "/rows.npy", "w+", "float32", (N, D))
    for start in range(0, N, 10000):
        rows[start : start + 10000] = np.random.default_rng(start).standard_normal((10000, D), "float32")
    rows.flush()
    if {in_memory}:
        rows = torch.from_numpy(np.array(rows))
    before, peak, done = anonymous(), 0, False
    def watch():
        global peak
        while not done:
            peak = max(peak, anonymous())
            time.sleep(0.005)
    watcher = threading.Thread(target=watch)
    watcher.start()
    {call}
    done = True
    watcher.join()
    print("MB", peak - before)
"""


def memory() -> list[str]:
    """Measure what the methods hold beside the rows, and return the lines of the table."""
    calls = {
        "Lexel, rows in a memory map": (False, "lexel.kmeans(rows, K, iterations=2)"),
        "Lexel": (True, "lexel.kmeans(rows, K, iterations=2)"),
        "faiss, all rows": (True, "by_faiss(rows, K, 2, EVERYTHING)(0)"),
        "superkmeans, all rows": (
            True,
            "by_superkmeans(rows, K, **ALL_ROWS, iters=2)(0)",
        ),
        "sklearn KMeans": (True, "KMeans(K, max_iter=2, init='random', n_init=1).fit(rows.numpy())"),
    }
    sizes = [(100_000, 128, 256), (400_000, 128, 256)]
    lines = [
        "### Memory",
        "",
        f"{provenance()} Megabytes beside the rows, K = 256, two iterations.",
        "",
        "| method | " + " | ".join(f"{n:,} rows of {n * d * 4 >> 20} MB" for n, d, _ in sizes) + " |",
        "|---|---|---|",
    ]
    for name, (in_memory, call) in calls.items():
        cells = []
        for n, d, k in sizes:
            program = MEMORY.format(N=n, D=d, K=k, in_memory=in_memory, call=call)
            out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
            cells.append(f"{float(out.stdout.split('MB ')[-1]):.0f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out the cases that take hours")
    parser.add_argument("--runs", type=int, help="of each case; by default so many as fit in a quarter of an hour")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=[*CASES, MEMORY_TABLE], help="these tables alone")
    parser.add_argument("--methods", nargs="*", help="the methods of a table's rows; by default those of the case")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    with threadpool_limits(options.threads):
        for name in options.only or [*(QUICK if options.quick else CASES), MEMORY_TABLE]:
            if name == MEMORY_TABLE:
                record(memory())
            elif WORDNET.exists() or CASES[name].rows != "texts":
                case = CASES[name]
                record(measured(case, options.runs or case.runs, tuple(options.methods or case.methods)))


if __name__ == "__main__":
    main()
