"""The tour ends with a page, and goes on where it stopped."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lexel.tour import run_tour
from tests import processes


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    """Files as Fashion-MNIST's, with few pictures in them."""
    folder = tmp_path / "fashion"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for part, count in (("train", 64), ("t10k", 16)):
        pictures = generator.integers(0, 256, (count, 28, 28), np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for name, header, values in (("images-idx3", 16, pictures), ("labels-idx1", 8, labels)):
            with gzip.open(folder / f"{part}-{name}-ubyte.gz", "wb") as file:
                file.write(bytes(header) + values.tobytes())
    return folder


def forked(command: Sequence[str], cwd: Path, **_: object) -> subprocess.CompletedProcess[str]:
    """What `subprocess.run` does with `python -m …`, sooner."""
    assert command[:2] == [sys.executable, "-m"]
    return processes.run(command[2:], cwd=cwd, check=False)


def test_every_station_is_on_the_page_and_is_visited_once(
    fashion: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lexel.tour.subprocess", SimpleNamespace(run=forked, PIPE=subprocess.PIPE))
    out = tmp_path / "tour"
    page = run_tour(out, fashion, effort=0)
    first = capsys.readouterr().err
    text = page.read_text(encoding="utf-8")
    assert text.count("<section") == 6
    assert len(re.findall(r'<img src="data:image/webp;base64,', text)) == 7
    assert set(re.findall(r"(?m)^\$ lexel ([\w-]+)", first)) == {
        *("demo", "compress", "decompress", "train", "encode", "stats", "decode", "train-prior", "sample"),
    }
    (out / ".new_pictures.json").unlink()  # as if it had been interrupted there
    assert run_tour(out, fashion, effort=0) == page
    assert re.findall(r"(?m)^\$ lexel ([\w-]+)", capsys.readouterr().err) == ["sample"]


def test_missing_pictures_are_named_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Fashion-MNIST is not in .*dataset-fashion-mnist"):
        run_tour(tmp_path / "tour", tmp_path)
    assert not (tmp_path / "tour").exists()
