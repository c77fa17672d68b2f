"""Parts and a quantizer that were written outside of Lexel train from the command line, and come back from the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import processes
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
    run = tmp_path / "run"
    words = ["train", photographs, "--out", run, "--steps", 2, *SIZES, *quantizer, "--plugin", PARTS]
    processes.run(["lexel", *words], cwd=tmp_path)
    words = ["evaluate", run, photographs, "--json", "--plugin", PARTS]
    found = processes.run(["lexel", *words], cwd=tmp_path)
    assert '"images": 4' in found.stdout
    assert "my_parts." in (run / "model/config.json").read_text()
