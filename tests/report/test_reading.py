"""What cannot be read is named, with what to do about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lexel.report.reading import open_source, read_run
from lexel.runs import load_model
from tests.report.models import tiny_model


@pytest.fixture
def run(tmp_path: Path) -> Path:
    tiny_model().save_pretrained(tmp_path / "run/model")
    np.save(tmp_path / "photos.npy", np.zeros((3, 8, 8, 3), np.uint8))
    (tmp_path / "run/config.yaml").write_text("data: photos.npy\n")
    return tmp_path / "run"


def test_a_path_as_training_saw_it_is_found_from_there_and_missed_elsewhere(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    source = open_source(read_run(run, load_model(run)))
    assert source.is_training_data
    assert source.description == "training images"
    assert len(source.images) == 3

    monkeypatch.chdir(run)
    with pytest.raises(FileNotFoundError) as error:
        open_source(read_run(run, load_model(run)))
    message = str(error.value)
    assert "was trained on photos.npy (a path from the folder where training was started)" in message
    assert f"but {run / 'photos.npy'} does not exist" in message
    assert "with --data" in message
    source = open_source(read_run(run, load_model(run)), "../photos.npy")
    assert source.description == "images from “photos.npy”"
    with pytest.raises(FileNotFoundError, match="no such file or folder: elsewhere"):
        open_source(read_run(run, load_model(run)), "elsewhere")


def test_metrics_that_are_not_finite_are_missing(run: Path) -> None:
    (run / "metrics.csv").write_text("step,loss,psnr\n0,nan,\n9,inf,30\n")
    found = read_run(run, load_model(run))
    assert found.metrics == [{"step": 0, "loss": None, "psnr": None}, {"step": 9, "loss": None, "psnr": 30}]
    assert found.steps == 10


@pytest.mark.parametrize("cut", ["9", "9,", "9,1"])
def test_a_row_that_a_kill_cut_off_is_none_and_a_spreadsheet_s_mark_no_damage(run: Path, cut: str) -> None:
    (run / "metrics.csv").write_bytes(b"\xef\xbb\xbfstep,loss,psnr\n0,1,20\n" + cut.encode())
    assert read_run(run, load_model(run)).metrics == [{"step": 0, "loss": 1, "psnr": 20}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", b"\xff\xfe"),
        ("config.yaml", b"a: ["),
        ("config.yaml", b"[" * 100_000),
        ("metrics.csv", b"step,loss\n1,2,3\n"),
        ("metrics.csv", b"step\n\xff\n"),
        ("metrics.csv", b"step\nmany\n"),
        ("metrics.csv", b"loss\n1\n"),
        ("environment.json", b"[]"),
        ("environment.json", b"\xff"),
        ("environment.json", b"[" * 100_000),
    ],
)
def test_a_malformed_file_is_named_in_one_line(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read") as error:
        read_run(run, load_model(run))
    assert str(error.value).startswith(f"{run / name} cannot be read: ")
    assert "\n" not in str(error.value)
