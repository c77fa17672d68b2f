"""The pictures of the documentation, from the demo's run: `make demo`, then `python -m benchmarks.pictures`.

Writes `docs/images`: the two pictures that the demo drew, and photographs of its report as a visitor finds it, after a
code was exchanged on the board, and after a code was chosen in the dark.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).parent.parent / "docs" / "images"
WIDTH = 1120


def opened(browser: Browser, report: Path, height: int, scheme: str) -> Page:
    page = browser.new_page(viewport={"width": WIDTH, "height": height}, color_scheme=scheme)
    page.goto(report.resolve().as_uri())
    page.wait_for_selector("#board[data-drawn]")
    return page


def head(browser: Browser, report: Path) -> Image.Image:
    """From the top to the end of the board, on which one code is exchanged for another."""
    page = opened(browser, report, 1000, "light")
    page.locator(".cells button").nth(100).click()
    page.locator("#palette button").nth(6).click()
    end = page.locator("#board").evaluate("board => board.closest('section').getBoundingClientRect().bottom + scrollY")
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    picture = picture.crop((0, 0, WIDTH, min(int(end) + 10, picture.height)))
    return picture.resize((WIDTH * 3 // 4, picture.height * 3 // 4), Image.Resampling.LANCZOS)


def codes(browser: Browser, report: Path) -> Image.Image:
    """The codebook in dark colours, one code chosen."""
    page = opened(browser, report, 880, "dark")
    page.locator("#atlas > div").nth(37).click()
    page.locator("#atlas").evaluate("atlas => scrollTo(0, atlas.getBoundingClientRect().top + scrollY - 106)")
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def main(run: Path = Path("runs/demo")) -> None:
    """Draw all pictures from a run of the demo."""
    # The first is the largest picture above the fold, and the second must keep the colours of its squares.
    for name, how in (("reconstructions", {"quality": 90}), ("tokens", {"lossless": True})):
        Image.open(run / f"{name}.png").save(IMAGES / f"{name}.webp", method=6, **how)
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        for name, picture, dither in (
            ("report.png", head, Image.Dither.FLOYDSTEINBERG),
            ("report-codes.png", codes, Image.Dither.NONE),
        ):
            few_colours = picture(browser, run / "report.html").quantize(256, dither=dither)
            few_colours.save(IMAGES / name, optimize=True)
        browser.close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
