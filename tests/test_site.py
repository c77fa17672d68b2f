"""The site that `make docs` builds of the pages and the docstrings."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from filelock import FileLock
from playwright.sync_api import Page, sync_playwright

import lexel

ROOT = Path(__file__).parent.parent
SITE = ROOT / "build" / "site"


@pytest.fixture(scope="module")
def site() -> Path:
    """The site as `make docs` builds it; the build itself fails at a page or a name that is missing."""
    command = ["make", "site", f"BIN={Path(sys.executable).parent}"]
    marker, session = SITE / "tested", os.environ.get("PYTEST_XDIST_TESTRUNUID", "")
    with FileLock(ROOT / "build" / "site.lock"):  # once for all processes of a test run
        if not (session and marker.exists() and marker.read_text() == session):
            built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert built.returncode == 0, built.stdout + built.stderr
            marker.write_text(session)
    return SITE


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium")
        assert chromium, "these tests need chromium: apt-get install chromium"
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


def test_every_link_leads_somewhere_and_nothing_comes_from_elsewhere(site: Path) -> None:
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 50
    named = {path: set(re.findall(r'\bid="?([^"\s>]+)', text)) for path, text in pages.items()}
    missing = []
    for path, text in pages.items():
        for link in re.findall(r'\b(?:href|src)="([^"]+)"', text):
            parts = urlsplit(link)
            if parts.scheme in ("http", "https") or link.startswith("//"):
                if f'src="{link}"' in text or f'<link href="{link}" rel="stylesheet"' in text:
                    missing.append((path.relative_to(site), link))
                continue
            if parts.scheme:  # data:, mailto:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.exists() or (anchor and target in named and anchor not in named[target] | {"__top"}):
                missing.append((path.relative_to(site), link))
    assert not missing


def test_the_site_is_small_and_holds_what_its_pages_load(site: Path) -> None:
    sizes = {path: path.stat().st_size for path in site.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 15e6
    assert not [path for path in sizes if path.suffix in (".map", ".jsonl", ".py")]


def test_the_start_page_leads_from_a_class_to_its_documentation(site: Path) -> None:
    for start in (site / "index.html", site / "zh-CN" / "index.html"):
        links = re.findall(r'href="(docs/api/[^"]+)"><code>VectorQuantizer<', start.read_text(encoding="utf-8"))
        assert links == ["docs/api/quantizers.html#lexel.quantizers.vector"]


def test_formulas_are_drawn_without_a_script(site: Path) -> None:
    text = (site / "docs" / "vector-quantizer.html").read_text(encoding="utf-8")
    assert text.count('<math xmlns="http://www.w3.org/1998/Math/MathML" display="block"') >= 6
    assert not re.search(r"arithmatex|<code>[^<]*(?:\\frac|\\lVert)", text)


def test_the_api_has_every_public_name(site: Path) -> None:
    pages = (site / "docs" / "api").glob("*.html")
    found = {name for path in pages for name in re.findall(r'\bid="(lexel[\w.]+)"', path.read_text(encoding="utf-8"))}
    public = {name: value for name, value in vars(lexel).items() if name[0] != "_" and not inspect.ismodule(value)}
    names = {name for name, value in public.items() if callable(value)}
    assert len(names) > 50
    assert names - {place.rpartition(".")[2] for place in found} == set()


@pytest.mark.parametrize(("language", "word"), [("", "revival"), ("zh-CN/", "码本")])
def test_the_search_finds_words_without_a_server(site: Path, page: Page, language: str, word: str) -> None:
    foreign: list[str] = []
    page.on("request", lambda request: foreign.append(request.url) if request.url.startswith("http") else None)
    page.goto((site / language / "index.html").as_uri())
    page.locator(".md-search__input").fill(word)
    page.wait_for_selector(".md-search-result__item mark", state="attached")
    assert word in page.locator(".md-search-result__item").first.inner_text().lower()
    assert not foreign
    first = page.locator(".md-search-result__link").first.get_attribute("href") or ""
    assert ("zh-CN/" in first) == bool(language)


def test_no_space_stands_where_a_chinese_line_ends(site: Path) -> None:
    text = (site / "zh-CN" / "docs" / "first-run.html").read_text(encoding="utf-8")
    assert "细碎的叶子和毛发都是糊的" in text
    assert "叫一个<strong>码字</strong>。小方块" in text
    home = (site / "zh-CN" / "index.html").read_text(encoding="utf-8")
    assert "命令行使用。pixel 是" in home  # nor where it ends in a mark, and goes on in Latin letters
    assert text.count("step 50 of 400") == 1
    assert "--out tokens\nlexel decode" in re.sub(r"<[^>]+>", "", text)  # blocks keep their lines


@pytest.mark.parametrize("language", ["", "zh-CN/"])
def test_no_page_slides_sideways_on_a_phone(site: Path, page: Page, language: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    pages = sorted((site / language / "docs").glob("*.html"))
    assert len(pages) > 10
    wide = []
    for path in pages:
        page.goto(path.as_uri())
        if page.evaluate("document.documentElement.scrollWidth") > 390:
            wide.append(path.name)
    assert not wide


def test_every_fence_and_formula_is_drawn(site: Path) -> None:
    raw = [
        path.relative_to(site)
        for path in site.rglob("*.html")
        if re.search(r"```|<m[io]>&(amp;)?</m[io]>", path.read_text(encoding="utf-8"))
    ]
    assert not raw


def test_one_page_in_both_languages(site: Path, page: Page) -> None:
    page.goto((site / "docs" / "tokens.html").as_uri())
    page.locator(".md-select").hover()
    page.get_by_role("link", name="中文").click()
    page.wait_for_url("**/zh-CN/docs/tokens.html")
    assert page.locator("html").get_attribute("lang") == "zh"
    assert re.search(r"[一-鿿]", page.locator("h1").inner_text() + page.locator("article p").first.inner_text())
