"""Runs that fit or train a model of vectors, as `lexel fit` starts them."""

from __future__ import annotations

import csv
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lexel.cli.program import main
from lexel.models import VectorAutoencoder
from lexel.runs import load_model
from tests import processes


@pytest.fixture
def data(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((12, 8))
    rows = centres[generator.integers(12, size=400)] + 0.3 * generator.standard_normal((400, 8))
    np.save(tmp_path / "data.npy", rows.astype(np.float32))
    return tmp_path / "data.npy"


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_error_is_that_of_the_model_and_the_run_ends_where_it_has_converged(tmp_path: Path, data: Path) -> None:
    run, rows = tmp_path / "run", torch.from_numpy(np.load(data))
    words = ["fit", str(data), "--out", str(run), "--method", "flat", "--num-embeddings", "12", "--iterations", "200"]
    assert main([*words, "--validation", str(data)]) == 0
    last = rows_of(run)[-1]
    assert int(last["step"]) < 200
    model = load_model(run)
    assert isinstance(model, VectorAutoencoder)
    error = (model.decode(model.encode(rows)) - rows).detach().double().square().sum()
    energy = (rows - rows.mean(0)).double().square().sum()
    assert float(last["relative_error"]) == pytest.approx(float(error / energy), rel=1e-5)
    assert float(last["validation_relative_error"]) == pytest.approx(float(error / energy), rel=1e-5)
    before = (run / "model/model.safetensors").read_bytes(), rows_of(run)
    assert main(["resume", str(run)]) == 0  # nothing is left to do
    assert ((run / "model/model.safetensors").read_bytes(), rows_of(run)) == before


METHODS = {
    "residual": ["--num-embeddings", "[16, 8]", "--iterations", "30", "--tolerance", "0"],
    "product": ["--method", "product", "--codebooks", "4", "--num-embeddings", "8", "--iterations", "30"],
    "rqvae": [
        *("--method", "rqvae", "--codebooks", "2", "--num-embeddings", "8", "--latent-dim", "4"),
        *("--hidden-channels", "[16]", "--steps", "120", "--batch-size", "32", "--save-every", "10"),
    ],
}


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_was_stopped_comes_to_the_same_end(tmp_path: Path, data: Path, method: str) -> None:
    words = ["fit", str(data), *METHODS[method]]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main([*words, "--out", str(whole)]) == 0
    process = processes.Started(["lexel", *words, "--out", stopped])
    while not (stopped / "last.ckpt").is_file() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    for _ in range(2):  # the second finds nothing left to do
        assert main(["resume", str(stopped)]) == 0
    ends = [
        ((run / "model/model.safetensors").read_bytes(), (run / "model/config.json").read_bytes(), rows_of(run)[-1])
        for run in (whole, stopped)
    ]
    assert ends[0] == ends[1]


def test_rqvae_learns_and_its_model_is_saved_with_its_layers(tmp_path: Path, data: Path) -> None:
    run = tmp_path / "run"
    longer = ["--steps", "400", "--learning-rate", "5e-3", "--batch-size", "64", "--log-every", "10"]
    assert main(["fit", str(data), "--out", str(run), *METHODS["rqvae"], *longer]) == 0
    errors = [float(row["relative_error"]) for row in rows_of(run)]
    assert errors[-1] < 0.7 * errors[0]
    model = load_model(run)
    assert isinstance(model, VectorAutoencoder)
    assert (model.dim, model.hidden_channels, model.codebook_sizes) == (8, [16], (8, 8))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num-embeddings", "500"], "400 rows are fewer than the 500 codes"),
        (["--method", "flat", "--latent-dim", "4"], "the method flat has no latent_dim"),
        (["--method", "rqvae", "--balanced", "true"], "the method rqvae has no balanced"),
        (["--method", "rqvae", "--num-embeddings", "[8, 8]", "--codebooks", "3"], "are not those of codebooks: 3"),
        (["--codebooks", "0"], "codebooks must be at least 1"),
        (["--column", "a"], "has no column 'a'"),
        (["--validation", "missing.npy"], "missing.npy"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(
    tmp_path: Path, data: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", str(data), "--out", str(tmp_path / "run"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_balanced_fit_ends_balanced(tmp_path: Path, data: Path) -> None:
    run, rows = tmp_path / "run", torch.from_numpy(np.load(data))
    words = ["fit", str(data), "--out", str(run), "--method", "flat", "--num-embeddings", "8", "--balanced", "true"]
    assert main([*words, "--iterations", "5"]) == 0
    model = load_model(run)
    assert isinstance(model, VectorAutoencoder)
    assert torch.bincount(model.encode(rows), minlength=8).max() <= 1.05 * 400 / 8


def test_a_run_that_could_not_begin_leaves_no_folder(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk is full after the first file, so to say: no larger one can be written."""
    words = ["fit", str(data), "--out", str(tmp_path / "runs/run"), "--method", "flat", "--num-embeddings", "12"]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        assert main(words) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "config.yaml" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert main(words) == 0
