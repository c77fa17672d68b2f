"""Where quantizers come from: a file for each origin, and the table of all formats."""

from __future__ import annotations

from lexel.migrate._formats import Format
from lexel.migrate.origins import classic, dac, encodec, rq_vae, var, vector_quantize_pytorch, vqgan

__all__ = ["FORMATS"]

FORMATS: tuple[Format, ...] = (
    *encodec.FORMATS,
    *vector_quantize_pytorch.FORMATS,
    *dac.FORMATS,
    *classic.FORMATS,
    *vqgan.FORMATS,
    *var.FORMATS,
    *rq_vae.FORMATS,
)
