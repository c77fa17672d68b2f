"""A damaged file gives an error in a line, or an image; never a traceback."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.data.damage import outcomes


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_refused_or_read() -> None:
    found = Counter(outcome for _, outcome, _ in outcomes(400, seed=1, slow=False))
    assert found.keys() == {"error", "right", "other pixels"}, found
    assert found["error"] > 100
    assert found["right"] > 20
