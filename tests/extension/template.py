"""The quantizer that CONTRIBUTING.md shows."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import lexel

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def _template() -> type[lexel.Quantizer]:
    """Run the page's first block of Python, and return the quantizer that it defines."""
    block = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    names: dict[str, Any] = {"__name__": "contributing"}
    with redirect_stdout(io.StringIO()):
        exec(compile(block.group(1), str(PAGE), "exec", dont_inherit=True), names)
    (found,) = (value for value in names.values() if isinstance(value, type) and issubclass(value, lexel.Quantizer))
    return found


Template = _template()
