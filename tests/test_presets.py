"""Quantizers by the name of their system."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import lexel
from lexel import presets


@pytest.mark.parametrize("name", presets.__all__)
def test_every_part_of_a_preset_learns_and_its_codes_come_back(name: str) -> None:
    torch.manual_seed(0)
    quantizer = getattr(presets, name)()
    assert lexel.from_config(quantizer.config).config == quantizer.config
    assert lexel.from_config({"class_path": f"lexel.presets.{name}"}).config == quantizer.config
    side = 16 if name == "var" else 2
    z = torch.randn(2, quantizer.embedding_dim, side, side).movedim(1, quantizer.channel_dim).requires_grad_()
    output = quantizer(z)
    (output.loss + (output.quantized * torch.randn_like(z)).sum()).backward()
    for parameter_name, parameter in quantizer.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.any(), parameter_name
    output = quantizer.eval()(z)
    assert torch.equal(quantizer.lookup(output.indices), output.quantized)


@pytest.mark.parametrize("num_embeddings", [1, 64, 512, 16384, 262144])
def test_the_default_remembers_longer_and_revives_sooner_the_more_codes_there_are(num_embeddings: int) -> None:
    pair = [presets.default(count, 1) for count in (num_embeddings, 2 * num_embeddings)]
    decays, revivals = (
        [vq.quantizer.quantizer.learning.settings.decay for vq in pair],
        [vq.quantizer.quantizer.upkeep[1].settings.decay for vq in pair],
    )
    assert 0 < revivals[1] <= revivals[0] < 1
    assert 0.8 <= decays[0] <= decays[1] < 1


def test_channels_that_are_always_zero_change_nothing_in_the_default() -> None:
    narrow, wide = presets.default(16, 4), presets.default(16, 12)
    for step in range(20):
        z, upstream = torch.randn(2, 8, 4, 5, 5, generator=torch.Generator().manual_seed(step)).unbind()
        found = []
        for quantizer, padding in ((narrow, 0), (wide, 8)):
            torch.manual_seed(step)
            inputs = z.clone().requires_grad_()
            output = quantizer(F.pad(inputs, (0, 0, 0, 0, 0, padding)))
            quantized = output.quantized[:, :4]
            assert not output.quantized[:, 4:].any()
            found.append(
                (output.loss, quantized, *torch.autograd.grad(output.loss + (quantized * upstream).sum(), inputs))
            )
        torch.testing.assert_close(*found)
