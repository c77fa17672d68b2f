"""How well each kind of prior paints, after the same time of training: `python -m benchmarks.priors [--minutes 6]`.

Trains tokenizers on Fashion-MNIST, encodes it, trains a prior of each kind on the tokens for the same time, and draws
as many pictures as the test set has, class by class. Distances are those of the features of a small classifier that is
trained here on the real training set; the distance between the real training and test sets is their floor. Writes
`benchmarks/results/priors.md` and `priors.png`. What is done is kept in the folder `--work` and not done again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics.image.fid import FrechetInceptionDistance

import lexel
from benchmarks.quality import FASHION, fashion
from lexel.data.images import open_images, save_image
from lexel.data.pictures import columns
from lexel.priors.painter import Painter
from lexel.priors.write import SHEET

RESULTS = Path(__file__).parent / "results" / "priors.md"
PICTURE = RESULTS.with_suffix(".png")
CLASSES = 10
DIMENSIONS = 28 * 28
HELD_OUT = 1000  # pictures whose bits are counted: a masked prior takes a pass for each of their tokens
NEIGHBOURS = 3  # of the manifolds of precision and recall
SIZES = ["--layers", 3, "--width", 128, "--heads", 4]  # what a core trains in minutes
CONSOLE = [sys.executable, "-m", "lexel"]

# The tokenizers, and the kinds of prior that are trained on each.
TOKENIZERS = {
    "one grid": ["--quantizer.num-embeddings", "256", "--quantizer.embedding-dim", "32"],
    "scales": [
        "--quantizer",
        json.dumps(
            lexel.MultiScaleResidualQuantizer(
                lexel.VectorQuantizer(
                    256, 32, learning=lexel.EMA(decay=0.9), upkeep=(lexel.KMeansStart(), lexel.Revival())
                ),
                scales=[1, 2, 3, 5, 7],
            ).config
        ),
    ],
}
KINDS = {"causal": "one grid", "masked": "one grid", "next-scale": "scales"}


class Classifier(nn.Module):
    """A small convolutional network whose 128 features measure distances between sets of pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(64, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU(), nn.AdaptiveAvgPool2d(2)),
            *(nn.Flatten(), nn.Linear(512, 128), nn.ReLU()),
        )
        self.head = nn.Linear(128, CLASSES)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the logits of the classes."""
        logits: Tensor = self.head(self.features(pictures))
        return logits

    def features(self, pictures: Tensor) -> Tensor:
        """Return the features, `(B, 128)`, of uint8 pictures `(B, 1, 28, 28)`."""
        features: Tensor = self.body(pictures.float() / 255)
        return features


def labels(part: str) -> Tensor:
    """The classes of a part of Fashion-MNIST, int64 `(N,)`."""
    with gzip.open(FASHION / f"{part}-labels-idx1-ubyte.gz") as file:
        return torch.from_numpy(np.frombuffer(file.read(), np.uint8, -1, 8).copy()).long()


def trained_classifier(path: Path, epochs: int = 4) -> Classifier:
    """Train the classifier, or load it."""
    torch.manual_seed(0)
    model = Classifier()
    if path.is_file():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    pictures, classes = fashion("train"), labels("train")
    steps = epochs * len(pictures) // 128
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        batch = torch.randint(len(pictures), (128,))
        loss = F.cross_entropy(model(pictures[batch]), classes[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    torch.save(model.state_dict(), path)
    return model.eval()


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    return torch.cat([function(batch) for batch in pictures.split(500)])


def frechet(one: Tensor, two: Tensor) -> float:
    """The Fréchet distance between two sets of features."""
    distance = FrechetInceptionDistance(feature=Given(one.shape[1]), normalize=False).set_dtype(torch.float64)
    for features, real in ((one, True), (two, False)):
        distance.update(features.double(), real=real)
    return float(distance.compute())


class Given(nn.Module):
    """Passes features through, for a metric that would compute them."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.num_features = size

    def forward(self, features: Tensor) -> Tensor:
        """Return the features."""
        return features


def precision_and_recall(real: Tensor, drawn: Tensor) -> tuple[float, float]:
    """The shares of drawn pictures among real ones, and of real among drawn ones (Kynkäänniemi et al. 2019)."""

    def covered(points: Tensor, others: Tensor) -> float:
        pieces = others.split(1000)
        radii = torch.cat(
            [torch.cdist(own, others).topk(NEIGHBOURS + 1, largest=False).values[:, -1] for own in pieces]
        )
        found = [(torch.cdist(own, others) <= radii).any(1) for own in points.split(1000)]
        return float(torch.cat(found).float().mean())

    return covered(drawn, real), covered(real, drawn)


