"""Each row of a run's metrics tells how the codes were used since the row before."""

from __future__ import annotations

import csv
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

import lexel
from lexel.metrics import Usage
from lexel.models import VQVAE
from lexel.training.reconstruction import ReconstructionTask
from lexel.training.run import train
from lexel.training.settings import ReconstructionSettings

SETTINGS = ReconstructionSettings(steps=8, batch_size=2, crop=16, log_every=3)


def vector() -> lexel.Quantizer:
    return lexel.VectorQuantizer(16, 4, learning=lexel.EMA(), upkeep=(lexel.KMeansStart(), lexel.Revival()))


def build(quantizer: lexel.Quantizer) -> VQVAE:
    torch.manual_seed(0)
    return VQVAE(quantizer, hidden_channels=8, residual_layers=0)


def rows(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    "make",
    [
        vector,
        lambda: lexel.ResidualQuantizer([lexel.VectorQuantizer(16, 4), lexel.VectorQuantizer(5, 4)], dropout=1.0),
        lambda: lexel.LookupFreeQuantizer(50),
        lambda: lexel.QuantizationDropout(vector(), 0.9),
        lambda: lexel.FiniteScalarQuantizer([8, 5], bound="normal", noise=1.0),
    ],
    ids=["vector", "residual", "lookup-free, 2^50", "most unquantized", "scalar, with noise"],
)
def test_figures_are_those_of_all_that_was_chosen_since_the_row_before(
    make: type[lexel.Quantizer], photographs: Path, tmp_path: Path
) -> None:
    model, chosen = build(make()), []

    def keep(_: nn.Module, inputs: tuple[Tensor], output: lexel.Quantized) -> None:
        if model.training:
            codes, target = model.quantizer.lookup(output.indices), model.quantizer.unquantized(inputs[0])
            chosen.append((replace(output, quantized=codes.detach()), target.detach()))

    model.quantizer.register_forward_hook(keep)
    train(ReconstructionTask(model, photographs, SETTINGS), tmp_path / "run")

    sizes = model.quantizer.codebook_sizes
    found = rows(tmp_path / "run")
    assert [row["step"] for row in found] == [2, 5]
    for row, window in zip(found, (chosen[:3], chosen[3:6]), strict=True):
        indices = torch.cat([output.indices.reshape(-1, len(sizes)) for output, _ in window])
        expected = []
        for size, own in zip(sizes, indices.unbind(1), strict=True):
            usage = Usage(size)
            usage.update(own)
            expected.append(usage.compute())
        errors = torch.stack([(output.quantized - inputs).double().square().mean() for output, inputs in window])
        assert row["usage"] == pytest.approx(sum(each.usage for each in expected) / len(sizes))
        assert row["dead_codes"] == sum(each.dead for each in expected)
        assert row["bits_per_code"] == pytest.approx(sum(each.bits_per_code for each in expected) / len(sizes))
        assert row["perplexity"] == pytest.approx(2 ** row["bits_per_code"])
        assert row["distortion"] == pytest.approx(float(errors.mean()))


def test_a_run_stopped_between_two_rows_goes_on_with_what_it_had_counted(photographs: Path, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(ReconstructionTask(build(vector()), photographs, SETTINGS), whole)

    model, steps = build(vector()), []

    def interrupt(*_: object) -> None:
        steps.append(1)
        if len(steps) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    handle = model.quantizer.register_forward_hook(interrupt)
    assert not train(ReconstructionTask(model, photographs, SETTINGS), stopped).finished
    handle.remove()
    assert torch.load(stopped / "last.ckpt", weights_only=True)["global_step"] == 5
    assert len(rows(stopped)) == 1
    assert train(ReconstructionTask(build(vector()), photographs, SETTINGS), stopped, resume=True).finished
    assert (stopped / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


def test_tensorboard_has_a_histogram_of_usage_with_the_dead_codes_at_zero(photographs: Path, tmp_path: Path) -> None:
    train(ReconstructionTask(build(lexel.VectorQuantizer(16, 4)), photographs, SETTINGS), tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run/tensorboard"), {"histograms": 0}).Reload()
    (name,) = events.Tags()["histograms"]
    for row, event in zip(rows(tmp_path / "run"), events.Histograms(name), strict=True):
        histogram = event.histogram_value
        assert event.step == row["step"]
        assert histogram.num == 16
        zeros = sum(count for limit, count in zip(histogram.bucket_limit, histogram.bucket, strict=True) if limit < 0.5)
        assert zeros == row["dead_codes"]
