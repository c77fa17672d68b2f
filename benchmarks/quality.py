"""Which quantizer gives the best codes for the same training: `python -m benchmarks.quality`.

One autoencoder, one optimizer, the same data in the same order; only the quantizer changes. Every run is stored in
`benchmarks/results/quality.jsonl` with its settings, so that an interrupted benchmark goes on where it stopped. Tables
and plot, `benchmarks/results/quality.md` and `.svg`, are written anew after every run.
"""

from __future__ import annotations

import gzip
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import lexel
from benchmarks.cache import cached
from benchmarks.layer import Seed, SeedEMA
from lexel.data.images import open_images
from lexel.demo import copy_photographs
from lexel.metrics import Usage
from lexel.models import VQVAE

RESULTS = Path(__file__).parent / "results" / "quality.md"
CACHE = RESULTS.with_suffix(".jsonl")
FASHION = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package dataset-fashion-mnist puts it
SEEDS = (0, 1, 2)
DIM, BATCH, SIDE = 64, 64, 32
STEPS = {"Fashion-MNIST": 1000, "photographs": 500}
SIZES = (64, 512, 4096, 16384, 262144)
LEVELS = {64: [8, 8], 512: [8, 8, 8], 4096: [8] * 4, 16384: [8, 8, 8, 8, 4], 262144: [8] * 6}
OURS, FLOOR = "Lexel, former default", "no quantization"

Settings = dict[str, Any]


# What is trained on


@dataclass(frozen=True)
class Data:
    """Pixels to train on and held-out pictures; `variance` is the error of a constant picture."""

    train: list[Tensor]
    held_out: Tensor
    variance: float

    def batch(self, generator: torch.Generator) -> Tensor:
        """A batch of pictures, or of crops of 32 × 32."""
        return crops(self.train, BATCH, generator).float() / 255


def crops(images: list[Tensor], count: int, generator: torch.Generator) -> Tensor:
    """Random crops of random images, at most 32 × 32, `(count, C, h, w)`."""

    def draw(below: int) -> int:
        return int(torch.randint(below, (), generator=generator))

    found = []
    for _ in range(count):
        image = images[draw(len(images))]
        top, left = (draw(max(size - SIDE, 0) + 1) for size in image.shape[1:])
        found.append(image[:, top : top + SIDE, left : left + SIDE])
    return torch.stack(found)


@cache
def data(name: str) -> Data:
    """Fashion-MNIST and its test set; or twelve photographs, of which the right fifth is held out."""
    if name == "Fashion-MNIST":
        train, held_out = fashion("train"), fashion("t10k")
        return Data(list(train), held_out, float((train.float() / 255).var()))
    with tempfile.TemporaryDirectory() as folder:
        copy_photographs(Path(folder))
        images = [image for _, image in open_images(folder).readable(range(12))]
    left, right = zip(*((image[..., : cut(image)], image[..., cut(image) :]) for image in images), strict=True)
    pixels = torch.cat([image.flatten(1).float() / 255 for image in left], 1)
    variance = float((pixels - pixels.mean(1, keepdim=True)).square().mean())
    return Data(list(left), crops(list(right), 2000, torch.Generator().manual_seed(0)), variance)


def fashion(part: str) -> Tensor:
    """The images of a part of Fashion-MNIST, uint8 `(N, 1, 28, 28)`."""
    with gzip.open(FASHION / f"{part}-images-idx3-ubyte.gz") as file:
        return torch.from_numpy(np.frombuffer(file.read(), np.uint8, -1, 16).copy()).view(-1, 1, 28, 28)


def cut(image: Tensor) -> int:
    return image.shape[2] * 4 // 5


# What is trained


def former_default(num_embeddings: int, dim: int) -> lexel.NormalisedQuantizer:
    """The recipe that these short runs chose: the default without examples that pass unquantized."""
    quantizer = lexel.presets.default(num_embeddings, dim)
    assert isinstance(quantizer.quantizer, lexel.QuantizationDropout)
    return lexel.NormalisedQuantizer(quantizer.quantizer.quantizer, quantizer.std, scale_back=False)


def ours(num_embeddings: int, **changed: Any) -> Settings:
    """The former default, or a variation of its vector quantizer."""
    config = lexel.to_config(former_default(num_embeddings, DIM))
    config["init_args"]["quantizer"]["init_args"].update(lexel.to_config(changed))
    return {"package": "lexel", **config}


