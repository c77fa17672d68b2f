"""Mimi's split residual quantizer (Défossez et al. 2024, arXiv 2410.00037), from Moshi or transformers."""

from __future__ import annotations

from typing import Any

from lexel.learning import EMA, Learning
from lexel.migrate._assemble import linear_map, require_started, vector, with_values
from lexel.migrate._formats import Format
from lexel.migrate._keys import Keys
from lexel.quantizers.base import Quantizer
from lexel.quantizers.parallel import ParallelQuantizer
from lexel.quantizers.projected import ProjectedQuantizer
from lexel.quantizers.residual import ResidualQuantizer
from lexel.upkeep import Revival

__all__ = ["FORMATS"]

# The names of transformers and of Moshi's package.
HALVES = (("semantic_residual_vector_quantizer.", "acoustic_residual_vector_quantizer."), ("rvq_first.", "rvq_rest."))
TABLE = r"(vq\.)?layers\.\d+\._?codebook\.(_?initialized|cluster_usage|embed_sum|embedding_sum)"
HALF = rf"({TABLE}|(in|out)put_proj\.weight)"
EPSILON = 1e-5  # the least usage that a sum is divided by


def _half(
    keys: Keys, *, commitment_cost: float = 1.0, learning: Learning = EMA(0.99), dropout: float = 0.0, **parts: Any
) -> Quantizer:
    parts = {"learning": learning, "upkeep": Revival(), **parts}
    inner, initialized, total = keys, "codebook.initialized", "codebook.embed_sum"
    if "vq.layers.0._codebook.embedding_sum" in keys:
        inner, initialized, total = keys.under("vq."), "_codebook._initialized", "_codebook.embedding_sum"
    stages: list[Quantizer] = []
    for stage in inner.stages("layers", total):
        require_started(stage, stage.take(initialized, 1))
        sums = stage.take(total, None, None)
        usage = stage.take(f"{total.partition('.')[0]}.cluster_usage", len(sums))
        codes = sums / usage.clamp_min(EPSILON).unsqueeze(1)
        stages.append(vector(codes, commitment_cost, averages=(usage, sums), **parts))
    residual = ResidualQuantizer(stages, dropout=dropout)
    if "input_proj.weight" not in keys:
        return residual
    down, up = (linear_map(keys.under(f"{name}put_proj."), bias=False)["weight"] for name in ("in", "out"))
    return with_values(ProjectedQuantizer(residual, len(up), bias=False), {"down.weight": down, "up.weight": up})


def _split(
    keys: Keys, *, commitment_cost: float = 1.0, learning: Learning = EMA(0.99), dropout: float = 0.0, **parts: Any
) -> Quantizer:
    names = next(names for names in HALVES if any(key.startswith(f"{keys.prefix}{names[0]}") for key in keys.tensors))
    settings = {"commitment_cost": commitment_cost, "learning": learning, **parts}
    semantic, acoustic = (keys.under(name) for name in names)
    return ParallelQuantizer([_half(semantic, **settings), _half(acoustic, dropout=dropout, **settings)])


FORMATS = (
    Format(
        "mimi",
        "Mimi's split residual quantizer",
        marker=rf"({'|'.join(names[0] for names in HALVES)})".replace(".", r"\.")
        + r"(vq\.)?layers\.0\._?codebook\.cluster_usage",
        keys=rf"(rvq_(first|rest)|(semantic|acoustic)_residual_vector_quantizer)\.{HALF}",
        build=_split,
        parts=r"(rvq_|semantic_|acoustic_)",
    ),
    Format(
        "mimi-half",
        "one half of Mimi's quantizer",
        marker=r"(vq\.)?layers\.0\._?codebook\.cluster_usage",
        keys=HALF,
        build=_half,
        parts=r"(vq\.)?layers\.",
    ),
)
