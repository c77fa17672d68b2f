"""Results that are kept by what was asked, so that an interrupted benchmark goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "build" / "kept"


def kept(settings: dict[str, Any], compute: Callable[[], dict[str, Any]], folder: Path = FOLDER) -> dict[str, Any]:
    """Return what `compute` found when it was first asked with these settings, and ask it if it never was.

    Settings must hold all that the result depends on: a change of the code is not seen, so the settings of what it
    changes need another name, or `make clean` removes everything that is kept.

    Args:
        settings: what was asked, as plain data.
        compute: finds the result, a dictionary of plain data.
        folder: where results are kept, each in a file of its own, beside its settings.
    """
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
    if not path.exists():
        found = {"settings": settings, "result": compute()}
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(found), encoding="utf-8")
        partial.replace(path)  # whole or not at all
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["result"]
    return result
