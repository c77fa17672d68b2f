"""The live page as people meet it, opened from disk: its tokens are Lexel's, and every control does what it says."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Page, Route
from torch import Tensor

from lexel.cli import main
from lexel.data.images import to_pixels
from lexel.data.images.decode import decode
from lexel.data.images.measure import psnr
from lexel.export import export_page
from lexel.models import Autoencoder
from lexel.runs import load_model
from lexel.tokens.open import open_tokens
from tests.commands import train
from tests.conftest import PHOTOGRAPHS
from tests.export.test_export import trained
from tests.play.hands import HANDS, Finger, Hand, Keyboard, Point
from tests.report.test_page import browser
from tests.web import ROOT, every_text_in_both_languages, made_from_sources

__all__ = ["browser"]  # the fixture

pytestmark = pytest.mark.usefixtures("_traced_once")

LIVE = ROOT / "src" / "lexel" / "export" / "page"
CODES = (16, 64)
SMALL = {"hidden_channels": 8, "residual_channels": 4, "residual_layers": 1}
PATIENCE = 20  # seconds for what takes one or two


def test_the_page_is_made_from_its_sources() -> None:
    made_from_sources(LIVE, "live")


def test_the_page_may_send_nothing() -> None:
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', (LIVE / "index.html").read_text("utf-8"))
    allowed = dict(part.split(" ", 1) for part in policy.split("; "))
    assert allowed.pop("default-src") == "'none'"
    assert set(allowed) == {"script-src", "style-src", "img-src", "base-uri", "form-action"}
    for name, sources in allowed.items():
        assert set(sources.split()) <= {"'self'", "'none'", "'wasm-unsafe-eval'", "blob:", "data:"}, name


@pytest.fixture(scope="module")
def runs(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs of two codebooks, trained so shortly that their codes still differ."""
    out = tmp_path_factory.mktemp("runs")
    for codes in CODES:
        options = ("--quantizer.num-embeddings", str(codes), "--crop", "32")
        assert train(photographs, out / str(codes), *options, steps=12) == 0
    return [out / str(codes) for codes in CODES]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, of which none but the good ones can be read."""
    folder = tmp_path_factory.mktemp("files")
    with Image.open(PHOTOGRAPHS / "chelsea.png") as image:
        cat = image.resize((90, 62))
    with Image.open(PHOTOGRAPHS / "coffee.png") as image:
        coffee = image.resize((72, 80))
    cat.save(folder / "cat.png")
    coffee.save(folder / "coffee.png")
    cat.convert("L").save(folder / "grey.png")
    alpha = cat.convert("RGBA")
    alpha.putalpha(Image.fromarray(np.arange(90 * 62, dtype=np.uint32).reshape(62, 90).astype(np.uint8)))
    alpha.save(folder / "alpha.png")
    cat.save(folder / "turned.jpg", quality=95, exif=_turned())
    content = (folder / "cat.png").read_bytes()
    (folder / "damaged.png").write_bytes(content[:3000] + bytes(2000) + content[5000:])
    (folder / "short.png").write_bytes(content[:2000])
    (folder / "notes.png").write_text("not a picture at all\n" * 20)
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="60" height="40"><rect width="30" height="30"/></svg>'
    (folder / "drawing.svg").write_text(svg)
    cat.save(folder / "moving.gif", save_all=True, append_images=[coffee.resize(cat.size)])
    Image.new("RGB", (1, 1), (200, 30, 40)).save(folder / "one.png")
    Image.new("RGB", (20_000, 3), (20, 130, 40)).save(folder / "long.png")
    Image.new("1", (10_000, 10_000)).save(folder / "huge.png")
    return folder


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[274] = 6
    return exif


@pytest.fixture(scope="module")
def folder(runs: list[Path], files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pages") / "live"
    export_page({f"K = {run.name}": load_model(run) for run in runs}, out)
    return out


class Live:
    """An open page: what it shows, and what it says."""

    def __init__(self, hand: Hand) -> None:
        self.hand, self.page = hand, hand.page

    def ask(self, script: str) -> Any:
        """Evaluate something; the page's policy forbids the usual ways of waiting for it."""
        return self.page.evaluate(script)

    def until(self, script: str) -> None:
        for _ in range(PATIENCE * 20):
            if self.ask(f"!!({script})"):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never: {script}; the page says {self.said()!r}")

    def rest(self) -> None:
        """Wait until the picture is what the tokens say."""
        self.until("live.shown()?.first?.fresh && live.shown().second?.fresh !== false && !live.decoding.busy")

    def open(self, *paths: Path, which: str = "first") -> None:
        self.ask(f"(globalThis.before = live.state.photos.{which}, true)")
        self.page.locator(f'[data-action="choose.{which}"]').set_input_files(paths)
        self.until(f"live.state.photos.{which} !== globalThis.before")
        self.until(f"live.state.files.{which}?.name === {json.dumps(paths[0].name)} && live.shown()?.{which}")
        self.rest()

    def said(self) -> str:
        return " ".join(self.page.locator(".status, .complaint").all_text_contents()).strip()

    def tokens(self, which: str = "first") -> Tensor:
        sheet = self.ask(f"(({{dims, indices}}) => [dims, [...indices].map(String)])(live.shown().{which})")
        return torch.tensor([int(index) for index in sheet[1]]).reshape(sheet[0])

    def pixels(self, figure: str = "decoded") -> Tensor:
        script = """([name]) => {
            const canvas = document.querySelector(`figure.${name} canvas`);
            const { width, height } = canvas;
            const copy = new OffscreenCanvas(width, height).getContext("2d", {willReadFrequently: true});
            copy.drawImage(canvas, 0, 0);
            return [width, height, [...copy.getImageData(0, 0, width, height).data]];
        }"""
        width, height, data = self.page.evaluate(script, [figure])
        return torch.tensor(data, dtype=torch.int32).reshape(height, width, 4)[..., :3].movedim(-1, 0)

    def number(self, name: str) -> float:
        text = self.page.locator(f'[data-number="{name}"]').text_content() or ""
        return float(text.split(" ")[0].replace(",", "").replace("−", "-"))

    def press(self, action: str) -> None:
        self.hand.press(self.page.locator(f'[data-action="{action}"]'))

    def tool(self, name: str) -> None:
        self.hand.press(self.page.locator(f'[data-control="tool"] input[value="{name}"]'))

    def choose(self, code: int) -> None:
        option = self.page.locator(f'.palette [data-code="{code}"]')
        if isinstance(self.hand, Keyboard):
            self.page.locator('.palette [tabindex="0"]').focus()
            self.page.keyboard.press("Home")
            order = self.page.locator(".palette button")
            numbers = [int(number or -1) for number in order.evaluate_all("all => all.map((one) => one.dataset.code)")]
            for _ in range(numbers.index(code)):
                self.page.keyboard.press("ArrowRight")
        else:
            self.hand.press(option)
        assert option.get_attribute("aria-checked") == "true"

    def stroke(self, *cells: tuple[int, int]) -> None:
        """Use the tool over cells (row, column) of the grid, with the hand."""
        grid = self.page.locator("canvas.tokens")
        rows, columns = self.tokens().shape[:2]
        if isinstance(self.hand, Keyboard):
            grid.focus()
            at = self.ask("live.grid.cursor")[::-1]
            for cell in cells:
                for axis, (less, more) in enumerate((("ArrowUp", "ArrowDown"), ("ArrowLeft", "ArrowRight"))):
                    for _ in range(abs(cell[axis] - at[axis])):
                        self.page.keyboard.press(more if cell[axis] > at[axis] else less)
                at = cell
                self.page.keyboard.press("Space")
            return
        grid.scroll_into_view_if_needed()
        box = grid.bounding_box()
        assert box
        points: list[Point] = [
            (box["x"] + (column + 0.5) / columns * box["width"], box["y"] + (row + 0.5) / rows * box["height"])
            for row, column in cells
        ]
        self.hand.stroke(points)  # type: ignore[attr-defined]  # a pointer


