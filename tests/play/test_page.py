"""The page as people meet it, opened from disk: every scene does what it says, by every hand, with Lexel's numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from playwright.sync_api import Browser, Locator, Page
from torch import Tensor

import lexel
from tests.play.hands import HALF, HANDS, Finger, Hand, Point, pixel, place
from tests.report.test_page import browser
from tests.web import ROOT, every_text_in_both_languages, made_from_sources

__all__ = ["browser"]  # the fixture

PLAY = ROOT / "docs" / "play"
WIDTHS = {"desktop": 1280, "phone": 390}
Open = Callable[..., Page]


def test_the_page_is_made_from_its_sources() -> None:
    made_from_sources(PLAY, "play")


@pytest.fixture(scope="module")
def windows(browser: Browser) -> Iterator[dict[str, Page]]:
    """Blank pages by the settings of their context, to open something in: a new one takes as long as many tests."""
    kept: dict[str, Page] = {}
    yield kept
    for page in kept.values():
        page.close()


@pytest.fixture
def open_page(browser: Browser, windows: dict[str, Page]) -> Iterator[Open]:
    """Open the page, and check in the end that it had nothing to complain of and asked for nothing but its files."""
    opened, noise = [], []
    listeners: dict[Any, Callable[[Any], None]] = {
        "console": lambda message: noise.append(message.text),
        "pageerror": lambda error: noise.append(str(error)),
        "request": lambda request: noise.append(request.url) if not own(request.url) else None,
    }

    def open_page(name: str = "index", **context: Any) -> Page:
        page = windows.pop(str(context), None)
        page = page or browser.new_page(**{"locale": "en", "reduced_motion": "reduce", **context})
        opened.append((str(context), page))
        for event, listener in listeners.items():
            page.on(event, listener)
        page.goto((PLAY / f"{name}.html").as_uri())
        page.wait_for_selector("main section:last-child .code")
        return page

    def own(url: str) -> bool:
        return url.startswith((PLAY.as_uri(), "data:", "blob:"))

    yield open_page
    for settings, page in opened:
        page.evaluate("localStorage.clear()")
        for event, listener in listeners.items():
            page.remove_listener(event, listener)
        page.goto("about:blank")
        if settings in windows:
            page.close()
        windows.setdefault(settings, page)
    assert noise == []


def with_hand(name: str, open_page: Open, page: str) -> Hand:
    make = HANDS[name]
    width = WIDTHS["phone" if make.touches else "desktop"]
    return make(open_page(page, viewport={"width": width, "height": 800}, has_touch=make.touches))


@pytest.fixture(params=HANDS)
def hand(request: pytest.FixtureRequest, open_page: Open) -> Hand:
    return with_hand(request.param, open_page, "index")


@pytest.fixture(params=HANDS)
def reader(request: pytest.FixtureRequest, open_page: Open) -> Hand:
    """A hand on the other page, which goes through the statements."""
    return with_hand(request.param, open_page, "statements")


class Scene:
    """A scene of the page: what it shows, and what its state is."""

    def __init__(self, hand: Hand, name: str) -> None:
        self.hand, self.root = hand, hand.page.locator(f"#{name}")

    def state(self) -> dict[str, Any]:
        script = """scene => JSON.parse(JSON.stringify(scene.state(),
            (key, value) => ArrayBuffer.isView(value) ? Array.from(value) : value))"""
        found: dict[str, Any] = self.root.evaluate(script)
        return found

    def rows(self, name: str) -> Tensor:
        return rows(self.state()[name])

    def codes(self) -> Tensor:
        return rows(self.state()["quantizer"]["codes"])

    def steps(self, count: int) -> None:
        """Press "step" many times at once."""
        press = f"button => {{ for (let i = 0; i < {count}; i++) button.click(); }}"
        self.root.locator('button[data-action="step"]').evaluate(press)

    def number(self, name: str) -> str:
        return (self.root.locator(f'[data-number="{name}"]').text_content() or "").replace("−", "-")

    def numbers(self, name: str) -> list[float]:
        return [float(found) for found in re.findall(r"-?\d+(?:\.\d+)?", self.number(name))]

    def press(self, action: str, times: int = 1) -> None:
        for _ in range(times):
            self.hand.press(self.root.locator(f'button[data-action="{action}"]'))

    def control(self, name: str, kind: str = "") -> Locator:
        return self.root.locator(f'[data-control="{name}"] input{kind}')

    def toggle(self, name: str) -> None:
        self.hand.press(self.control(name))

    def choose(self, name: str, value: str) -> None:
        self.hand.press(self.control(name, f'[value="{value}"]'))

    def move(self, kind: str, number: int, x: float, y: float) -> None:
        self.hand.move(self.root, kind, number, (x, y))
        assert place(self.root, kind, number) == pytest.approx((x, y), abs=0.05)


def rows(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(-1, 2)


def shows(numbers: list[float], values: Tensor | list[float], digits: int) -> None:
    """The numbers of the page are these values, rounded."""
    expected = torch.as_tensor(values, dtype=torch.float64).flatten().tolist()
    assert numbers == pytest.approx(expected, abs=0.5001 * 10**-digits + 1e-6)


def same(ours: Tensor, theirs: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=atol)


def test_the_nearest_code(hand: Hand) -> None:
    scene = Scene(hand, "nearest")
    assert scene.number("nearest.index") == "0"
    scene.move("inputs", 0, 0.1, 0.5)
    assert scene.number("nearest.index") == "1"
    scene.move("codes", 1, 1.2, 1.0)
    assert scene.number("nearest.index") != "1"
    z, codes = scene.rows("inputs"), scene.rows("codes")
    nearest, scores = lexel.nearest_code(z, codes, k=2, return_scores=True)
    assert scene.number("nearest.index") == str(nearest[0, 0].item())
    shows(scene.numbers("nearest.distance") + scene.numbers("nearest.next"), scores, 3)


def test_the_gradient_at_the_input(hand: Hand) -> None:
    scene = Scene(hand, "straight")
    before = scene.number("straight.atInput"), scene.numbers("straight.lie")[0]
    scene.move("inputs", 0, 1.3, -0.3)
    assert scene.number("straight.atInput") == before[0], "the same arrow at any distance"
    assert scene.numbers("straight.lie")[0] > before[1], "the lie grows with the distance"
    for value, estimator in (("straight-through", lexel.StraightThrough()), ("rotation", lexel.RotationTrick())):
        scene.choose("straight.estimator", value)
        state = scene.state()
        z, wish, codes = rows(state["z"]).requires_grad_(), rows(state["wish"]), rows(state["codes"])
        _, quantized = estimator.build(len(codes), 2)(z, codes)
        quantized.retain_grad()
        (quantized - wish).square().sum().backward()
        assert quantized.grad is not None
        assert z.grad is not None
        shows(scene.numbers("straight.atCode"), quantized.grad, 2)
        shows(scene.numbers("straight.atInput"), z.grad, 2)
        own = 2 * (z.detach() - wish)
        shows(scene.numbers("straight.own"), own, 2)
        shows(scene.numbers("straight.lie"), (z.grad - own).norm(), 2)


def test_the_two_losses(hand: Hand) -> None:
    scene = Scene(hand, "springs")
    for left_out in (None, "codebook", "commitment"):
        check_the_two_losses(scene, left_out)
        scene.press("again")
        if left_out:
            scene.toggle(f"springs.with{left_out.title()}")


def check_the_two_losses(scene: Scene, left_out: str | None) -> None:
    scene.move("inputs", 0, -0.7, -0.6)
    if left_out:
        scene.toggle(f"springs.with{left_out.title()}")
    scene.press("step", 3)
    state = scene.state()
    beta = 0.0 if left_out == "commitment" else state["settings"]["beta"]
    z = torch.nn.Parameter(rows(state["start"]["inputs"]))
    weight = 0.0 if left_out == "codebook" else 1.0
    vq = lexel.VectorQuantizer(1, 2, beta, learning=lexel.Gradient(weight=weight))
    vq.load_codes(rows(state["start"]["codes"]))
    optimizer = torch.optim.SGD([z, *vq.parameters()], state["rate"])
    starts = z.detach().clone(), vq.codebook.weight.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        vq(z).loss.backward()
        optimizer.step()
    same(scene.rows("inputs"), z)
    same(scene.rows("codes"), vq.codebook.weight)
    terms = vq(z).terms
    for name in ("codebook", "commitment"):
        if name == left_out:
            assert scene.number(f"springs.{name}") == "—"
        else:
            shows(scene.numbers(f"springs.{name}"), terms[name].detach(), 3)
    shows(scene.numbers("springs.inputPath"), (z - starts[0]).norm().detach(), 2)
    shows(scene.numbers("springs.codePath"), (vq.codebook.weight - starts[1]).norm().detach(), 2)
    moved = (scene.numbers("springs.codePath")[0] > 0, scene.numbers("springs.inputPath")[0] > 0)
    assert moved == (left_out != "codebook", left_out != "commitment")


def test_the_tug_of_the_task_runs_away_without_a_commitment(hand: Hand) -> None:
    """With both losses the gap stays small; without the commitment it grows larger."""
    gaps = []
    for turn in range(2):
        scene = Scene(hand, "springs")
        if not turn:
            scene.toggle("springs.tug")
            hand.slide(scene.control("beta"), to_end=True)
        else:
            scene.toggle("springs.withCommitment")
        scene.press("again")
        scene.steps(150)
        gaps.append((scene.rows("inputs") - scene.rows("codes")).norm().item())
    assert gaps[0] < 0.7 * gaps[1]


def test_the_order_of_the_statements(hand: Hand) -> None:
    scene = Scene(hand, "swapped")
    check_the_order_of_the_statements(scene, "right")
    scene.choose("swapped.order", "swapped")
    check_the_order_of_the_statements(scene, "swapped")


def check_the_order_of_the_statements(scene: Scene, order: str) -> None:
    scene.move("inputs", 0, -0.9, 0.9)
    start = scene.state()
    z, codes = (torch.nn.Parameter(rows(start[name])) for name in ("inputs", "codes"))
    lines = scene.root.locator(".listing li")
    assert lines.count() == 6
    for line in range(6):
        scene.press("step")
        assert lines.nth(line).get_attribute("aria-current") == "step"
        assert scene.root.locator("[aria-current]").count() == 1
    optimizer = torch.optim.SGD([z, codes], start["rate"])
    # The six lines that the page shows are run as they stand there.
    names = {
        "z": z,
        "codebook": codes,
        "nearest": lexel.nearest_code,
        "mse_loss": F.mse_loss,
        "optimizer": optimizer,
    }
    gradients = []
    for line in range(6):
        gradients = [None if part.grad is None else part.grad.clone() for part in (z, codes)] if line == 5 else []
        exec(lines.nth(line).text_content() or "", {}, names)
    same(scene.rows("inputs"), z)
    same(scene.rows("codes"), codes)
    assert gradients[0] is not None
    shows(scene.numbers("swapped.inputs"), gradients[0].norm(), 3)
    if order == "right":
        assert gradients[1] is not None
        shows(scene.numbers("swapped.codebook"), gradients[1].norm(), 3)
    else:
        assert gradients[1] is None
        assert scene.number("swapped.codebook") == "None"
        assert torch.equal(scene.rows("codes"), rows(start["codes"])), "the codebook never learns"
    indices = lexel.nearest_code(rows(start["inputs"]), rows(start["codes"]))
    gaps = [(rows(state["inputs"]) - rows(state["codes"])[indices]).norm() for state in (start, scene.state())]
    assert (gaps[1] > gaps[0]) == (order == "swapped"), "inputs come nearer, or flee"
    scene.press("back", 6)
    assert torch.equal(scene.rows("inputs"), rows(start["inputs"]))


def test_moving_averages(hand: Hand) -> None:
    scene = Scene(hand, "averages")
    scene.move("codes", 0, -0.3, 0.3)
    start, means = scene.state(), scene.rows("means")
    scene.press("step")
    same(scene.codes(), means, 1e-4)
    vq = lexel.VectorQuantizer(3, 2, learning=lexel.EMA(decay=0))
    vq.load_codes(rows(start["quantizer"]["codes"]))
    z = rows(start["inputs"])
    vq(z)
    one = lexel.kmeans(z, 3, init=rows(start["quantizer"]["codes"]), iterations=1, tolerance=0).codebook
    same(means, one, 1e-6)
    same(scene.codes(), vq.codebook.weight)
    hand.slide(scene.control("decay"), to_end=True)
    scene.press("step", 2)
    slow = lexel.VectorQuantizer(3, 2, learning=lexel.EMA(decay=0.99))
    slow.load_codes(vq.codebook.weight, count=vq.learning.count, sum=vq.learning.sum)
    for _ in range(2):
        slow(z)
    same(scene.codes(), slow.codebook.weight)
    error = (z - slow.eval()(z).quantized).square().mean()
    shows(scene.numbers("error"), error, 4)
    scene.toggle("averages.whole")
    scene.press("step")
    assert len(scene.root.locator(".input.faint").all()) == len(z) - 12


def test_collapse_and_revival(hand: Hand) -> None:
    scene = Scene(hand, "collapse")
    healthy = scene.numbers("perplexity")[0]
    scene.press("collapse.corner")
    assert scene.numbers("perplexity")[0] < healthy / 4
    scene.toggle("collapse.revival")
    start = scene.state()
    steps = 60
    scene.steps(steps)
    vq = lexel.VectorQuantizer(16, 2, upkeep=lexel.Revival())
    vq.load_codes(rows(start["quantizer"]["codes"]))
    z = rows(start["inputs"])
    optimizer = torch.optim.SGD(vq.parameters(), start["rate"])
    for _ in range(steps):
        optimizer.zero_grad()
        vq(z).loss.backward()
        optimizer.step()
    same(scene.codes(), vq.codebook.weight, 1e-4)
    output = vq.eval()(z)
    shows(scene.numbers("perplexity"), output.perplexity, 2)
    shows(scene.numbers("error"), output.terms["commitment"], 4)
    assert scene.numbers("used")[0] == len(output.indices.unique())
    assert scene.numbers("perplexity")[0] > healthy * 0.8
    scene.press("collapse.corner")
    scene.press("collapse.kmeans")
    assert scene.numbers("used") == [16, 16]


def test_the_run_button_runs_and_pauses(hand: Hand) -> None:
    scene = Scene(hand, "collapse")
    scene.press("run")
    hand.page.wait_for_function("document.querySelector('#collapse [data-number=steps]').textContent >= 3")
    scene.press("pause")
    steps = scene.number("steps")
    hand.page.wait_for_timeout(150)
    assert scene.number("steps") == steps
    scene.press("back")
    assert int(scene.number("steps")) == int(steps) - 1
    scene.press("again")
    assert scene.number("steps") == "0"


def test_the_expanded_distance_far_from_the_origin(hand: Hand) -> None:
    scene = Scene(hand, "cost")
    wrong = []
    for to_end in (False, True):
        hand.slide(scene.control("cost.shift"), to_end=to_end)
        state = scene.state()
        z, codes = rows(state["z"]), rows(state["e"])
        exact = lexel.nearest_code(z, codes)
        assert state["exact"] == exact.tolist()
        squares = [part[:, 0] * part[:, 0] + part[:, 1] * part[:, 1] for part in (z, codes)]
        product = z[:, :1] * codes[:, 0] + z[:, 1:] * codes[:, 1]
        expanded = (squares[0][:, None] + squares[1] - 2 * product).argmin(1)
        wrong.append(int((expanded != exact).sum()))
        assert scene.numbers("cost.wrong") == [wrong[-1], len(z)]
        assert scene.root.locator(".input.wrong").count() == wrong[-1]
    assert wrong[0] == 0
    assert wrong[1] > 50
    scene.toggle("cost.exact")
    assert scene.root.locator(".input.wrong").count() == 0
    for name in ("cost.N", "cost.K"):
        hand.slide(scene.control(name), to_end=True)
    assert "4 TiB" in (scene.root.locator(".matrix").text_content() or "")


def test_the_playground(hand: Hand) -> None:
    scene = Scene(hand, "playground")
    scene.choose("playground.source", "moons")
    hand.slide(scene.control("playground.batch"), to_end=True)
    for learning in ("gradient", "ema"):
        check_the_playground(scene, learning)
        scene.press("again")


def check_the_playground(scene: Scene, learning: str) -> None:
    scene.choose("playground.learning", learning)
    scene.move("codes", 0, -1.0, 0.9)
    start = scene.state()
    scene.press("step", 3)
    settings = start["settings"]
    assert settings["batch"] == len(rows(start["inputs"]))
    vq = lexel.VectorQuantizer(
        settings["K"], 2, learning=lexel.EMA(settings["decay"]) if learning == "ema" else lexel.Gradient()
    )
    vq.load_codes(rows(start["quantizer"]["codes"]))
    z = rows(start["inputs"])
    for _ in range(3):
        loss = vq(z).loss
        if learning == "gradient":
            vq.zero_grad()
            loss.backward()
            with torch.no_grad():
                vq.codebook.weight -= settings["rate"] * vq.codebook.weight.grad
    same(scene.codes(), vq.codebook.weight)
    output = vq.eval()(z)
    shows(scene.numbers("perplexity"), output.perplexity, 2)
    shows(scene.numbers("playground.loss"), output.loss.detach(), 4)


def test_painted_inputs_and_few_codes(hand: Hand) -> None:
    scene = Scene(hand, "playground")
    scene.choose("playground.source", "painted")
    assert scene.root.locator(".input").count() == 0
    hand.paint(scene.root, [(-0.96, 0.4), (-0.32, 0.4), (0.32, 0.4), (0.96, 0.4)])
    painted = scene.root.locator(".input").count()
    assert painted >= 4
    hand.slide(scene.control("K"), to_end=False)
    assert scene.root.locator(".input").count() == painted
    scene.press("step", 2)
    assert scene.number("steps") == "2"
    scene.press("playground.clear")
    assert scene.root.locator(".input").count() == 0


def test_colours_of_an_image_and_files_that_are_none(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    scene = Scene(HANDS["mouse"](page), "playground")
    scene.choose("playground.source", "image")
    Image.fromarray(np.full((40, 30, 3), (200, 40, 40), np.uint8)).save(tmp_path / "red.png")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    with (tmp_path / "large.png").open("wb") as large:
        large.truncate(45_000_000)
    choose, complaint = scene.root.locator("input[type=file]"), scene.root.locator(".complaint")
    assert not complaint.is_visible()
    choose.set_input_files(tmp_path / "red.png")
    page.wait_for_selector("#playground .input")
    z = scene.rows("inputs")
    same(z, torch.tensor([160 / 255 * 2, (40 - 120) / 255 * 1.8]).expand_as(z), 1e-2)
    for name, words in (("text", "no image"), ("empty", "no image"), ("large", "larger than")):
        choose.set_input_files(tmp_path / f"{name}.png")
        page.wait_for_function(f"document.querySelector('.complaint').textContent.includes('{words}')")
        assert torch.equal(scene.rows("inputs"), z), "what was there stays"
    scene.press("step")
    choose.set_input_files(tmp_path / "red.png")
    complaint.wait_for(state="hidden")
    assert scene.number("steps") == "0"


def test_a_file_may_be_dropped_anywhere(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    Image.new("RGB", (1500, 1500), "navy").save(tmp_path / "large.png")
    drop = """([bytes, target]) => {
        const data = new DataTransfer();
        data.items.add(new File([Uint8Array.from(bytes)], "dropped"));
        return document.querySelector(target).dispatchEvent(
            new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
    }"""
    assert not page.evaluate(drop, [list(b"plain text"), "#nearest"]), "the browser does not leave the page"
    page.wait_for_function("document.querySelector('.complaint').checkVisibility()")
    assert page.locator("#playground .input").count() > 0
    page.evaluate(drop, [list((tmp_path / "large.png").read_bytes()), "header"])
    page.wait_for_function("document.querySelector('#playground [value=image]').checked")
    assert not page.locator(".complaint").is_visible()


def test_the_statements_make_what_the_page_shows(reader: Hand) -> None:
    """Each statement is run in torch as it stands on the page, on the page's vectors and codes."""
    scene = Scene(reader, "forward")
    scene.move("inputs", 1, 0.5, 0.2)
    scene.move("codes", 2, -0.2, 0.6)
    z, codes = scene.rows("inputs"), scene.rows("codes")
    inputs = z.view(1, 2, 2, 2).permute(0, 3, 1, 2)
    names: dict[str, Any] = {"torch": torch, "nn": torch.nn, "F": F, "inputs": inputs}
    statements = scene.root.locator(".statement")
    assert statements.count() == 14, "as the words above say"
    for number in range(statements.count()):
        if number:
            scene.press("statements.after")
        current = scene.root.locator(".statement[aria-current]")
        assert current.count() == 1
        code = current.text_content() or ""
        assert code == statements.nth(number).text_content()
        exec(code, names)
        name, _, shape = (scene.root.locator(".tensor .name").text_content() or "").partition("  ")
        if number == 0:
            assert names["codebook"].weight.abs().max() <= 1 / 3
            names["codebook"].weight.data.copy_(codes)
        made = eval(name.split(", ")[0], names)
        assert str(tuple(made.shape)) == shape
        shown = [text.replace("−", "-") for text in scene.root.locator(".tensor td").all_text_contents()]
        shows([float(text) for text in shown], made.detach(), 3)
    assert scene.root.locator('[data-action="statements.after"]').is_disabled()
    scene.press("statements.before")
    reader.press(statements.first)
    assert statements.first.get_attribute("aria-current") is not None


def test_the_puzzle_of_the_two_orders(reader: Hand) -> None:
    scene = Scene(reader, "orders")
    verdict = scene.root.locator(".verdict")
    start = {order: scene.state()[order] for order in ("first", "last")}
    for order in start:
        assert not verdict.is_visible(), "no verdict before both have been run"
        reader.press(scene.root.locator(f'button[data-order="{order}"]'))
    verdict.wait_for()
    assert [scene.state()[order]["steps"] for order in start] == [16, 16]
    end = scene.state()
    said = [float(part) for part in verdict.locator("b").all_text_contents()]
    for order, (moved, gap) in {"first": (said[0], said[1]), "last": (said[2], said[3])}.items():
        z, codes = (torch.nn.Parameter(rows(start[order][name])) for name in ("inputs", "table"))
        first = codes.detach().clone()
        optimizer = torch.optim.SGD([z, codes], end["rate"])
        for _ in range(16):
            optimizer.zero_grad()
            e = codes[lexel.nearest_code(z, codes)]
            if order == "last":
                e = z + (e - z).detach()
            (F.mse_loss(e, z.detach()) + end["beta"] * F.mse_loss(e.detach(), z)).backward()
            optimizer.step()
        same(rows(end[order]["inputs"]), z, 1e-4)
        same(rows(end[order]["table"]), codes, 1e-4)
        shows([moved], (codes - first).norm(dim=1).mean().detach(), 2)
        shows([gap], (z - codes[lexel.nearest_code(z, codes)]).norm(dim=1).mean().detach(), 2)
    assert said[0] > 0
    assert said[2] == 0, "the codebook never learns"
    assert said[1] < said[3]


@pytest.mark.parametrize(
    ("locale", "scheme", "width"),
    [  # every two of them together
        ("en-GB", "light", "desktop"),
        ("en-GB", "dark", "phone"),
        ("zh-CN", "dark", "desktop"),
        ("zh-CN", "light", "phone"),
    ],
)
def test_languages_themes_and_widths(locale: str, scheme: Any, width: str, open_page: Open) -> None:
    other = open_page(
        "statements", locale=locale, color_scheme=scheme, viewport={"width": WIDTHS[width], "height": 800}
    )
    assert other.evaluate("document.documentElement.scrollWidth") == WIDTHS[width]
    page = open_page(locale=locale, color_scheme=scheme, viewport={"width": WIDTHS[width], "height": 800})
    root = page.locator("html")
    assert root.get_attribute("lang") == ("en" if locale == "en-GB" else "zh-CN")
    assert page.evaluate("document.documentElement.scrollWidth") == WIDTHS[width]
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click('[data-action="theme"]')
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != paper
    texts = page.locator("h1, h2, .say, .do, button, label, dt").all_text_contents()
    chinese = [bool(re.search(r"[一-鿿]", text)) for text in texts if len(text) > 6]
    assert sum(chinese) > 0.95 * len(chinese) if locale == "zh-CN" else sum(chinese) == 0
    page.click('#collapse [data-action="step"]')
    page.click('[data-action="other-language"]')
    assert root.get_attribute("lang") == ("zh-CN" if locale == "en-GB" else "en")
    assert page.locator("#collapse [data-number=steps]").text_content() == "1", "the language changes, not the state"
    page.reload()
    assert root.get_attribute("lang") == ("zh-CN" if locale == "en-GB" else "en"), "the choice is remembered"


def test_both_languages_have_every_text(open_page: Open) -> None:
    page = open_page()
    every_text_in_both_languages(page, "play", "strings")


def test_a_finger_scrolls_unless_it_holds_a_point(open_page: Open) -> None:
    page = open_page(viewport={"width": WIDTHS["phone"], "height": 800}, has_touch=True)
    finger, scene = HANDS["touch"](page), page.locator("#swapped")
    assert isinstance(finger, Finger)
    scene.locator(".plane").scroll_into_view_if_needed()
    heights = [page.evaluate("scrollY")]
    for start in (place(scene, "inputs", 3), (1.45, 0.9)):
        finger.stroke([pixel(scene, (start[0], start[1] - step / 10)) for step in range(9)])
        heights.append(page.evaluate("scrollY"))
    assert heights[0] == heights[1] != heights[2]


def test_a_point_belongs_to_the_finger_that_took_it(open_page: Open) -> None:
    """A second finger on another point, or on a control that takes the point away, does nothing to either."""
    page = open_page(viewport={"width": WIDTHS["phone"], "height": 800}, has_touch=True)
    wire = page.context.new_cdp_session(page)

    def touch(kind: str, *points: Point) -> None:
        found = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        wire.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": found})

    scene = Scene(HANDS["touch"](page), "nearest")
    scene.root.locator(".plane").scroll_into_view_if_needed()
    before = scene.rows("codes")
    first, second = (pixel(scene.root, (x, y)) for x, y in before[:2].tolist())
    touch("touchStart", first)
    touch("touchStart", first, second)
    touch("touchMove", (first[0], first[1] + 40), (second[0], second[1] + 40))
    touch("touchEnd")
    moved = (scene.rows("codes") - before).norm(dim=1)
    assert moved[0] > 0.1
    assert moved[1:].max() == 0

    scene = Scene(scene.hand, "playground")
    scene.root.locator(".plane").scroll_into_view_if_needed()
    held = pixel(scene.root, place(scene.root, "codes", 15))
    touch("touchStart", held)
    slide = "input => { input.value = 2; input.dispatchEvent(new Event('input')); }"
    scene.control("K").evaluate(slide)
    touch("touchMove", (held[0], held[1] + 40))
    touch("touchEnd")
    assert scene.root.locator(".code").count() == 2


def test_nothing_is_painted_outside_of_the_plane(open_page: Open) -> None:
    scene = Scene(HANDS["mouse"](open_page(viewport={"width": 1280, "height": 800})), "playground")
    scene.choose("playground.source", "painted")
    scene.hand.paint(scene.root, [(-1.0, 0.4), (0.0, 0.4), (-4.0, 3.0), (9.0, -9.0), (1.0, 0.4)])
    painted = scene.rows("inputs")
    assert len(painted) == 3
    assert (painted.abs() <= torch.tensor(HALF)).all()


def test_codes_glide_to_where_they_are(open_page: Open) -> None:
    page = open_page(reduced_motion="no-preference", viewport={"width": 1280, "height": 800})
    place = "document.querySelector('#averages .code').getAttribute('transform')"
    before = page.evaluate(place)
    page.click('#averages [data-action="step"]')
    page.wait_for_function(
        """() => {
            const [x, y] = Object.values(document.querySelector("#averages").state().quantizer.codes);
            const width = document.querySelector("#averages .plane").clientWidth;
            const [left, top] = document.querySelector("#averages .code").getAttribute("transform").match(/[\\d.]+/g);
            const at = [((x + 1.6) / 3.2) * width, ((1.2 - y) / 3.2) * width];
            return Math.hypot(left - at[0], top - at[1]) < 1e-3;
        }"""
    )
    assert page.evaluate(place) != before


def test_many_points_are_one_stop_of_the_tab_key(open_page: Open) -> None:
    page = open_page()
    inputs = page.locator("#playground .inputs [tabindex='0']")
    assert inputs.count() == 1
    inputs.focus()
    page.keyboard.press("PageDown")
    page.keyboard.press("PageDown")
    assert page.evaluate("[...document.querySelectorAll('#playground .input')].indexOf(document.activeElement)") == 2