def with_plain_inputs(settings: Settings) -> Settings:
    """The same recipe without the shift and scale of its inputs."""
    return {"package": "lexel", **settings["init_args"]["quantizer"]}


def theirs(name: str, **arguments: Any) -> Callable[[int], Settings]:
    def settings(num_embeddings: int) -> Settings:
        sizes = {"dim": DIM, "codebook_size": num_embeddings}
        return {"package": "vector_quantize_pytorch", "class": name, "arguments": sizes | arguments}

    return settings


def theirs_scalar(num_embeddings: int) -> Settings:
    arguments = {"dim": DIM, "levels": LEVELS[num_embeddings]}
    return {"package": "vector_quantize_pytorch", "class": "FSQ", "arguments": arguments}


RIVALS: dict[str, Callable[[int], Settings]] = {
    "the classic module": lambda _: {"package": "seed", "class": "Seed"},
    "its EMA sibling": lambda _: {"package": "seed", "class": "SeedEMA"},
    "vqp, default (rotation trick)": theirs("VectorQuantize", accept_image_fmap=True),
    "vqp, EMA 0.99": theirs("VectorQuantize", accept_image_fmap=True, decay=0.99),
    "vqp, k-means start": theirs("VectorQuantize", accept_image_fmap=True, kmeans_init=True),
    "vqp, cosine in 8 dimensions": theirs(
        "VectorQuantize", accept_image_fmap=True, use_cosine_sim=True, codebook_dim=8
    ),
    "vqp, straight-through": theirs("VectorQuantize", accept_image_fmap=True, rotation_trick=False),
    "vqp, DiVeQ": theirs("VectorQuantize", accept_image_fmap=True, directional_reparam=True, threshold_ema_dead_code=2),
    "vqp, SimVQ": theirs("SimVQ", channel_first=True),
    "vqp, FSQ": theirs_scalar,
    "vqp, LFQ": theirs("LFQ"),
}


class Adapted(nn.Module):
    """Any package's quantizer: latents to quantized latents, loss and indices."""

    def __init__(self, settings: Settings, num_embeddings: int) -> None:
        super().__init__()
        self.package = settings["package"]
        # Only its shift and scale are used.
        self.inputs = lexel.NormalisedQuantizer(lexel.VectorQuantizer(1, DIM), **settings.get("inputs", {}))
        self.normalises = "inputs" in settings
        if self.package == "lexel":
            self.quantizer = lexel.from_config({key: settings[key] for key in ("class_path", "init_args")})
        elif self.package == "seed":
            self.quantizer = {"Seed": Seed, "SeedEMA": SeedEMA}[settings["class"]](num_embeddings, DIM)
        elif self.package == "vector_quantize_pytorch":
            import vector_quantize_pytorch

            self.quantizer = getattr(vector_quantize_pytorch, settings["class"])(**settings["arguments"])

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.normalises:
            vectors = z.movedim(1, -1)
            if self.training:
                self.inputs.find_shift_and_scale(vectors, None)
            z = self.inputs.inward(vectors).movedim(-1, 1).contiguous()
        if self.package == "none":
            return z, z.new_zeros(()), torch.zeros(z[:, 0].shape, dtype=torch.int64)
        output = self.quantizer(z)
        if self.package == "lexel":
            return output.quantized, output.loss, output.indices
        if self.package == "seed":
            loss, quantized, _, encodings = output
            return quantized, loss, encodings.argmax(1)
        quantized, indices, *loss = output
        return quantized, loss[0].sum() if loss else z.new_zeros(()), indices


