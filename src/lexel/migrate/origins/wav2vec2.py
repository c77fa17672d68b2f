"""wav2vec 2.0's Gumbel quantizer (Baevski et al. 2020, arXiv 2006.11477), from transformers."""

from __future__ import annotations

from lexel.migrate._assemble import with_values
from lexel.migrate._formats import Format
from lexel.migrate._keys import Keys
from lexel.quantizers.base import Quantizer
from lexel.quantizers.categorical import CategoricalQuantizer
from lexel.quantizers.parallel import ParallelQuantizer

__all__ = ["FORMATS"]


def _wav2vec2(keys: Keys, *, groups: int, temperature: float = 2.0) -> Quantizer:
    codes = keys.take("codevectors", 1, None, None).squeeze(0)
    weight = keys.take("weight_proj.weight", len(codes), None)
    bias = keys.take("weight_proj.bias", len(codes))
    if not isinstance(groups, int) or groups < 1 or len(codes) % groups:
        raise ValueError(f"migrate.load: groups must divide the {len(codes)} codes of {keys.prefix!r}, got {groups!r}")
    parts = []
    for own in zip(codes.chunk(groups), weight.chunk(groups), bias.chunk(groups), strict=True):
        part = CategoricalQuantizer(len(own[0]), weight.shape[1], code_dim=codes.shape[1], temperature=temperature)
        parts.append(with_values(part, dict(zip(("codes", "logits.weight", "logits.bias"), own, strict=True))))
    return ParallelQuantizer(parts, combine="concatenate")


FORMATS = (
    Format(
        "wav2vec2",
        "wav2vec 2.0's Gumbel quantizer",
        marker=r"codevectors",
        keys=r"codevectors|weight_proj\.(weight|bias)",
        build=_wav2vec2,
    ),
)
