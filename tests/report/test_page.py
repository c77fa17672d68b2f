"""The page as people meet it: opened from disk in a real browser, with a pointer and without one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page, sync_playwright
from torch import Tensor

import lexel
from lexel.cli import main
from lexel.data.images import open_images, to_pixels
from lexel.models import VQVAE
from lexel.report import page as page_module, write_report
from lexel.report.page import WEB
from lexel.report.sections import MOST_CODES, SECTIONS, Report, Section
from lexel.runs import load_model

OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run"),
)
PIXELS = """canvas => [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]"""
LONG_LABELS = """() => {
    const long = element("div", { id: "long", className: "chart" });
    byId("curves").append(long);
    new Chart(long, { x: [0, 1], y: [1e-5, 2e-5], xName: "step", format: (n) => n.toFixed(7) + " of all" }, []);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium, "these tests need chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=list(OPTIONS))
        yield launched
        launched.close()


@dataclass
class Shown:
    """A run, its page in a browser with the codebook that it shows, and what the model says of the images on it."""

    run: Path
    page: Page
    model: VQVAE
    grids: list[Tensor]
    number: int = 0

    @property
    def book(self) -> dict[str, Any]:
        found: dict[str, Any] = self.page.evaluate(f"data.codebooks[{self.number}]")
        return found

    def pixels(self) -> Tensor:
        board = self.page.locator("#board canvas")
        side = int(board.evaluate("canvas => canvas.width"))
        return torch.tensor(board.evaluate(PIXELS)).reshape(side, side, 4)[..., :3].movedim(-1, 0)

    def decoded(self, edits: dict[int, str] | None = None) -> Tensor:
        """What the board should show, by the model: its part of the first image with other codes at some positions."""
        board, grid = self.book["board"], self.grids[0].clone()
        side, f = board["side"], board["factor"]
        for position, code in (edits or {}).items():
            own = grid.view(*grid.shape[:2], -1)[..., self.number]
            own[board["top"] + position // side, board["left"] + position % side] = int(code)
        whole = to_pixels(self.model.decode(grid[None]))[0].int()
        top, left = board["top"] * f, board["left"] * f
        return whole[:, top : top + side * f, left : left + side * f]

    def part(self) -> list[int]:
        """The codes of the board's positions."""
        board = self.book["board"]
        rows, columns = (slice(start, start + board["side"]) for start in (board["top"], board["left"]))
        return self.grids[0][rows, columns].flatten().tolist()


def opened(browser: Browser, report: Path, **context: Any) -> tuple[Page, list[str]]:
    """Open a page, and collect whatever it complains about or asks for."""
    page, noise = browser.new_page(**context), []
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("request", lambda request: noise.append(request.url) if request.url != report.as_uri() else None)
    page.goto(report.as_uri())
    return page, noise


@torch.no_grad()
def latents(model: VQVAE, data: Path) -> Tensor:
    """What the quantizer would return for all images with a code for every vector, each once."""
    images = [image[None].float() / 255 for _, image in open_images(data).readable(range(4))]
    vectors = [model.quantizer.unquantized(model.latents(image)).movedim(1, -1).reshape(-1, 8) for image in images]
    return torch.unique(torch.cat(vectors), dim=0)


@pytest.fixture(scope="module")
def run(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on photographs; then fifty codes are put where inputs are, and fourteen where nothing is near them.

    How well so short a run learns is not what is tested: the decoder is made to heed its codes.
    """
    out = tmp_path_factory.mktemp("report") / "run"
    options = [
        *("--steps", "30", "--batch-size", "8", "--crop", "32", "--log-every", "5", "--learning-rate", "0.005"),
        *("--model.hidden-channels", "16", "--quantizer.num_embeddings", "64", "--quantizer.embedding_dim", "8"),
    ]
    assert main(["train", str(photographs), "--out", str(out), *options]) == 0
    model = load_model(out)
    with torch.no_grad():
        inputs = latents(model, photographs)
        model.quantizer.quantizer.quantizer.codebook.weight[:50] = inputs[:: len(inputs) // 50][:50]
        model.quantizer.quantizer.quantizer.codebook.weight[50:] += 1e3
        model.decoder[0].weight *= 10
    model.save_pretrained(out / "model")
    assert main(["report", str(out)]) == 0
    return out


@pytest.fixture
def shown(run: Path, photographs: Path, browser: Browser) -> Iterator[Shown]:
    page, noise = opened(browser, run / "report.html", viewport={"width": 1280, "height": 900})
    page.wait_for_selector("#board[data-drawn]")
    model = load_model(run)
    images = [image.float() / 255 for _, image in open_images(photographs).readable(range(4))]
    yield Shown(run, page, model, [model.encode(image[None])[0] for image in images])
    page.close()
    assert not noise


class TestThePage:
    def test_needs_nothing_but_itself(self, shown: Shown) -> None:
        """The fixture sees to it that nothing is requested and nothing goes wrong."""
        text = (shown.run / "report.html").read_text(encoding="utf-8")
        assert len(text) < 15e6
        markup = text[: text.index("<script")]
        assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:)\w""", markup)
        assert shown.page.title() == "run · Lexel report"

    def test_says_how_the_run_went(self, shown: Shown) -> None:
        counts = torch.cat([grid.flatten() for grid in shown.grids]).unique(return_counts=True)[1]
        p = counts / counts.sum()
        tiles = shown.page.locator(".tiles").inner_text()
        assert f"{len(counts)}\nof 64" in tiles
        assert f"{float(torch.exp(torch.special.entr(p).sum())):.1f}\n" in tiles
        assert "training images" in shown.page.locator("main").inner_text()
        assert shown.page.locator("#curves .chart path.line").count() == 6
        assert shown.page.locator(".gallery img").count() == 12

    @pytest.mark.parametrize("width", [360, 800, 1600])
    def test_fits_any_width(self, shown: Shown, width: int) -> None:
        shown.page.set_viewport_size({"width": width, "height": 800})
        assert shown.page.evaluate("document.documentElement.scrollWidth") <= width

    def test_follows_the_system_into_the_dark_and_its_button_out_of_it(self, run: Path, browser: Browser) -> None:
        for scheme, dark in (("light", False), ("dark", True)):
            page, noise = opened(browser, run / "report.html", color_scheme=scheme)
            assert _is_dark(page) == dark
            page.locator("#theme").click()
            assert _is_dark(page) != dark
            page.close()
            assert not noise


class TestTokens:
    def test_pointing_at_one_lights_all_that_hold_its_code(self, shown: Shown) -> None:
        part = shown.part()
        squares = shown.page.locator(".cells button")
        assert squares.count() == len(part) > 100
        for position in (0, 17, len(part) // 2, len(part) - 1):
            squares.nth(position).hover()
            assert f"Code {part[position]} " in shown.page.locator("#token").inner_text()
            lit = shown.page.eval_on_selector_all(
                ".cells button",
                "squares => squares.flatMap((square, i) => square.classList.contains('same') ? [i] : [])",
            )
            assert lit == [i for i, code in enumerate(part) if code == part[position]]
        shown.page.locator("h1").hover()
        assert shown.page.locator(".cells .same").count() == 0

    def test_another_code_is_drawn_as_the_model_would_decode_it(self, shown: Shown) -> None:
        before = shown.pixels()
        torch.testing.assert_close(before.int(), shown.decoded(), rtol=0, atol=1)
        side = shown.book["board"]["side"]
        for position in (0, side * 3 + 5, side * side - 1):
            shown.page.locator(".cells button").nth(position).click()
            offered = shown.page.locator("#palette button")
            assert offered.first.get_attribute("data-code") == str(shown.part()[position])
            differences = []
            for number in range(1, offered.count()):
                code = offered.nth(number).get_attribute("data-code")
                offered.nth(number).click()
                expected = shown.decoded({position: str(code)})
                torch.testing.assert_close(shown.pixels().int(), expected, rtol=0, atol=1)
                differences.append(int((expected - before).abs().max()))
            assert max(differences) > 10
            shown.page.locator("#reset").click()
            assert torch.equal(shown.pixels(), before)

    def test_changes_apart_do_not_mix_and_are_undone_in_turn(self, shown: Shown) -> None:
        side, reach = shown.book["board"]["side"], shown.book["board"]["reach"]
        assert side > 2 * reach
        pictures, edits = [shown.pixels()], {}
        for position in (0, side * side - 1):
            shown.page.locator(".cells button").nth(position).click()
            last = shown.page.locator("#palette button").last
            edits[position] = str(last.get_attribute("data-code"))
            last.click()
            pictures.append(shown.pixels())
        torch.testing.assert_close(pictures[-1].int(), shown.decoded(edits), rtol=0, atol=1)
        shown.page.locator(".cells button").nth(0).hover()
        assert f"Code {edits[0]} " in shown.page.locator("#token").inner_text()
        for picture in reversed(pictures[:-1]):
            shown.page.locator("#undo").click()
            assert torch.equal(shown.pixels(), picture)
        assert shown.page.locator("#undo").is_disabled()

    def test_the_keyboard_is_enough(self, shown: Shown) -> None:
        press = shown.page.keyboard.press
        for _ in range(20):
            press("Tab")
            if shown.page.evaluate("document.activeElement.matches('.cells button')"):
                break
        side, part = shown.book["board"]["side"], shown.part()
        for key in ("End", "ArrowUp", "ArrowLeft"):
            press(key)
        position = side * side - side - 2
        assert f"Code {part[position]} " in shown.page.locator("#token").inner_text()
        assert shown.page.locator(".cells .same").count() == part.count(part[position])
        press("Enter")
        for _ in range(5):
            press("Tab")
        code = shown.page.evaluate("document.activeElement.dataset.code")
        press("Enter")
        torch.testing.assert_close(shown.pixels().int(), shown.decoded({position: code}), rtol=0, atol=1)
        assert shown.page.evaluate("document.activeElement.dataset.code") == code


class TestCodes:
    def test_dead_ones_are_marked(self, shown: Shown) -> None:
        alive = set(torch.cat([grid.flatten() for grid in shown.grids]).tolist())
        marked = shown.page.eval_on_selector_all("#atlas .dead", "cells => cells.map(cell => +cell.dataset.code)")
        assert sorted(marked) == [code for code in range(64) if code not in alive]
        assert len(marked) >= 14
        assert shown.page.locator("#atlas > div").count() == 64

    def test_choosing_one_tells_what_is_known_of_it(self, shown: Shown) -> None:
        chosen = torch.cat([grid.flatten() for grid in shown.grids])
        table = shown.model.quantizer.quantizer.quantizer.codebook.weight.detach()
        order = sorted(set(chosen.tolist()), key=lambda code: (-int((chosen == code).sum()), code))
        for rank in (0, 5):
            shown.page.locator("#atlas > div").nth(rank).click()
            text = shown.page.locator("#inspector").inner_text()
            uses = int((chosen == order[rank]).sum())
            assert f"Code {order[rank]}\n" in text
            assert f"rank {rank + 1} of {len(order)}" in text
            assert f"used {uses} times" in text
            assert f"{uses} places in the 4 images" in text
            near = shown.page.eval_on_selector_all(
                "#inspector .swatches button", "all => all.map(one => +one.dataset.code)"
            )
            distances = (table - table[order[rank]]).norm(dim=1)
            assert near == distances.argsort()[1:9].tolist()
        shown.page.locator("#inspector .swatches button").first.click()
        assert f"Code {near[0]}\n" in shown.page.locator("#inspector").inner_text()

    def test_atlas_and_map_answer_to_the_keyboard(self, shown: Shown) -> None:
        shown.page.locator("#atlas > div").nth(0).focus()
        shown.page.keyboard.press("ArrowRight")
        second = shown.page.locator("#atlas > div").nth(1).get_attribute("data-code")
        assert f"Code {second}\n" in shown.page.locator("#inspector").inner_text()
        shown.page.locator("#map").focus()
        before = shown.page.locator("#inspector b").inner_text()
        for key in ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"):
            shown.page.keyboard.press(key)
        assert shown.page.locator("#atlas [aria-selected=true]").count() == 1
        shown.page.keyboard.press("ArrowLeft")
        shown.page.keyboard.press("ArrowLeft")
        assert shown.page.locator("#inspector b").inner_text() != before

    def test_the_map_shows_the_code_under_the_pointer(self, shown: Shown) -> None:
        canvas = shown.page.locator("#map canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        assert box
        xy = np.array(shown.book["codes"]["xy"])
        where = (xy - xy.min(0)) / (xy.max(0) - xy.min(0))
        apart = ((where[:, None] - where) ** 2).sum(-1) + 9 * np.eye(len(where))
        lonely = int(apart.min(1).argmax())  # far from all others, since a click knows whole pixels alone
        x = 20 + where[lonely, 0] * (box["width"] - 40)
        y = box["height"] - 20 - where[lonely, 1] * (box["height"] - 40)
        canvas.hover(position={"x": x, "y": y})
        expected = shown.book["codes"]["index"][lonely]
        assert shown.page.locator(".tip").inner_text() == expected
        canvas.click(position={"x": x, "y": y})
        assert f"Code {expected}\n" in shown.page.locator("#inspector").inner_text()

    def test_curves_tell_their_values(self, shown: Shown) -> None:
        shown.page.locator("#curves svg").first.focus()
        shown.page.keyboard.press("ArrowLeft")
        readings = shown.page.locator("#curves output").all_inner_texts()
        assert all(reading.startswith("step 30: ") for reading in readings)
        shown.page.keyboard.press("ArrowLeft")
        assert shown.page.locator("#curves output").first.inner_text().startswith("step 25: ")

    def test_curves_leave_room_for_their_labels(self, shown: Shown) -> None:
        shown.page.evaluate(LONG_LABELS)
        shown.page.wait_for_selector("#long text")
        assert shown.page.locator("#long text").first.text_content() == "0.0000100 of all"
        assert min(shown.page.evaluate("[...document.querySelectorAll('#long text')].map(t => t.getBBox().x)")) >= 0


@pytest.mark.parametrize(
    ("make", "channels"),
    [
        (lambda: lexel.FiniteScalarQuantizer([8, 5, 5]), 3),
        (lambda: lexel.LookupFreeQuantizer(62), 3),
        (lambda: lexel.VectorQuantizer(4096, 4), 3),
        (lambda: lexel.VectorQuantizer(MOST_CODES + 1, 4), 3),
        (lambda: lexel.VectorQuantizer(1, 4), 3),
        (lambda: lexel.VectorQuantizer(2, 1), 1),
        (lambda: lexel.ResidualQuantizer([lexel.VectorQuantizer(16, 4) for _ in range(3)]), 3),
        (lambda: lexel.ProductQuantizer([lexel.VectorQuantizer(16, 2), lexel.FiniteScalarQuantizer([4, 4])]), 3),
        (lambda: lexel.presets.var((1, 2, 3, 4), embedding_dim=4), 3),
    ],
    ids=[
        "FSQ",
        "LFQ, 2^62",
        "many codes",
        "too many",
        "one code",
        "two codes, grey",
        "residual",
        "product",
        "multi-scale",
    ],
)
def test_any_model_alone_has_a_page(
    make: Callable[[], lexel.Quantizer], channels: int, browser: Browser, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = VQVAE(make(), image_channels=channels, hidden_channels=8, residual_layers=0).eval()
    model.save_pretrained(tmp_path / "model")
    shape = (5, 16, 16, 3) if channels == 3 else (5, 20, 16)
    np.save(tmp_path / "data.npy", np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))
    report = write_report(tmp_path / "model", tmp_path / "report.html", tmp_path / "data.npy")
    page, noise = opened(browser, report)
    page.wait_for_load_state()
    text = page.locator("main").inner_text()
    assert "images from “data.npy”" in text
    assert "no metrics.csv" in text
    assert page.locator("#curves").count() == 0
    if model.quantizer.positionwise:
        indices = torch.cat([model.encode(image[None].float() / 255) for _, image in
                             open_images(tmp_path / "data.npy").readable(range(5))])  # fmt: skip
        sizes = model.quantizer.codebook_sizes
        for book, own in enumerate(indices.reshape(-1, len(sizes)).unbind(1)):
            if len(sizes) > 1:
                page.get_by_label(str(book + 1), exact=True).check()
            codes, counts = own.unique(return_counts=True)
            assert page.locator("#atlas > div:not(.dead)").count() == len(codes)
            if sizes[book] <= MOST_CODES:
                assert page.locator("#atlas > div.dead").count() == sizes[book] - len(codes)
            else:
                assert "the most used, and some that these images never use" in text
            assert page.locator("#atlas > div").first.get_attribute("data-code") == str(int(codes[counts.argmax()]))
    else:
        assert "no atlas" in text
    if model.quantizer.index_shape:
        assert page.locator(".plain tbody tr").count() == model.quantizer.index_shape[0]
    page.close()
    assert not noise


def test_each_of_several_codebooks_has_tokens_to_change(browser: Browser, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vq = lexel.ResidualQuantizer([lexel.VectorQuantizer(16, 4) for _ in range(2)])
    model = VQVAE(vq, hidden_channels=8, residual_layers=0).eval()
    with torch.no_grad():
        for stage in vq.quantizers:
            stage.codebook.weight.normal_(std=3)
    model.save_pretrained(tmp_path / "model")
    np.save(tmp_path / "data.npy", np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8))
    page, noise = opened(browser, write_report(tmp_path / "model", tmp_path / "report.html", tmp_path / "data.npy"))
    _, image = next(iter(open_images(tmp_path / "data.npy").readable(range(1))))
    grid = model.encode(image[None].float() / 255)[0]
    for book in (1, 0):
        page.get_by_label(str(book + 1), exact=True).check()
        page.wait_for_selector("#board[data-drawn]")
        shown = Shown(tmp_path, page, model, [grid], book)
        page.locator(".cells button").nth(3).click()
        offered = page.locator("#palette button").last
        expected = shown.decoded({3: offered.get_attribute("data-code") or ""})
        offered.click()
        assert (expected - shown.decoded()).abs().max() > 5
        torch.testing.assert_close(shown.pixels().int(), expected, rtol=0, atol=1)
    page.close()
    assert not noise


def test_text_stays_text(run: Path, photographs: Path, browser: Browser, tmp_path: Path) -> None:
    """Names and settings of any kind are shown, and do nothing."""
    folder = tmp_path / "exp[lr=0.1] <img src=x onerror=document.title='broken'>"
    data = tmp_path / """<b>&"x' {{ 1 }} {% raw %}"""
    shutil.copytree(run, folder)
    shutil.copytree(photographs, data)
    harm = "</script><script>document.title = 'broken'</script>{{ 1 + 1 }}"
    config = (folder / "config.yaml").read_text() + f'note: "{harm}"\n'
    (folder / "config.yaml").write_text(config)
    (folder / "environment.json").write_text('{"Lexel<b>": "<b>"}')
    metrics = (folder / "metrics.csv").read_text().splitlines()
    metrics = [f"{metrics[0]},</script>", *(f"{line},1" for line in metrics[1:])]
    (folder / "metrics.csv").write_text("\n".join(metrics))
    page, noise = opened(browser, write_report(folder, tmp_path / "report.html", data))
    page.wait_for_selector("#board[data-drawn]")
    assert page.title() == f"{folder.name} · Lexel report"
    assert page.locator("h1").inner_text() == folder.name
    page.locator("summary").click()
    assert page.locator("pre").inner_text().rstrip("\n") == config.rstrip("\n")
    assert f"“{data.name}”" in page.locator("main").inner_text()
    assert page.locator("dt", has_text="Lexel<b>").count() == 1
    page.close()
    assert not noise


def test_no_template_and_no_script_writes_markup_unescaped() -> None:
    for file in WEB.iterdir():
        text = file.read_text(encoding="utf-8")
        assert not re.search(
            r"\|\s*safe\b|autoescape|innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(", text
        ), file


def test_a_section_is_a_row_a_template_and_a_script(
    run: Path, photographs: Path, browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = tmp_path / "web"
    shutil.copytree(WEB, web)
    (web / "statistics.html").write_text("<section id='statistics'>{{ data.statistics.name }}<b></b></section>")
    (web / "statistics.js").write_text(
        """document.querySelector("#statistics b").textContent = counted(data.statistics.images, "image");"""
    )

    def data(report: Report) -> dict[str, Any]:
        return {"name": "<i>", "images": report.measurement.images}

    monkeypatch.setattr(page_module, "WEB", web)
    monkeypatch.setattr(page_module, "SECTIONS", (*SECTIONS, Section("statistics", ("statistics",), data)))
    page, noise = opened(browser, write_report(run, tmp_path / "report.html", photographs))
    assert page.locator("main > section").last.inner_text() == "<i>4 images"
    page.close()
    assert not noise


def test_collapse_is_called_by_its_name(run: Path, photographs: Path, tmp_path: Path) -> None:
    model = load_model(run)
    for where, used, verdict in ((slice(1, None), 1, "Collapsed"), (slice(0), 64, "Healthy")):
        with torch.no_grad():
            model.quantizer.quantizer.quantizer.codebook.weight[where] += 1e3
        if used == 64:  # every code where something is encoded to it
            with torch.no_grad():
                model.quantizer.quantizer.quantizer.codebook.weight.copy_(latents(model, photographs)[::20][:64])
        model.save_pretrained(tmp_path / "model")
        text = write_report(tmp_path, data=photographs).read_text()
        health = re.sub(r"<[^>]*>|\s+", " ", text[text.index('<p class="health') : text.index("<dl")])
        assert health.strip().startswith(verdict)
        assert f"only {used} of 64 codes" in health if used == 1 else "These images use all 64 codes" in health


class TestTheCommand:
    def test_replaces_its_own_page_and_nothing_else(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "page.html"
        for _ in range(2):
            assert main(["report", str(run), "--out", str(out)]) == 0
        assert str(out) in capsys.readouterr().out.replace("\n", "")
        out.write_text("mine")
        assert main(["report", str(run), "--out", str(out)]) == 2
        assert "exists; give --overwrite" in capsys.readouterr().err
        assert out.read_text() == "mine"
        assert main(["report", str(run), "--out", str(out), "--overwrite"]) == 0
        assert "Lexel report" in out.read_text()

    def test_says_in_one_line_what_is_missing_or_malformed(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shutil.copytree(run, tmp_path / "run")
        (tmp_path / "run/report.html").unlink()
        model = tmp_path / "run/model"

        def refused(folder: Path, *options: str) -> str:
            capsys.readouterr()
            assert main(["report", str(folder), *options]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            return line

        assert "holds no model" in refused(tmp_path)
        assert "give some with --data" in refused(model)
        assert "no such file or folder" in refused(model, "--data", str(tmp_path / "nowhere"))
        for name, content, message in (
            ("metrics.csv", "step,loss\n1,many\n", "metrics.csv cannot be read"),
            ("metrics.csv", "loss\n1\n", "a row has no step"),
            ("environment.json", "[", "cannot be read"),
            ("config.yaml", "a: [", "cannot be read"),
        ):
            before = (tmp_path / "run" / name).read_text()
            (tmp_path / "run" / name).write_text(content)
            assert message in refused(tmp_path / "run")
            (tmp_path / "run" / name).write_text(before)
        assert not list((tmp_path / "run").glob("*.html"))
        assert not list((tmp_path / "run").glob(".report*"))


def _is_dark(page: Page) -> bool:
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return max(int(part) for part in re.findall(r"\d+", colour)[:3]) < 128
