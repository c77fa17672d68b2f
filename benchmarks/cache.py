"""A cache of results by their settings, so that an interrupted benchmark goes on where it stopped."""

from __future__ import annotations

import inspect
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

    The settings must contain everything that the result depends on; configurations of Lexel may leave out defaults. A
    change of the code is not noticed, so the settings that it affects need another name. Several processes may share a
    file.

    Args:
        settings: the settings of a run, as plain data.
        compute: returns the result, a dictionary of plain data.
        file: JSON lines, sorted, each with the settings of a run and its result.
    """
    found = stored(settings, file)
    return store(settings, compute(), file) if found is None else found


def stored(settings: dict[str, Any], file: Path) -> dict[str, Any] | None:
    """Return the result that is stored for these settings, if there is one."""
    record = _read(file).get(_key(settings))
    return record and record["result"]


def store(settings: dict[str, Any], result: dict[str, Any], file: Path) -> dict[str, Any]:
    """Store a result, unless another process has stored one for these settings; return the stored one."""
    BUILD.mkdir(exist_ok=True)
    with FileLock(BUILD / f"{file.name}.lock"):
        records = _read(file)
        found = records.setdefault(_key(settings), {"settings": settings, "result": result})
        pairs = sorted((_line(record["settings"]), _line(record["result"])) for record in records.values())
        partial = file.with_suffix(".partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text("".join(f'{{"settings": {each}, "result": {own}}}\n' for each, own in pairs), "utf-8")
        partial.replace(file)  # whole or not at all
    return found["result"]  # type: ignore[no-any-return]


def _read(file: Path) -> dict[str, dict[str, Any]]:
    """Return the records by the key of their settings."""
    if not file.exists():
        return {}
    found = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
            found[_key(record["settings"])] = {"settings": record["settings"], "result": dict(record["result"])}
        except (ValueError, KeyError, TypeError) as error:
            raise SystemExit(f"{file}, line {number}: no settings with their result ({error!r})") from error
    return found


def _key(settings: dict[str, Any]) -> str:
    return _line(_without_defaults(settings))


def _without_defaults(value: Any) -> Any:
    """Leave out what a class of Lexel has by default, so that a further argument does not make another run of each."""
    if isinstance(value, list):
        return [_without_defaults(each) for each in value]
    if not isinstance(value, dict):
        return value
    value = {key: _without_defaults(each) for key, each in value.items()}
    name = str(value.get("class_path", "")).removeprefix("lexel.")
    if name and hasattr(lexel, name):
        defaults, given = _defaults(name), value.get("init_args", {}).items()
        value["init_args"] = {key: each for key, each in given if key not in defaults or defaults[key] != each}
    return value


@cache
def _defaults(name: str) -> dict[str, Any]:
    """The arguments that a class of Lexel has by default, as configurations."""
    parameters = inspect.signature(getattr(lexel, name)).parameters.values()
    optional = {each.name: each.default for each in parameters if each.default is not each.empty}
    return {key: _without_defaults(lexel.to_config(default)) for key, default in optional.items()}


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
