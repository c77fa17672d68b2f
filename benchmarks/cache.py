"""A cache of results by their settings, so that an interrupted benchmark goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

import lexel

BUILD = Path(__file__).parent.parent / "build"


def cached(settings: dict[str, Any], compute: Callable[[], dict[str, Any]], file: Path) -> dict[str, Any]:
    """Return the result that is stored for these settings; if there is none, compute and store it.

    The settings must contain everything that the result depends on. A change of the code is not noticed, so the
    settings that it affects need another name. A setting that quantizers and their parts have got since counts as its
    default. Several processes may share a file.

    Args:
        settings: the settings of a run, as plain data.
        compute: returns the result, a dictionary of plain data.
        file: JSON lines, sorted, each with the settings of a run and its result.
    """
    found = stored(settings, file)
    return store(settings, compute(), file) if found is None else found


def stored(settings: dict[str, Any], file: Path) -> dict[str, Any] | None:
    """Return the result that is stored for these settings, if there is one."""
    return _read(file).get(_key(settings))


def store(settings: dict[str, Any], result: dict[str, Any], file: Path) -> dict[str, Any]:
    """Store a result, unless another process has stored one for these settings; return the stored one."""
    BUILD.mkdir(exist_ok=True)
    with FileLock(BUILD / f"{file.name}.lock"):
        results = _read(file)
        found = results.setdefault(_key(settings), result)
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
    found = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
            found[_key(record["settings"])] = dict(record["result"])
        except (ValueError, KeyError, TypeError) as error:
            raise SystemExit(f"{file}, line {number}: no settings with their result ({error!r})") from error
    return found


def _key(settings: dict[str, Any]) -> str:
    return _completed(_line(settings))


@cache
def _completed(line: str) -> str:
    """Give configurations in the text of settings the arguments that they lack, with their defaults."""

    def complete(value: dict[str, Any]) -> Any:
        try:
            return lexel.to_config(lexel.from_config(value)) if "class_path" in value else value
        except ValueError:
            return value  # of a class that there is no more

    return _line(json.loads(line, object_hook=complete))


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
