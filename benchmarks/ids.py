"""Semantic IDs: how well short tuples of codes tell real items apart, beside what other libraries find.

    python -m benchmarks.ids

writes `benchmarks/results/ids.md`. Items are entries of WordNet (`benchmarks/texts.py`), embedded by TF-IDF and a
truncated SVD. All methods run one after the other in each run, each with one thread and the same rows, and with a seed
of its own where they take one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor

from benchmarks.layer import machine
from benchmarks.texts import real_texts, text_embeddings
from lexel.fit import Fit, FlatFit, ResidualFit
from lexel.tokens import IDs, make_unique
from lexel.tokens.facts import Facts

RESULT = Path(__file__).parent / "results" / "ids.md"
ITEMS, DIM, CODEBOOKS, SIZE = 20_000, 128, 3, 256
DECODED = tuple[Tensor, Tensor]
"""Codes `(N, Q)` and what they stand for, `(N, D)`."""


class Figures(NamedTuple):
    """What one run of a method gave.

    Attributes:
        error: squared error ÷ energy of the rows.
        shared: share of the items whose ID another item has.
        largest: largest cluster of a codebook ÷ mean.
        seconds: of the processor.
    """

    error: float
    shared: float
    largest: float
    seconds: float


def items(count: int) -> Tensor:
    """Embeddings of texts drawn at random, `(N, D)`, less those without a direction."""
    texts = real_texts()
    drawn = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))[:count]
    rows = text_embeddings([texts[each] for each in drawn], DIM)
    return rows[rows.norm(dim=1) > 0.5]


def with_faiss(rows: Tensor, *, refine: bool, beam_size: int) -> DECODED:
    quantizer = faiss.ResidualQuantizer(DIM, CODEBOOKS, SIZE.bit_length() - 1)
    if refine:
        quantizer.train_type |= faiss.ResidualQuantizer.Train_refine_codebook
    quantizer.max_beam_size = beam_size
    quantizer.train(rows.numpy())
    packed = quantizer.compute_codes(rows.numpy())
    return torch.from_numpy(packed[:, :CODEBOOKS].astype(np.int64)), torch.from_numpy(quantizer.decode(packed))


def with_sklearn(rows: Tensor, seed: int) -> DECODED:
    left, codes = rows.numpy().copy(), []
    for _ in range(CODEBOOKS):
        stage = KMeans(SIZE, random_state=seed).fit(left)
        codes.append(torch.from_numpy(stage.labels_).long())
        left -= stage.cluster_centers_[stage.labels_]
    return torch.stack(codes, 1), rows - torch.from_numpy(left)


def with_semantic_id(rows: Tensor, seed: int, **settings: Any) -> DECODED:
    from semantic_id import RQKMeans

    model = RQKMeans(CODEBOOKS, SIZE, random_state=seed, **settings).fit(rows.numpy())
    codes = model.encode(rows.numpy())
    return torch.from_numpy(np.asarray(codes)).long(), torch.from_numpy(np.asarray(model.decode(codes)))


def with_lexel(rows: Tensor, fit: Fit, beam_size: int) -> DECODED:
    quantizer = fit.quantizer(fit.run(rows))
    codes = quantizer.beam_search(rows, beam_size)
    return codes.reshape(len(rows), -1), quantizer.lookup(codes).detach()


@torch.no_grad()
def with_unique_ids(rows: Tensor, seed: int) -> DECODED:
    """The default's IDs, each item's its own, by the nearest tuples that are free."""
    fit = ResidualFit(SIZE, codebooks=CODEBOOKS, seed=seed)
    quantizer = fit.quantizer(fit.run(rows))
    codes = quantizer.beam_search(rows, fit.beam)
    errors = (rows - quantizer.lookup(codes)).square().sum(1)
    facts = Facts("vectors", SIZE, (SIZE,) * CODEBOOKS, "")
    ids = IDs(range(len(rows)), codes, facts, errors)
    unique, _ = make_unique(ids, "nearest-free", rows, quantizer.candidates)
    codes = torch.from_numpy(unique.codes.astype(np.int64))
    return codes, quantizer.lookup(codes)


def unique_methods() -> dict[str, Callable[[Tensor, int], DECODED]]:
    """Methods for items of which no two have the same embedding, with an ID of their own in the end."""
    return {
        "Lexel, default": lambda rows, seed: with_lexel(rows, ResidualFit(SIZE, codebooks=CODEBOOKS, seed=seed), 5),
        "Lexel, unique": with_unique_ids,
    }


def methods() -> dict[str, Callable[[Tensor, int], DECODED]]:
    """All methods by name; each takes rows and a seed."""
    return {
        "faiss, refined": lambda rows, seed: with_faiss(rows, refine=True, beam_size=5),
        "scikit-learn by stage": with_sklearn,
        "Lexel, default": lambda rows, seed: with_lexel(rows, ResidualFit(SIZE, codebooks=CODEBOOKS, seed=seed), 5),
        "one codebook": lambda rows, seed: with_lexel(rows, FlatFit(SIZE, seed=seed), 1),
        "one codebook, balanced": lambda rows, seed: with_lexel(rows, FlatFit(SIZE, seed=seed, balanced=True), 1),
    }


def slow_methods() -> dict[str, Callable[[Tensor, int], DECODED]]:
    """Methods that run once, since they take long or tell little."""
    return {
        "faiss, default": lambda rows, seed: with_faiss(rows, refine=False, beam_size=5),
        "Lexel, balanced": lambda rows, seed: with_lexel(
            rows, ResidualFit(SIZE, codebooks=CODEBOOKS, seed=seed, balanced=True), 1
        ),
        "semantic-id": with_semantic_id,
    }


def measured(method: Callable[[Tensor, int], DECODED], rows: Tensor, seed: int) -> Figures:
    began = time.process_time()
    codes, decoded = method(rows, seed)
    seconds = time.process_time() - began
    _, which, counts = codes.unique(dim=0, return_inverse=True, return_counts=True)
    largest = max(float(torch.bincount(own, minlength=SIZE).max()) for own in codes.T) * SIZE / len(rows)
    error = float((rows - decoded).double().square().sum() / rows.double().square().sum())
    return Figures(error, float((counts[which] > 1).double().mean()), largest, seconds)


def cell(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def lines(found: dict[str, list[Figures]], unique: dict[str, list[Figures]]) -> Iterator[str]:
    """The page."""
    best = found["faiss, refined"]
    runs = len(best)
    yield "# Semantic IDs\n"
    yield (
        f"`python -m benchmarks.ids --runs {runs}` on {machine()}; faiss {faiss.__version__}, one thread each. Load "
        f"average at the end: {os.getloadavg()[0]:.1f}; what exceeds the processors is other work, so that "
        "seconds are those of the processor.\n"
    )
    yield (
        f"{ITEMS:,} entries of WordNet 3.0, drawn at random; TF-IDF and SVD to {DIM}, unit length; {CODEBOOKS} "
        f"codebooks of {SIZE}, or one. Medians of {runs} runs, each with another seed, and their range; faiss takes "
        "no seed. *Error*: squared error ÷ energy. *Shared*: share of the items whose ID another item has. *Largest*: "
        "largest cluster of a codebook ÷ mean.\n"
    )
    yield "| method | error | error ÷ faiss, refined | shared | largest | seconds | seconds ÷ faiss, refined |"
    yield "|---|---|---|---|---|---|---|"
    for name, runs_of in found.items():
        one = len(runs_of) == 1
        pairs = list(zip(runs_of, best[-1:] if one else best, strict=False))
        cells = [
            cell([run.error for run in runs_of], 4),
            "" if "one codebook" in name else cell([run.error / other.error for run, other in pairs], 3),
            cell([100 * run.shared for run in runs_of], 1) + " %",
            cell([run.largest for run in runs_of], 2),
            cell([run.seconds for run in runs_of], 1),
            cell([run.seconds / other.seconds for run, other in pairs], 2),
        ]
        yield f"| {name}{', one run' if one else ''} | " + " | ".join(cells) + " |"
    yield "\nError that balance adds, within each run:\n"
    yield "| | added |"
    yield "|---|---|"
    for balanced, free in (("Lexel, balanced", "Lexel, default"), ("one codebook, balanced", "one codebook")):
        if balanced in found:
            pairs = zip(reversed(found[balanced]), reversed(found[free]), strict=False)
            added = [100 * (one.error / other.error - 1) for one, other in pairs]
            yield f"| {balanced} | {cell(added, 1)} % |"
    yield from unique_lines(unique)


def unique_lines(unique: dict[str, list[Figures]]) -> Iterator[str]:
    """The part of the page about unique IDs."""
    yield "\nIDs of the items that remain if of equal embeddings one is taken: as they come, and by `nearest-free`.\n"
    yield "| | error | shared | seconds |"
    yield "|---|---|---|---|"
    for name, runs_of in unique.items():
        shared = cell([100 * run.shared for run in runs_of], 1)
        seconds = cell([run.seconds for run in runs_of], 1)
        yield f"| {name} | {cell([run.error for run in runs_of], 4)} | {shared} % | {seconds} |"
    pairs = zip(unique["Lexel, unique"], unique["Lexel, default"], strict=False)
    yield f"| added | {cell([100 * (one.error / other.error - 1) for one, other in pairs], 2)} % | | |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--items", type=int, default=ITEMS, help="how many texts are drawn; the page is of all")
    parser.add_argument("--unique", action="store_true", help="measure unique IDs alone, and print them")
    parser.add_argument(
        "--only", nargs="+", choices=methods() | slow_methods(), help="measure these alone, and print them"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    rows = items(options.items)
    distinct = rows.unique(dim=0)
    found: dict[str, list[Figures]] = {}
    unique: dict[str, list[Figures]] = {}
    with threadpool_limits(1):
        for seed in range(options.runs):
            if options.only:
                for name in options.only:
                    print(seed, name, measured((methods() | slow_methods())[name], rows, seed), flush=True)
                continue
            for name, method in unique_methods().items():
                unique.setdefault(name, []).append(measured(method, distinct, seed))
                print(seed, name, unique[name][-1], flush=True)
            if options.unique:
                continue
            for name, method in (methods() | (slow_methods() if seed == min(2, options.runs - 1) else {})).items():
                found.setdefault(name, []).append(measured(method, rows, seed))
                print(seed, name, found[name][-1], flush=True)
                RESULT.parent.mkdir(exist_ok=True)
                RESULT.write_text("\n".join(lines(found, unique)) + "\n", encoding="utf-8")
    if options.unique:
        print("\n".join(unique_lines(unique)))


if __name__ == "__main__":
    main()
