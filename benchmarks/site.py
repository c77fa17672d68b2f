"""How soon the site that `make docs` builds shows something: `python -m benchmarks.site`, in Chromium.

Writes `benchmarks/results/site.md`: milliseconds from the request to the first text or picture, and to the largest one
of the first screen, with an empty cache, as Chromium's own paint entries say; the median of all loads and their range.
The slow network is that of Lighthouse: 1.6 Mbit/s, 150 ms. The server compresses nothing.
"""

from __future__ import annotations

import os
import shutil
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from threading import Thread

from playwright.sync_api import Browser, sync_playwright
from typing_extensions import override

from benchmarks.layer import machine

SITE = Path(__file__).parent.parent / "build" / "site"
RESULT = Path(__file__).parent / "results" / "site.md"
PAGES = ("index.html", "zh-CN/index.html", "docs/first-run.html", "docs/play/index.html")
SLOW = {"offline": False, "latency": 150, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 0.75e6 / 8}
LOADS = 7
LARGEST = """() => new Promise(found => new PerformanceObserver(list => found(list.getEntries().at(-1).startTime))
    .observe({type: "largest-contentful-paint", buffered: true}))"""
FIRST = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"


class Pages(SimpleHTTPRequestHandler):
    """Serves files, and says nothing."""

    protocol_version = "HTTP/1.1"

    @override
    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Serves each connection in a thread."""

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that closes ends its connections, which is no error here."""


def load(browser: Browser, address: str, slow: bool) -> tuple[float, float]:
    """Milliseconds to the first and to the largest contentful paint of one load, at the size of a laptop's screen."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    if slow:
        network = context.new_cdp_session(page)
        network.send("Network.enable")
        network.send("Network.emulateNetworkConditions", SLOW)
    page.goto(address, wait_until="load", timeout=120_000)
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
    paints = float(page.evaluate(FIRST)), float(page.evaluate(LARGEST))
    context.close()
    return paints


def table(address: str, loads: int) -> str:
    """The figures of all pages as Markdown."""
    lines = ["| page | network | first paint | largest paint |", "|---|---|---|---|"]
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        for name in PAGES:
            for slow in (False, True):
                found = [load(browser, f"{address}/{name}", slow) for _ in range(loads)]
                cells = [
                    f"{median(times):,.0f} ({min(times):,.0f}-{max(times):,.0f})" for times in zip(*found, strict=True)
                ]
                lines.append(f"| `{name}` | {'slow 4G' if slow else 'as it is'} | {cells[0]} | {cells[1]} |")
                print(lines[-1], flush=True)
        browser.close()
    return "\n".join(lines)


def main(loads: int = LOADS) -> None:
    """Measure, and write the page."""
    server = Server(("127.0.0.1", 0), partial(Pages, directory=SITE))
    Thread(target=server.serve_forever, daemon=True).start()
    figures = table(f"http://127.0.0.1:{server.server_port}", loads)
    server.shutdown()
    size = sum(path.stat().st_size for path in SITE.rglob("*") if path.is_file())
    RESULT.write_text(
        f"""# The site

`make docs`, then `python -m benchmarks.site {loads}` on {machine()}, load average {os.getloadavg()[0]:.1f}: the site is
{size / 1e6:.1f} MB, of which a reader loads a page at a time.

Milliseconds from the request to the first paint and to the largest one of the first screen (1,280 × 800), as headless
Chromium reports them: median (range) of {loads} loads with an empty cache, from a server on the same machine that
compresses nothing. *Slow 4G* lets 1.6 Mbit/s through and waits 150 ms for each answer.

{figures}
""",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
