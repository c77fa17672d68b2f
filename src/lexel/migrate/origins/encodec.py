"""EnCodec's residual quantizer, from its own package or from transformers (Défossez et al. 2022, arXiv 2210.13438)."""

from __future__ import annotations

from typing import Any

from lexel.learning import EMA, Learning
from lexel.migrate._assemble import projected, require_started, vector
from lexel.migrate._formats import Format
from lexel.migrate._keys import Keys
from lexel.quantizers import Quantizer, ResidualQuantizer
from lexel.upkeep import Revival

__all__ = ["FORMATS"]


def _encodec(
    keys: Keys, *, commitment_cost: float = 1.0, learning: Learning | None = None, dropout: float = 1.0, **parts: Any
) -> Quantizer:
    parts = {"learning": learning or EMA(0.99), "upkeep": Revival(), **parts}
    keys = keys.under("vq.") if any(key.startswith(f"{keys.prefix}vq.") for key in keys.tensors) else keys
    stages: list[Quantizer] = []
    name = "_codebook." if "layers.0._codebook.embed" in keys else "codebook."
    for stage in keys.stages("layers", f"{name}embed"):
        table = stage.under(name)
        require_started(table, table.take("inited", 1))
        codes = table.take("embed", None, None)
        averages = table.take("cluster_size", len(codes)), table.take("embed_avg", *codes.shape)
        stages.append(projected(stage, vector(codes, commitment_cost, averages=averages, **parts)))
    return ResidualQuantizer(stages, dropout=dropout)


FORMATS = (
    Format(
        "encodec",
        "EnCodec's residual quantizer",
        marker=r"(vq\.)?layers\.0\._?codebook\.inited",
        keys=r"(vq\.)?layers\.\d+\."
        r"(_?codebook\.(inited|embed|embed_avg|cluster_size)|project_(in|out)\.(weight|bias))",
        build=_encodec,
        parts=r"(vq\.)?layers\.",
    ),
)
