"""RQ-VAE for pictures (Lee et al. 2022, arXiv 2203.01941) and RQ-VAE-Recommender's for items."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F

from lexel.codebook import CosineCodebook, SimVQ
from lexel.learning import EMA, Learning
from lexel.migrate._assemble import residual, vector, with_values
from lexel.migrate._formats import Format
from lexel.migrate._keys import Keys
from lexel.quantizers.base import Quantizer
from lexel.quantizers.residual import ResidualQuantizer
from lexel.upkeep import Revival

__all__ = ["FORMATS"]


def _bottleneck(
    keys: Keys, *, commitment_cost: float = 0.25, learning: Learning = EMA(0.99), **parts: Any
) -> Quantizer:
    """Of RQ-VAE, whose commitment term is a mean over stages where Lexel's is a sum."""
    views = keys.stages("codebooks", "weight")
    parts = {"learning": learning, "upkeep": Revival(), **parts}
    stages: list[Quantizer] = []
    for stage in views:
        count = stage.take("cluster_size_ema", None)
        codes = stage.take("weight", len(count) + 1, None)[:-1]  # the last row is padding
        averages = count, stage.take("embed_ema", *codes.shape)
        stages.append(vector(codes, commitment_cost / len(views), averages=averages, **parts))
    return residual(stages)


def _recommender(keys: Keys, *, commitment_cost: float, normalised: bool, **parts: Any) -> Quantizer:
    """Of RQ-VAE-Recommender, whose losses are sums over D where Lexel's are means."""
    stages: list[Quantizer] = []
    for number, stage in enumerate(keys.stages("layers", "embedding.weight")):
        codes = stage.take("embedding.weight", None, None)
        dim = codes.shape[1]
        mapped = stage.take("out_proj.0.weight", dim, dim) if "out_proj.0.weight" in stage else None
        if normalised and number == 0:
            codes = F.normalize(codes if mapped is None else codes @ mapped.T, dim=1)
            stages.append(vector(codes, commitment_cost, codebook=CosineCodebook(), **parts))
        elif mapped is not None:
            vq = vector(codes, commitment_cost, codebook=SimVQ(), **parts)
            stages.append(with_values(vq, {"codebook.map.weight": mapped}))
        else:
            stages.append(vector(codes, commitment_cost, **parts))
    return ResidualQuantizer(stages)


FORMATS = (
    Format(
        "rq-vae",
        "RQ-VAE's bottleneck",
        marker=r"codebooks\.0\.embed_ema",
        keys=r"codebooks\.\d+\.(weight|cluster_size_ema|embed_ema)",
        build=_bottleneck,
        parts=r"codebooks\.",
    ),
    Format(
        "rq-vae-recommender",
        "RQ-VAE-Recommender's quantizer",
        marker=r"layers\.0\.embedding\.weight",
        keys=r"layers\.\d+\.(embedding\.weight|out_proj\.0\.weight)",
        build=_recommender,
        parts=r"layers\.",
        aside=r"(encoder|decoder)\..*",
    ),
)
