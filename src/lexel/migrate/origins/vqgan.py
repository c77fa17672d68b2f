"""VQGAN and those that have its quantizer: taming-transformers, LlamaGen, diffusers, Chameleon, Janus, GLM-Image."""

from __future__ import annotations

from typing import Any

from lexel.learning import Gradient
from lexel.migrate._assemble import codebook_for, vector
from lexel.migrate._formats import Format
from lexel.migrate._keys import Keys
from lexel.quantizers.base import Quantizer

__all__ = ["FORMATS"]


def _vqgan(
    keys: Keys, *, metric: str, commitment_cost: float, learning: Gradient = Gradient(), **parts: Any
) -> Quantizer:
    if "codebook_used" in keys:  # LlamaGen's record of the last indices, for its perplexity
        keys.take("codebook_used", None)
    codes = keys.take("embedding.weight", None, None)
    return vector(codes, commitment_cost, codebook=codebook_for(metric), learning=learning, **parts)


FORMATS = (
    Format(
        "vqgan",
        "a VQGAN's quantizer",
        marker=r"embedding\.weight",
        keys=r"embedding\.weight|codebook_used",
        build=_vqgan,
        within=r"((.*\.)?quantize\.)?",
    ),
)
