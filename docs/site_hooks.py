"""What `make docs` changes in the pages that are read in the repository as well."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import griffe
from latex2mathml import converter
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify
from typing_extensions import override

MODULE = re.compile(r"^::: (lexel\.[\w.]+)$", re.MULTILINE)
slug = slugify(case="lower")
CHINESE = "\u3000-\u303f\u4e00-\u9fff\uff00-\uffef“”"
MARKS = "\u3000-\u303f\uff00-\uffef"  # punctuation as wide as a letter, which brings its own space
LINE_END = re.compile(rf"(?<=[{CHINESE}])\n(?=[{CHINESE}])|(?<=[{MARKS}])\n|\n(?=[{MARKS}])")
HEADING = re.compile(r"^```.*?^```|^#+ (?P<title>[^\n]+)$", re.MULTILINE | re.DOTALL)
UNTOUCHED = re.compile(r"(<(pre|script|textarea|svg)\b.*?</\2>)", re.DOTALL)
# What the theme brings along for developers of the theme, and for languages that are not here.
UNUSED = ("**/*.map", "assets/javascripts/lunr/wordcut.js", "assets/javascripts/lunr/tinyseg.js")
USED_FOR_WORDS = {"lunr.multi.min.js", "lunr.stemmer.support.min.js", "lunr.zh.min.js"}


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Leave out the link to the other language, which the site has a switch for; lead from modules to their API.

    A word after a fence's language is for the tests, and no fence to Markdown's parser.
    """
    markdown = re.sub(r"^(```[a-z]+) [a-z-]+$", r"\1", markdown, flags=re.MULTILINE)
    markdown = re.sub(r"^\[(简体中文|English)\]\([\w.-]+\)\n", "", markdown, flags=re.MULTILINE)
    source = Path(config.docs_dir) / page.file.src_uri
    if source.name.endswith(".zh-CN.md"):
        original = source.with_name(source.name.replace(".zh-CN", "")).read_text(encoding="utf-8")
        markdown = _with_anchors_of(original, markdown)
    if page.file.src_uri.startswith("docs/api/"):
        return MODULE.sub(r'<a id="\1"></a>\n\n\g<0>', markdown)
    pages = {
        module: path.name
        for path in (Path(config.docs_dir) / "docs" / "api").glob("*.md")
        for module in MODULE.findall(path.read_text(encoding="utf-8"))
    }

    def documented(found: re.Match[str]) -> str:
        module = found["path"].removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        return f"](docs/api/{pages[module]}#{module})"

    return re.sub(r"\]\(src/(?P<path>lexel/[\w/]+\.py)\)", documented, markdown)


def _with_anchors_of(original: str, translation: str) -> str:
    """Let each heading be found by its English name as well, for links from pages that are in English alone."""
    names = iter([slug(found["title"], "-") for found in HEADING.finditer(original) if found["title"]])

    def anchored(found: re.Match[str]) -> str:
        if not found["title"] or not (name := next(names, "")):
            return found[0]
        return f'<a id="{name}"></a>\n\n{found[0]}' if found[0].startswith("##") else found[0]

    return HEADING.sub(anchored, translation)


def on_page_content(html: str, **_: Any) -> str:
    """Turn formulas into MathML, which browsers draw by themselves; load a picture when it comes near."""

    def drawn(found: re.Match[str]) -> str:
        display = "block" if found["tag"] == "div" else "inline"
        formula = unescape(found["formula"]).replace("{aligned}", "{align*}")  # the converter does not know `aligned`
        formula = converter.convert(formula, display=display)
        return f'<div class="formula">{formula}</div>' if display == "block" else formula

    pattern = r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<formula>.*?)\\[)\]]</(?P=tag)>'
    html = re.sub(pattern, drawn, html, flags=re.DOTALL)
    first, *others = html.split("<img ")
    return '<img loading="lazy" '.join([f"{first}<img {others[0]}", *others[1:]]) if others else first


def on_post_page(output: str, **_: Any) -> str:
    """Leave out the spaces of the templates, a fifth of the site, and let the text come before the scripts.

    Between Chinese letters, and beside Chinese punctuation, a line's end is no space either.
    """
    output = re.sub(r'(<script) (src="[^"]*/bundle\.)', r'\1 fetchpriority="low" \2', output)
    parts = UNTOUCHED.split(output)
    del parts[2::3]  # the names of the tags
    for i in range(0, len(parts), 2):
        parts[i] = LINE_END.sub("", re.sub(r"\s*\n\s*", "\n", parts[i]))
    return "".join(parts)


@event_priority(-200)  # after all plugins
def on_post_build(config: MkDocsConfig, **_: Any) -> None:
    """Take away what no page loads, and give the search the same index from disk and from a server.

    The offline plugin writes the first before the i18n plugin has put the languages together: without the pages in
    English.
    """
    site = Path(config.site_dir)
    words = site.glob("assets/javascripts/lunr/min/*.js")
    unused = [path for pattern in UNUSED for path in site.glob(pattern)]
    for path in [*unused, *(path for path in words if path.name not in USED_FOR_WORDS)]:
        path.unlink()
    index = site / "search" / "search_index.json"
    if index.exists():
        entries = json.loads(index.read_text(encoding="utf-8"))
        text = json.dumps(entries, ensure_ascii=False, separators=(",", ":"))
        index.write_text(text, encoding="utf-8")
        index.with_suffix(".js").write_text(f"var __index = {text}", encoding="utf-8")


class Examples(griffe.Extension):
    """Reads the section "Example" of docstrings as one of code, which by itself only "Examples" is."""

    @override
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
