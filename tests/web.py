"""What is true of every page whose sources lie in `web`."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.report.test_page import OPTIONS

ROOT = Path(__file__).parent.parent
WEB = ROOT / "web"
HEIGHT, GAP = 800, 24  # of the README's pictures, in pixels


def made_from_sources(folder: Path, page: str) -> None:
    """The script and the style sheet in a folder were made from the sources that are there now."""
    digest = hashlib.sha256()
    sources = [path for part in ("common", page) for path in (WEB / part).rglob("*") if path.suffix in (".js", ".css")]
    for path in sorted(sources, key=lambda path: path.relative_to(WEB).as_posix()):
        digest.update(path.read_bytes())
    for suffix in (".js", ".css"):
        made = (folder / f"{page}{suffix}").read_text(encoding="utf-8")
        assert f"sources: {digest.hexdigest()}" in made, f"run `make {page}`"


def every_text_in_both_languages(blank: Page, page: str, name: str) -> None:
    """Every text of a page stands there twice, with the same values to fill in and the same markup."""
    source = (WEB / page / "strings.js").read_text(encoding="utf-8")
    blank.add_script_tag(content=f"{source}\nwindow.table = {name};", type="module")
    blank.wait_for_function("window.table")
    table: dict[str, list[str]] = blank.evaluate("table")
    assert table
    for key, texts in table.items():
        assert len(texts) == 2, key
        assert all(texts), key
        english, chinese = ([sorted(re.findall(p, text)) for p in (r"\{\w+\}", r"<(\w+)")] for text in texts)
        assert english == chinese, key


def picture(
    browser: Browser, page: Path, width: int, locale: str, dark: bool, act: Callable[[Page], None]
) -> Image.Image:
    """Return what is seen of a page in a window after some acts."""
    opened = browser.new_page(
        viewport={"width": width, "height": HEIGHT},
        locale=locale,
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    opened.goto(page.as_uri())
    act(opened)
    seen = Image.open(io.BytesIO(opened.screenshot())).convert("RGB")
    opened.close()
    return seen


def desktop_beside_phone(page: Path, act: Callable[[Page], None], act_on_phone: Callable[[Page], None]) -> Image.Image:
    """Return a page on a desktop, in English and light, beside a phone, in Chinese and dark."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(OPTIONS))
        desktop = picture(browser, page, 1200, "en", False, act)
        phone = picture(browser, page, 390, "zh-CN", True, act_on_phone)
        browser.close()
    whole = Image.new("RGBA", (desktop.width + GAP + phone.width, HEIGHT))
    whole.paste(desktop, (0, 0))
    whole.paste(phone, (desktop.width + GAP, 0))
    return whole
