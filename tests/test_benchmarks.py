"""What the benchmarks have measured is found again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lexel
from benchmarks.cache import cached, stored


def test_a_result_is_found_when_a_part_has_got_a_setting_since(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    settings = {"seed": 0, "quantizer": lexel.to_config(lexel.VectorQuantizer(8, 2))}
    assert settings["quantizer"]["init_args"]["codebook"]["init_args"].keys() == {"std"}
    older = json.loads(json.dumps(settings))
    older["quantizer"]["init_args"]["codebook"]["init_args"] = {}
    file.write_text(json.dumps({"settings": older, "result": {"error": 1.5}}) + "\n")
    assert stored(settings, file) == {"error": 1.5}
    assert stored(settings | {"seed": 1}, file) is None
    assert cached(settings | {"seed": 1}, lambda: {"error": 2.0}, file) == {"error": 2.0}
    assert [stored(settings | {"seed": seed}, file) for seed in (0, 1)] == [{"error": 1.5}, {"error": 2.0}]
    before = file.read_text()
    file.write_text(before[: len(before) // 3])
    with pytest.raises(SystemExit, match=r"results.jsonl, line 1: no settings with their result"):
        cached(settings, dict, file)
    assert file.read_text() == before[: len(before) // 3]
