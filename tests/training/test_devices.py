"""Training runs on every device that there is, in each precision."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from lexel.cli import main
from lexel.runs import RunFolder, load_model
from lexel.training.task import seed_step
from tests.commands import refused, train
from tests.training.kills import QUANTIZERS, differences
from tests.training.test_run import stopped


@pytest.fixture(scope="module")
def device(request: pytest.FixtureRequest) -> str:
    """The device of a run, which says so itself."""
    return getattr(request, "param", "cpu")


def losses(run: Path) -> list[float]:
    with (run / "metrics.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_trains_in_each_precision(
    precision: str, device: str, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--device", device, "--precision", precision, "--learning-rate", "1e-3"]
    if (device, precision) == ("cpu", "16-mixed"):
        message = refused(["train", photographs, "--out", tmp_path / "run", "--steps", 1, *options], capsys)
        assert "16-mixed needs an accelerator" in message
        return
    assert train(photographs, tmp_path / "run", *options, steps=12) == 0
    assert train(photographs, tmp_path / "plain", "--device", "cpu", "--learning-rate", "1e-3", steps=12) == 0
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "plain"), rel=0.3)
    assert all(value.isfinite().all() for value in load_model(tmp_path / "run").state_dict().values())


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_a_run_that_was_stopped_goes_on_with_the_random_numbers_of_its_device(
    quantizer: str, device: str, photographs: Path, tmp_path: Path
) -> None:
    if device == "cpu":
        pytest.skip("on the CPU, test_run.py does this")
    options = ["--device", device, "--quantizer", json.dumps(QUANTIZERS[quantizer].config)]
    whole, interrupted = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "stopped")
    assert train(photographs, whole.path, *options, steps=9) == 0
    for number in (1, 3):
        stopped(interrupted.path, photographs, 9, number, *options)
    assert main(["resume", str(interrupted.path)]) == 0
    assert losses(interrupted.path) == pytest.approx(losses(whole.path), rel=1e-4)
    assert differences(whole, interrupted) == []


def test_a_step_has_the_same_random_numbers_whatever_came_before(device: str) -> None:
    drawn = []
    for before in (1, 1000):
        torch.rand(before, device=device)
        seed_step(7, 3, 0, torch.device(device))
        drawn.append(torch.rand(5, device=device))
    assert torch.equal(*drawn)
