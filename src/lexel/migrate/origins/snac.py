"""SNAC's residual quantizer, whose stages have strides (Siuzdak et al. 2024, arXiv 2410.14411)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lexel.migrate._assemble import for_each
from lexel.migrate._formats import Format
from lexel.migrate._keys import Keys
from lexel.migrate.origins.dac import DAC_KEYS, factorised_stage
from lexel.quantizers.base import Quantizer
from lexel.quantizers.strided import StridedResidualQuantizer

__all__ = ["FORMATS"]


def _snac(keys: Keys, *, strides: Sequence[int], commitment_cost: float = 0.25, **parts: Any) -> Quantizer:
    views = keys.stages("quantizers", "codebook.weight")
    strides = for_each("strides", strides, len(views))
    stages = [factorised_stage(stage, "codebook.weight", commitment_cost, **parts) for stage in views]
    return StridedResidualQuantizer(stages, strides)


FORMATS = (
    Format(
        "snac",
        "SNAC's residual quantizer",
        marker=r"quantizers\.0\.in_proj\.bias",  # as DAC's: the strides tell them apart
        keys=DAC_KEYS,
        build=_snac,
        parts=r"quantizers\.",
    ),
)
