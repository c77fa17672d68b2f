"""A tiny model, for tests that need one."""

from __future__ import annotations

import torch

import lexel
from lexel.models import VQVAE


def tiny_model(quantizer: lexel.Quantizer | None = None, **settings: object) -> VQVAE:
    """A model whose codes are far apart, so that the decoder paints something else for each."""
    torch.manual_seed(0)
    quantizer = quantizer or lexel.VectorQuantizer(12, 4)
    built = VQVAE(quantizer, **{"hidden_channels": 8, "residual_channels": 4, **settings}).eval()
    for part in quantizer.modules():
        if isinstance(part, lexel.VectorQuantizer):
            torch.nn.init.normal_(part.codebook.weight, std=3)
    return built
