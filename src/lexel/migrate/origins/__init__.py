"""Where quantizers come from: a file for each origin, and the table of all formats."""

from __future__ import annotations

from lexel.migrate._formats import Format
from lexel.migrate.origins import (
    classic,
    dac,
    encodec,
    finite_scalar,
    infinity,
    mimi,
    rq_vae,
    snac,
    var,
    vector_quantize_pytorch,
    vqgan,
    wav2vec2,
)

__all__ = ["FORMATS"]

FORMATS: tuple[Format, ...] = (
    *encodec.FORMATS,
    *vector_quantize_pytorch.FORMATS,
    *finite_scalar.FORMATS,
    *dac.FORMATS,
    *snac.FORMATS,
    *mimi.FORMATS,
    *classic.FORMATS,
    *vqgan.FORMATS,
    *var.FORMATS,
    *rq_vae.FORMATS,
    *wav2vec2.FORMATS,
    *infinity.FORMATS,
)
