"""vector-quantize-pytorch: `VectorQuantize`, `SimVQ`, `LFQ` and their residual and grouped forms."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from lexel.codebook import SimVQ
from lexel.estimators import RotationTrick
from lexel.learning import Learning
from lexel.migrate._assemble import (
    are_bit_values,
    codebook_for,
    in_heads,
    projected,
    reordered,
    require_started,
    residual,
    vector,
    with_values,
)
from lexel.migrate._formats import Format
from lexel.migrate._keys import Keys
from lexel.quantizers.base import Quantizer
from lexel.quantizers.lookup_free import BinarySphericalQuantizer, LookupFreeQuantizer
from lexel.quantizers.product import ProductQuantizer
from lexel.quantizers.projected import ProjectedQuantizer
from lexel.quantizers.residual import ResidualQuantizer
from lexel.quantizers.vector import VectorQuantizer

__all__ = ["FORMATS"]


def _vector_quantize(
    keys: Keys, *, metric: str, commitment_cost: float, learning: Learning, heads: int = 1, **parts: Any
) -> Quantizer:
    parts = {"estimator": RotationTrick(), **parts}
    tables = _tables(keys.under("_codebook."), None, metric, commitment_cost, learning, parts)
    if "project_in.weight" in keys and len(tables) == 1:
        heads = keys.size("project_in.weight", 0) // tables[0].embedding_dim
    several = len(tables) > 1 or heads > 1
    quantizer = ProductQuantizer(tables, heads=1 if len(tables) > 1 else heads) if several else tables[0]
    return projected(keys, quantizer)


def _residual_vq(
    keys: Keys, *, metric: str, commitment_cost: float, learning: Learning, dropout: float = 0.0, **parts: Any
) -> Quantizer:
    stages = [
        _tables(stage.under("_codebook."), 1, metric, commitment_cost, learning, parts)[0]
        for stage in keys.stages("layers", "_codebook.embed")
    ]
    return projected(keys, residual(stages, dropout))


def _tables(
    keys: Keys, heads: int | None, metric: str, commitment_cost: float, learning: Learning, parts: Mapping[str, Any]
) -> list[VectorQuantizer]:
    """The tables of a `Codebook`, one for each head that has its own."""
    require_started(keys, keys.take("initted"))
    embed = keys.take("embed", heads, None, None)
    counts, sums = keys.take("cluster_size", *embed.shape[:2]), keys.take("embed_avg", *embed.shape)
    return [
        vector(codes, commitment_cost, codebook=codebook_for(metric), learning=learning, averages=averages, **parts)
        for codes, *averages in zip(embed, counts, sums, strict=True)
    ]


def _sim_vq(keys: Keys, *, commitment_cost: float, **parts: Any) -> Quantizer:
    return _sim_table(keys, commitment_cost, {"estimator": RotationTrick(), **parts})


def _residual_sim_vq(keys: Keys, *, commitment_cost: float, dropout: float = 0.0, **parts: Any) -> Quantizer:
    stages = [_sim_table(stage, commitment_cost, parts) for stage in keys.stages("layers", "frozen_codebook")]
    return ResidualQuantizer(stages, dropout=dropout)


def _sim_table(keys: Keys, commitment_cost: float, parts: Mapping[str, Any]) -> Quantizer:
    table = keys.take("frozen_codebook", None, None)
    vq = vector(table, commitment_cost, codebook=SimVQ(), **parts)
    return with_values(vq, {"codebook.map.weight": keys.take("code_transform.weight", table.shape[1], table.shape[1])})


def _lfq(
    keys: Keys,
    *,
    commitment_cost: float,
    spherical: bool,
    codebook_scale: float = 1.0,
    heads: int = 1,
    entropy_weight: float = 0.1,
    diversity_gamma: float = 1.0,
    temperature: float = 0.01,
) -> Quantizer:
    bits = len(keys.take("mask", None))
    each = _bits(bits, commitment_cost, spherical, entropy_weight, diversity_gamma, temperature)
    if "project_in.weight" in keys:
        heads = keys.size("project_in.weight", 0) // bits
    # Its first channel is the most significant bit.
    reversed_bits = torch.arange(heads * bits).reshape(heads, bits).flip(1).flatten()
    if not 0 < codebook_scale < math.inf:
        raise ValueError(f"migrate.load: codebook_scale must be positive and finite, got {codebook_scale!r}")
    quantizer = projected(keys, in_heads(each, heads), reversed_bits, codebook_scale)
    if isinstance(quantizer, ProjectedQuantizer):
        return quantizer
    return reordered(quantizer, reversed_bits, codebook_scale)


def _residual_lfq(
    keys: Keys,
    *,
    commitment_cost: float,
    spherical: bool,
    dropout: float = 0.0,
    entropy_weight: float = 0.1,
    diversity_gamma: float = 1.0,
    temperature: float = 0.01,
) -> Quantizer:
    stages: list[Quantizer] = []
    for number, stage in enumerate(keys.stages("layers", "mask")):
        bits = len(stage.take("mask", None))
        each = _bits(bits, commitment_cost, spherical, entropy_weight, diversity_gamma, temperature)
        stages.append(reordered(each, torch.arange(bits).flip(0), scale=2.0**-number))
    return projected(keys, ResidualQuantizer(stages, dropout=dropout))


def _bits(
    bits: int, commitment_cost: float, spherical: bool, entropy_weight: float, gamma: float, temperature: float
) -> Quantizer:
    return (BinarySphericalQuantizer if spherical else LookupFreeQuantizer)(
        bits, commitment_cost, entropy_weight=entropy_weight, diversity_gamma=gamma, temperature=temperature
    )


def _grouped(build: Callable[..., Quantizer], marker: str) -> Callable[..., Quantizer]:
    """The same in groups of channels, `rvqs.0.` and so on."""

    @functools.wraps(build)
    def build_groups(keys: Keys, **settings: Any) -> Quantizer:
        return ProductQuantizer([build(group, **settings) for group in keys.stages("rvqs", marker)])

    return build_groups


PACKAGE = "vector-quantize-pytorch's"
TABLE = r"_codebook\.(initted|embed|embed_avg|cluster_size)"
PROJECTIONS = r"project_(in|out)\.(weight|bias)"
FORMATS = (
    Format(
        "vqp-residual",
        f"{PACKAGE} ResidualVQ",
        marker=r"layers\.0\._codebook\.initted",
        keys=rf"layers\.\d+\.{TABLE}|{PROJECTIONS}",
        build=_residual_vq,
        parts=r"layers\.",
    ),
    Format(
        "vqp",
        f"{PACKAGE} VectorQuantize",
        marker=r"_codebook\.initted",
        keys=rf"{TABLE}|{PROJECTIONS}",
        build=_vector_quantize,
    ),
    Format(
        "vqp-sim",
        f"{PACKAGE} SimVQ",
        marker=r"frozen_codebook",
        keys=r"frozen_codebook|code_transform\.weight",
        build=_sim_vq,
    ),
    Format(
        "vqp-residual-sim",
        f"{PACKAGE} ResidualSimVQ",
        marker=r"layers\.0\.frozen_codebook",
        keys=r"layers\.\d+\.(frozen_codebook|code_transform\.weight)",
        build=_residual_sim_vq,
        parts=r"layers\.",
    ),
    Format(
        "vqp-residual-lfq",
        f"{PACKAGE} ResidualLFQ",
        marker=r"layers\.0\.mask",
        keys=rf"layers\.\d+\.mask|{PROJECTIONS}",
        build=_residual_lfq,
        parts=r"layers\.",
        fits=are_bit_values,
    ),
    Format(
        "vqp-grouped-residual",
        f"{PACKAGE} GroupedResidualVQ",
        marker=r"rvqs\.0\.layers\.0\._codebook\.initted",
        keys=rf"rvqs\.\d+\.(layers\.\d+\.{TABLE}|{PROJECTIONS})",
        build=_grouped(_residual_vq, "layers.0._codebook.embed"),
        parts=r"rvqs\.",
    ),
    Format(
        "vqp-grouped-residual-lfq",
        f"{PACKAGE} GroupedResidualLFQ",
        marker=r"rvqs\.0\.layers\.0\.mask",
        keys=rf"rvqs\.\d+\.(layers\.\d+\.mask|{PROJECTIONS})",
        build=_grouped(_residual_lfq, "layers.0.mask"),
        parts=r"rvqs\.",
        fits=are_bit_values,
    ),
    Format(
        "vqp-lfq",
        f"{PACKAGE} LFQ",
        marker=r"mask",
        keys=rf"mask|{PROJECTIONS}",
        build=_lfq,
        fits=are_bit_values,
    ),
)
