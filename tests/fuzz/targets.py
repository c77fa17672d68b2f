"""Every parser of Lexel, with whole and hostile files for it."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import skimage
import torch
from PIL import Image

import lexel
import lexel.tokens
from lexel import migrate
from lexel.data.images import open_images
from lexel.priors.painter import Painter
from lexel.report.reading import read_run
from lexel.runs import load_model
from lexel.training.checkpoint import read_checkpoint
from tests.commands import TINY
from tests.fuzz.cases import TRAP, Target, command
from tests.quantizers.zoo import ZOO

SMALL_PRIOR = ["--steps", 2, "--batch-size", 2, "--layers", 1, "--width", 8, "--heads", 1]
PHOTOGRAPH = Path(skimage.__file__).parent / "data/chelsea.png"
# Damage may hit the numbers that say how large an image is: it then is refused, and not decoded for seconds.
MOST_PIXELS = 1 << 20


class Trap:
    """Unpickling this calls something that makes the file `TRAP`."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call = call, arguments

    def __reduce__(self) -> Any:
        return self.call


TRAPS = {
    "system": Trap(os.system, f"touch {TRAP}"),
    "exec": Trap(exec, f"open({str(TRAP)!r}, 'w')"),
    "touch": Trap(Path.touch, TRAP),
    "popen": Trap(subprocess.check_output, ["touch", str(TRAP)]),
}


def pictures(folder: Path) -> Iterator[Target]:
    """Images, arrays and tables."""
    files = whole_pictures()
    for name, content in files.items():
        (folder / name).write_bytes(content)

    def read(path: Path) -> list[torch.Tensor]:
        images = open_images(path, 3)
        found = [pixels for _, pixels in images.readable(range(len(images)))]
        if images.skipped:
            raise ValueError(f"{path}: {'; '.join(images.skipped.values())}")
        assert all(pixels.dtype == torch.uint8 and pixels.shape[0] == 3 and pixels.numel() for pixels in found)
        return found

    drawn, tables = [name for name in files if ".np" not in name and ".parquet" not in name], ["a.parquet"]
    yield Target("pictures", folder, drawn, read, sure=False)
    yield Target("arrays", folder, [name for name in files if ".np" in name], read, sure=False, weight=2)
    yield Target("tables", folder, tables, read, sure=False, weight=0.4)


def whole_pictures() -> dict[str, bytes]:
    """One photograph in every format that is of use, by file name."""
    with Image.open(PHOTOGRAPH) as image:
        photograph = image.convert("RGB").resize((64, 48))
    array = np.array(photograph)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "a maker", 72.0
    grey = Image.fromarray(array[..., 0].astype(np.uint16) * 257)
    drawings: dict[str, tuple[Image.Image, dict[str, object]]] = {
        "a.png": (photograph, {"exif": exif}),
        "palette.png": (photograph.quantize(32), {"transparency": 3}),
        "deep.png": (grey, {}),
        "frames.png": (photograph, {"save_all": True, "append_images": [photograph.rotate(90)]}),
        "a.jpg": (photograph, {"exif": exif}),
        "progressive.jpg": (photograph.convert("CMYK"), {"progressive": True}),
        "a.webp": (photograph, {"exif": exif}),
        "frames.webp": (photograph, {"save_all": True, "append_images": [photograph.rotate(90)]}),
        "a.gif": (photograph.quantize(32), {"save_all": True, "append_images": [photograph.rotate(90).quantize(32)]}),
        "a.tiff": (photograph, {"compression": "tiff_lzw", "exif": exif}),
        "deep.tiff": (grey, {}),
        "a.bmp": (photograph, {}),
        "a.tga": (photograph, {"compression": "tga_rle"}),
        "a.pgm": (grey, {}),
        "a.jp2": (photograph, {}),
        "a.ico": (photograph, {}),
        "a.avif": (photograph, {}),
    }
    found = {}
    for name, (image, options) in drawings.items():
        file = io.BytesIO()
        try:
            image.save(file, Image.registered_extensions()[Path(name).suffix], **options)
        except (KeyError, OSError):  # Pillow was built without it
            continue
        found[name] = file.getvalue()
    images: dict[str, tuple[Callable[..., None], Any]] = {
        "a.npy": (np.save, array[None] / 255),
        "a.npz": (np.savez, array[None]),
        "packed.npz": (np.savez_compressed, array[None]),
        "hostile.npy": (np.save, np.array([TRAPS["system"]])),
        "hostile.npz": (np.savez, np.array([TRAPS["exec"]])),
    }
    for name, (save, value) in images.items():
        file = io.BytesIO()
        save(file, value)
        found[name] = file.getvalue()
    file = io.BytesIO()
    pq.write_table(pa.table({"image": pa.array([found["a.png"], found["a.jpg"]])}), file)
    found["a.parquet"] = file.getvalue()
    return found


