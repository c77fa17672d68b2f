"""Three ways to drive the page: a mouse, a finger, the keyboard."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from playwright.sync_api import Locator, Page

Point = tuple[float, float]
HALF = 1.6, 1.2  # of the plane


class Hand(ABC):
    """Moves, presses and slides what a scene shows."""

    touches = False

    def __init__(self, page: Page) -> None:
        self.page = page

    @abstractmethod
    def move(self, scene: Locator, kind: str, number: int, to: Point) -> None:
        """Move a code or an input to (about) a point of the plane."""

    @abstractmethod
    def press(self, target: Locator) -> None:
        """Press a button, or tick a box, or choose one of several."""

    @abstractmethod
    def slide(self, slider: Locator, *, to_end: bool) -> None:
        """Take a slider to one of its ends."""

    @abstractmethod
    def paint(self, scene: Locator, points: list[Point]) -> None:
        """Paint inputs at (about) these points."""


def pixel(scene: Locator, point: Point) -> Point:
    box = scene.locator(".plane").bounding_box()
    assert box
    x, y = ((point[0] / HALF[0] + 1) / 2, (1 - point[1] / HALF[1]) / 2)
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def place(scene: Locator, kind: str, number: int) -> Point:
    x, y = scene.evaluate(
        """(scene, [kind, i]) => {
            const handle = scene.querySelectorAll(`.${kind} > *`)[i];
            return handle.getAttribute("aria-label").replaceAll("−", "-").match(/-?\\d+\\.\\d+/g).map(Number);
        }""",
        [kind, number],
    )
    return x, y


class _Pointer(Hand):
    @abstractmethod
    def stroke(self, pixels: list[Point]) -> None:
        """Press at the first of them, go to all others, and let go."""

    def move(self, scene: Locator, kind: str, number: int, to: Point) -> None:
        scene.locator(".plane").scroll_into_view_if_needed()
        start = place(scene, kind, number)
        way = [tuple(a + (b - a) * t / 4 for a, b in zip(start, to, strict=True)) for t in range(5)]
        self.stroke([pixel(scene, (x, y)) for x, y in way])

    def paint(self, scene: Locator, points: list[Point]) -> None:
        scene.locator(".plane").scroll_into_view_if_needed()
        self.stroke([pixel(scene, point) for point in points])

    def slide(self, slider: Locator, *, to_end: bool) -> None:
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        assert box
        ends = [(box["x"] + part * box["width"], box["y"] + box["height"] / 2) for part in (0.5, float(to_end))]
        self.stroke([ends[0], (ends[0][0] * 0.4 + ends[1][0] * 0.6, ends[1][1]), ends[1]])


class Mouse(_Pointer):
    def stroke(self, pixels: list[Point]) -> None:
        self.page.mouse.move(*pixels[0])
        self.page.mouse.down()
        for x, y in pixels[1:]:
            self.page.mouse.move(x, y)
        self.page.mouse.up()

    def press(self, target: Locator) -> None:
        target.click()


class Finger(_Pointer):
    touches = True

    def stroke(self, pixels: list[Point]) -> None:
        wire = self.page.context.new_cdp_session(self.page)

        def send(kind: str, points: list[dict[str, Any]]) -> None:
            wire.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        for i, (x, y) in enumerate(pixels):
            send("touchMove" if i else "touchStart", [{"x": x, "y": y}])
        self.page.wait_for_timeout(150)  # a finger that rests before it is lifted flings nothing far
        send("touchEnd", [])
        self.page.wait_for_timeout(300)  # a tap that follows at once would stop the fling, and press nothing
        wire.detach()

    def press(self, target: Locator) -> None:
        # The click of a tap comes later than its touches, and not at all while the page still slides: then tap again.
        target.evaluate("""target => {
            globalThis.pressed = false;
            target.addEventListener("click", () => (globalThis.pressed = true), { once: true });
        }""")
        for _ in range(5):
            target.tap()
            for _ in range(50):
                if self.page.evaluate("globalThis.pressed"):
                    return
                self.page.wait_for_timeout(20)
        raise AssertionError("no tap became a click")


class Keyboard(Hand):
    def move(self, scene: Locator, kind: str, number: int, to: Point) -> None:
        handle = scene.locator(f".{kind} > *").nth(number)
        handle.focus()
        start = place(scene, kind, number)
        for distance, less, more in (
            (to[0] - start[0], "ArrowLeft", "ArrowRight"),
            (to[1] - start[1], "ArrowDown", "ArrowUp"),
        ):
            key = more if distance > 0 else less
            large, small = divmod(round(abs(distance) / 0.04), 5)
            for press in [f"Shift+{key}"] * large + [key] * small:
                self.page.keyboard.press(press)

    def press(self, target: Locator) -> None:
        kind = target.evaluate("target => target.type")
        if kind != "radio":
            target.focus()
            self.page.keyboard.press("Space" if kind == "checkbox" else "Enter")
            return
        target.evaluate("target => document.querySelector(`input[name=${target.name}]:checked`).focus()")
        for _ in range(8):
            if target.is_checked():
                return
            self.page.keyboard.press("ArrowRight")
        raise AssertionError("no arrow key comes to this choice")

    def slide(self, slider: Locator, *, to_end: bool) -> None:
        slider.focus()
        self.page.keyboard.press("End" if to_end else "Home")

    def paint(self, scene: Locator, points: list[Point]) -> None:
        scene.locator(".plane").focus()
        at = 0.0, 0.0
        for point in points:
            for here, there, less, more in zip(
                at, point, ("ArrowLeft", "ArrowDown"), ("ArrowRight", "ArrowUp"), strict=True
            ):
                for _ in range(round(abs(there - here) / 0.08)):
                    self.page.keyboard.press(more if there > here else less)
            at = point
            self.page.keyboard.press("Space")


HANDS: dict[str, type[Hand]] = {"mouse": Mouse, "touch": Finger, "keyboard": Keyboard}
