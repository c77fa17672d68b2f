"""Training runs: what they leave, and that they come to the same end however they are interrupted."""

from __future__ import annotations

import csv
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import lexel
from lexel.cli import main
from lexel.runs import load_model
from tests.commands import TINY, refused, train

USAGE = ("usage", "perplexity", "dead_codes", "bits_per_code", "distortion")


class TestARun:
    def test_leaves_everything_that_it_promises(self, run: Path) -> None:
        assert {path.name for path in run.iterdir()} == {
            *("config.yaml", "environment.json", "last.ckpt", "metrics.csv", "model", "samples", "tensorboard"),
        }
        with (run / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [int(row["step"]) for row in rows] == [1, 3, 5]
        assert all(float(row[name]) >= 0 for row in rows for name in ("loss", "psnr", *USAGE))
        assert any((run / "tensorboard").iterdir())
        with Image.open(run / "samples/step-0000006.png") as sample:
            assert len(sample.getcolors(1 << 24)) > 100
        model = load_model(run)
        assert (model.quantizer.num_embeddings, model.quantizer.embedding_dim) == (16, 4)

    def test_comes_out_the_same_from_its_config(self, run: Path, tmp_path: Path) -> None:
        assert main(["train", "--config", str(run / "config.yaml"), "--out", str(tmp_path / "again")]) == 0
        weights = [load_file(folder / "model/model.safetensors") for folder in (run, tmp_path / "again")]
        torch.testing.assert_close(*weights, rtol=0, atol=0)

    def test_options_override_the_config(self, run: Path, tmp_path: Path) -> None:
        out = tmp_path / "other"
        arguments = ["--config", run / "config.yaml", "--out", out, "--quantizer.num_embeddings", 8, "--steps=1"]
        assert main(["train", *map(str, arguments)]) == 0
        assert load_model(out).quantizer.num_embeddings == 8

    def test_takes_any_part_of_a_quantizer_by_name(self, photographs: Path, tmp_path: Path) -> None:
        options = [
            "--quantizer",
            "lexel.VectorQuantizer",
            "--quantizer.num_embeddings=16",
            "--quantizer.embedding_dim=4",
        ]
        options += ["--quantizer.learning", "lexel.EMA", "--quantizer.learning.decay", "0.5"]
        assert train(photographs, tmp_path / "run", *options, steps=1) == 0
        assert load_model(tmp_path / "run").quantizer.learning.settings == lexel.EMA(decay=0.5)

    def test_default_recipe_follows_the_size_of_the_codebook(self, run: Path) -> None:
        assert load_model(run).quantizer.config == lexel.presets.default(16, 4).config

    def test_takes_a_preset_by_name(self, photographs: Path, tmp_path: Path) -> None:
        options = ["--quantizer", "lexel.presets.cosmos"]
        assert train(photographs, tmp_path / "run", *options, steps=1) == 0
        assert load_model(tmp_path / "run").quantizer.config == lexel.presets.cosmos().config

    def test_trains_on_arrays_with_their_own_channels(self, tmp_path: Path) -> None:
        np.save(tmp_path / "grey.npy", np.random.default_rng(0).integers(0, 256, (3, 20, 20)).astype(np.uint8))
        assert train(tmp_path / "grey.npy", tmp_path / "run", "--model.image-channels", "1", steps=1) == 0

    def test_on_two_devices_is_the_run_on_one(self, photographs: Path, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "lexel.cli", "train", photographs, *TINY, "--steps", "4", "--devices"]
        for devices in (1, 2):
            ran = subprocess.run([*command, str(devices), "--out", tmp_path / str(devices)], timeout=300, check=False)
            assert ran.returncode == 0
        weights = [load_file(tmp_path / name / "model/model.safetensors") for name in ("1", "2")]
        torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)
        metrics = []
        for name in ("1", "2"):
            with (tmp_path / name / "metrics.csv").open() as file:
                metrics.append([[float(row[name]) for name in USAGE] for row in csv.DictReader(file)])
        np.testing.assert_allclose(*metrics, rtol=1e-2)


class TestInterruption:
    def test_a_resumed_run_goes_on_like_a_whole_one(self, photographs: Path, tmp_path: Path) -> None:
        """Ctrl-C in a real process, then lexel resume."""
        whole, stopped = tmp_path / "whole", tmp_path / "stopped"
        options = ["--save-every", "1000", "--log-every", "1"]
        assert train(photographs, whole, *options, steps=60) == 0
        command = [sys.executable, "-m", "lexel.cli", "train", photographs, *TINY, *options, "--steps", "60"]
        process = subprocess.Popen([*command, "--out", stopped], stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while not (stopped / "metrics.csv").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        try:
            printed, _ = process.communicate(timeout=120)
        finally:
            process.kill()
        assert process.returncode == 130
        assert f"lexel resume {stopped}" in printed
        assert load_model(stopped).encode(torch.rand(1, 3, 16, 16)).shape == (1, 4, 4)
        step = torch.load(stopped / "last.ckpt", weights_only=True)["global_step"]
        assert 0 < step < 60

        assert main(["resume", str(stopped)]) == 0
        metrics = []
        for folder in (whole, stopped):
            with (folder / "metrics.csv").open() as file:
                rows = [
                    [float(row[name]) for name in ("step", "loss", "psnr", "learning_rate")]
                    for row in csv.DictReader(file)
                ]
            metrics.append(np.array(rows))
        assert list(metrics[1][:, 0]) == list(range(60))
        # Rounding differs between processes, and the choice of codes magnifies it in time: not at once.
        np.testing.assert_allclose(metrics[1][: step + 3], metrics[0][: step + 3], rtol=1e-2)
        np.testing.assert_allclose(metrics[1][:, 3], metrics[0][:, 3])

    def test_a_failed_save_leaves_the_checkpoint_before(self, run: Path, tmp_path: Path) -> None:
        """A real disk that is full: a file system of 1 MiB would need root, a limit on file sizes does not."""
        copy = tmp_path / "run"
        shutil.copytree(run, copy)
        before = (copy / "last.ckpt").read_bytes()
        limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); "
        config = (copy / "config.yaml").read_text().replace("steps: 6", "steps: 8")
        (copy / "config.yaml").write_text(config)
        program = f"{limit}from lexel.cli import main; import sys; sys.exit(main(['resume', {str(copy)!r}]))"
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
        assert ran.returncode != 0
        assert (copy / "last.ckpt").read_bytes() == before
        assert load_model(copy)

    def test_a_checkpoint_of_another_architecture(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        copy = tmp_path / "run"
        shutil.copytree(run, copy)
        config = (copy / "config.yaml").read_text().replace("num_embeddings: 16", "num_embeddings: 32")
        (copy / "config.yaml").write_text(config)
        assert "another architecture" in refused(["resume", copy], capsys)

    def test_a_checkpoint_cannot_run_code(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        copy = tmp_path / "run"
        shutil.copytree(run, copy)
        harm = tmp_path / "harm"
        for save in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))):
            save(_Harmful(harm), copy / "last.ckpt")
            assert "not a checkpoint" in refused(["resume", copy], capsys)
            assert not harm.exists()


class _Harmful:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)
