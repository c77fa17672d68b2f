"""The demo draws what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lexel.cli import main
from tests.commands import TINY


def test_demo_draws_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--steps", "2", *TINY]) == 0
    printed = capsys.readouterr().out
    for figure in ("PSNR", "SSIM", "bits per pixel", "perplexity", "codes in use"):
        assert figure in printed
    held_out = {path.name for path in (out / "photographs/held-out").iterdir()}
    assert len(held_out) == 2
    assert held_out.isdisjoint(path.name for path in (out / "photographs/trained-on").iterdir())
    assert str(out / "report.html") in printed.replace("\n", "")
    assert "from “held-out”" in (out / "report.html").read_text()
    for picture in ("reconstructions.png", "tokens.png"):
        assert str(out / picture) in printed.replace("\n", "")
        with Image.open(out / picture) as image:
            assert len(image.getcolors(1 << 24)) > 10
