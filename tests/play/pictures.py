"""Draw the README's picture of the page: `python -m tests.play.pictures`, a desktop beside a phone.

It needs a Chinese font: `apt-get install fonts-noto-cjk`.
"""

from __future__ import annotations

import io
import shutil

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from tests.play.hands import Mouse
from tests.play.test_page import PLAY, Scene
from tests.report.test_page import OPTIONS

PICTURE = PLAY.parent / "images" / "play.webp"
HEIGHT = 800
GAP = 24


def shot(browser: Browser, width: int, locale: str, scheme: str, scene: str) -> Image.Image:
    """Return what is seen of a scene after some steps."""
    page = browser.new_page(
        viewport={"width": width, "height": HEIGHT},
        locale=locale,
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
    )
    page.goto((PLAY / "index.html").as_uri())
    shown = Scene(Mouse(page), scene)
    shown.root.locator(".code").first.wait_for()
    if scene == "collapse":
        shown.steps(20)
        shown.press("collapse.corner")
        shown.steps(40)
        shown.toggle("collapse.revival")
        shown.steps(80)
    else:
        shown.press("step", 5)
    shown.root.evaluate("scene => scrollTo(0, scene.offsetTop + 1)")
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    page.close()
    return picture


def main() -> None:
    """Write the picture."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(OPTIONS))
        desktop = shot(browser, 1200, "en", "light", "collapse")
        phone = shot(browser, 390, "zh-CN", "dark", "swapped")
        browser.close()
    whole = Image.new("RGBA", (desktop.width + GAP + phone.width, HEIGHT))
    whole.paste(desktop, (0, 0))
    whole.paste(phone, (desktop.width + GAP, 0))
    whole.save(PICTURE, lossless=True, method=6)


if __name__ == "__main__":
    main()