Open = Callable[..., Live]


@pytest.fixture(scope="module")
def open_page(browser: Browser, folder: Path) -> Iterator[Open]:
    """Open a page, by the hand that is named, and check in the end that it complained of nothing and sent nothing.

    A page stays open for the tests after it: a new one takes longer than most of them.
    """
    kept: dict[tuple[str, str], Live] = {}
    noise: list[str] = []

    def open_page(hand: str = "mouse", path: Path = folder) -> Live:
        if (hand, str(path)) not in kept:
            make = HANDS[hand]
            page = browser.new_page(
                locale="en",
                reduced_motion="reduce",
                viewport={"width": 390 if make is Finger else 1280, "height": 800},
                has_touch=make.touches,
            )
            page.on("console", lambda message: noise.append(message.text))
            page.on("pageerror", lambda error: noise.append(str(error)))
            page.on("request", lambda request: None if own(request.url) else noise.append(request.url))
            page.goto((path / "index.html").as_uri())
            kept[hand, str(path)] = Live(make(page))
        return kept[hand, str(path)]

    def own(url: str) -> bool:
        return url.startswith(("file:", "data:", "blob:"))

    yield open_page
    for live in kept.values():
        live.page.close()
    assert noise == []


@pytest.fixture(params=HANDS)
def live(request: pytest.FixtureRequest, open_page: Open, files: Path) -> Live:
    """A page that shows the cat by the model of 64 codes, as it was at first."""
    live = open_page(request.param)
    live.open(files / "cat.png")
    live.ask("(live.state.number = 1, live.refresh())")
    live.rest()
    return live


