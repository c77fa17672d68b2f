"""VAR's multi-scale residual quantizer (Tian et al. 2024, arXiv 2404.02905)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lexel.estimators import StraightThrough
from lexel.migrate._assemble import codebook_for, for_each, vector, with_values
from lexel.migrate._formats import Format
from lexel.migrate._keys import Keys
from lexel.quantizers.base import Quantizer
from lexel.quantizers.multi_scale import MultiScaleResidualQuantizer

__all__ = ["FORMATS"]

CONVOLUTION = r"quant_resi\.(qresi_ls\.\d+|qresi|\d+)"


def _var(
    keys: Keys,
    *,
    scales: Sequence[int | tuple[int, int]],
    metric: str,
    commitment_cost: float,
    convolution_weight: float,
    **parts: Any,
) -> Quantizer:
    codebook_for(metric)  # refuses others
    scales = for_each("scales", scales)
    codes = keys.take("embedding.weight", None, None)
    keys.take("ema_vocab_hit_SV", len(scales), len(codes))
    # With using_znorm the angle decides, and the codes keep their lengths.
    estimator = StraightThrough("cosine" if metric == "cosine" else "euclidean")
    quantizer = vector(codes, commitment_cost, **{"estimator": estimator, **parts})
    names = {match[0]: None for key in keys.tensors if (match := re.match(CONVOLUTION, key[len(keys.prefix) :]))}
    multi_scale = MultiScaleResidualQuantizer(
        quantizer,
        scales,
        commitment_cost,
        convolutions=_assignment(len(scales), len(names)) if names else 0,
        convolution_weight=convolution_weight,
    )
    dim = codes.shape[1]
    values = {}
    for number, name in enumerate(sorted(names, key=lambda name: int(name.split(".")[-1].replace("qresi", "0")))):
        values[f"phi.{number}.weight"] = keys.take(f"{name}.weight", dim, dim, 3, 3)
        values[f"phi.{number}.bias"] = keys.take(f"{name}.bias", dim)
    return with_values(multi_scale, values)


def _assignment(scales: int, convolutions: int) -> list[int]:
    """Which convolution each scale has: that whose place in (0, 1) is nearest to the scale's in [0, 1]."""
    margin = 1 / 3 / convolutions if convolutions == 4 else 1 / 2 / convolutions
    step = (1 - margin - margin) / max(1, convolutions - 1)
    places = [number * step + margin for number in range(convolutions)]
    places[-1] = 1 - margin if convolutions > 1 else margin
    return [
        min(range(convolutions), key=lambda number: abs(places[number] - scale / max(1, scales - 1)))
        for scale in range(scales)
    ]


FORMATS = (
    Format(
        "var",
        "VAR's multi-scale quantizer",
        marker=r"ema_vocab_hit_SV",
        keys=rf"embedding\.weight|ema_vocab_hit_SV|{CONVOLUTION}\.(weight|bias)",
        build=_var,
    ),
)
