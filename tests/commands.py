"""Small runs of the command line, for tests of whatever reads or writes a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from lexel.cli import main

TINY = [
    *("--batch-size", "2", "--crop", "16", "--log-every", "2", "--model.hidden-channels", "8"),
    *("--quantizer.num-embeddings", "16", "--quantizer.embedding_dim", "4"),
]


def train(data: Path, out: Path, *options: str, steps: int = 6) -> int:
    return main(["train", str(data), "--out", str(out), "--steps", str(steps), *TINY, *options])


def refused(arguments: Sequence[object], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that a refused command leaves on standard error."""
    capsys.readouterr()
    assert main([str(word) for word in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if not line.startswith("skipped")]
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("lexel: ")
    return lines[0]
