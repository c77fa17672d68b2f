"""The error of each quantizer at every length of training, on pictures that chose nothing.

    python -m benchmarks.lengths prepare [--root /]   # pictures as tensors, into build/lengths
    python -m benchmarks.lengths run [--limit SECONDS] [--only TEXT]
    python -m benchmarks.lengths page

One training run gives the errors at all its lengths: at four fifths of each a branch is trained on with a learning rate
that falls to zero, measured, and undone. Runs that differ in their lengths alone are one row. Results are kept in
`benchmarks/results/lengths.jsonl`, so that `run` goes on where it stopped. On a GPU each training step is one CUDA
graph, and many runs share the card.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import lexel
from benchmarks.cache import BUILD, store, stored
from benchmarks.quality import former_default
from lexel.metrics import usage_counts
from lexel.models import VQVAE

RESULTS = Path(__file__).parent / "results" / "lengths.md"
CACHE = RESULTS.with_suffix(".jsonl")
PICTURES = BUILD / "lengths"
BATCH, SIDE, RATE = 64, 32, 1e-3
WARM_UP = 12  # steps after which the codes have started, with any K here
LENGTHS = (500, 2000, 8000)
SEEDS = (0, 1, 2)
NETWORKS: dict[str, dict[str, int]] = {
    "small": {"hidden_channels": 64, "downsampling": 4},
    "large": {"hidden_channels": 128, "residual_layers": 4, "residual_channels": 64, "downsampling": 8},
}
CHOSEN_ON = "photographs"  # what the recipe was chosen with; the others judge
JUDGES = ("wallpapers", "Fashion-MNIST", "speech")
OURS, FORMER, FLOOR = "Lexel, default", "Lexel, former default", "no quantization"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

Settings = dict[str, Any]


# What is trained on


@dataclass(frozen=True)
class Pictures:
    """Pictures of one kind on the device.

    Attributes:
        pixels: uint8, those of all pictures to train on, one after the other, each `(C, H, W)`.
        shapes: int64 `(n, 3)`, the pictures' C, H and W.
        held_out: uint8 `(N, C, h, w)`.
        variance: the mean squared error of a picture that has its mean colour everywhere.
    """

    pixels: Tensor
    shapes: Tensor
    held_out: Tensor
    variance: float

    def places(self, steps: int, seed: int) -> Tensor:
        """Return where the crops of each step begin, and the strides there: int64 `(steps, 3, BATCH)`."""
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randint(len(self.shapes), (steps, BATCH), generator=generator)
        begin = self.shapes.prod(1).cumsum(0) - self.shapes.prod(1)
        height, width = self.shapes[chosen, 1], self.shapes[chosen, 2]
        side, uniform = self.held_out.shape[-1], torch.rand(2, steps, BATCH, generator=generator)
        top = (uniform[0] * (height - side + 1)).long()
        left = (uniform[1] * (width - side + 1)).long()
        places = torch.stack([begin[chosen] + top * width + left, height * width, width], 1)
        return places.to(self.pixels.device)

    def crops(self, places: Tensor) -> Tensor:
        """Return the crops of one step, `(BATCH, C, h, w)` in [0, 1]; `places` `(3, BATCH)`."""
        _, channels, height, width = self.held_out.shape
        begin, plane, row = places.view(3, -1, 1, 1, 1)
        c, y, x = (torch.arange(n, device=places.device) for n in (channels, height, width))
        at = begin + c.view(-1, 1, 1) * plane + y.view(-1, 1) * row + x
        return self.pixels[at].float() / 255


PACKAGES = (
    "mate-backgrounds lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 plasma-workspace-wallpapers fillets-ng-data-cs"
)
WALLPAPERS = [
    *(f"backgrounds/{name}*" for name in (
        "Bridge", "Dragonfly", "Kleiber", "Picture_0B", "Picture_1A", "Wine", "aitzgorri", "free", "friends",
        "greentock", "life", "picosdeeuropa", "seeding", "sunset",
    )),
    "backgrounds/mate/nature/*.jpg",
    *(f"wallpapers/{name}/contents/images/2560x1600.jpg" for name in (
        "BytheWater", "ColdRipple", "DarkestHour", "EveningGlow", "FallenLeaf", "Grey", "Kite", "OneStandsOut", "Path",
        "summer_1am", "ColorfulCups",
    )),
]  # fmt: skip


def prepare(root: Path) -> None:
    """Write the pictures of each kind as tensors; `root` is where Debian's packages are unpacked, / if installed."""
    from benchmarks.quality import crops, data

    def save(name: str, train: list[Tensor], held_out: Tensor, variance: float | None = None) -> None:
        colours = torch.cat([image.flatten(1).float() / 255 for image in train], 1)
        saved = {
            "pixels": torch.cat([image.flatten() for image in train]),
            "shapes": torch.tensor([image.shape for image in train]),
            "held_out": held_out,
            "variance": variance or float((colours - colours.mean(1, keepdim=True)).square().mean()),
        }
        torch.save(saved, PICTURES / f"{name}.pt")
        print(f"{name}: {len(train)} to train on, held out {tuple(held_out.shape)}")

    def save_crops(name: str, train: list[Tensor], others: list[Tensor]) -> None:
        save(name, train, crops(others, 2000, torch.Generator().manual_seed(0)))

    PICTURES.mkdir(parents=True, exist_ok=True)
    photographs, fashion = data("photographs"), data("Fashion-MNIST")
    save("photographs", photographs.train, photographs.held_out)
    clothes = torch.stack(fashion.train).float() / 255
    own = float((clothes - clothes.mean((1, 2, 3), keepdim=True)).square().mean())
    save("Fashion-MNIST", fashion.train, fashion.held_out, own)

    paths = [path for pattern in WALLPAPERS for path in root.glob(f"usr/share/{pattern}")]
    images = [photograph(path) for path in sorted(paths, key=lambda path: path.name)]
    train = [image for index, image in enumerate(images) if index % 4 != 3]
    save_crops("wallpapers", train, images[3::4])  # split by photograph, not by side

    clips = sorted(root.glob("usr/share/games/fillets-ng/sound/*/cs/*.ogg"))
    places = sorted({clip.parts[-3] for clip in clips})
    spoken: tuple[list[Tensor], list[Tensor]] = [], []
    for clip in clips:
        image = log_mel(clip)
        if image.shape[2] >= 87:  # a second
            spoken[places.index(clip.parts[-3]) % 5 == 4].append(image)
    save_crops("speech", spoken[0][::3], spoken[1])


