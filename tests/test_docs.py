"""The documentation's code runs, prints what the pages say it prints, and is the same in every language."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
TRANSLATIONS = [page for page in PAGES if page.name.endswith(".zh-CN.md")]
RUN, COMPILE_ONLY, OUTPUT = "python", "python no-run", "text"
LABELS = {RUN, COMPILE_ONLY, OUTPUT, "bash", "math", "yaml", "json", "bibtex", ""}

of_every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def tokens(page: Path) -> list[Token]:
    return MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8"))


def code_blocks(page: Path) -> list[Token]:
    return [token for token in tokens(page) if token.type == "fence" and token.info in (RUN, COMPILE_ONLY)]


def syntax(block: Token, page: Path) -> ast.Module:
    """Parse a block at its own place in the page, so that a traceback shows the page's line."""
    assert block.map is not None
    return ast.increment_lineno(ast.parse(block.content, str(page)), block.map[0] + 1)


def check(page: Path) -> None:
    """Run a page's blocks in one namespace; each must print the output block that directly follows it, if one does."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for token, following in pairwise([*tokens(page), None]):
        if token is None or token.type != "fence" or token.info not in (RUN, COMPILE_ONLY):
            continue
        code = compile(syntax(token, page), str(page), "exec", dont_inherit=True)
        if token.info == COMPILE_ONLY:
            continue
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, namespace)
        if following is not None and following.type == "fence" and following.info == OUTPUT:
            assert token.map is not None
            assert printed.getvalue().rstrip() == following.content.rstrip(), f"{page.name}, line {token.map[0] + 1}"


def promise(page: Path) -> list[tuple[str, str, str | None]]:
    """What `check` checks of a page: each block, less its comments, and the output that the page shows after it."""
    return [
        (token.info, ast.dump(syntax(token, page)), after.content.rstrip() if after and after.info == OUTPUT else None)
        for token, after in pairwise([*tokens(page), None])
        if token and token.type == "fence" and token.info in (RUN, COMPILE_ONLY)
    ]


ONCE = {json.dumps(promise(page)): page for page in reversed(PAGES)}


@pytest.mark.parametrize("page", ONCE.values(), ids=lambda page: str(page.relative_to(ROOT)))
def test_code_runs_and_prints_what_the_page_shows(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for pages that promise the same, as many translations do."""
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        check(page)


@of_every_page
def test_every_block_says_what_it_is(page: Path) -> None:
    """A misspelt label would take a block out of the tests unseen."""
    assert {token.info for token in tokens(page) if token.type == "fence"} <= LABELS


def anchors(page: Path) -> set[str]:
    """Return the names that GitHub gives to a page's headings."""
    everything = tokens(page)
    headings = [inline.content for token, inline in pairwise(everything) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@of_every_page
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    inline = [child for token in tokens(page) for child in token.children or []]
    targets = {
        unquote(str(target)) for child in inline for target in (child.attrGet("href"), child.attrGet("src")) if target
    }
    for target in targets:
        path, _, anchor = target.partition("#")
        if ":" not in path:
            assert (page.parent / path).exists(), target
            assert not anchor or anchor in anchors(page.parent / path if path else page), target


class _WithoutStrings(ast.NodeTransformer):
    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.JoinedStr:
        return ast.JoinedStr([self.visit(part) for part in node.values if isinstance(part, ast.FormattedValue)])


@pytest.mark.parametrize("translation", TRANSLATIONS, ids=lambda page: str(page.relative_to(ROOT)))
def test_translations_have_the_same_code(translation: Path) -> None:
    """The same blocks, once comments and string literals are removed."""
    pages = translation, translation.with_name(translation.name.replace(".zh-CN.md", ".md"))
    ours, theirs = (
        [(block.info, ast.unparse(_WithoutStrings().visit(syntax(block, page)))) for block in code_blocks(page)]
        for page in pages
    )
    assert ours == theirs


@pytest.mark.parametrize("translation", TRANSLATIONS, ids=lambda page: str(page.relative_to(ROOT)))
def test_translations_have_the_same_headings_and_blocks(translation: Path) -> None:
    """As many of each level, in the same order, with the same kinds of blocks between them."""
    ours, theirs = (
        [token.tag + token.info for token in tokens(page) if token.type in ("heading_open", "fence")]
        for page in (translation, translation.with_name(translation.name.replace(".zh-CN.md", ".md")))
    )
    assert ours == theirs


@pytest.mark.parametrize("translation", TRANSLATIONS, ids=lambda page: str(page.relative_to(ROOT)))
def test_translations_have_the_same_figures_where_a_command_writes_them(translation: Path) -> None:
    """A command that renews a table in one language must not leave an old one in the other."""
    ours, theirs = (
        {
            name: [re.findall(r"\d+(?:[.,]\d+)*", line) for line in section.splitlines() if line.startswith("|")]
            for name, section in re.findall(r"<!-- (\w+) -->(.*?)<!-- end", page.read_text(encoding="utf-8"), re.DOTALL)
        }
        for page in (translation, translation.with_name(translation.name.replace(".zh-CN.md", ".md")))
    )
    assert {name: theirs[name] for name in ours} == ours


@pytest.mark.parametrize(
    ("blocks", "error"),
    [
        ("```python\nx = 1\n```\n\ntext\n\n```python\nprint(x)\n```\n\n```text\n1\n```", None),
        ("```python\nprint(1)\n```\n\nas it happens:\n\n```text\n2\n```", None),
        ("```python no-run\n1 / 0\n```", None),
        ("```python no-run\n1 /\n```", SyntaxError),
        ("```python\n1 / 0\n```", ZeroDivisionError),
        ("```python\nprint(1)\n```\n```text\n2\n```", AssertionError),
        ("- in a list:\n\n  ```python\n  print(1)\n  ```\n\n  ```text\n  2\n  ```", AssertionError),
    ],
)
def test_a_wrong_block_is_noticed(blocks: str, error: type[Exception] | None, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(blocks, encoding="utf-8")
    with pytest.raises(error) if error else contextlib.nullcontext():
        check(page)