def runs(folder: Path) -> Iterator[Target]:
    """What a run leaves: its checkpoint, model, settings, curves, and codes that its model has made."""
    run, data = folder / "run", folder / "pictures.npy"
    np.save(data, np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3)).astype(np.uint8))
    command("train", data, "--out", run, "--steps", 6, *TINY)
    command("encode", run, data, "--out", folder / "codes.safetensors")
    model = load_model(run)

    checkpoints = folder / "checkpoints"
    checkpoints.mkdir()
    shutil.copy(run / "last.ckpt", checkpoints)
    content = torch.load(run / "last.ckpt", weights_only=True)
    torch.save({**content, "window": TRAPS["system"]}, checkpoints / "hostile.ckpt")
    (checkpoints / "pickle.ckpt").write_bytes(pickle.dumps(TRAPS["touch"]))
    torch.save(content, checkpoints / "old.ckpt", _use_new_zipfile_serialization=False)
    names = [path.name for path in checkpoints.iterdir()]
    yield Target("checkpoints", checkpoints, names, lambda path: read_checkpoint(path, model), sure=True)

    copy = folder / "copy"

    def resumed(path: Path) -> Any:
        """Go on from there; the weights are the result."""
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run, copy)
        command("resume", copy)
        return dict(load_model(copy).state_dict())

    names = ["last.ckpt", "metrics.csv", "environment.json"]
    yield Target("lexel resume", run, names, resumed, sure=True, weight=0.1)

    def loaded(path: Path) -> Any:
        found = load_model(path.parent)
        return found.config, dict(found.state_dict())

    parts = ["config.json", "model.safetensors"]
    yield Target("models", run / "model", parts, loaded, sure=True)
    foreign = folder / "foreign"
    foreign.mkdir()
    shutil.copy(run / "model/config.json", foreign)
    safetensors.torch.save_file(dict(model.state_dict()), foreign / "model.safetensors")
    yield Target("models without checksums", foreign, parts, loaded, sure=False)

    def tokens_of(path: Path) -> Any:
        found = lexel.tokens.open(path if path.suffix == ".safetensors" else path.parent)
        return list(found.names), [found[index] for index in range(len(found))], found.facts.as_json()

    def decoded(path: Path) -> list[bytes]:
        out = folder / "decoded"
        shutil.rmtree(out, ignore_errors=True)
        command("decode", run, path, "--out", out)
        return [file.read_bytes() for file in sorted(out.rglob("*.png"))]

    yield Target("codes", folder, ["codes.safetensors"], tokens_of, sure=True, weight=2)
    command("encode", run, data, "--out", folder / "tokens")
    yield Target("shards of tokens", folder / "tokens", ["part-00000.parquet"], tokens_of, sure=True)
    yield Target("lists of shards", folder / "tokens", ["_tokens.json"], tokens_of, sure=False)
    (folder / "a.lxl").write_bytes(lexel.tokens.compress(model, open_images(data).read(0)))

    def unpacked(path: Path) -> bytes:
        command("decompress", run, path, "--out", folder / "unpacked.png", "--overwrite")
        return (folder / "unpacked.png").read_bytes()

    yield Target("lexel decompress", folder, ["a.lxl"], unpacked, sure=True, weight=0.5)
    command("train-prior", run, folder / "tokens", "--out", folder / "prior", *SMALL_PRIOR)
    files = ["config.json", "model.safetensors", "tokens.json", "tokenizer/config.json"]

    def painted(path: Path) -> torch.Tensor:
        return Painter.load(folder / "prior").paint(1, generator=torch.Generator().manual_seed(0))

    yield Target("priors", folder / "prior/model", files, painted, sure=False)
    yield Target("lexel decode", folder, ["codes.safetensors"], decoded, sure=True, weight=0.5)

    def shown(path: Path) -> Any:
        found = read_run(run, load_model(run))
        return found.config_text, found.metrics, {k: v for k, v in found.environment.items() if "written" not in k}

    def page(path: Path) -> None:
        command("report", run, "--data", data, "--out", folder / "report.html", "--overwrite")

    sheets = ["metrics.csv", "config.yaml", "environment.json"]
    yield Target("a run's sheets", run, sheets, shown, sure=False)
    yield Target("lexel report", run, sheets, page, sure=False, weight=0.05)
    yield from settings(folder, run)