def photograph(path: Path) -> Tensor:
    """A photograph with a longer side of 512, uint8 `(3, H, W)`."""
    image = Image.open(path).convert("RGB")
    image.thumbnail((512, 512), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).contiguous()


def log_mel(path: Path) -> Tensor:
    """The log-mel spectrogram of a clip, 80 bands, 86 frames a second, 80 dB below its loudest: uint8 `(1, 80, T)`."""
    import soundfile  # pip install soundfile

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    samples = torch.from_numpy(samples).mean(1)
    if rate == 44100:
        samples = samples[: len(samples) // 2 * 2].view(-1, 2).mean(1)
    if len(samples) < 22050:
        return torch.zeros(1, 80, 0, dtype=torch.uint8)
    window = torch.hann_window(1024)
    power = torch.stft(samples, 1024, 256, window=window, return_complex=True).abs().square().numpy()
    mel = np.linspace(0, 2595 * np.log10(1 + 11025 / 700), 82)
    edges, bins = 700 * (10 ** (mel / 2595) - 1), np.fft.rfftfreq(1024, 1 / 22050)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    decibels = 10 * np.log10(np.maximum(0, np.minimum(rising, falling)) @ power + 1e-10)
    return torch.from_numpy(np.clip((decibels - decibels.max() + 80) / 80 * 255, 0, 255).astype(np.uint8))[None]


@cache
def pictures(name: str, device: torch.device = DEVICE) -> Pictures:
    saved = torch.load(PICTURES / f"{name}.pt", weights_only=True)
    return Pictures(saved["pixels"].to(device), saved["shapes"], saved["held_out"].to(device), saved["variance"])


# What is trained


def normalised(quantizer: lexel.Quantizer, std: float = 0.2) -> lexel.Quantizer:
    return lexel.NormalisedQuantizer(quantizer, std, scale_back=False)


def alive() -> tuple[lexel.KMeansStart, lexel.Revival]:
    return lexel.KMeansStart(), lexel.Revival()


def diveq(num_embeddings: int, dim: int, variance: float = 1e-3) -> lexel.Quantizer:
    return lexel.VectorQuantizer(num_embeddings, dim, 0.0, estimator=lexel.DiVeQ(variance), upkeep=alive())


def simvq(num_embeddings: int, dim: int) -> lexel.Quantizer:
    return lexel.VectorQuantizer(num_embeddings, dim, codebook=lexel.SimVQ())


def vqbridge(num_embeddings: int, dim: int) -> lexel.Quantizer:
    return lexel.VectorQuantizer(num_embeddings, dim, codebook=lexel.VQBridge())


LEVELS = {64: [8, 8], 512: [8, 8, 8], 4096: [8] * 4, 16384: [8, 8, 8, 8, 4]}


def scalars(num_embeddings: int, dim: int, **settings: Any) -> lexel.Quantizer:
    return lexel.ProjectedQuantizer(lexel.FiniteScalarQuantizer(LEVELS[num_embeddings], **settings), dim)


Make = Callable[[int, int], lexel.Quantizer]

RIVALS: dict[str, Make] = {
    "DiVeQ, normalised inputs": lambda k, d: normalised(diveq(k, d, 1e-2)),
    "DiVeQ": diveq,
    "FSQ": scalars,
    "FSQ, normalised inputs": lambda k, d: normalised(scalars(k, d), 1.0),
    "EMA 0.8, k-means start": lambda k, d: lexel.VectorQuantizer(k, d, 1.0, learning=lexel.EMA(0.8), upkeep=alive()),
    "SimVQ": simvq,
    "SimVQ, normalised inputs": lambda k, d: normalised(simvq(k, d), 1.0),
    "SimVQ, its layer at a tenth of the rate": simvq,
    "SimVQ, its layer at ten times the rate": simvq,
    "IBQ": lambda k, d: lexel.presets.ibq(k, embedding_dim=d),
    "VQBridge": vqbridge,
    "VQBridge, normalised inputs": lambda k, d: normalised(vqbridge(k, d), 1.0),
    "the classic module": lexel.VectorQuantizer,
}
CODEBOOK_RATE = {  # over that of the encoder and the decoder
    "SimVQ, its layer at a tenth of the rate": 0.1,
    "SimVQ, its layer at ten times the rate": 10.0,
}


def recipe(inputs: bool = True, dropout: float = 0.1, **changed: Any) -> Make:
    """The default with some of its parts changed: `inputs`, whether they are normalised."""

    def make(num_embeddings: int, dim: int) -> lexel.Quantizer:
        config = lexel.to_config(former_default(num_embeddings, dim).quantizer)
        config["init_args"].update(lexel.to_config(changed))
        quantizer = lexel.QuantizationDropout(lexel.from_config(config), dropout)
        return normalised(quantizer) if inputs else quantizer

    return make


ABLATION: dict[str, Make] = {
    "inputs as they are": recipe(inputs=False),
    "no dropout": recipe(dropout=0.0),
    "no revival": recipe(upkeep=lexel.KMeansStart()),
    "no k-means start": recipe(upkeep=lexel.Revival(decay=0.6)),
    "EMA with decay 0.99": recipe(learning=lexel.EMA(0.99)),
    "codes by gradient": recipe(learning=lexel.Gradient()),
    "rotation trick": recipe(estimator=lexel.RotationTrick()),
    "β = 0.1": recipe(commitment_cost=0.1),
}
EVERYONE: dict[str, Make] = {OURS: lexel.presets.default, FORMER: former_default, **RIVALS, **ABLATION}


class Training:
    """A training run on one device, step by step."""

    def __init__(self, settings: Settings, device: torch.device = DEVICE) -> None:
        self.settings = settings
        self.pictures = pictures(settings["data"], device)
        channels = self.pictures.held_out.shape[1]
        torch.manual_seed(settings["seed"])
        network = NETWORKS[settings["network"]]
        model = VQVAE(lexel.VectorQuantizer(2, settings["embedding_dim"]), image_channels=channels, **network)
        torch.manual_seed(settings["seed"])  # the quantizers draw as many numbers as they like
        self.quantizer = nn.Identity() if settings["quantizer"] is None else lexel.from_config(settings["quantizer"])
        self.encoder, self.decoder = model.encoder, model.decoder
        self.modules = nn.ModuleList([self.encoder, self.decoder, self.quantizer]).to(device).train()
        for part in (self.encoder, self.decoder):
            part.to(memory_format=torch.channels_last)
        self.places = self.pictures.places(max(settings["lengths"]) + 1, settings["seed"])
        self.step_number = torch.zeros(1, dtype=torch.int64, device=device)
        self.end = torch.full((), math.inf, device=device)
        self.rate = torch.full((), RATE, device=device)
        on_gpu = device.type == "cuda"
        self.codebook_rate = self.rate.clone()
        groups = [
            {"params": [parameter for parameter in module.parameters() if parameter.requires_grad], "lr": rate}
            for module, rate in (
                (nn.ModuleList([self.encoder, self.decoder]), self.rate),
                (self.quantizer, self.codebook_rate),
            )
        ]
        self.optimizer = torch.optim.Adam(groups, capturable=on_gpu, fused=on_gpu or None)
        self.done, self.results = 0, dict[str, dict[str, Tensor]]()
        self.stream = torch.cuda.Stream() if on_gpu else None
        self.graph: torch.cuda.CUDAGraph | None = None

    def through(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return squared errors, the quantizer's loss and the indices."""
        latents = self.encoder(images.contiguous(memory_format=torch.channels_last)).contiguous()
        output = self.quantizer(latents)
        if isinstance(output, Tensor):
            quantized, loss, indices = output, output.new_zeros(()), None
        else:
            quantized, loss, indices = output.quantized, output.loss, output.indices
        copies = self.decoder(quantized.contiguous(memory_format=torch.channels_last))
        return (copies - images).square() / self.pictures.variance, loss, indices

    def compute_step(self) -> None:
        """One step; everything that changes from step to step is on the device."""
        self.rate.copy_(RATE * (5 * (1 - self.step_number / self.end)).clamp(max=1).squeeze())
        self.codebook_rate.copy_(self.rate * self.settings.get("codebook_rate", 1.0))
        error, loss, _ = self.through(self.pictures.crops(self.places.index_select(0, self.step_number)[0]))
        (error.mean() + loss).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        self.step_number += 1

    def capture(self) -> None:
        """Record the step as a graph, after some that start what starts once."""
        if self.stream is None:
            return
        self.stream.wait_stream(torch.cuda.current_stream())
        with self.on_stream():
            for _ in range(WARM_UP):
                self.compute_step()
            self.done = WARM_UP
            torch.cuda.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=self.stream):
                self.compute_step()

    def on_stream(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    def step(self) -> None:
        with self.on_stream():
            self.compute_step() if self.graph is None else self.graph.replay()

    def state(self) -> list[Tensor]:
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        return [*self.modules.parameters(), *self.modules.buffers(), *moments, self.step_number]

    def run(self) -> Iterator[None]:
        """Train to the longest length, with a branch for each; stop after each step."""
        for length in self.settings["lengths"]:
            for _ in range(length - length // 5 - self.done):
                self.step()
                self.done += 1
                yield
            with self.on_stream(), torch.no_grad():
                before = [tensor.clone() for tensor in self.state()]
                self.end.fill_(length)
            for _ in range(length // 5):
                self.step()
                yield
            with self.on_stream(), torch.no_grad():
                self.results[str(length)] = self.measure()
                for tensor, value in zip(self.state(), before, strict=True):
                    tensor.copy_(value)
                self.end.fill_(math.inf)

    @torch.no_grad()
    def measure(self) -> dict[str, Tensor]:
        self.modules.eval()
        size, errors, found = self.settings["num_embeddings"], [], dict[str, Tensor]()
        counts = torch.zeros(size, device=self.end.device)
        for images in self.pictures.held_out.split(1000):
            error, _, indices = self.through(images.float() / 255)
            errors.append(error.mean((1, 2, 3)))
            if indices is not None:
                counts += usage_counts(indices, size)
        if indices is not None:
            found["counts"] = counts.clone()
            if counts.sum() < 16 * size:  # too few to show how many codes are in use
                for places in self.places[: 16 * size // (indices[0].numel() * BATCH)]:
                    counts += usage_counts(self.through(self.pictures.crops(places))[2], size)
                found["counts_training"] = counts
        found["error"] = torch.cat(errors).mean()
        self.modules.train()
        return found

    def result(self) -> dict[str, Any]:
        """The figures by length, read from the device."""
        if self.stream is not None:
            self.stream.synchronize()
        found: dict[str, Any] = {"device": torch.cuda.get_device_name() if self.stream is not None else "CPU"}
        for length, values in self.results.items():
            figures = {"error": round(float(values["error"]), 6)}
            for name in values.keys() & {"counts", "counts_training"}:
                share = values[name].double() / values[name].sum()
                figures["usage" + name[6:]] = round(float((share > 0).double().mean()), 5)
                figures["perplexity" + name[6:]] = round(float(torch.special.entr(share).sum().exp()), 2)
            found[length] = figures
        return found


# What is compared


def settings_of(
    name: str, data: str, num_embeddings: int = 512, *, seed: int, lengths: tuple[int, ...] = LENGTHS,
    network: str = "small", dim: int = 64,
) -> Settings:  # fmt: skip
    make = EVERYONE.get(name)
    own_rate = {"codebook_rate": CODEBOOK_RATE[name]} if name in CODEBOOK_RATE else {}
    return {
        **own_rate,
        "name": name,
        "data": data,
        "network": network,
        "num_embeddings": num_embeddings,
        "embedding_dim": dim,
        "quantizer": None if make is None else lexel.to_config(make(num_embeddings, dim)),
        "lengths": list(lengths),
        "seed": seed,
    }


AVERAGES = "EMA 0.8, k-means start"
BEST = (OURS, "DiVeQ, normalised inputs", "FSQ", AVERAGES, "DiVeQ")
OTHERS = ("VQBridge", "SimVQ, its layer at ten times the rate", "IBQ", "the classic module")


def plan() -> Iterator[Settings]:
    """All runs, those first that say most."""
    for seed in SEEDS:
        for data in JUDGES:
            for name in (*BEST, *([FORMER] if seed == 0 else [])):
                longer = seed == 0 and data == JUDGES[0] and name in BEST[:4]
                yield settings_of(name, data, seed=seed, lengths=(*LENGTHS, 32000) if longer else LENGTHS)
    for seed in SEEDS:
        for data in ("wallpapers", "speech"):
            for name in BEST:
                yield settings_of(name, data, 4096, seed=seed)
    for name in (OURS, *ABLATION):
        for lengths in (LENGTHS[:2], LENGTHS[2:]):
            yield settings_of(name, CHOSEN_ON, seed=0, lengths=lengths)
    for name in [*(name for name in RIVALS if name not in BEST), FLOOR]:
        yield settings_of(name, JUDGES[0], seed=0, lengths=LENGTHS[:2])
    for name in OTHERS:
        yield settings_of(name, JUDGES[0], seed=0, lengths=LENGTHS[2:])
    for data in JUDGES:
        for name in BEST:
            if data != JUDGES[0] or name not in BEST[:4]:
                yield settings_of(name, data, seed=0, lengths=(32000,))
    for seed in SEEDS[1:]:
        for name in (OURS, *ABLATION):
            yield settings_of(name, CHOSEN_ON, seed=seed)
    for seed in SEEDS:
        for dim in (16, 256):
            for name in BEST:
                yield settings_of(name, JUDGES[0], seed=seed, dim=dim, lengths=LENGTHS[:2])
        for num_embeddings in (64, 16384):
            for name in BEST:
                yield settings_of(name, JUDGES[0], num_embeddings, seed=seed, lengths=LENGTHS[:2])
        for name in BEST:
            yield settings_of(name, JUDGES[0], seed=seed, network="large", lengths=LENGTHS[:2])
    for name in OTHERS:
        for seed in SEEDS[1:]:
            yield settings_of(name, JUDGES[0], seed=seed)
        for data in JUDGES[1:]:
            for seed in SEEDS if name == "VQBridge" else SEEDS[:1]:
                yield settings_of(name, data, seed=seed)


def run_on_gpu(jobs: list[Settings], limit: float, width: int = 24, threads: int = 3) -> None:
    """Many runs at a time on one card: threads launch their graphs in turn."""
    begun, lock, steps = time.monotonic(), threading.Lock(), [0] * threads

    def work(index: int, trainings: list[Training]) -> None:
        pending, turns = [(training, training.run()) for training in trainings], 0
        while pending and time.monotonic() - begun < limit:
            for training, iterator in list(pending):
                try:
                    for _ in range(max(training.settings["lengths"]) // 1000):  # long runs take longer turns
                        next(iterator)
                        steps[index] += 1
                except StopIteration:
                    pending.remove((training, iterator))
                    result = training.result()
                    with lock:
                        store(training.settings, result, CACHE)
            turns += 1
            if turns % 8 == 0 and pending:  # not too far ahead of the card
                pending[turns // 8 % len(pending)][0].stream.synchronize()
        for training, _ in pending:
            if training.results:  # the lengths that there was time for
                result = training.result()
                with lock:
                    store(training.settings | {"lengths": [*map(int, training.results)]}, result, CACHE)

    while jobs and time.monotonic() - begun < limit - 15:
        wave = []
        while jobs and len(wave) < width:
            settings = jobs.pop(0)
            try:
                training = Training(settings)
                training.capture()
                wave.append(training)
            except Exception:
                print(f"{settings['name']}, {settings['data']}: not run", traceback.format_exc(limit=-3), flush=True)
                torch.cuda.synchronize()
        workers = [threading.Thread(target=work, args=(k, wave[k::threads])) for k in range(threads)]
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            time.sleep(2)
            elapsed = time.monotonic() - begun
            print(f"{elapsed:.0f} s, {sum(steps):,} steps, {len(jobs)} runs to come", flush=True)


def run_alone(settings: Settings) -> dict[str, Any]:
    """One run on one processor core."""
    torch.set_num_threads(1)
    training = Training(settings, torch.device("cpu"))
    for _ in training.run():
        pass
    return store(settings, training.result(), CACHE)


def run_on_cpu(jobs: list[Settings], processes: int) -> None:
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        pending = {pool.submit(run_alone, settings): settings for settings in jobs}
        for future in as_completed(pending):
            print(
                pending[future]["name"], pending[future]["data"], pending[future]["seed"], future.result(), flush=True
            )


# What is written


Runs = dict[tuple[str, str, int, int, str], dict[int, dict[str, Any]]]


def stored_runs() -> Runs:
    """Results by data, network, K, D and name, then by seed."""
    found: Runs = {}
    for settings in plan():
        if result := stored(settings, CACHE):
            where = settings["data"], settings["network"], settings["num_embeddings"], settings["embedding_dim"]
            key = *where, settings["name"]
            found.setdefault(key, {}).setdefault(settings["seed"], {}).update(result)
    return found


def figures(runs: dict[int, dict[str, Any]], length: int, figure: str = "error") -> dict[int, float]:
    """One figure at one length, by seed."""
    found = {seed: run[str(length)] for seed, run in runs.items() if str(length) in run}
    return {seed: values[figure] for seed, values in found.items() if figure in values}


def mean_and_range(values: Iterable[float], digits: int) -> str:
    values = list(values)
    if not values:
        return "–"
    extent = f" ({min(values):.{digits}f}–{max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{extent}"


def table(runs: Runs, *where: str | int) -> list[str]:
    """Errors at each length, the best first, and those of the default over the best rival's with the same seed."""
    rows = {name: found for (*key, name), found in runs.items() if key == [*where]}
    lengths = sorted({int(key) for found in rows.values() for run in found.values() for key in run if key.isdigit()})
    lines = [f"| | {' | '.join(f'{length:,} steps' for length in lengths)} | codes in use | perplexity | seeds |"]
    lines += ["|---" * (len(lengths) + 4) + "|"]
    shared = max(length for length in lengths if all(figures(found, length) for found in rows.values()))
    for name, found in sorted(rows.items(), key=lambda row: statistics.mean(figures(row[1], shared).values())):
        cells = [mean_and_range(figures(found, length).values(), 4) for length in lengths]
        last = max(length for length in lengths if figures(found, length))
        for figure, digits, factor in (("usage", 1, 100), ("perplexity", 0, 1)):
            values = figures(found, last, figure).values()
            cells.append(f"{factor * statistics.mean(values):.{digits}f}{' %' * (factor > 1)}" if values else "–")
        lines.append(f"| {name} | {' | '.join(cells)} | {len(found)} |")
    if OURS in rows and rows.keys() & RIVALS.keys():
        for label, names in (("the best rival", {*RIVALS}), (f"the best but {AVERAGES}", {*RIVALS} - {AVERAGES})):
            cells = [against_the_best(rows, length, names) for length in lengths]
            lines.append(f"| **{OURS} ÷ {label}** | {' | '.join(cells)} | | | |")
    return lines


def against_the_best(rows: dict[str, dict[int, dict[str, Any]]], length: int, names: set[str]) -> str:
    ours = figures(rows[OURS], length)
    rivals = {name: figures(rows[name], length) for name in rows.keys() & names}
    complete = {name: found for name, found in rivals.items() if ours.keys() <= found.keys()}
    if not complete or not ours:
        return "–"
    best = min(complete.values(), key=lambda found: statistics.mean(found[seed] for seed in ours))
    ratio = sum(ours.values()) / sum(best[seed] for seed in ours)
    each = [ours[seed] / best[seed] for seed in ours]
    return f"**{ratio:.2f}**" + (f" ({min(each):.2f}–{max(each):.2f})" if len(each) > 1 else "")


def page(runs: Runs) -> str:
    devices = sorted({run["device"] for found in runs.values() for run in found.values()})
    lines = ["# The error at every length of training", "", INTRODUCTION, "", f"Run on: {', '.join(devices)}.", ""]
    for data, network, num_embeddings, dim in dict.fromkeys(key[:-1] for key in runs):
        of = ("" if dim == 64 else f", D = {dim}") + ("" if network == "small" else ", the large network")
        lines += [f"## {data[0].upper() + data[1:]}, K = {num_embeddings:,}{of}", ""]
        lines += [*table(runs, data, network, num_embeddings, dim), ""]
    return "\n".join([*lines, "![error against steps](lengths.svg)"]) + "\n"


INTRODUCTION = f"""`python -m benchmarks.lengths run` trains one autoencoder with each quantizer on the same pictures in
the same order: batches of {BATCH} crops of {SIDE} × {SIDE}, Adam with a learning rate of 1e-3. The error at a length is
that of a branch whose learning rate fell to zero in the last fifth; the run itself goes on at 1e-3. It is the mean
squared error on pictures that were held out, over the variance of those trained on. Means over the seeds, with their
range; codes in use and perplexity are those of the longest length, on the held-out pictures.

*Photographs*: the twelve of `lexel demo`, the right fifth of each held out; what the default recipe was chosen with,
and here shown with one of its parts changed at a time.
The others judged it, once. *Wallpapers*: 37 photographs of Debian's packages of desktop backgrounds, every fourth held
out. *Fashion-MNIST* and its test set. *Speech*: log-mel spectrograms of 489 clips of Czech actors in a game, the clips
of every fifth place in it held out. `python -m benchmarks.lengths prepare` makes them of these packages of Debian 12:
{PACKAGES} dataset-fashion-mnist.

The small network has a width of 64 and goes down by 4, D = 64; the large one has a width of 128, four residual layers
and goes down by 8. Rivals are Lexel's implementations of them, with the settings of their papers, and with k-means
start and revival where they have codes; *normalised inputs* lends them the shift and scale of Lexel's default for
D = 64. FSQ has 8 levels for each number."""


DRAWN = {
    OURS: ("o-", "#c2410c", 2.5),
    AVERAGES: ("D-", "#0f766e", 1.2),
    "FSQ": ("s-", "#64748b", 1.2),
    "DiVeQ": ("^-", "#94a3b8", 1.2),
}


def draw(runs: Runs) -> None:
    """Error against steps, for the judges."""
    import matplotlib as mpl
    from matplotlib import pyplot

    mpl.rcParams["svg.hashsalt"] = "lexel"  # the same picture from the same figures
    figure, axes = pyplot.subplots(1, len(JUDGES), figsize=(10, 3.4), layout="constrained")
    for axis, data in zip(axes, JUDGES, strict=True):
        for name, (style, colour, width) in DRAWN.items():
            found = runs[data, "small", 512, 64, name]
            lengths = [length for length in (*LENGTHS, 32000) if figures(found, length)]
            errors = [list(figures(found, length).values()) for length in lengths]
            axis.plot(lengths, [*map(statistics.mean, errors)], style, color=colour, linewidth=width, label=name)
            axis.fill_between(lengths, [*map(min, errors)], [*map(max, errors)], color=colour, alpha=0.15, linewidth=0)
        axis.set(xscale="log", yscale="log", xlabel="steps", title=data)
        ticks = [length for length in (*LENGTHS, 32000) if figures(runs[data, "small", 512, 64, OURS], length)]
        axis.set_xticks(ticks, [f"{length:,}" for length in ticks])
        axis.yaxis.set_major_formatter("{x:.2f}")
        axis.yaxis.set_minor_formatter("{x:.2f}")
        axis.tick_params(axis="y", which="both", labelsize=7)
        axis.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("held-out error")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(DRAWN))
    figure.savefig(RESULTS.with_suffix(".svg"), metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prepare", "run", "page"])
    parser.add_argument("--limit", type=float, default=math.inf, help="seconds after which a GPU stops")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="how many runs at a time, without a GPU")
    parser.add_argument("--only", default="", help="run only what has this in its settings' text")
    parser.add_argument("--root", type=Path, default=Path("/"), help="where Debian's packages are unpacked")
    arguments = parser.parse_args()
    if arguments.what == "prepare":
        prepare(arguments.root)
        return
    if arguments.what == "run":
        jobs = [settings for settings in plan() if stored(settings, CACHE) is None and arguments.only in str(settings)]
        absent = {data for job in jobs if not (PICTURES / f"{(data := job['data'])}.pt").is_file()}
        if absent:
            raise SystemExit(
                f"{PICTURES} lacks {', '.join(sorted(absent))}: first python -m benchmarks.lengths prepare"
            )
        run_on_gpu(jobs, arguments.limit) if DEVICE.type == "cuda" else run_on_cpu(jobs, arguments.processes)
    runs = stored_runs()
    missing = [f"{name} on {data}" for data in JUDGES for name in DRAWN if (data, "small", 512, 64, name) not in runs]
    if missing:
        raise SystemExit(f"the page stays as it is: {CACHE} has no results of {', '.join(missing)}")
    text = page(runs)
    draw(runs)
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