@pytest.fixture(scope="module")
def models(runs: list[Path]) -> list[Any]:
    return [load_model(run).eval() for run in runs]


def decoded(model: Any, tokens: Tensor, size: tuple[int, int]) -> Tensor:
    with torch.no_grad():
        return to_pixels(model.decode(tokens[None], size))[0].int()


def follows(live: Live, model: Any, which: str = "first", figure: str = "decoded") -> None:
    """The picture is what the model decodes from the tokens, to the rounding of a pixel."""
    live.rest()
    shown = live.pixels(figure)
    expected = decoded(model, live.tokens(which), (shown.shape[1], shown.shape[2]))
    assert (shown - expected).abs().max() <= 1
    assert (shown - expected).abs().float().mean() < 0.01


def encoded(run: Path, picture: Path, tmp_path: Path) -> Tensor:
    """The tokens that `lexel encode` writes."""
    out = tmp_path / f"{run.name}-{picture.stem}"
    assert main(["encode", str(run), str(picture), "--out", str(out)]) == 0
    tokens = open_tokens(out)
    found: Tensor = tokens[0]["indices"]
    return found.long()


@pytest.mark.parametrize("name", ["cat.png", "grey.png", "alpha.png", "turned.jpg"])
def test_its_tokens_are_those_of_lexel_encode(
    open_page: Open, runs: list[Path], models: list[Any], files: Path, tmp_path: Path, name: str
) -> None:
    live = open_page()
    live.open(files / name)
    for number in range(len(CODES)):
        live.ask(f"(live.state.number = {number}, live.refresh())")
        live.rest()
        found, expected = live.tokens(), encoded(runs[number], files / name, tmp_path)
        assert expected.unique().numel() > 5
        assert found.flatten().tolist() == expected.flatten().tolist()
        follows(live, models[number])
        image = decode(files / name, 3)
        torch.testing.assert_close(live.pixels("photo"), image.int(), rtol=0, atol=0)
        with torch.no_grad():
            copy = models[number].decode(found[None], tuple(image.shape[1:]))[0]
        error = (copy - image / 255).square().mean().item()
        assert live.number("error") == pytest.approx(error, abs=1e-5)
        assert live.number("psnr") == pytest.approx(psnr(image / 255, copy), abs=0.01)
        counts = found.flatten().bincount() / found.numel()
        assert live.number("perplexity") == pytest.approx(
            counts.clamp(min=1e-12).log().mul(-counts).sum().exp().item(), abs=0.06
        )
        assert live.number("used") == found.unique().numel()
        assert live.number("bits") == found.numel() * np.log2(CODES[number])
        assert live.number("pixelBits") == image.numel() * 8


def test_a_brush_repaints_tokens_and_the_decoder_follows(live: Live, models: list[Any]) -> None:
    before = live.tokens()
    rare = int(before.flatten().bincount(minlength=64).argmin())
    live.choose(rare)
    slider = live.page.locator('[data-control="brush"] input')
    live.hand.slide(slider, to_end=False)
    live.stroke((3, 4), (3, 5), (3, 6))
    changed = before.clone()
    changed[3, 4:7] = rare
    assert live.tokens().equal(changed)
    follows(live, models[1])
    assert live.number("used") == changed.unique().numel()
    live.hand.slide(slider, to_end=True)
    live.stroke((9, 10))
    changed[2:, 3:18] = rare
    assert live.tokens().equal(changed)
    follows(live, models[1])
    live.press("undo")
    changed[:] = before
    changed[3, 4:7] = rare
    assert live.tokens().equal(changed)
    live.press("reset")
    assert live.tokens().equal(before)
    follows(live, models[1])


