"""Parts and a quantizer that were written outside of Lexel train from the command line, and come back from the run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import TINY

PARTS = Path(__file__).with_name("my_parts.py")
VECTOR = ("--quantizer", "lexel.VectorQuantizer", *TINY[-4:])
SIZES = TINY[:-4]


@pytest.mark.parametrize(
    "quantizer",
    [
        (*VECTOR, "--quantizer.codebook", "my_parts.ScaledCodebook"),
        (*VECTOR, "--quantizer.learning", "my_parts.Approach", "--quantizer.learning.share", "0.2"),
        (*VECTOR, "--quantizer.estimator", "my_parts.Attenuated"),
        (*VECTOR, "--quantizer.upkeep", "my_parts.Recycling"),
        (*VECTOR, "--quantizer.regularisers", "my_parts.Smallness"),
        ("--quantizer", "my_parts.TernaryQuantizer", "--quantizer.embedding_dim", "3"),
    ],
    ids=["codebook", "learning", "estimator", "upkeep", "regulariser", "quantizer"],
)
def test_trains_and_comes_back(quantizer: tuple[str, ...], photographs: Path, tmp_path: Path) -> None:
    lexel = [sys.executable, "-m", "lexel"]
    run = tmp_path / "run"
    words = ["train", str(photographs), "--out", str(run), "--steps", "2", *SIZES, *quantizer, "--plugin", str(PARTS)]
    subprocess.run([*lexel, *words], check=True, cwd=tmp_path)
    found = subprocess.run(
        [*lexel, "evaluate", str(run), str(photographs), "--json", "--plugin", str(PARTS)],
        check=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert '"images": 4' in found.stdout
    assert "my_parts." in (run / "model/config.json").read_text()
