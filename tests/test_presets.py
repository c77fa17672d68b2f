"""Quantizers by the name of their system."""

from __future__ import annotations

import pytest
import torch

import lexel
from lexel import presets


@pytest.mark.parametrize("name", presets.__all__)
def test_every_part_of_a_preset_learns_and_its_codes_come_back(name: str) -> None:
    torch.manual_seed(0)
    quantizer = getattr(presets, name)()
    assert lexel.from_config(quantizer.config).config == quantizer.config
    side = 16 if name == "var" else 2
    z = torch.randn(2, quantizer.embedding_dim, side, side).movedim(1, quantizer.channel_dim).requires_grad_()
    output = quantizer(z)
    (output.loss + (output.quantized * torch.randn_like(z)).sum()).backward()
    for parameter_name, parameter in quantizer.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.any(), parameter_name
    output = quantizer.eval()(z)
    assert torch.equal(quantizer.lookup(output.indices), output.quantized)
