"""Draw the README's picture of the live page: `python -m tests.live.pictures`, a desktop beside a phone.

It shows the models of docs/live. It needs a Chinese font: `apt-get install fonts-noto-cjk`.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from tests.live.test_page import LIVE, Live
from tests.play.hands import Mouse
from tests.report.test_page import OPTIONS
from tests.web import ROOT

PICTURE = ROOT / "docs" / "images" / "live.webp"
HEIGHT = 800
GAP = 24
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


def shot(browser: Browser, folder: Path, width: int, locale: str, scheme: str) -> Image.Image:
    """Return what is seen of the pictures and the palette after some strokes."""
    page = browser.new_page(
        viewport={"width": width, "height": HEIGHT},
        locale=locale,
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
    )
    page.goto((folder / "index.html").as_uri())
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
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    page.close()
    return picture


def main() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        for source in (ROOT / "docs" / "live", LIVE):
            shutil.copytree(source, folder, dirs_exist_ok=True)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(OPTIONS))
        desktop = shot(browser, Path(folder), 1200, "en", "light")
        phone = shot(browser, Path(folder), 390, "zh-CN", "dark")
        browser.close()
    whole = Image.new("RGBA", (desktop.width + GAP + phone.width, HEIGHT))
    whole.paste(desktop, (0, 0))
    whole.paste(phone, (desktop.width + GAP, 0))
    whole.save(PICTURE, quality=88, method=6)


if __name__ == "__main__":
    main()
