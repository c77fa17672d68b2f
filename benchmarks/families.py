"""Every family of quantizers trained alike with `lexel train` on real photographs: `python -m benchmarks.families`.

Only the quantizer changes. The photographs are the demo's: ten to train on, two held out. Writes its table into
`docs/quantizers.md`.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import lexel
from lexel.cli import main
from lexel.demo import copy_photographs
from lexel.runs import load_model
from lexel.training.evaluate import Evaluation, evaluate

PAGE = Path(__file__).parent.parent / "docs" / "quantizers.md"
BEGIN, END = "<!-- families -->\n", "<!-- end of families -->\n"
SETTINGS = [
    *("--steps", "300", "--batch-size", "16", "--crop", "32"),
    *("--learning-rate", "2e-3", "--model.hidden-channels", "64"),
]
SEEDS = (0, 1, 2)


def part(name: str, **arguments: Any) -> dict[str, Any]:
    """A class and its arguments as `--quantizer` takes them."""
    return {"class_path": f"lexel.{name}", "init_args": arguments}


def vector(num_embeddings: int = 512, embedding_dim: int = 64, **arguments: Any) -> dict[str, Any]:
    """A vector quantizer whose parts are the defaults of the class, not those of the recipe of `lexel train`."""
    chosen = {"learning": part("Gradient"), "upkeep": [], **arguments}
    return part("VectorQuantizer", num_embeddings=num_embeddings, embedding_dim=embedding_dim, **chosen)


ALIVE = {"learning": part("EMA"), "upkeep": [part("KMeansStart"), part("Revival")]}
UPKEEP = {"upkeep": ALIVE["upkeep"]}
FAMILIES: dict[str, dict[str, Any]] = {
    "the default recipe": part("presets.default"),
    "the classic module": vector(),
    "EMA": vector(learning=part("EMA")),
    "EMA, with upkeep": vector(**ALIVE),
    "online clustering": vector(upkeep=[part("OnlineClustering")]),
    "rotation trick, with upkeep": vector(estimator=part("RotationTrick"), **UPKEEP),
    "DiVeQ, with upkeep": vector(estimator=part("DiVeQ"), **UPKEEP),
    "space-filling DiVeQ, with upkeep": vector(estimator=part("SpaceFillingDiVeQ"), **UPKEEP),
    "NSVQ, with upkeep": vector(estimator=part("NSVQ"), **UPKEEP),
    "Gumbel-softmax": vector(estimator=part("GumbelSoftmax")),
    "index backpropagation": part("presets.ibq", num_embeddings=512, embedding_dim=64),
    "synchronised update, with upkeep": vector(estimator=part("Synchronised"), **UPKEEP),
    "cosine, in 8 dimensions": vector(codebook=part("FactorisedCodebook", dim=8, codes=part("CosineCodebook"))),
    "SimVQ": vector(codebook=part("SimVQ")),
    "VQBridge": vector(codebook=part("VQBridge")),
    "affine, with upkeep": vector(codebook=part("AffineCodebook"), **UPKEEP),
    "finite scalar, 8 · 8 · 8": part("FiniteScalarQuantizer", levels=[8, 8, 8]),
    "lookup-free, 9 bits": part("LookupFreeQuantizer", embedding_dim=9),
    "binary spherical, 9 bits": part("BinarySphericalQuantizer", embedding_dim=9),
    "latent, 8 · 8 · 8": part("LatentQuantizer", levels=[8, 8, 8]),
    "residual, 2 × 512": part("ResidualQuantizer", quantizers=[vector(**ALIVE), vector(**ALIVE)]),
    "product, 2 × 512": part("ProductQuantizer", quantizers=[vector(512, 32, **ALIVE), vector(512, 32, **ALIVE)]),
}


def trained(quantizer: dict[str, Any], photographs: Path, seed: int) -> Evaluation:
    """Train one on the command line, and evaluate it on the photographs that were held out."""
    torch.set_num_threads(1)  # a process for each core instead
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "run"
        words = ["train", photographs / "trained-on", "--out", out, "--seed", seed, *SETTINGS]
        if main([*map(str, words), "--quantizer", json.dumps(quantizer)]):
            raise RuntimeError(f"lexel train failed with {quantizer}")
        return evaluate(load_model(out), photographs / "held-out")


def mean(values: Sequence[float], digits: int) -> str:
    """Mean and, behind ±, the standard deviation over seeds."""
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def row(name: str, quantizer: dict[str, Any], found: list[Evaluation]) -> str:
    """One line of the table."""
    bits = lexel.from_config(quantizer).bits
    used = [100 * one.used / one.num_embeddings for one in found]
    cells = [
        name,
        f"{bits:.0f}",
        mean([one.figures["psnr"] for one in found], 2),
        mean([one.figures["ssim"] for one in found], 3),
        mean([one.perplexity for one in found], 0),
        mean(used, 0) + " %",
        f"{found[0].rate:.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def table() -> str:
    """Train all and return the table."""
    lines = [
        "| quantizer | bits per code | PSNR, dB | SSIM | perplexity | codes in use | bits per pixel |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as temporary, ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        copy_photographs(Path(temporary))
        runs = {
            name: [pool.submit(trained, quantizer, Path(temporary), seed) for seed in SEEDS]
            for name, quantizer in FAMILIES.items()
        }
        for name, found in runs.items():
            lines.append(row(name, FAMILIES[name], [one.result() for one in found]))
            print(lines[-1], flush=True)
    return "\n".join(lines)


if __name__ == "__main__":
    text = f"""`python -m benchmarks.families` ran `lexel train` with each quantizer and

    {" ".join(SETTINGS)}

on ten photographs. The figures are of two others, mean ± standard deviation over {len(SEEDS)} seeds; codes in use are
those that occur in these two. *With upkeep*: `upkeep=(KMeansStart(), Revival())`. A few hundred steps show that a
family trains, and roughly how it compares; they do not show which is best after a hundred thousand.

Two are left out: `MultiScaleResidualQuantizer`, which takes maps of one size, and `RandomProjectionQuantizer`, which
provides targets to predict, not reconstructions.

{table()}
"""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + text + END + rest.partition(END)[2], encoding="utf-8")
