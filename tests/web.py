"""What is true of every page whose sources lie in `web`."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from playwright.sync_api import Page

ROOT = Path(__file__).parent.parent
WEB = ROOT / "web"


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