def trained(settings: Settings) -> dict[str, Any]:
    """Train with one thread, and measure on the held-out pictures."""
    torch.set_num_threads(1)
    pictures = data(settings["data"])
    torch.manual_seed(settings["seed"])
    channels = pictures.held_out.shape[1]
    model = VQVAE(lexel.VectorQuantizer(2, DIM), image_channels=channels, hidden_channels=64)
    model = model.to(memory_format=torch.channels_last)
    torch.manual_seed(settings["seed"])  # the quantizers draw as many numbers as they like
    quantizer = Adapted(settings["quantizer"], settings["num_embeddings"])
    network = nn.ModuleList([model.encoder, model.decoder, quantizer]).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    generator = torch.Generator().manual_seed(settings["seed"])

    def through(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):  # the network alone: quantizers get float32
            latents = model.latents(images)
        quantized, loss, indices = quantizer(latents.float().contiguous())
        with torch.autocast("cpu", torch.bfloat16):
            copies = model.images(quantized)
        return (copies.float() - images).square() / pictures.variance, loss, indices

    begun = time.process_time()
    for step in range(settings["steps"]):
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1, 5 * (1 - step / settings["steps"]))
        error, loss, _ = through(pictures.batch(generator))
        optimizer.zero_grad()
        (error.mean() + loss).backward()
        optimizer.step()
    milliseconds = (time.process_time() - begun) / settings["steps"] * 1e3

    network.eval()
    usage, errors = Usage(settings["num_embeddings"]), []
    with torch.no_grad():
        for images in pictures.held_out.split(500):
            error, _, indices = through(images.float() / 255)
            errors.append(error.mean((1, 2, 3)))
            usage.update(indices)
        codes, enough = usage.compute(), 16 * settings["num_embeddings"]
        seen, vectors = Usage(settings["num_embeddings"]), 0
        while codes.total < enough and vectors < enough:
            indices = through(pictures.batch(generator))[2]
            seen.update(indices)
            vectors += indices.numel()
    found = {
        "error": float(torch.cat(errors).mean()),
        "usage": codes.usage,
        "perplexity": codes.perplexity,
        "milliseconds": milliseconds,
        "vectors": codes.total,
    }
    return found | ({"usage_training": seen.compute().usage} if vectors else {})


# What is compared


def settings_of(quantizer: Settings, dataset: str, num_embeddings: int, seed: int) -> Settings:
    return {
        "data": dataset,
        "quantizer": quantizer,
        "num_embeddings": num_embeddings,
        "steps": STEPS[dataset],
        "batch": BATCH,
        "seed": seed,
    }


def variations() -> dict[str, Settings]:
    """What the parts of the default bring, at K = 512: each is changed alone."""
    start, revival = former_default(512, DIM).quantizer.upkeep
    normalised = {"inputs": {"std": 0.2}}
    return {
        "the default": ours(512),
        "inputs as they are": with_plain_inputs(ours(512)),
        "inputs as they are, β = 0.25": with_plain_inputs(ours(512, commitment_cost=0.25)),
        "inputs to a spread of 1": {**ours(512), "init_args": {**ours(512)["init_args"], "std": 1.0}},
        "no k-means start": ours(512, upkeep=[revival.settings]),
        "no revival": ours(512, upkeep=[start.settings]),
        "neither": ours(512, upkeep=[]),
        "EMA with decay 0.99": ours(512, learning=lexel.EMA()),
        "codes by gradient": ours(512, learning=lexel.Gradient()),
        "rotation trick": ours(512, estimator=lexel.RotationTrick()),
        "β = 0.1": ours(512, commitment_cost=0.1),
        "β = 0.25": ours(512, commitment_cost=0.25),
        "β = 1": ours(512, commitment_cost=1.0),
        # What rivals gain from the inputs that Lexel's default makes for itself.
        "vqp, DiVeQ, normalised inputs": RIVALS["vqp, DiVeQ"](512) | normalised,
        "vqp, FSQ, normalised inputs": RIVALS["vqp, FSQ"](512) | normalised,
        "no quantization, normalised inputs": {"package": "none", **normalised},
    }


@dataclass(frozen=True)
class Found:
    """The runs that there are: `(dataset, K, name)` to results, by seed."""

    runs: dict[tuple[str, int, str], dict[int, dict[str, Any]]]

    def values(self, what: str, *key: Any) -> list[float]:
        """A figure of all runs of a quantizer, in the order of the seeds."""
        return [run[what] for _, run in sorted(self.runs.get(key, {}).items()) if what in run]

    def errors(self, *key: Any) -> list[float]:
        return self.values("error", *key)

    def best_rivals(self, dataset: str, num_embeddings: int) -> list[str]:
        """Rivals by their mean error, the best first."""
        found = {name: self.errors(dataset, num_embeddings, name) for name in RIVALS}
        return sorted((name for name in found if found[name]), key=lambda name: statistics.mean(found[name]))


