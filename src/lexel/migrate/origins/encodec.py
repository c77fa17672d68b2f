"""EnCodec's quantizer (Défossez et al. 2022, arXiv 2210.13438) and those that have its tables.

These are AudioCraft, SpeechTokenizer, WavTokenizer, X-Codec and Higgs Audio, from their own packages or from
transformers. Higgs Audio's stages stand between linear maps; transformers' WavTokenizer is one table.
"""

from __future__ import annotations

from typing import Any

from lexel.learning import EMA, Learning
from lexel.migrate._assemble import projected, require_started, vector
from lexel.migrate._formats import Format
from lexel.migrate._keys import Keys
from lexel.quantizers.base import Quantizer
from lexel.quantizers.residual import ResidualQuantizer
from lexel.quantizers.vector import VectorQuantizer
from lexel.upkeep import Revival

__all__ = ["FORMATS"]

STAGES = r"(vq\.)?(layers|quantizers)\."
TABLE = r"_?codebook\.(inited|embed|embed_avg|cluster_size)"


def _table(stage: Keys, commitment_cost: float, parts: dict[str, Any]) -> VectorQuantizer:
    table = stage.under("_codebook." if "_codebook.embed" in stage else "codebook.")
    require_started(table, table.take("inited", 1))
    codes = table.take("embed", None, None)
    averages = table.take("cluster_size", len(codes)), table.take("embed_avg", *codes.shape)
    return vector(codes, commitment_cost, averages=averages, **parts)


def _residual(
    keys: Keys,
    *,
    commitment_cost: float = 1.0,
    learning: Learning = EMA(0.99),
    dropout: float = 1.0,
    **parts: Any,
) -> Quantizer:
    parts = {"learning": learning, "upkeep": Revival(), **parts}
    inner = keys.under("vq.") if any(key.startswith(f"{keys.prefix}vq.") for key in keys.tensors) else keys
    name = "layers" if any(key.startswith(f"{inner.prefix}layers.") for key in inner.tensors) else "quantizers"
    table = "_codebook" if f"{name}.0._codebook.embed" in inner else "codebook"
    views = inner.stages(name, f"{table}.embed")
    stages = [projected(stage, _table(stage, commitment_cost, parts)) for stage in views]
    return ResidualQuantizer(stages, dropout=dropout)


def _single(keys: Keys, *, commitment_cost: float = 1.0, learning: Learning = EMA(0.99), **parts: Any) -> Quantizer:
    return _table(keys, commitment_cost, {"learning": learning, "upkeep": Revival(), **parts})


FORMATS = (
    Format(
        "encodec",
        "EnCodec's residual quantizer",
        marker=rf"{STAGES}0\._?codebook\.inited",
        keys=rf"{STAGES}\d+\.({TABLE}|project_(in|out)\.(weight|bias))",
        build=_residual,
        parts=STAGES,
    ),
    Format(
        "encodec-single",
        "WavTokenizer's quantizer, one table of EnCodec's",
        marker=r"_?codebook\.inited",
        keys=TABLE,
        build=_single,
    ),
)
