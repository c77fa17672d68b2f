"""Draw the README's picture of the live page: `python -m tests.live.pictures`, a desktop beside a phone.

It shows the models of docs/live. It needs a Chinese font: `apt-get install fonts-noto-cjk`.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Page

from tests.live.test_page import LIVE, Live
from tests.play.hands import Mouse
from tests.web import ROOT, desktop_beside_phone

PICTURE = ROOT / "docs" / "images" / "live.webp"
GLASSES: list[tuple[int, tuple[int, int], tuple[int, int]]] = [  # width of the brush, first and last cell of a stroke
    (7, (17, 24), (18, 30)),
    (7, (16, 44), (17, 48)),
    (1, (15, 34), (15, 40)),
    (1, (14, 0), (16, 20)),
]
DARKEST = """() => {
    const light = (button) => {
        const canvas = button.querySelector("canvas");
        const copy = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
        copy.drawImage(canvas, 0, 0, 1, 1);
        return copy.getImageData(0, 0, 1, 1).data.slice(0, 3).reduce((sum, part) => sum + part);
    };
    const buttons = [...document.querySelectorAll(".palette button")];
    buttons.reduce((one, other) => (light(other) < light(one) ? other : one)).click();
}"""


def paint(page: Page) -> None:
    """Paint glasses into the tokens of the cat."""
    live = Live(Mouse(page))
    live.until("live.shown()?.first")
    live.rest()
    page.locator("[data-example='2']").first.click()
    live.until("live.shown()?.first?.photo.name.match(/Cat|猫/)")
    live.rest()
    live.until("[...document.querySelectorAll('.palette canvas')].every((one) => one.width > 1)")
    page.evaluate(DARKEST)
    for width, *cells in GLASSES:
        page.locator('[data-control="brush"] input').fill(str(width))
        live.stroke(*cells)
    live.rest()
    page.mouse.move(0, 0)
    page.locator("#bench").evaluate("bench => scrollTo(0, bench.offsetTop + 1)")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for source in (ROOT / "docs" / "live", LIVE):
            shutil.copytree(source, folder, dirs_exist_ok=True)
        desktop_beside_phone(Path(folder) / "index.html", paint, paint).save(PICTURE, quality=88, method=6)
