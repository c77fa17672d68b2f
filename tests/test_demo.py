"""The demo draws what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lexel.cli import main
from lexel.runs import RunFolder
from tests.commands import TINY, refused


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


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["photographs/wedding.jpg", "tokens.png", "reconstructions.png", "report.html"])
def test_what_no_demo_wrote_stays(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    command = ["demo", "--out", tmp_path, "--steps", 1, *TINY, "--overwrite"]
    assert "which no demo wrote" in refused(command, capsys)
    assert content(tmp_path) == {name: b"mine"}


def test_a_start_that_fails_or_finds_another_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    command = ["demo", "--out", out, "--steps", 1, *TINY]
    refused([*command, "--device", "mps:7"], capsys)
    assert not out.exists()
    assert main([str(word) for word in command]) == 0
    (out / "photographs/wedding.jpg").write_text("mine")
    before = content(out)
    refused([*command, "--overwrite", "--device", "mps:7"], capsys)
    with RunFolder(out).locked():
        assert "is in use" in refused([*command, "--overwrite"], capsys)
    assert content(out) == before
    assert main([str(word) for word in [*command, "--overwrite"]]) == 0
    assert (out / "photographs/wedding.jpg").read_text() == "mine"
