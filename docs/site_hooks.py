"""What `make docs` changes in the pages that are read in the repository as well."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import griffe
from latex2mathml import converter
from typing_extensions import override


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Leave out the line that links to the page in the other language: the site has a switch for that."""
    return re.sub(r"^\[(简体中文|English)\]\([\w.-]+\)\n", "", markdown, flags=re.MULTILINE)


def on_page_content(html: str, **_: Any) -> str:
    """Turn formulas into MathML, which browsers draw by themselves."""

    def drawn(found: re.Match[str]) -> str:
        display = "block" if found["tag"] == "div" else "inline"
        return converter.convert(unescape(found["formula"]), display=display)

    formula = r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<formula>.*?)\\[)\]]</(?P=tag)>'
    return re.sub(formula, drawn, html, flags=re.DOTALL)


class Examples(griffe.Extension):
    """Reads the section "Example" of docstrings as one of code, which by itself only "Examples" is."""

    @override
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