def test_what_stands_at_a_place_is_said_and_can_be_picked(live: Live) -> None:
    tokens = live.tokens()
    live.tool("pick")
    live.stroke((5, 6))
    code = int(tokens[5, 6])
    said = live.page.locator(".hovered").text_content() or ""
    assert "column 7, row 6" in said
    assert f"code {code}, which stands here {int((tokens == code).sum())} times" in said
    assert live.page.locator(f'.palette [data-code="{code}"]').get_attribute("aria-checked") == "true"
    assert live.page.locator('[data-control="tool"] input[value="paint"]').is_checked()
    assert live.tokens().equal(tokens)


def test_k_slides_and_results_stay(live: Live, models: list[Any]) -> None:
    live.choose(int(live.tokens()[0, 0]))
    live.stroke((7, 8))
    edited = live.tokens()
    slider = live.page.locator('[data-control="K"] input')
    live.hand.slide(slider, to_end=False)
    live.until("live.state.number === 0 && live.shown()?.first?.fresh")
    follows(live, models[0])
    rows = live.page.locator(".compared tbody tr")
    assert [row.split()[0] for row in rows.locator("th").all_text_contents()] == ["16", "64"]
    assert "–" not in "".join(rows.all_text_contents())
    error = live.number("error")
    live.hand.slide(slider, to_end=True)
    live.until("live.state.number === 1 && live.shown()?.first?.fresh")
    assert live.tokens().equal(edited)
    assert live.number("error") != error
    follows(live, models[1])
    live.press("reset")


def slow_to_read(page: Page, name: str) -> None:
    """Let the page read files of this name only when somebody sets `globalThis.go`."""
    script = """([name]) => {
        globalThis.go = false;
        const own = createImageBitmap;
        globalThis.createImageBitmap = async (blob, ...rest) => {
            while (blob.name === name && !globalThis.go) await new Promise((resolve) => setTimeout(resolve, 20));
            return own(blob, ...rest);
        };
    }"""
    page.evaluate(script, [name])


def test_the_last_photo_that_was_chosen_is_shown(browser: Browser, folder: Path, files: Path) -> None:
    page = browser.new_page(locale="en")
    page.goto((folder / "index.html").as_uri())
    live = Live(HANDS["mouse"](page))
    live.open(files / "one.png")
    slow_to_read(page, "coffee.png")
    for name in ("coffee.png", "cat.png"):
        page.locator('[data-action="choose.first"]').set_input_files(files / name)
    live.until("live.state.files.first.name === 'cat.png'")
    page.evaluate("globalThis.go = true")
    page.wait_for_timeout(500)
    live.rest()
    assert live.ask("[live.state.files.first.name, live.shown().first.width].join()") == "cat.png,90"
    page.close()


@pytest.mark.parametrize("change", ["photo", "size"])
def test_a_stroke_ends_with_what_it_went_over(
    browser: Browser, folder: Path, files: Path, models: list[Any], change: str
) -> None:
    page, noise = browser.new_page(locale="en"), list[str]()
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.goto((folder / "index.html").as_uri())
    live = Live(HANDS["mouse"](page))
    live.open(files / "coffee.png")
    grid = page.locator("canvas.tokens")
    live.choose(int(live.tokens().flatten().bincount(minlength=CODES[1]).argmin()))
    grid.scroll_into_view_if_needed()
    box = grid.bounding_box()
    assert box
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    if change == "photo":
        page.locator('[data-action="choose.first"]').set_input_files(files / "cat.png")
        name = "cat.png"
    else:
        page.evaluate("""document.querySelector('[data-control="size"] input[value="0.1"]').click()""")
        name = "coffee.png"
    for step in range(60):
        page.mouse.move(box["x"] + 60 + step, box["y"] + 80)
        page.wait_for_timeout(10)
    live.until(f"live.state.files.first.name === {json.dumps(name)} && live.shown()?.first")
    page.mouse.move(box["x"] + 60, box["y"] + 90)
    page.mouse.up()
    live.rest()
    assert live.tokens().equal(models[1].encode(decode(files / name, 3)[None] / 255)[0])
    assert page.locator('[data-action="undo"]').is_disabled()
    assert noise == []
    page.close()


