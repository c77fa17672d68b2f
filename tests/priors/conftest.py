"""A tiny model, tokens that it made, and a prior that was trained on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import lexel
from lexel import tokens
from lexel.cli import main
from lexel.models import VQVAE
from lexel.runs import load_model
from lexel.tokens import Row

TINY = [
    *("--batch-size", "4", "--log-every", "2", "--layers", "1", "--width", "8", "--heads", "2"),
    *("--save-every", "4", "--learning-rate", "0.01"),
]


def write(model: Path, path: Path, count: int, shape: tuple[int, ...] = (2, 3), classes: int | None = 3) -> Path:
    """Write tokens of a model for images of 5 × 9 that nobody saw: a token is one more than the one before it.

    The class is the first token modulo `classes`.
    """
    firsts = torch.randint(0, 16, (count,), generator=torch.Generator().manual_seed(count)).tolist()
    grids = [(first + np.arange(np.prod(shape)).reshape(shape)) % 16 for first in firsts]
    names = None if classes is None else ["cat", "dog", "owl", "cow"][:classes]
    facts = tokens.facts_of(load_model(model), names)
    size = {"height": 4 * shape[0] - 3, "width": 4 * shape[1] - 3}
    rows = [
        Row(f"{number}.png", size, grid, None if classes is None else first % classes)
        for number, (first, grid) in enumerate(zip(firsts, grids, strict=True))
    ]
    tokens.write_set(path, rows, facts)
    return path


def train_prior(model: Path, found: Path, out: Path, *options: str, steps: int = 6) -> int:
    return main(["train-prior", *map(str, [model, found, "--out", out, "--steps", steps]), *TINY, *options])


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model = VQVAE(lexel.VectorQuantizer(16, 4), image_channels=1, hidden_channels=4)
    for parameter in model.parameters():  # so that different codes become different pixels
        parameter.data *= 5
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def learnt(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokens to learn from."""
    return write(model, tmp_path_factory.mktemp("tokens") / "learnt", 40)


@pytest.fixture(scope="session")
def held_out(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokens to measure a prior on."""
    return write(model, tmp_path_factory.mktemp("tokens") / "held out", 13)


@pytest.fixture(scope="session")
def prior(model: Path, learnt: Path, held_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a prior; tests that change it take a copy."""
    out = tmp_path_factory.mktemp("priors") / "first"
    assert train_prior(model, learnt, out, "--validation", str(held_out), steps=80) == 0
    return out
