"""A path of the wrong kind: the error says what stands there, and what is to be done with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lexel
from lexel.cli import main
from lexel.models import VQVAE
from tests.commands import refused
from tests.priors.conftest import train_prior, write

TOKENS, PRIOR, MODEL = (
    "but a set of tokens, which lexel decode",
    "but a prior, with which",
    "but a model, which encodes",
)
IMAGES, FILE = (
    "of which lexel encode RUN {} --out tokens/ makes tokens",
    "but a compressed image, which lexel decompress",
)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each kind of thing that a command takes or writes."""
    folder = tmp_path_factory.mktemp("places")
    torch.manual_seed(0)
    VQVAE(lexel.VectorQuantizer(16, 4), 1, hidden_channels=4).save_pretrained(folder / "model")
    (folder / "images").mkdir()
    for n in range(2):
        Image.fromarray(np.full((8, 8), n, np.uint8)).save(folder / f"images/{n}.png")
    write(folder / "model", folder / "tokens", 8)
    assert train_prior(folder / "model", folder / "tokens", folder / "prior", steps=2) == 0
    words = {"file.lxl": ["compress", "images/0.png"], "one.safetensors": ["encode", "images"]}
    for out, (command, source) in words.items():
        assert main([command, str(folder / "model"), str(folder / source), "--out", str(folder / out)]) == 0
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        *((["train-prior", "model", name, "--out", "out"], IMAGES) for name in ("images", "images/0.png")),
        (["train-prior", "model", "model", "--out", "out"], MODEL),
        (["train-prior", "prior", "tokens", "--out", "out"], PRIOR),
        (["sample", "model", "--out", "out"], MODEL),
        (["sample", "tokens", "--out", "out"], TOKENS),
        (["decode", "model", "images", "--out", "out"], IMAGES),
        (["decode", "model", "file.lxl", "--out", "out"], FILE),
        (["decode", "tokens", "tokens", "--out", "out"], TOKENS),
        (["stats", "prior"], PRIOR),
        *((["evaluate", "model", name], TOKENS) for name in ("tokens", "one.safetensors")),
        (["evaluate", "prior", "images"], PRIOR),
        (["encode", "model", "tokens", "--out", "out"], TOKENS),
        (["encode", "model", "file.lxl", "--out", "out"], FILE),
        (["encode", "model", "prior", "--out", "out"], PRIOR),
        (["train", "tokens", "--out", "out"], TOKENS),
        (["compress", "model", "images", "--out", "out"], "holds 2 images, give one; lexel encode takes many"),
        (["compress", "model", "tokens", "--out", "out"], TOKENS),
        (["decompress", "model", "images", "--out", "out"], "is not a file that lexel compress wrote, but images"),
        (["decompress", "model", "images/0.png", "--out", "out"], "not a file that lexel compress wrote, but images"),
        *((["report", name], TOKENS) for name in ("tokens", "one.safetensors")),
        (["report", "model", "--data", "images", "--tokens", "images", "--out", "out"], IMAGES),
        (["resume", "tokens"], TOKENS),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_stands_there_is_named(
    words: list[str], said: str, places: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(places)
    message = refused(words, capsys)
    assert said.partition("{}")[0] in message
    assert said.partition("{}")[2] in message
    assert not (places / "out").exists()


def test_an_unfinished_set_is_no_set(places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t/_progress.jsonl").touch()
    assert "give the same lexel encode again" in refused(["stats", tmp_path / "t"], capsys)
    assert "give the same lexel encode again" in refused(["sample", tmp_path / "t", "--out", tmp_path / "out"], capsys)
