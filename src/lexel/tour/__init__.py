"""The tour: photographs and Fashion-MNIST become codes, tokens, a prior, new pictures and files, and a page shows it.

Every station is a command that anybody can type. The tour types them one after the other, keeps what they print, and
writes `tour.html`. A tour that was interrupted goes on at the station where it stopped.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lexel._core.console import messages
from lexel._core.files import written_beside
from lexel.data.images import open_images, psnr, save_image
from lexel.data.pictures import centre, columns
from lexel.nearest import nearest_code
from lexel.priors.write import SHEET
from lexel.report.page import WEB
from lexel.report.pictures import data_uri

try:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
    from PIL import Image
except ImportError as error:
    raise ImportError(f"the tour needs further packages: pip install 'lexel[demo]' ({error})") from error

__all__ = ["FASHION", "run_tour"]

FASHION = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package dataset-fashion-mnist puts it
CLASSES = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
PICTURE = "samples.png"


@dataclass
class Station:
    """A part of the tour.

    Attributes:
        title: its heading.
        text: what happens here, in a few sentences.
        commands: what was typed, and what it printed.
        pictures: captions and files within the tour's folder.
        figures: a sentence of figures; empty where there are none.
        seconds: how long it took.
    """

    title: str
    text: str
    commands: list[tuple[str, str]] = field(default_factory=list)
    pictures: list[tuple[str, str]] = field(default_factory=list)
    figures: str = ""
    seconds: float = 0.0


def run_tour(out: Path, fashion: Path = FASHION, *, effort: float = 1.0) -> Path:
    """Take the tour, and return the path of its page.

    Args:
        out: folder to write into. Stations that were finished there before are not run again.
        fashion: the folder of Fashion-MNIST's four files.
        effort: a factor for how long everything is trained; 1 takes about a quarter of an hour on two cores.

    Raises:
        FileNotFoundError: Fashion-MNIST is not in `fashion`.
        ChildProcessError: a command failed.
        ImportError: a package that contains the photographs is missing.
    """
    tour = Tour(out, fashion, effort)
    for visit in (tour.photographs, tour.one_file, tour.tokens, tour.prior, tour.new_pictures, tour.completion):
        kept = out / f".{visit.__name__}.json"
        if kept.is_file():
            station = Station(**json.loads(kept.read_text(encoding="utf-8")))
        else:
            begun = time.monotonic()
            station = visit()
            station.seconds = time.monotonic() - begun
            with written_beside(kept) as temporary:
                temporary.write_text(json.dumps(asdict(station)), encoding="utf-8")
        tour.stations.append(station)
    page = out / "tour.html"
    with written_beside(page) as temporary:
        temporary.write_text(_page(tour), encoding="utf-8")
    return page


class Tour:
    """The stations of a tour, in a folder.

    Args:
        out: the folder.
        fashion: the folder of Fashion-MNIST's four files.
        effort: a factor for how long everything is trained.
    """

    def __init__(self, out: Path, fashion: Path, effort: float) -> None:
        self.out, self.fashion, self.factor = out, fashion, effort
        self.stations: list[Station] = []
        if not (fashion / "train-images-idx3-ubyte.gz").is_file():
            raise FileNotFoundError(
                f"Fashion-MNIST is not in {fashion}: install Debian's package dataset-fashion-mnist, or give the "
                "folder of its four files with --fashion-mnist"
            )
        out.mkdir(parents=True, exist_ok=True)

    def photographs(self) -> Station:
        """Ten photographs, and two that the model never saw."""
        station = Station(
            "Photographs become codes",
            "A model learns from ten photographs to write every 4 × 4 square of pixels as one of 1,024 codes, and to "
            "paint the photograph again from the codes. Here are two photographs that it never saw, above what became"
            " of them; and the grid of codes itself, in which similar codes have similar colours.",
        )
        self._type(station, "demo", "--out", "photographs", "--steps", self._steps(900), "--overwrite")
        for name, caption in (("reconstructions", "above, the photographs; below, painted from codes"), ("tokens", "")):
            station.pictures.append((caption or "a photograph and its codes", f"photographs/{name}.png"))
        return station

    def one_file(self) -> Station:
        """A photograph as a file of codes, beside a JPEG of the same size."""
        station = Station(
            "One picture, one small file",
            "Codes are not equally frequent, and neighbours tell much about each other. An arithmetic coder makes use"
            " of that: it counts what it has seen so far, in integers, so that the file means the same on every "
            "machine.",
        )
        source = next((self.out / "photographs/photographs/held-out").glob("chelsea*"))
        where = source.relative_to(self.out)
        self._type(station, "compress", "photographs", where, "--out", "cat.lxl", "--overwrite")
        self._type(station, "decompress", "photographs", "cat.lxl", "--out", "cat.png", "--overwrite")
        original, decoded = (_pixels(self.out / path) for path in (where, "cat.png"))
        size = (self.out / "cat.lxl").stat().st_size
        jpeg, bytes_of_jpeg = _jpeg_of(original, size)
        save_image(_beside([original, decoded, jpeg]), self.out / "cat-beside.png")
        station.pictures.append(
            (
                f"the photograph, {original.numel():,} bytes of pixels; from {size:,} bytes of codes, PSNR "
                f"{psnr(original / 255, decoded / 255):.1f} dB; the JPEG that comes nearest to this size, of "
                f"{bytes_of_jpeg:,} bytes, {psnr(original / 255, jpeg / 255):.1f} dB. The model is not counted; it was "
                "trained on ten photographs",
                "cat-beside.png",
            )
        )
        return station

    def tokens(self) -> Station:
        """Fashion-MNIST as a set of tokens."""
        station = Station(
            "Sixty thousand pictures become a table of tokens",
            "A second model learns Fashion-MNIST, whose pictures of 28 × 28 pixels become 7 × 7 tokens. The data set "
            "of tokens is plain Parquet: DuckDB, Spark and pandas read it without Lexel.",
        )
        for part in ("train", "t10k"):
            _write_parquet(self.fashion, part, self.out / f"{part}.parquet")
        sizes = ["--model.image-channels", 1, "--model.hidden-channels", 32, "--crop", 28, "--batch-size", 32]
        codes = ["--quantizer.num-embeddings", 256, "--quantizer.embedding-dim", 32]
        steps = ["--steps", self._steps(2500)]
        self._type(station, "train", "train.parquet", "--out", "clothes", *sizes, *codes, *steps, "--overwrite")
        self._type(station, "encode", "clothes", "train.parquet", "--out", "tokens", "--batch-size", 256, "--overwrite")
        self._type(
            station, "encode", "clothes", "t10k.parquet", "--out", "tokens-test", "--batch-size", 256, "--overwrite"
        )
        self._type(station, "stats", "tokens")
        self._type(station, "decode", "clothes", "tokens-test", "--out", "decoded", "--batch-size", 256, "--overwrite")
        originals, copies = open_images(self.out / "t10k.parquet", 1), open_images(self.out / "decoded", 1)
        pairs = [[originals.read(index), copies.read(index)] for index in range(16)]
        save_image(_sheet(pairs, 3), self.out / "clothes.png")
        station.pictures.append(("test pictures, above what their 49 tokens say", "clothes.png"))
        return station

    def prior(self) -> Station:
        """A causal prior on the tokens."""
        station = Station(
            "A prior learns which token follows which",
            "A small transformer reads the tokens row by row and learns to foretell the next one, for each kind of "
            "clothing. Fewer bits for a token mean a better guess; a coin for every bit would need eight.",
        )
        options = ["--steps", self._steps(2000), "--batch-size", 32, "--validation", "tokens-test", "--overwrite"]
        sizes = ["--layers", 3, "--width", 128, "--heads", 4]
        self._type(station, "train-prior", "clothes", "tokens", "--out", "prior", *sizes, *options)
        with (self.out / "prior/metrics.csv").open(newline="", encoding="utf-8") as file:
            last = list(csv.DictReader(file))[-1]
        codes = {"as they are": "uniform", "by how often each occurs": "unigram", "by its neighbours": "context"}
        bits = [f"{float(last[f'{code}_bits_per_token']):.2f} {how}" for how, code in codes.items()]
        prior = float(last["validation_bits_per_token"])
        station.figures = f"Bits for a token of pictures not trained on: {', '.join(bits)}, {prior:.2f} by the prior."
        return station

    def new_pictures(self) -> Station:
        """Pictures that nobody drew."""
        station = Station(
            "New pictures",
            "The prior draws tokens one after the other, and the model paints them. None of these was in the data "
            "set: the lower rows show, for eight of them, the nearest of the sixty thousand pictures that were "
            "trained on.",
        )
        self._type(station, "sample", "prior", "--num", 64, "--seed", 0, "--out", "samples", "--overwrite")
        pictures = _drawn(self.out / "samples")
        save_image(_sheet([pictures[column::16] for column in range(16)], 3), self.out / PICTURE)
        station.pictures.append(("sixty-four new pictures", PICTURE))
        real = _idx(self.fashion / "train-images-idx3-ubyte.gz", 16).view(-1, 1, 28, 28)
        few = torch.stack(pictures[::8])
        nearest = real[nearest_code(few.flatten(1).float(), real.flatten(1).float())]
        save_image(_sheet([list(pair) for pair in zip(few, nearest, strict=True)], 4), self.out / "nearest.png")
        station.pictures.append(("eight of them, above the nearest picture of the training set", "nearest.png"))
        return station

    def completion(self) -> Station:
        """The rest of a picture of which the prior sees half."""
        station = Station(
            "The other half",
            "Give the prior the upper half of a picture that it has never seen, and it paints the rest, another one "
            "for every seed.",
        )
        test = _idx(self.fashion / "t10k-images-idx3-ubyte.gz", 16).view(-1, 1, 28, 28)
        shown = []
        for number in (0, 1, 2, 4):
            save_image(test[number], self.out / f"half-{number}.png")
            keep = ["--complete", f"half-{number}.png", "--keep", "top", "--num", 4, "--seed", 0]
            self._type(station, "sample", "prior", *keep, "--out", f"completed-{number}", "--overwrite")
            shown.append([test[number], *_drawn(self.out / f"completed-{number}")])
        station.commands = station.commands[:1]  # they are alike
        save_image(_sheet(shown, 4), self.out / "completed.png")
        station.pictures.append(("above, the whole picture; below it four ends for its upper half", "completed.png"))
        return station

    def _steps(self, usual: int) -> int:
        return max(int(usual * self.factor), 2)

    def _type(self, station: Station, *words: object) -> None:
        """Run a command of Lexel in the tour's folder, and keep what it printed."""
        typed = [str(word) for word in words]
        shown = shlex.join(["lexel", *(word for word in typed if word != "--overwrite")])
        messages.print(f"$ {shown}", markup=False, soft_wrap=True)
        done = subprocess.run(
            [sys.executable, "-m", "lexel", *typed], cwd=self.out, stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            raise ChildProcessError(f"lexel {typed[0]} ended with code {done.returncode}; run the tour again to go on")
        station.commands.append((shown, done.stdout.strip()))


def _page(tour: Tour) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    environment.filters["embedded"] = lambda name: data_uri(_pixels(tour.out / name))
    minutes = sum(station.seconds for station in tour.stations) / 60
    return environment.get_template("page.html").render(
        style=Markup((WEB / "page.css").read_text(encoding="utf-8")), stations=tour.stations, minutes=round(minutes)
    )


def _pixels(path: Path) -> Tensor:
    return open_images(path).read(0)


def _drawn(folder: Path) -> list[Tensor]:
    """Return the examples in a folder that `lexel sample` wrote."""
    images = open_images(folder, 1)
    return [images.read(number) for number, name in enumerate(images.names) if name != SHEET]


def _beside(pictures: Sequence[Tensor]) -> Tensor:
    return (columns([[centre(picture.float() / 255, 300, 300)] for picture in pictures]) * 255).round().byte()


def _sheet(pictures: Sequence[Sequence[Tensor]], zoom: int) -> Tensor:
    """Arrange small pictures in columns, enlarged."""
    large = [
        [picture.float().repeat_interleave(zoom, 1).repeat_interleave(zoom, 2) / 255 for picture in column]
        for column in pictures
    ]
    return (columns(large, gap=zoom) * 255).round().byte()


def _jpeg_of(pixels: Tensor, size: int) -> tuple[Tensor, int]:
    """Return the JPEG of a picture that has about so many bytes, as pixels, and its bytes."""
    found: list[tuple[int, bytes]] = []
    for quality in range(1, 96):
        file = io.BytesIO()
        Image.fromarray(pixels.movedim(0, -1).numpy()).save(file, "JPEG", quality=quality)
        found.append((abs(file.tell() - size), file.getvalue()))
    content = min(found)[1]
    with Image.open(io.BytesIO(content)) as image:
        return torch.from_numpy(np.array(image)).movedim(-1, 0), len(content)


def _idx(path: Path, offset: int) -> Tensor:
    with gzip.open(path) as file:
        return torch.frombuffer(bytearray(file.read()[offset:]), dtype=torch.uint8)


def _write_parquet(fashion: Path, part: str, out: Path) -> None:
    """Write a part of Fashion-MNIST as a table of pictures and classes."""
    import datasets

    pictures = _idx(fashion / f"{part}-images-idx3-ubyte.gz", 16).view(-1, 28, 28).numpy()
    labels = _idx(fashion / f"{part}-labels-idx1-ubyte.gz", 8).tolist()
    features: Any = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
    rows = {"image": [Image.fromarray(each) for each in pictures], "label": labels}
    datasets.disable_progress_bars()
    with written_beside(out) as temporary:
        datasets.Dataset.from_dict(rows, features=features).to_parquet(str(temporary))
