"""Infinity's multi-scale binary spherical quantizer (Han et al. 2024, arXiv 2412.04431)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lexel.migrate._assemble import are_bit_values, for_each, reordered
from lexel.migrate._formats import Format
from lexel.migrate._keys import Keys
from lexel.quantizers.base import Quantizer
from lexel.quantizers.lookup_free import BinarySphericalQuantizer
from lexel.quantizers.multi_scale import MultiScaleResidualQuantizer

__all__ = ["FORMATS"]


def _infinity(
    keys: Keys, *, scales: Sequence[int | tuple[int, int]], commitment_cost: float = 0.25, entropy_weight: float = 0.1
) -> Quantizer:
    bits = len(keys.take("lfq.mask", None))
    each = BinarySphericalQuantizer(bits, commitment_cost, entropy_weight=entropy_weight)
    return MultiScaleResidualQuantizer(
        reordered(each, torch.arange(bits).flip(0)),
        for_each("scales", scales),
        0.0,
        convolutions=0,
        upsampling="bilinear",
        quantizer_weight=1.0,
    )


FORMATS = (
    Format(
        "infinity",
        "Infinity's multi-scale quantizer",
        marker=r"lfq\.mask",
        keys=r"lfq\.mask",
        build=_infinity,
        parts=r"lfq\.",
        fits=are_bit_values,
    ),
)
