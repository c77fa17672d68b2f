"""A cache of results by their settings, so that an interrupted benchmark goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

BUILD = Path(__file__).parent.parent / "build"


def cached(settings: dict[str, Any], compute: Callable[[], dict[str, Any]], file: Path) -> dict[str, Any]:
    """Return the result that is stored for these settings; if there is none, compute and store it.

    The settings must contain everything that the result depends on. A change of the code is not noticed, so the
    settings that it affects need another name. Several processes may share a file.

    Args:
        settings: the settings of a run, as plain data.
        compute: returns the result, a dictionary of plain data.
        file: JSON lines, sorted, each with the settings of a run and its result.
    """
    found = stored(settings, file)
    return store(settings, compute(), file) if found is None else found


def stored(settings: dict[str, Any], file: Path) -> dict[str, Any] | None:
    """Return the result that is stored for these settings, if there is one."""
    return _read(file).get(_line(settings))


def store(settings: dict[str, Any], result: dict[str, Any], file: Path) -> dict[str, Any]:
    """Store a result, unless another process has stored one for these settings; return the stored one."""
    BUILD.mkdir(exist_ok=True)
    with FileLock(BUILD / f"{file.name}.lock"):
        results = _read(file)
        found = results.setdefault(_line(settings), result)
        lines = [f'{{"settings": {each}, "result": {_line(value)}}}' for each, value in sorted(results.items())]
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
