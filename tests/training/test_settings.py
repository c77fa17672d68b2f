"""Settings are refused by name, before anything is trained with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lexel.training.settings import PriorSettings, ReconstructionSettings, Settings


@pytest.mark.parametrize(
    ("cls", "setting"),
    [
        (Settings, {"steps": "5"}),
        (Settings, {"steps": 5.5}),
        (Settings, {"learning_rate": "fast"}),
        (Settings, {"precision": "fp16"}),
        (Settings, {"devices": "gpu"}),
        (Settings, {"seed": None}),
        (ReconstructionSettings, {"crop": "64"}),
        (ReconstructionSettings, {"reconstruction_loss": "MSE"}),
        (PriorSettings, {"layers": "4"}),
    ],
    ids=str,
)
def test_a_setting_of_another_type_or_word_is_named(cls: type[Settings], setting: dict[str, Any]) -> None:
    (name,) = setting
    with pytest.raises((TypeError, ValueError), match=f"^{cls.__name__}: {name} must be "):
        cls(**setting)


def test_the_numbers_of_numpy_are_taken_as_those_of_python() -> None:
    assert type(Settings(steps=np.int64(5)).steps) is int
