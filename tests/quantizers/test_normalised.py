"""A quantizer of inputs that were shifted and scaled."""

from __future__ import annotations

import pytest
import torch

import lexel


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_the_size_and_the_place_of_the_inputs_change_nothing() -> None:
    z, outputs = torch.randn(64, 8), []
    for size, place in ((1.0, 0.0), (1e-3, 1e-2), (1e3, 1e3), (1.0, -10.0)):
        torch.manual_seed(1)
        vq = lexel.NormalisedQuantizer(lexel.VectorQuantizer(16, 8, upkeep=lexel.KMeansStart()), scale_back=False)
        outputs.append(vq(z * size + place * torch.arange(8)))
    for output in outputs[1:]:
        assert torch.equal(output.indices, outputs[0].indices)
        torch.testing.assert_close(
            (output.quantized, output.loss), (outputs[0].quantized, outputs[0].loss), atol=1e-5, rtol=1e-4
        )


def test_mean_and_scale_are_found_once_by_inputs_that_count() -> None:
    vq, z = lexel.NormalisedQuantizer(lexel.VectorQuantizer(16, 8), std=0.5), torch.randn(50, 8)
    vq(torch.empty(0, 8))
    vq(torch.ones(1, 8).expand(9, 8))  # without a spread there is no scale yet
    vq.eval()(100 * z)
    assert vq.scale == 1
    assert not vq.shift.any()
    vq.train()(torch.cat([4 * z + 3, torch.full((3, 8), 1e6)]), mask=torch.arange(53) < 50)
    centred = 4 * z - 4 * z.mean(0)
    torch.testing.assert_close(vq.shift, (4 * z + 3).mean(0))
    torch.testing.assert_close(vq.scale, 0.5 * centred.square().mean().rsqrt())
    before = vq.scale.clone(), vq.shift.clone()
    vq(z)
    assert torch.equal(vq.scale, before[0])
    assert torch.equal(vq.shift, before[1])


@pytest.mark.parametrize("std", [0.0, -1.0, float("inf"), float("nan")])
def test_refuses_what_is_no_spread(std: float) -> None:
    with pytest.raises(ValueError, match=r"NormalisedQuantizer: std must be finite( and positive)?, got"):
        lexel.NormalisedQuantizer(lexel.VectorQuantizer(4, 2), std=std)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_order_of_the_inputs_changes_no_bit_of_what_is_measured(dtype: torch.dtype) -> None:
    """As the number of ranks must not, which add up their parts in another order."""
    z, found = torch.randn(1000, 6, dtype=dtype) * 3 + 5, []
    for _ in range(10):
        quantizer = lexel.NormalisedQuantizer(lexel.VectorQuantizer(4, 6)).to(dtype)
        quantizer(z[torch.randperm(len(z))])
        found.append((quantizer.shift, quantizer.scale))
    for each in found[1:]:
        torch.testing.assert_close(each, found[0], rtol=0, atol=0)