@pytest.mark.parametrize("key", ["Control+z", "Space"])
def test_keys_in_the_middle_of_a_stroke_lose_nothing_that_can_be_taken_back(
    open_page: Open, files: Path, key: str
) -> None:
    live = open_page()
    live.open(files / "cat.png")
    before = live.tokens()
    live.choose(int(before.flatten().bincount(minlength=CODES[1]).argmin()))
    grid, mouse = live.page.locator("canvas.tokens"), live.page.mouse
    live.stroke((3, 2), (3, 9))
    box = grid.bounding_box()
    assert box
    grid.focus()
    mouse.move(box["x"] + 40, box["y"] + 10)
    mouse.down()
    mouse.move(box["x"] + 40, box["y"] + 100)
    live.page.keyboard.press(key)
    mouse.move(box["x"] + 40, box["y"] + 160)
    mouse.up()
    assert not live.tokens().equal(before)
    for _ in range(5):  # past the start
        live.page.keyboard.press("Control+z")
    assert live.tokens().equal(before)


def test_a_second_photo_leaves_what_was_painted_to_be_taken_back(open_page: Open, files: Path) -> None:
    live = open_page()
    live.open(files / "cat.png")
    before = live.tokens()
    live.choose(int(before.flatten().bincount(minlength=CODES[1]).argmin()))
    live.stroke((3, 4), (5, 9))
    painted = live.tokens()
    live.open(files / "coffee.png", which="second")
    live.press("swapAll")
    live.open(files / "alpha.png", which="second")
    second = live.tokens("second")
    live.press("undo")
    assert live.tokens().equal(painted)
    live.press("undo")
    assert live.tokens().equal(before)
    assert live.tokens("second").equal(second)


def test_a_picture_is_saved_when_it_is_what_its_tokens_say(open_page: Open, files: Path) -> None:
    live = open_page()
    live.open(files / "cat.png")
    live.open(files / "coffee.png", which="second")
    with live.page.expect_download() as download:
        live.page.evaluate("""() => {
            for (const name of ["swapAll", "keep.picture"]) document.querySelector(`[data-action="${name}"]`).click();
        }""")
    picture = np.asarray(Image.open(download.value.path()).convert("RGB"))
    live.rest()
    assert live.pixels().movedim(0, -1).numpy().tolist() == picture.tolist()
    live.press("reset")


def test_one_model_leaves_nothing_to_slide(browser: Browser, models: list[Any], files: Path, tmp_path: Path) -> None:
    export_page({"mine": models[0]}, tmp_path / "live")
    page = browser.new_page(locale="en")
    page.goto((tmp_path / "live" / "index.html").as_uri())
    live = Live(HANDS["mouse"](page))
    live.open(files / "cat.png")
    assert "16 · mine" in (page.locator('[data-control="K"]').text_content() or "")
    assert not page.locator('[data-control="K"] input').is_visible()
    assert "slide" not in page.locator("main").inner_text()
    assert not page.locator(".compared").is_visible()
    page.close()


def test_two_photos_exchange_tokens(live: Live, models: list[Any], files: Path) -> None:
    live.open(files / "coffee.png", which="second")
    first, second = live.tokens(), live.tokens("second")
    assert first.shape == second.shape
    live.hand.slide(live.page.locator('[data-control="brush"] input'), to_end=False)
    live.tool("stamp")
    live.stroke((4, 5), (4, 6))
    mixed = first.clone()
    mixed[4, 5:7] = second[4, 5:7]
    assert live.tokens().equal(mixed)
    assert live.tokens("second").equal(second)
    live.tool("rectangle")
    live.stroke((2, 3), (8, 12))
    ours, theirs = mixed.clone(), second.clone()
    ours[2:9, 3:13], theirs[2:9, 3:13] = second[2:9, 3:13], mixed[2:9, 3:13]
    assert live.tokens().equal(ours)
    assert live.tokens("second").equal(theirs)
    follows(live, models[1])
    follows(live, models[1], "second", "second")
    live.press("swapAll")
    assert live.tokens().equal(theirs)
    assert live.tokens("second").equal(ours)
    live.press("undo")
    assert live.tokens().equal(ours)
    live.press("reset")
    assert live.tokens().equal(first)
    assert live.tokens("second").equal(second)
    follows(live, models[1])


