"""Draw the README's picture of the page: `python -m tests.play.pictures`, a desktop beside a phone.

It needs a Chinese font: `apt-get install fonts-noto-cjk`.
"""

from __future__ import annotations

from playwright.sync_api import Page

from tests.play.hands import Mouse
from tests.play.test_page import PLAY, Scene
from tests.web import desktop_beside_phone

PICTURE = PLAY.parent / "images" / "play.webp"
TO_THE_TOP = "scene => scrollTo(0, scene.offsetTop + 1)"


def collapse(page: Page) -> None:
    """A codebook comes back from a collapse."""
    shown = opened(page, "collapse")
    shown.steps(20)
    shown.press("collapse.corner")
    shown.steps(40)
    shown.toggle("collapse.revival")
    shown.steps(80)
    shown.root.evaluate(TO_THE_TOP)


def swapped(page: Page) -> None:
    """Two statements in the wrong order, after some steps."""
    shown = opened(page, "swapped")
    shown.press("step", 5)
    shown.root.evaluate(TO_THE_TOP)


def opened(page: Page, name: str) -> Scene:
    """Return a scene as soon as it is drawn."""
    scene = Scene(Mouse(page), name)
    scene.root.locator(".code").first.wait_for()
    return scene


if __name__ == "__main__":
    desktop_beside_phone(PLAY / "index.html", collapse, swapped).save(PICTURE, lossless=True, method=6)
