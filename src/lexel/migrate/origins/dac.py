"""The Descript Audio Codec (Kumar et al. 2023, arXiv 2306.06546) and BigCodec: stages of few dimensions."""

from __future__ import annotations

from typing import Any

from lexel.codebook import FactorisedCodebook
from lexel.estimators import StraightThrough
from lexel.migrate._assemble import linear_map, vector, with_values
from lexel.migrate._formats import Format
from lexel.migrate._keys import Keys
from lexel.quantizers.base import Quantizer
from lexel.quantizers.residual import ResidualQuantizer

__all__ = ["FORMATS", "factorised_stage"]

MAPS = r"(in|out)_proj\.(bias|weight|weight_[gv]|parametrizations\.weight\.original[01])"
DAC_KEYS = rf"quantizers\.\d+\.(codebook\.weight|{MAPS})"
BIGCODEC_KEYS = rf"layers\.\d+\.(_codebook\.weight|{MAPS})"


def factorised_stage(keys: Keys, table: str, commitment_cost: float, **parts: Any) -> Quantizer:
    """A table of few dimensions between two linear maps, whose codes are chosen by the angle."""
    codes = keys.take(table, None, None)
    parts = {"estimator": StraightThrough(metric="cosine"), **parts}
    if not any(key.startswith(f"{keys.prefix}in_proj.") for key in keys.tensors):
        return vector(codes, commitment_cost, **parts)
    maps = {"down": linear_map(keys.under("in_proj.")), "up": linear_map(keys.under("out_proj."))}
    dim = maps["down"]["weight"].shape[1]
    codebook = FactorisedCodebook(codes.shape[1])
    vq = vector(codes, commitment_cost, codebook=codebook, embedding_dim=dim, **parts)
    return with_values(vq, {f"codebook.{way}.{name}": value for way in maps for name, value in maps[way].items()})


def _dac(keys: Keys, *, commitment_cost: float = 0.25, dropout: float = 0.5, **parts: Any) -> Quantizer:
    stages = keys.stages("quantizers", "codebook.weight")
    return ResidualQuantizer(
        [factorised_stage(stage, "codebook.weight", commitment_cost, **parts) for stage in stages], dropout=dropout
    )


def _bigcodec(keys: Keys, *, commitment_cost: float = 0.25, **parts: Any) -> Quantizer:
    stages = keys.stages("layers", "_codebook.weight")
    return ResidualQuantizer(
        [factorised_stage(stage, "_codebook.weight", commitment_cost, **parts) for stage in stages]
    )


FORMATS = (
    Format(
        "dac",
        "the Descript Audio Codec's residual quantizer",
        marker=r"quantizers\.0\.in_proj\.bias",
        keys=DAC_KEYS,
        build=_dac,
        parts=r"quantizers\.",
    ),
    Format(
        "bigcodec",
        "BigCodec's residual quantizer",
        marker=r"layers\.0\._codebook\.weight",
        keys=BIGCODEC_KEYS,
        build=_bigcodec,
        parts=r"layers\.",
    ),
)