def test_what_is_kept(live: Live) -> None:
    live.choose(int(live.tokens().flatten().bincount(minlength=64).argmin()))
    live.stroke((1, 1))
    live.rest()
    with live.page.expect_download() as download:
        live.press("keep.picture")
    assert download.value.suggested_filename == "cat-lexel.png"
    picture = np.asarray(Image.open(download.value.path()).convert("RGB"))
    assert live.pixels().movedim(0, -1).numpy().tolist() == picture.tolist()
    with live.page.expect_download() as download:
        live.press("keep.tokens")
    assert download.value.suggested_filename == "cat-lexel.json"
    kept = json.loads(Path(download.value.path()).read_text())
    assert kept["indices"] == live.tokens().tolist()
    assert kept["shape"] == list(live.tokens().shape)
    assert kept["size"] == [62, 90]
    assert kept["model"] == live.ask("live.shown().first.model.facts.model")
    live.press("reset")


def test_a_code_looks_as_a_grid_full_of_it(open_page: Open, models: list[Any], files: Path) -> None:
    live = open_page()
    live.open(files / "cat.png")
    live.ask("(live.state.number = 1, live.refresh())")
    live.rest()
    live.until("[...document.querySelectorAll('.palette canvas')].every((one) => one.width > 1)")
    for code in (0, 17, 63):
        script = """([code]) => {
            const canvas = document.querySelector(`.palette [data-code="${code}"] canvas`);
            const { width, height } = canvas;
            const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
            copy.drawImage(canvas, 0, 0);
            return [...copy.getImageData(0, 0, width, height).data];
        }"""
        shown = torch.tensor(live.page.evaluate(script, [code])).reshape(4, 4, 4)[..., :3].movedim(-1, 0)
        whole = decoded(models[1], torch.full((31, 31), code), (124, 124))
        assert (shown - whole[:, 60:64, 60:64]).abs().max() <= 1


