"""A damaged file gives an error in a line, or what it holds; never a traceback. `make fuzz` does this for longer."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.fuzz.cases import Target, fuzz
from tests.fuzz.targets import MOST_PIXELS, all_targets

WHOLE = b"0123456789" * 30
FAULTS: dict[str, Callable[[bytes], object]] = {
    "other-content": lambda content: content,
    "traceback": lambda content: {}[0],
    "nameless": lambda content: int("a"),
    "memory": lambda content: b"1" * (600 << 20),
    "code": lambda content: os.system("true"),
}


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_refused_or_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEXEL_MAX_PIXELS", str(MOST_PIXELS))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    # What takes long to read is left to `make fuzz`.
    targets = [target for target in all_targets(tmp_path) if target.weight >= 0.5]
    found = [*fuzz(targets, 300, seed=1)]
    faults = [f"{case.target}, {case.file}: {case.outcome}" for case in found if case.outcome.startswith("FAULT")]
    assert not faults
    counts = Counter(case.outcome for case in found)
    assert counts["refused"] > 100
    assert counts["right"] > 3
    read = {case.target for case in found if case.outcome == "whole, read"}
    assert read == {target.name for target in targets}


@pytest.mark.filterwarnings("ignore")
def test_a_fault_is_found(tmp_path: Path) -> None:
    """Parsers that do what no parser may."""

    def read(path: Path) -> object:
        content = path.read_bytes()
        return FAULTS[path.name](content) if content != WHOLE else None

    for name in FAULTS:
        (tmp_path / name).write_bytes(WHOLE)
    found = Counter(
        (case.file, case.outcome.partition(":")[0])
        for case in fuzz([Target("a parser", tmp_path, list(FAULTS), read, sure=True)], 50, seed=0)
    )
    assert all(found[name, "FAULT"] > 3 for name in FAULTS), found
