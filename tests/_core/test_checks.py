"""What the settings of parts may hold."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

import numpy as np
import pytest

import lexel
import lexel.fit
from lexel._core.config import registry


def fields() -> list[tuple[type, str, Any]]:
    """Each field of all settings of Lexel's own, with its type."""
    own = [cls for cls in registry().values() if dataclasses.is_dataclass(cls) and cls.__module__.startswith("lexel.")]
    return [(cls, field.name, get_type_hints(cls)[field.name]) for cls in own for field in dataclasses.fields(cls)]


@pytest.mark.parametrize(("cls", "name", "hint"), fields(), ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_value_of_another_type_is_named(cls: type, name: str, hint: Any) -> None:
    for value in ("nonsense", [], object()):
        with pytest.raises((TypeError, ValueError), match=f"{cls.__name__}: {name} must be .*got"):
            cls(**{name: value})


@pytest.mark.parametrize("make", [np.float32, np.float64, float])
def test_numbers_of_any_kind_are_taken_and_written_down(make: Any) -> None:
    settings = lexel.EMA(decay=make(0.5), warmup=2)
    assert lexel.from_config(lexel.to_config(settings)) == lexel.EMA(decay=0.5, warmup=2)
    assert lexel.to_config(lexel.KMeansStart(iterations=np.int64(3))) == lexel.to_config(lexel.KMeansStart(3))


def test_a_part_of_ones_own_is_checked_as_well() -> None:
    @dataclasses.dataclass(frozen=True)
    class _Own(lexel.upkeep.Upkeep):
        every: int = 1

        def build(self, num_embeddings: int, embedding_dim: int) -> Any: ...

    with pytest.raises(TypeError, match=r"_Own: every must be an int, got 1\.5 \(float\)"):
        _Own(every=1.5)  # type: ignore[arg-type]
