"""The page of IDs: every item under its prefixes, opened by a pointer, the keyboard or a search."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page, expect

import lexel
from lexel.report import ids as ids_module
from lexel.report.ids import IDReport, prefix_tree, write_id_report
from lexel.tokens import Facts, IDs
from lexel.tokens.quality import quality_of
from tests.report.test_page import browser, opened

__all__ = ["browser"]  # the fixture

HOSTILE = "</script><script>alert(1)</script>"


def some(count: int = 60, sizes: tuple[int, ...] = (3, 4, 5)) -> IDReport:
    generator = np.random.default_rng(0)
    codes = np.stack([generator.integers(0, size, count) for size in sizes], 1)
    facts = Facts("vectors", max(sizes), sizes, "model", None, ("strings", HOSTILE))
    ids = IDs([f"item {n}" for n in range(count)], codes, facts, labels=generator.integers(0, 2, count))
    texts = [f"words of {n} {HOSTILE if n % 7 == 0 else ''}".strip() for n in range(count)]
    return IDReport("Lutes & <harps>", ids, None, texts)


def lines(page: Page) -> list[tuple[str, str]]:
    """What stands in the tree, if it can be seen: the kind of each line and its first words."""
    script = """() => [...document.querySelectorAll("#branches summary, #branches li")]
        .filter((line) => line.checkVisibility())
        .map((line) => [line.tagName, line.querySelector("b")?.textContent ?? line.textContent])"""
    return [tuple(line) for line in page.evaluate(script)]


def items_under(tree: dict[str, Any], level: int, node: int) -> list[str]:
    low, high = tree["levels"][level]["starts"][node : node + 2]
    return [name for name, at in zip(tree["items"]["names"], tree["items"]["at"], strict=True) if low <= at < high]


class TestTheData:
    def test_each_prefix_has_its_items(self) -> None:
        report = some()
        tree = prefix_tree(report)
        for level, own in enumerate(tree["levels"]):
            prefixes = sorted({tuple(code[: level + 1]) for code in report.ids.codes.tolist()})
            assert own["codes"] == [prefix[-1] for prefix in prefixes]
            for node, prefix in enumerate(prefixes):
                items = report.ids.items[prefix]
                assert items_under(tree, level, node) == items
                counts = Counter(report.ids.labels[report.ids.rows(items)].tolist())
                assert own["share"][node] == pytest.approx(max(counts.values()) / len(items), abs=1e-4)
                assert counts[own["classes"][node]] == max(counts.values())
        for name, code, text, label in zip(
            *(tree["items"][key] for key in ("names", "codes", "texts", "classes")), strict=True
        ):
            row = report.ids.rows([name])[0]
            assert (tuple(code), text, label) == (report.ids[name], report.texts[row], report.ids.labels[row])

    def test_too_many_are_thinned(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The longest prefixes go first, and what remains of the items is spread over each branch."""
        monkeypatch.setattr(ids_module, "MOST_NODES", 3 + 12)
        monkeypatch.setattr(ids_module, "MOST_ITEMS", 24)
        report = some(600)
        tree = prefix_tree(report)
        assert (len(tree["levels"]), tree["depth"], tree["count"]) == (2, 3, 600)
        for node, (low, high) in enumerate(
            zip(tree["levels"][1]["starts"], tree["levels"][1]["starts"][1:], strict=False)
        ):
            under = items_under(tree, 1, node)
            assert len(under) == 2
            whole = [*report.ids.items.array.take(report.ids.trie().order[low:high].numpy()).to_pylist()]
            assert under == [whole[0], whole[(high - low) // 2]]

    def test_long_texts_are_cut(self) -> None:
        report = IDReport("a", some(2).ids, None, ["x" * 1000, "x" * 200])
        assert sorted(map(len, prefix_tree(report)["items"]["texts"])) == [200, 200]


class TestThePage:
    @pytest.fixture
    def shown(self, browser: Browser, tmp_path: Path) -> Any:
        path = write_id_report(some(), tmp_path / "ids.html")
        page, noise = opened(browser, path)
        yield some(), page
        page.close()
        assert not noise

    def test_all_items_come_to_light(self, shown: Any) -> None:
        report, page = shown
        assert page.title() == "Lutes & <harps> · Lexel report"
        assert lines(page) == [("SUMMARY", "0"), ("SUMMARY", "1"), ("SUMMARY", "2")]
        while page.locator("#branches details:not([open])").count():
            page.locator("#branches details:not([open]) > summary").first.click()
            expect(page.locator("#branches details[open]:not(:has(> :nth-child(2)))")).to_have_count(
                0
            )  # all are filled
        assert sorted(name for kind, name in lines(page) if kind == "LI") == sorted(report.ids)
        for item in ("item 3", "item 14"):
            line = page.locator("#branches li", has=page.get_by_text(item, exact=True))
            assert re.sub(r"\s+", " ", line.inner_text()).startswith(f"{item} words of {item[5:]}")
            assert line.inner_text().endswith(" ".join(map(str, report.ids[item])))

    def test_the_keyboard_walks_it(self, shown: Any) -> None:
        report, page = shown
        page.locator("#branches summary").first.focus()
        page.keyboard.press("ArrowRight")
        inner = sorted({code[1] for code in report.ids.codes.tolist() if code[0] == 0})
        closed = [("SUMMARY", "0"), ("SUMMARY", "1"), ("SUMMARY", "2")]
        page.wait_for_selector("#branches details details")
        assert lines(page) == [closed[0], *(("SUMMARY", str(code)) for code in inner), *closed[1:]]
        focused = "() => document.activeElement.querySelector('b').textContent"
        page.keyboard.press("ArrowDown")
        assert page.evaluate(focused) == str(inner[0])
        page.keyboard.press("ArrowLeft")
        assert page.evaluate(focused) == "0"
        page.keyboard.press("ArrowLeft")
        assert lines(page) == closed
        page.keyboard.press("End")
        assert page.evaluate(focused) == "2"
        page.keyboard.press("ArrowUp")
        assert page.evaluate(focused) == "1"

    def test_an_item_is_found_by_its_text(self, shown: Any) -> None:
        _, page = shown
        page.fill("#seek", "WORDS of 14")
        page.locator("#sought button").click()
        assert page.evaluate("document.activeElement.querySelector('b').textContent") == "item 14"
        assert ("LI", "item 14") in lines(page)
        page.fill("#seek", "nothing like it")
        assert page.locator("#sought").inner_text() == "No item that the page names has that."

    def test_the_largest_come_first_if_asked(self, shown: Any) -> None:
        report, page = shown
        page.select_option("#order", "size")
        counts = Counter(report.ids.codes[:, 0].tolist())
        assert [name for _, name in lines(page)] == [str(code) for code, _ in counts.most_common()]

    def test_without_labels_texts_and_figures(self, browser: Browser, tmp_path: Path) -> None:
        ids = IDs([2**60, 5], [[1], [0]], Facts("vectors", 2, (2,), ""))
        page, noise = opened(browser, write_id_report(IDReport("a", ids), tmp_path / "ids.html"))
        page.locator("summary").nth(1).click()
        page.wait_for_selector("#branches li")
        assert lines(page) == [("SUMMARY", "0"), ("SUMMARY", "1"), ("LI", str(2**60))]
        assert not page.locator("#levels").count()
        page.close()
        assert not noise


class TestWriting:
    def test_figures(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        vq = lexel.VectorQuantizer(4, 2).eval().requires_grad_(False)
        for count, label in ((30, True), (1, False)):
            x = torch.randn(count, 2)
            facts = Facts("vectors", 4, (4,), "")
            ids = IDs(range(count), vq(x).indices, facts, labels=[0] * count if label else None)
            quality = quality_of(ids, x, lambda codes: vq.lookup(codes[:, 0]))
            text = write_id_report(IDReport("a", ids, quality), tmp_path / f"{count}.html").read_text()
            assert f"{quality.levels[0].used} of 4" in text
            assert ("recall@10" in text, "NMI" in text) == (label, label)

    def test_refusals(self, tmp_path: Path) -> None:
        out = tmp_path / "ids.html"
        with pytest.raises(ValueError, match="1 texts for 60 items"):
            write_id_report(IDReport("a", some().ids, None, ["x"]), out)
        out.write_text("not a report")
        with pytest.raises(FileExistsError, match=r"ids\.html exists"):
            write_id_report(some(), out)
        assert out.read_text() == "not a report"
        write_id_report(some(), out, overwrite=True)
        write_id_report(some(), out)  # a report may be replaced