BAD = {
    "notes.png": "cannot read notes.png",
    "damaged.png": "damaged.png is damaged",
    "short.png": "cannot read short.png",
    "drawing.svg": "drawing.svg is damaged, or no picture of pixels, such as an SVG",
    "huge.png": "huge.png has 10,000 × 10,000 pixels",
}
STRANGE = {
    "moving.gif": "only the first frame",
    "one.png": "",
    "long.png": "20,000 × 3 pixels; it is used at 4,096 × 1",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_a_sentence(open_page: Open, files: Path, name: str) -> None:
    live = open_page()
    live.open(files / "cat.png")
    tokens = live.tokens()
    live.page.locator('[data-action="choose.first"]').set_input_files(files / name)
    live.until("document.querySelector('.complaint').textContent")
    assert BAD[name] in live.said()
    live.press("other-language")
    said = live.page.locator(".complaint").text_content() or ""
    assert name in said
    assert re.search(r"[一-鿿]", said)
    live.press("other-language")
    assert live.tokens().equal(tokens), "what was there stays"
    live.open(files / "coffee.png")
    assert BAD[name] not in live.said()


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_picture_is_shown(open_page: Open, models: list[Any], files: Path, name: str) -> None:
    live = open_page()
    live.open(files / name)
    assert STRANGE[name] in live.said()
    follows(live, models[live.ask("live.state.number")])


def test_files_are_dropped_and_pasted(open_page: Open, files: Path) -> None:
    live = open_page()
    content = [(name, list((files / name).read_bytes())) for name in ("coffee.png", "cat.png")]
    script = """([kind, content]) => {
        const transfer = new DataTransfer();
        for (const [name, bytes] of content) transfer.items.add(new File([Uint8Array.from(bytes)], name));
        const event = kind === "drop" ? new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true })
            : new ClipboardEvent(kind, { clipboardData: transfer, bubbles: true });
        document.body.dispatchEvent(event);
    }"""
    live.page.evaluate(script, ["drop", content])
    live.until("live.state.files.first?.name === 'coffee.png' && live.shown()?.first")
    live.rest()
    live.until("document.querySelector('.status').textContent.includes('Of 2 files, only the first')")
    live.page.evaluate(script, ["paste", content[1:]])
    live.until("live.state.files.first?.name === 'cat.png' && live.shown()?.first")
    live.rest()
    live.page.evaluate(script, ["drop", []])
    assert "no file" in live.said()


def broken(folder: Path, out: Path) -> Path:
    shutil.copytree(folder, out)
    return out


def test_damage_to_the_folder_is_a_sentence(browser: Browser, folder: Path, files: Path, tmp_path: Path) -> None:
    scripts = sorted((folder / "models").glob("*.js"))
    content = scripts[1].read_text()
    place = len(content) // 2
    other = "A" if content[place] != "A" else "B"
    damages: dict[str, Callable[[Path], Any]] = {
        "is missing": lambda path: path.unlink(),
        "is damaged": lambda path: path.write_text(content[: len(content) // 2]),
        "model “K = 64” is damaged": lambda path: path.write_text(content[:place] + other + content[place + 1 :]),
    }
    for number, (sentence, damage) in enumerate(damages.items()):
        copy = broken(folder, tmp_path / str(number))
        damage(copy / "models" / scripts[1].name)
        page = browser.new_page(locale="en")
        page.goto((copy / "index.html").as_uri())
        live = Live(HANDS["mouse"](page))
        live.until("document.querySelector('.complaint').textContent")
        assert sentence in live.said()
        live.hand.slide(page.locator('[data-control="K"] input'), to_end=False)
        live.until("live.state.number === 0")
        live.open(files / "cat.png")
        assert "K = 64" not in live.said()
        page.close()


def test_a_model_that_never_comes_is_waited_for(browser: Browser, folder: Path, files: Path) -> None:
    page = browser.new_page(locale="en")
    script = sorted((folder / "models").glob("*.js"))[1].name
    page.clock.install()
    page.route(f"**/models/{script}", lambda route: None)
    page.goto((folder / "index.html").as_uri())
    live = Live(HANDS["mouse"](page))
    live.until("document.querySelector('.status').textContent.includes('Loading')")
    for _ in range(40):
        page.clock.run_for(1000)
        if "has not come yet" in live.said():
            break
    assert "has not come yet" in live.said()
    page.clock.resume()
    live.hand.slide(page.locator('[data-control="K"] input'), to_end=False)
    live.open(files / "cat.png")
    assert live.ask("live.state.number") == 0
    page.close()


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("delete globalThis.WebAssembly", "WebAssembly is switched off"),
        ("Object.defineProperty(globalThis, 'lexelModels', { set() {}, get() {} })", "holds no model"),
        ("Object.defineProperty(globalThis, 'lexelRuntime', { set() {}, get() {} })", "runtime.js is missing"),
        ("WebAssembly.instantiate = () => Promise.reject(new Error())", "is damaged"),
    ],
)
def test_a_browser_that_cannot_run_it_says_so(browser: Browser, folder: Path, script: str, sentence: str) -> None:
    page = browser.new_page(locale="en")
    page.add_init_script(script)
    page.goto((folder / "index.html").as_uri())
    live = Live(HANDS["mouse"](page))
    live.until("document.querySelector('.complaint').textContent")
    assert sentence in live.said()
    assert page.locator("h1").is_visible()
    page.close()


def test_the_page_is_there_before_what_runs_its_models(browser: Browser, folder: Path, files: Path) -> None:
    page, held = browser.new_page(locale="en"), list[Route]()
    page.route("**/runtime.js", lambda route: held.append(route))
    page.goto((folder / "index.html").as_uri(), wait_until="commit")
    page.locator("h1").wait_for()
    assert page.evaluate("document.readyState") == "interactive"
    assert page.locator(".complaint").text_content() == ""
    (script,) = held
    script.continue_()
    live = Live(HANDS["mouse"](page))
    live.open(files / "one.png")
    assert live.tokens().numel() == 1
    page.close()


LEVELS = ("residual, grey", "VQ-VAE-2, transparent", "several scales", "2^62 codes, resized")


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Autoencoder]]:
    """A page of models of all kinds."""
    models = {name: trained(name) for name in LEVELS}
    out = tmp_path_factory.mktemp("kinds") / "live"
    export_page(models, out)
    return out, models