def without_matrix(num_embeddings: int, seed: int) -> Iterator[tuple[tuple[str, int, str], Settings]]:
    """What can be trained with any K: Lexel and FSQ."""
    for dataset in STEPS:
        for name, make in ((OURS, ours), ("vqp, FSQ", theirs_scalar)):
            yield (dataset, num_embeddings, name), settings_of(make(num_embeddings), dataset, num_embeddings, seed)


def plan(found: Found) -> Iterator[tuple[tuple[str, int, str], Settings]]:
    """All runs, those first that say most; what comes after the rivals at K = 512 depends on how they did."""
    everyone = {OURS: ours, FLOOR: lambda _: {"package": "none"}, **RIVALS}
    for seed in SEEDS:
        for dataset in STEPS:
            for name, make in everyone.items():
                yield (dataset, 512, name), settings_of(make(512), dataset, 512, seed)
        for size in (4096, 16384):
            yield from without_matrix(size, seed)
    for seed in SEEDS:
        for name, settings in variations().items():
            yield ("Fashion-MNIST", 512, name), settings_of(settings, "Fashion-MNIST", 512, seed)
    for size in (64, 262144):
        for seed in SEEDS:
            yield from without_matrix(size, seed)
    for size in SIZES[:-1]:  # the other best rivals last: a matrix of N · K takes minutes to hours for each run
        for dataset in STEPS:
            for name in found.best_rivals(dataset, 512)[:3]:
                for seed in SEEDS:
                    if size != 512 and name != "vqp, FSQ":
                        yield (dataset, size, name), settings_of(RIVALS[name](size), dataset, size, seed)


# What is written


def spread(values: list[float], digits: int, factor: float = 1.0, unit: str = "") -> str:
    """Mean ± standard deviation over the seeds, or – where there are no runs."""
    if not values:
        return "–"
    mean = f"{factor * statistics.mean(values):.{digits}f}"
    deviation = f" ± {factor * statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return mean + deviation + unit


def ratio(found: Found, dataset: str, num_embeddings: int, rival: str) -> str:
    """Lexel's error over a rival's with the same seed, which gives both the same pictures: mean and range."""
    ours, theirs = (found.runs.get((dataset, num_embeddings, name), {}) for name in (OURS, rival))
    pairs = [ours[seed]["error"] / theirs[seed]["error"] for seed in ours.keys() & theirs.keys()]
    if len(pairs) < 2:
        return f"{pairs[0]:.3f}" if pairs else "–"
    return f"{statistics.mean(pairs):.3f} ({min(pairs):.3f} to {max(pairs):.3f})"


def rows_of(found: Found, dataset: str, num_embeddings: int, names: list[str]) -> list[str]:
    lines = [
        "| quantizer | seeds | held-out error | codes in use | perplexity | ms per step |",
        "|---|---|---|---|---|---|",
    ]
    for name in names:
        key = dataset, num_embeddings, name
        usage, perplexity = (
            spread(found.values("usage", *key), 1, 100, " %"),
            spread(found.values("perplexity", *key), 0),
        )
        if name.startswith(FLOOR):
            usage = perplexity = "–"
        times = found.values("milliseconds", *key)
        cells = (
            name,
            str(len(times)),
            spread(found.errors(*key), 4),
            usage,
            perplexity,
            f"{statistics.median(times):.0f}" if times else "–",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def page(found: Found) -> str:
    """The results as Markdown."""
    lines = ["# The best codes for the same training", "", INTRODUCTION, ""]
    for dataset in STEPS:
        ranked = found.best_rivals(dataset, 512)
        lines += [f"## {dataset}, K = 512", "", *rows_of(found, dataset, 512, [OURS, *ranked, FLOOR]), ""]
    lines += [
        "## As K grows",
        "",
        f"| | K | {OURS} | codes in use | in pictures trained on | best rival | rivals | Lexel ÷ best |",
    ]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for dataset in STEPS:
        for size in SIZES:
            errors, ranked = found.errors(dataset, size, OURS), found.best_rivals(dataset, size)
            best = ranked[:1]
            rival = f"{best[0]}: {spread(found.errors(dataset, size, best[0]), 4)}" if best else "–"
            against = ratio(found, dataset, size, best[0]) if best else "–"
            usage = spread(found.values("usage", dataset, size, OURS), 1, 100, " %")
            trained_on = spread(found.values("usage_training", dataset, size, OURS), 1, 100, " %")
            cells = dataset, f"{size:,}", spread(errors, 4), usage, trained_on, rival, str(len(ranked)), against
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "![error against K](quality.svg)", "", "## What each part brings, Fashion-MNIST, K = 512", ""]
    lines += rows_of(found, "Fashion-MNIST", 512, list(variations()))
    return "\n".join(lines) + "\n"


