"""Results that are kept by what was asked, so that an interrupted benchmark goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

BUILD = Path(__file__).parent.parent / "build"


def kept(settings: dict[str, Any], compute: Callable[[], dict[str, Any]], file: Path) -> dict[str, Any]:
    """Return what `compute` found when it was first asked with these settings, and ask it if it never was.

    Settings must hold all that the result depends on: a change of the code is not seen, so the settings of what it
    changes need another name. Several processes may share a file.

    Args:
        settings: what was asked, as plain data.
        compute: finds the result, a dictionary of plain data.
        file: JSON lines, sorted, each with the settings of a question and its result.
    """
    asked = _line(settings)
    found = _read(file).get(asked)
    if found is None:
        result = compute()
        BUILD.mkdir(exist_ok=True)
        with FileLock(BUILD / f"{file.name}.lock"):
            results = _read(file)
            found = results.setdefault(asked, result)
            lines = [f'{{"settings": {key}, "result": {_line(value)}}}' for key, value in sorted(results.items())]
            partial = file.with_suffix(".partial")
            partial.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
            partial.replace(file)  # whole or not at all
    return found


def _read(file: Path) -> dict[str, dict[str, Any]]:
    """Return the results by the text of their settings."""
    if not file.exists():
        return {}
    records = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return {_line(record["settings"]): record["result"] for record in records}


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