def write_parquet(part: str, path: Path) -> None:
    """Write a part of Fashion-MNIST as users have it: PNG files and classes in a table."""
    import datasets
    from PIL import Image

    names = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    rows = {"image": [Image.fromarray(each[0].numpy()) for each in fashion(part)], "label": labels(part).tolist()}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(path))


def lexel_command(*words: object) -> str:
    """Run a command of Lexel, show it, and return what it printed."""
    command = [*CONSOLE, *map(str, words)]
    print("$ lexel", *command[3:], flush=True)
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # so that the processor's time is a fair measure
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=one_thread)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def steps_of(seconds: float, work: Path, commands: Mapping[str, list[object]]) -> dict[str, int]:
    """How many steps each command of training makes in so many seconds of one core.

    The commands take turns, and the fastest of three measurements of 60 steps counts: what else the machine does slows
    one as much as another.
    """
    known = work / "steps.json"
    if not known.is_file():
        took: dict[str, list[float]] = {kind: [] for kind in commands}
        for _ in range(3):
            for kind, words in commands.items():
                few, many = (processor_time(*words, "--steps", n, "--out", work / "trial") for n in (20, 80))
                took[kind].append((many - few) / 60)
        known.write_text(json.dumps({kind: max(int(seconds / min(times)), 100) for kind, times in took.items()}))
    found: dict[str, int] = json.loads(known.read_text())
    return found


def processor_time(*words: object) -> float:
    """The seconds of a core that a command of training takes."""
    begun = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    lexel_command(*words, "--overwrite")
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - begun


def drawn_pictures(folder: Path, prior: Path, count: int) -> Tensor:
    """Draw so many pictures with a prior, the same number of each class, uint8 `(N, 1, 28, 28)`."""
    if not folder.is_dir():
        lexel_command("sample", prior, "--num", count, "--seed", 0, "--batch-size", 500, "--out", folder)
    images = open_images(folder, 1)
    chosen = [number for number, name in enumerate(images.names) if name != SHEET]
    return torch.stack([pixels for _, pixels in images.readable(chosen)])


