"""The module of the first VQ-VAE notebooks, and its sibling whose codes are moving averages."""

from __future__ import annotations

from typing import Any

from lexel.learning import Learning
from lexel.migrate._assemble import vector
from lexel.migrate._formats import Format
from lexel.migrate._keys import Keys
from lexel.quantizers.base import Quantizer

__all__ = ["FORMATS"]


def _by_gradient(keys: Keys, *, commitment_cost: float, **parts: Any) -> Quantizer:
    return vector(keys.take("_embedding.weight", None, None), commitment_cost, **parts)


def _by_averages(keys: Keys, *, commitment_cost: float, learning: Learning, **parts: Any) -> Quantizer:
    codes = keys.take("_embedding.weight", None, None)
    count, total = keys.take("_ema_cluster_size", len(codes)), keys.take("_ema_w", *codes.shape)
    return vector(codes, commitment_cost, learning=learning, averages=(count, total), **parts)


FORMATS = (
    Format(
        "classic-ema",
        "the classic module with EMA",
        marker=r"_ema_cluster_size",
        keys=r"_embedding\.weight|_ema_cluster_size|_ema_w",
        build=_by_averages,
    ),
    Format(
        "classic",
        "the classic module",
        marker=r"_embedding\.weight",
        keys=r"_embedding\.weight",
        build=_by_gradient,
    ),
)
