"""The page about a prior, opened from disk in a real browser."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from playwright.sync_api import sync_playwright

from lexel.cli import main
from lexel.priors import FREE
from lexel.priors.painter import Painter
from lexel.report.prior import Code, frames, judged, write_prior_report
from lexel.report.reading import read_run
from tests.commands import refused
from tests.report.test_page import OPTIONS, opened


def test_the_page(prior: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    assert main(["report", str(prior), "--out", str(out)]) == 0
    chromium = shutil.which("chromium")
    assert chromium, "these tests need chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(OPTIONS))
        page, noise = opened(browser, out)
        rows = page.locator("#bits tbody tr").all_inner_texts()
        assert [row.split()[0] for row in rows] == ["causal", "uniform", "unigram", "context"]
        bits = [float(row.split()[1]) for row in rows]
        assert bits[0] < bits[2]
        assert page.locator("#curves .chart").count() == 2
        assert {"uniform", "unigram"} <= set(
            page.locator("#curves .chart >> nth=0").locator("text").all_text_contents()
        )

        frame, step = page.locator("#frame"), page.locator("#step")
        done = frame.get_attribute("src")
        assert page.locator("#drawn").inner_text() == "all 6 tokens"
        seen = {done}
        step.focus()
        for drawn in range(5, -1, -1):
            page.keyboard.press("ArrowLeft")
            assert page.locator("#drawn").inner_text() == f"{drawn} of 6 tokens"
            seen.add(frame.get_attribute("src"))
        assert len(seen) == 7
        page.locator("#play").click()
        page.locator("#play", has_text="Play").wait_for()  # it says Pause until the end
        assert frame.get_attribute("src") == done
        assert noise == []
        browser.close()
    assert main(["report", str(prior), "--out", str(out)]) == 0  # a report may be replaced
    assert "shows its own samples" in refused(["report", prior, "--data", prior, "--out", out], capsys)


def test_a_saved_prior_has_a_page_without_curves(prior: Path, tmp_path: Path) -> None:
    shutil.copytree(prior / "model", tmp_path / "saved")
    assert main(["report", str(tmp_path / "saved")]) == 0
    text = (tmp_path / "saved/report.html").read_text()
    assert "no record of its training" in text
    assert "Not measured" in text


def test_a_folder_is_no_place_for_a_page(tmp_path: Path) -> None:
    """That is said before the prior is read, and so before anything is drawn."""
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match=str(tmp_path)):
            write_prior_report(tmp_path / "nowhere", tmp_path, overwrite=overwrite)


def test_frames_are_grey_where_nothing_is_drawn(prior: Path) -> None:
    painter = Painter.load(prior)
    shown = frames(painter)
    assert [drawn for drawn, _ in shown] == list(range(7))
    assert shown[0][1].unique().tolist() == [128, 255]  # the samples and the white between them
    first, last = (painter.prior.sample(1, 0, given=torch.full((2, 3), each)) for each in (1, 2))
    assert FREE not in first
    assert not torch.equal(first, last)


def test_the_verdict(prior: Path) -> None:
    run = read_run(prior, Painter.load(prior).model)
    simple = Code("unigram", "", 4.0, 1.0)
    run.metrics[-1]["loss"] = 2.0
    assert judged(run, [], exact=True).title == "Not measured"
    for bits, exact, title in (
        (3.0, True, "Healthy"),
        (3.9, True, "Learns by heart"),
        (3.9, False, "Healthy"),  # a masked prior's loss is not its bits
        (4.1, True, "Has not learnt more than a simple code"),
    ):
        assert judged(run, [Code("causal", "", bits, 1.0), simple], exact=exact).title == title