@pytest.mark.parametrize("name", LEVELS)
def test_models_of_all_kinds(
    open_page: Open, kinds: tuple[Path, dict[str, Autoencoder]], files: Path, name: str
) -> None:
    live = open_page("mouse", kinds[0])
    model: Any = kinds[1][name]
    order = live.ask("lexelModels.models.map(({ title }) => title)")
    live.open(files / ("alpha.png" if "transparent" in name else "cat.png"))
    live.ask(f"(live.state.number = {order.index(name)}, live.refresh())")
    live.until(f"live.state.number === {order.index(name)} && live.shown()?.first?.fresh")
    live.rest()
    assert not live.page.locator(".complaint").text_content()
    sheet = live.ask(
        "(({levels, width, height, pixels}) => ({levels, width, height, pixels: [...pixels]}))(live.shown().first)"
    )
    size = sheet["height"], sheet["width"]
    assert size == (model.image_size or (62, 90))
    images = torch.tensor(sheet["pixels"]).reshape(1, model.image_channels, *size)
    if model.image_size is None:
        picture = decode(files / ("alpha.png" if "transparent" in name else "cat.png"), model.image_channels)
        torch.testing.assert_close(images[0], picture / 255)
    with torch.no_grad():
        expected = model.encode(images)[0]
    assert live.tokens().equal(expected)
    grids = model.levels(size)
    inner = expected.shape[-1] if "residual" in name else 1
    assert [(level["rows"], level["columns"]) for level in sheet["levels"]] == [
        grid for grid in grids for _ in range(inner)
    ]
    last = len(sheet["levels"]) - 1
    if last:
        assert f"{last + 1} levels" in (live.page.locator(".about").text_content() or "")
        live.hand.press(live.page.locator(f'[data-control="level"] input[value="{last}"]'))
    rows, columns = sheet["levels"][last]["rows"], sheet["levels"][last]["columns"]
    assert (live.page.locator("figure.tokens .caption").text_content() or "").endswith(f"{columns} × {rows}")
    before = live.tokens()
    code = int(before.flatten()[sheet["levels"][last]["start"]])
    box = live.page.locator("canvas.tokens").bounding_box()
    assert box
    live.page.locator("canvas.tokens").hover(position={"x": 2, "y": 2})
    assert f"code {code}" in (live.page.locator(".hovered").text_content() or "")
    live.choose(int(live.page.locator(".palette button").last.get_attribute("data-code") or 0))
    live.page.locator("canvas.tokens").click(position={"x": 2, "y": 2})
    assert not live.tokens().equal(before)
    live.rest()
    with torch.no_grad():
        copy = to_pixels(model.decode(live.tokens()[None], size))[0].int()
    shown = live.ask("[...live.shown().first.decoded]")
    assert (255 * torch.tensor(shown).reshape(copy.shape) - copy).abs().max() <= 1
    live.press("reset")


@pytest.mark.parametrize("locale", ["en", "zh-CN"])
@pytest.mark.parametrize("width", [390, 1280])
def test_both_languages_at_both_widths(browser: Browser, folder: Path, files: Path, locale: str, width: int) -> None:
    page = browser.new_page(locale=locale, viewport={"width": width, "height": 800})
    page.goto((folder / "index.html").as_uri())
    live = Live(HANDS["mouse"](page))
    live.open(files / "cat.png")
    live.open(files / "coffee.png", which="second")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    cut = """() => [...document.querySelectorAll("button, label, dt, dd, p, h2, th")].filter((one) =>
        one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== "inline"
        && !one.closest(".scrolled")).map((one) => one.textContent)"""
    assert page.evaluate(cut) == []
    texts = page.locator("h1, h2, .say, .do, .caption, button, label, dt, .sum, .status").all_text_contents()
    chinese = [bool(re.search(r"[一-鿿]", text)) for text in texts if len(re.sub(r"[\W\d]|×", "", text)) > 8]
    assert all(chinese) if locale == "zh-CN" else not any(chinese)
    tokens = live.tokens()
    live.press("other-language")
    assert page.locator("html").get_attribute("lang") == ("en" if locale == "zh-CN" else "zh-CN")
    assert live.tokens().equal(tokens)
    page.close()


def test_everything_has_a_name(open_page: Open, files: Path) -> None:
    live = open_page()
    live.open(files / "cat.png")
    script = """() => [...document.querySelectorAll("button, input, canvas[role], [role=radiogroup], a")]
        .filter((one) => !one.getAttribute("aria-label") && !(one.closest("label") ?? one).textContent.trim())
        .map((one) => one.outerHTML.slice(0, 200))"""
    assert live.page.evaluate(script) == []


def test_both_languages_have_every_text(browser: Browser) -> None:
    page = browser.new_page()
    every_text_in_both_languages(page, "live", "strings")
    page.close()
