"""The Descript Audio Codec's residual quantizer (Kumar et al. 2023, arXiv 2306.06546)."""

from __future__ import annotations

from typing import Any

from lexel.codebook import FactorisedCodebook
from lexel.estimators import StraightThrough
from lexel.migrate._assemble import convolution, vector, with_values
from lexel.migrate._formats import Format
from lexel.migrate._keys import Keys
from lexel.quantizers import Quantizer, ResidualQuantizer

__all__ = ["FACTORISED_KEYS", "FORMATS", "factorised_stages"]

FACTORISED_KEYS = (
    r"quantizers\.\d+\.(codebook\.weight"
    r"|(in|out)_proj\.(bias|weight|weight_[gv]|parametrizations\.weight\.original[01]))"
)


def factorised_stages(keys: Keys, commitment_cost: float, **parts: Any) -> list[Quantizer]:
    """The stages `quantizers.0.` and so on: a table of few dimensions between two convolutions, chosen by the angle."""
    stages: list[Quantizer] = []
    for stage in keys.stages("quantizers", "codebook.weight"):
        codes = stage.take("codebook.weight", None, None)
        maps = {"down": convolution(stage.under("in_proj.")), "up": convolution(stage.under("out_proj."))}
        vq = vector(
            codes,
            commitment_cost,
            codebook=FactorisedCodebook(codes.shape[1]),
            embedding_dim=maps["down"]["weight"].shape[1],
            **{"estimator": StraightThrough(metric="cosine"), **parts},
        )
        values = {f"codebook.{way}.{name}": value for way in maps for name, value in maps[way].items()}
        stages.append(with_values(vq, values))
    return stages


def _dac(keys: Keys, *, commitment_cost: float = 0.25, dropout: float = 0.5, **parts: Any) -> Quantizer:
    return ResidualQuantizer(factorised_stages(keys, commitment_cost, **parts), dropout=dropout)


FORMATS = (
    Format(
        "dac",
        "the Descript Audio Codec's residual quantizer",
        marker=r"quantizers\.0\.in_proj\.bias",
        keys=FACTORISED_KEYS,
        build=_dac,
        parts=r"quantizers\.",
    ),
)