INTRODUCTION = f"""`python -m benchmarks.quality` trains one autoencoder (convolutions down by 4, D = {DIM}, batches of
{BATCH}, Adam with a learning rate of 1e-3 that falls to 0 in the last fifth) with each quantizer, on the same pictures
in the same order: Fashion-MNIST, {STEPS["Fashion-MNIST"]:,} steps, held out is its test set; and crops of 32 × 32 of
twelve photographs, {STEPS["photographs"]:,} steps, held out is the right fifth of each. The error is the mean squared
error over the variance of the pictures. Mean ± standard deviation over the seeds that were run, {len(SEEDS)} when all
is done; – where nothing was run yet. Codes in use and perplexity are of all held-out vectors, 490,000 and 128,000;
where these are fewer than 16 for each code, codes in use in pictures trained on are of that many. Time is that of one
core for a whole training step, network included. *vqp* is vector-quantize-pytorch; its FSQ has K codes with levels
{", ".join(f"{'·'.join(map(str, levels))} ({size:,})" for size, levels in LEVELS.items())}."""


def draw(found: Found) -> None:
    """Error against K."""
    import matplotlib as mpl
    from matplotlib import pyplot

    mpl.rcParams["svg.hashsalt"] = "lexel"  # the same picture from the same figures
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, dataset in zip(axes, STEPS, strict=True):
        for name, marker in (
            (OURS, "o"),
            ("vqp, FSQ", "s"),
            ("vqp, DiVeQ", "^"),
            ("vqp, default (rotation trick)", "v"),
        ):
            sizes = [size for size in SIZES if found.errors(dataset, size, name)]
            errors = [found.errors(dataset, size, name) for size in sizes]
            deviation = [statistics.stdev(each) if len(each) > 1 else 0 for each in errors]
            axis.errorbar(
                sizes, [statistics.mean(each) for each in errors], deviation, marker=marker, label=name, capsize=3
            )
        if floor := found.errors(dataset, 512, FLOOR):
            axis.axhline(statistics.mean(floor), color="grey", linestyle="--", label=FLOOR)
        axis.set(xscale="log", xlabel="K", title=dataset, ylabel="held-out error", ylim=(0, None))
        axis.set_xticks(SIZES, [f"{size:,}" for size in SIZES], rotation=30)
        axis.minorticks_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    figure.savefig(RESULTS.with_suffix(".svg"), metadata={"Date": None})
    pyplot.close(figure)


def write(found: Found) -> None:
    RESULTS.write_text(page(found), encoding="utf-8")
    draw(found)


def run(settings: Settings) -> dict[str, Any]:
    return cached(settings, lambda: trained(settings), CACHE)


def main() -> None:
    """Run what is missing, two processes at a time or as many as there are cores; what fails does not stop the rest."""
    found, seen, failed = Found({}), set[str](), list[str]()
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        # The last part of the plan depends on the results of the first.
        while missing := [(key, settings) for key, settings in plan(found) if str((key, settings)) not in seen]:
            pending = {pool.submit(run, settings): (key, settings) for key, settings in missing}
            while pending:
                for done in wait(pending, return_when=FIRST_COMPLETED).done:
                    key, settings = pending.pop(done)
                    seen.add(str((key, settings)))
                    if error := done.exception():
                        failed.append(f"{key[0]}, K = {key[1]:,}, seed {settings['seed']}: {key[2]}: {error}")
                        continue
                    found.runs.setdefault(key, {})[settings["seed"]] = done.result()
                    print(f"{key[0]}, K = {key[1]:,}, seed {settings['seed']}: {key[2]}: {done.result()}", flush=True)
                write(found)  # once for all cached runs
    if failed:
        raise SystemExit("\n".join(["failed:", *failed]))


if __name__ == "__main__":
    main()
