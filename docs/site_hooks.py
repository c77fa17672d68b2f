"""What `make docs` changes in the pages that are read in the repository as well."""

from __future__ import annotations

import re
from typing import Any

import griffe
from typing_extensions import override


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Leave out the line that links to the page in the other language: the site has a switch for that."""
    return re.sub(r"^\[(简体中文|English)\]\([\w.-]+\)\n", "", markdown, flags=re.MULTILINE)


class Examples(griffe.Extension):
    """Reads the section "Example" of docstrings as one of code, which by itself only "Examples" is."""

    @override
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