def settings(folder: Path, run: Path) -> Iterator[Target]:
    """Files of settings, up to the point where images are opened: there are none."""
    place = folder / "settings"
    place.mkdir()
    absent = folder / "absent"
    config = (run / "config.yaml").read_text().replace(str(folder / "pictures.npy"), str(absent))
    (place / "a.yaml").write_text(config)
    (place / "hostile.yaml").write_text(f"data: !!python/object/apply:os.system ['touch {TRAP}']\n")
    (place / "foreign.yaml").write_text("quantizer:\n  class_path: os.system\n  init_args: {command: 'touch a'}\n")
    layers = "\n".join(f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in pairwise("hgfedcba"))
    (place / "bomb.yaml").write_text(f"h: &h [1]\n{layers}\n")

    def parsed(*words: object) -> str:
        """Run a command up to the point where it opens images, which are not there."""
        try:
            command(*words)
        except ValueError as error:
            if str(absent) not in str(error):
                raise
            return "read"
        raise AssertionError("it went on")

    def given(path: Path) -> str:
        return parsed("train", absent, "--config", path, "--out", folder / "new")

    names = [path.name for path in place.iterdir()]
    yield Target("settings", place, names, given, sure=False, named=False, weight=0.7)

    whole = folder / "whole"
    shutil.copytree(run, whole)
    (whole / "config.yaml").write_text(config)

    def resumed(path: Path) -> str:
        return parsed("resume", path.parent)

    yield Target("settings of a run", whole, ["config.yaml"], resumed, sure=True, named=False)


def states(folder: Path) -> Iterator[Target]:
    """What other packages have saved."""
    theirs = {
        "classic": {"_embedding.weight": torch.randn(16, 4)},
        "ema": {
            "_embedding.weight": torch.randn(16, 4),
            "_ema_w": torch.randn(16, 4),
            "_ema_cluster_size": torch.rand(16) + 1,
        },
    }
    for name, state in theirs.items():
        safetensors.torch.save_file(state, folder / f"{name}.safetensors")
        torch.save({"state_dict": state, "epoch": 3}, folder / f"{name}.pt")
        torch.save(state, folder / f"{name}.bin", _use_new_zipfile_serialization=False)
    for name, trap in TRAPS.items():
        torch.save({"state_dict": theirs["classic"], "callbacks": {"a": trap}}, folder / f"{name}-beside.pt")
        torch.save({"state_dict": {"_embedding.weight": trap}}, folder / f"{name}-within.pt")
        (folder / f"{name}.pickle").write_bytes(pickle.dumps(trap))

    def loaded(path: Path) -> Any:
        try:
            found = migrate.load(path, **({"learning": lexel.EMA()} if "ema" in path.name else {}), commitment_cost=1.0)
        except TypeError as error:  # a setting is missing or too much, for what it takes the damaged file to be
            raise ValueError(f"{path}: {error}") from error
        return found.config, dict(found.state_dict())

    names = [path.name for path in folder.iterdir()]
    archives = [name for name in names if name.endswith(".pt")]
    yield Target("state dicts in archives", folder, archives, loaded, sure=True)
    others = [name for name in names if name not in archives]
    yield Target("state dicts without checksums", folder, others, loaded, sure=False)


def ids(folder: Path) -> Iterator[Target]:
    """Semantic IDs, of both kinds of items."""
    facts = lexel.tokens.Facts("vectors", 300, (4, 300), "0123456789abcdef")
    codes = np.stack([np.arange(300) % 4, np.arange(300)], 1)
    for name, items in (("texts.parquet", [f"item {n}" for n in range(300)]), ("numbers.parquet", range(300))):
        lexel.tokens.IDs(items, codes, facts, np.arange(300), codes[:, 0], unique="nearest-free").write(folder / name)

    def read(path: Path) -> Any:
        found = lexel.tokens.IDs.open(path)
        columns = (found.codes, found.distances, found.labels)
        return list(found), [column.tolist() for column in columns if column is not None], found.facts.as_json()

    yield Target("ids", folder, ["texts.parquet", "numbers.parquet"], read, sure=True)


def configurations(folder: Path) -> Iterator[Target]:
    """What `lexel.from_config` is given."""
    for number, example in enumerate(ZOO.values()):
        (folder / f"{number}.json").write_text(json.dumps(example.make().config))

    def built(path: Path) -> Any:
        try:
            config = json.loads(path.read_bytes())
        except RecursionError as error:  # of json
            raise ValueError("nested too deeply") from error
        return lexel.to_config(lexel.from_config(config))

    names = [path.name for path in folder.iterdir()]
    yield Target("configurations", folder, names, built, sure=False, named=False, weight=0.5)


def all_targets(folder: Path) -> list[Target]:
    """Write whole files into a folder, and return what reads them."""
    os.environ["LEXEL_MAX_PIXELS"] = str(MOST_PIXELS)
    found = []
    for make in (pictures, runs, states, ids, configurations):
        (folder / make.__name__).mkdir()
        found += make(folder / make.__name__)
    return found