def nearest_pictures(drawn: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """For each drawn picture the nearest real one by its pixels, and the distance, as the root of the mean square."""
    found = real[lexel.nearest_code(drawn.flatten(1).float(), real.flatten(1).float())]
    return found, (drawn.float() - found.float()).square().mean((1, 2, 3)).sqrt()


def tokenizer(name: str, work: Path) -> tuple[Path, dict[str, Path]]:
    """Train a tokenizer, and encode both parts of Fashion-MNIST with it."""
    run = work / f"tokenizer, {name}"
    if not (run / "model").is_dir():
        sizes = ["--model.image-channels", 1, "--model.hidden-channels", 32, "--crop", 28, "--batch-size", 64]
        options = [*TOKENIZERS[name], *sizes, "--steps", 3000, "--overwrite"]
        lexel_command("train", work / "train.parquet", "--out", run, *options)
    tokens = {part: work / f"tokens of {part}, {name}" for part in ("train", "t10k")}
    for part, out in tokens.items():
        if (out / "_tokens.json").is_file():
            continue
        lexel_command("encode", run, work / f"{part}.parquet", "--out", out, "--batch-size", 256, "--overwrite")
    return run, tokens


def bits_per_dimension(painter: Painter, tokens: Path) -> float:
    """The mean bits of held-out tokens, as the prior counts them, for each of the pictures' 784 numbers."""
    batches = DataLoader(lexel.tokens.open(tokens).select(range(HELD_OUT)), 500)
    with torch.no_grad():
        bits = [
            painter.prior.bits(batch["indices"].reshape(-1, *painter.prior.shape), batch["label"]) for batch in batches
        ]
    return float(torch.cat(bits).mean()) / DIMENSIONS


def main(minutes: float, work: Path) -> None:
    """Train what is not there yet, measure, and write the page."""
    work.mkdir(parents=True, exist_ok=True)
    for part in ("train", "t10k"):
        if not (work / f"{part}.parquet").is_file():
            write_parquet(part, work / f"{part}.parquet")
    real, held_out = fashion("train"), fashion("t10k")
    classifier = trained_classifier(work / "classifier.pt")
    accuracy = float((in_batches(classifier, held_out).argmax(1) == labels("t10k")).float().mean())
    known, test = in_batches(classifier.features, real), in_batches(classifier.features, held_out)

    def row(name: str, codes: str, steps: str, bits: str, pictures: Tensor) -> str:
        features = in_batches(classifier.features, pictures)
        shares = " | ".join(f"{share:.2f}" for share in precision_and_recall(test, features))
        distance = float(nearest_pictures(pictures[:1000], real)[1].median())
        return f"| {name} | {codes} | {steps} | {bits} | {frechet(features, known):.2f} | {shares} | {distance:.1f} |"

    lines = [row("the real test set", "", "", "", held_out)]
    columns_of_sheet: list[list[Tensor]] = []
    shown: set[str] = set()
    tokenizers = {name: tokenizer(name, work) for name in TOKENIZERS}
    commands: dict[str, list[object]] = {}
    for kind, name in KINDS.items():
        run, tokens = tokenizers[name]
        words = ["train-prior", run, tokens["train"], "--kind", kind, *SIZES, "--batch-size", 32]
        commands[kind] = [*words, "--save-every", 10**6]
    steps_in_time = steps_of(60 * minutes, work, commands)
    for kind, name in KINDS.items():
        run, tokens = tokenizers[name]
        decoded = work / f"decoded, {name}"
        if not decoded.is_dir():
            lexel_command("decode", run, tokens["t10k"], "--out", decoded, "--batch-size", 256)
        if name not in shown:
            shown.add(name)
            copies = torch.stack([each for _, each in open_images(decoded, 1).readable(range(len(held_out)))])
            lines.append(row("the test set through the codes", name, "", "", copies))
        prior = work / f"prior, {kind}"
        if prior.is_dir():  # finished, or stopped in the middle
            lexel_command("resume", prior)
        else:
            lexel_command(*commands[kind], "--steps", steps_in_time[kind], "--out", prior)
        steps = yaml.safe_load((prior / "config.yaml").read_text())["steps"]
        painter = Painter.load(prior)
        bits = f"{bits_per_dimension(painter, tokens['t10k']):.4f}"
        bound = " at most" if kind == "masked" else ""
        drawn = drawn_pictures(work / f"samples, {kind}", prior, len(held_out))
        lines.append(row(kind, name, f"{steps:,}", bits + bound, drawn))
        print(lines[-1], flush=True)
        few = drawn[:30]
        columns_of_sheet.append([*few[:20], *torch.cat([few[20:], nearest_pictures(few[20:], real)[0]])])
    sheet = [
        [picture.float().repeat_interleave(2, 1).repeat_interleave(2, 2) / 255 for picture in pictures[start::10]]
        for pictures in columns_of_sheet
        for start in range(10)
    ]
    save_image((columns(sheet, gap=2) * 255).round().byte(), PICTURE)
    write_page(minutes, accuracy, lines)


def write_page(minutes: float, accuracy: float, lines: list[str]) -> None:
    """Write the table."""
    table = "\n".join(lines)
    RESULTS.write_text(
        f"""# Priors on Fashion-MNIST

`python -m benchmarks.priors --minutes {minutes:g}` printed, on {platform.machine()}, after {minutes:g} minutes of one
core's time for each prior:

| | codes | steps | bits per dimension, held out | Fréchet distance | precision | recall | nearest training picture |
|---|---|---|---|---|---|---|---|
{table}

Bits per dimension are those of the codes of the first {HELD_OUT:,} test pictures, of whose classes the prior is told,
over 784 numbers; they do not count what the codes leave out. Distances are between the 128 features of a small
classifier that was trained on the real training set and is right for {accuracy:.1%} of the test set: of 10,000 drawn
pictures, the same number of each class, and the 60,000 real training pictures. Precision and recall (Kynkäänniemi et
al. 2019, three neighbours) are against the real test set. The last column is the median distance of 1,000 pictures to
the nearest training picture, as the root of the mean squared difference of pixels from 0 to 255: copies would have 0.

![Pictures that each prior drew; in the last two rows, drawn ones above their nearest training pictures](priors.png)

From left to right, ten columns each: {", ".join(KINDS)}. The last row shows the training pictures nearest to those
above.
""",
        encoding="utf-8",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--work", type=Path, default=Path("runs/priors"))
    main(**vars(parser.parse_args()))
