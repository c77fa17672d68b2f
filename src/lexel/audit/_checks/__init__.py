"""The checks, in the order in which they run. A new one is a function in this folder and a line in `CHECKS`."""

from __future__ import annotations

from lexel.audit._checks._outcome import Check
from lexel.audit._checks.choices import nearest, nearest_shifted, nearest_under_autocast
from lexel.audit._checks.gradients import codebook_learns, encoder_gradient
from lexel.audit._checks.memory import memory
from lexel.audit._checks.state import eval_changes_nothing, nan_does_not_spread, revived_codes_stay
from lexel.audit._checks.statistics import ranks_agree, usage

__all__ = ["CHECKS"]

CHECKS = (
    Check("codebook learns", codebook_learns),
    Check("encoder's gradient", encoder_gradient),
    Check("nearest codes", nearest, needs_codes=True),
    Check("nearest codes under bfloat16 autocast", nearest_under_autocast, needs_codes=True),
    Check("nearest codes under a shift", nearest_shifted, needs_codes=True),
    Check("revived codes stay", revived_codes_stay, needs_codes=True),
    Check("eval changes nothing", eval_changes_nothing),
    Check("NaN does not spread", nan_does_not_spread),
    Check("memory", memory, needs_codes=True),
    Check("usage", usage),
    Check("ranks agree", ranks_agree, needs_codes=True),
)
