"""vector-quantize-pytorch: `VectorQuantize`, `ResidualVQ`, `SimVQ`, `LFQ`, `FSQ`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lexel.codebook import SimVQ
from lexel.learning import Learning
from lexel.migrate._assemble import codebook_for, in_heads, projected, require_started, vector, with_values
from lexel.migrate._formats import Format
from lexel.migrate._keys import Keys
from lexel.quantizers import (
    BinarySphericalQuantizer,
    FiniteScalarQuantizer,
    LookupFreeQuantizer,
    ProductQuantizer,
    ProjectedQuantizer,
    Quantizer,
    ResidualQuantizer,
    VectorQuantizer,
)

__all__ = ["FORMATS"]


def _vector_quantize(
    keys: Keys, *, metric: str, commitment_cost: float, learning: Learning, heads: int = 1, **parts: Any
) -> Quantizer:
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
    # A shared codebook is written down once for each stage.
    first, *others = [stage.codebook.weight for stage in stages]
    shared = bool(others) and all(torch.equal(first, other) for other in others)
    depth = len(stages) if shared else None
    return projected(keys, ResidualQuantizer(stages[:1] if shared else stages, depth=depth, dropout=dropout))


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
    table = keys.take("frozen_codebook", None, None)
    vq = vector(table, commitment_cost, codebook=SimVQ(), **parts)
    return with_values(vq, {"codebook.map.weight": keys.take("code_transform.weight", table.shape[1], table.shape[1])})


def _lfq(
    keys: Keys,
    *,
    commitment_cost: float,
    spherical: bool,
    heads: int = 1,
    entropy_weight: float = 0.1,
    diversity_gamma: float = 1.0,
    temperature: float = 0.01,
) -> Quantizer:
    bits = len(keys.take("mask", None))
    kind = BinarySphericalQuantizer if spherical else LookupFreeQuantizer
    each = kind(
        bits,
        commitment_cost,
        entropy_weight=entropy_weight,
        diversity_gamma=diversity_gamma,
        temperature=temperature,
    )
    if "project_in.weight" in keys:
        heads = keys.size("project_in.weight", 0) // bits
    # Its first channel is the most significant bit.
    turned = torch.arange(heads * bits).reshape(heads, bits).flip(1).flatten()
    quantizer = projected(keys, in_heads(each, heads), turned)
    if isinstance(quantizer, ProjectedQuantizer):
        return quantizer
    turn = torch.eye(heads * bits)[turned]
    quantizer = ProjectedQuantizer(quantizer, heads * bits, bias=False)
    return with_values(quantizer, {"down.weight": turn, "up.weight": turn.T}).requires_grad_(False)


def _are_bit_values(mask: Tensor) -> bool:
    """Whether these are the powers of two that LFQ keeps, largest first."""
    return mask.dtype == torch.int64 and mask.ndim == 1 and mask.tolist() == [2**i for i in range(len(mask))][::-1]


def _fsq(keys: Keys, *, levels: Sequence[int], heads: int = 1) -> Quantizer:
    each = FiniteScalarQuantizer(levels, bound="artanh")
    if "project_in.weight" in keys:
        heads = keys.size("project_in.weight", 0) // each.embedding_dim
    return projected(keys, in_heads(each, heads))


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
        "vqp-lfq",
        f"{PACKAGE} LFQ",
        marker=r"mask",
        keys=rf"mask|{PROJECTIONS}",
        build=_lfq,
        fits=_are_bit_values,
    ),
    Format(
        "vqp-fsq",
        f"{PACKAGE} FSQ",
        marker=r"project_in\.weight",
        keys=PROJECTIONS,
        build=_fsq,
        needs="levels",
        may_be_empty=True,
    ),
)
