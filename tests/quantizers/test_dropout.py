"""A quantizer that lets some examples pass as they are, in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import lexel


def spread() -> lexel.VectorQuantizer:
    vq = lexel.VectorQuantizer(16, 8)
    vq.pull(torch.randn(16, 8), torch.ones(16))
    return vq


INNER: dict[str, Callable[[], lexel.Quantizer]] = {
    "vector": spread,
    "normalised": lambda: lexel.NormalisedQuantizer(spread(), scale_back=False),
    "scalar": lambda: lexel.ProjectedQuantizer(lexel.FiniteScalarQuantizer([8, 5, 5]), 8),
    "residual": lambda: lexel.ResidualQuantizer([spread(), spread()]),
}


@pytest.mark.parametrize("name", INNER)
def test_an_example_passes_as_a_whole_with_its_probability_and_the_exact_gradient(name: str) -> None:
    torch.manual_seed(0)
    inner = INNER[name]()
    dropout = lexel.QuantizationDropout(inner, rate=0.3)
    z = torch.randn(2000, 8, 3, requires_grad=True)
    inner(z)  # what is found once is found
    torch.manual_seed(1)
    output = dropout(z)
    torch.manual_seed(1)
    torch.rand(2000, 1, 1)
    plain, passed = inner(z), inner.unquantized(z)
    is_plain = (output.quantized - plain.quantized).abs().amax((1, 2)) < 1e-5
    is_passed = (output.quantized - passed).abs().amax((1, 2)) < 1e-5
    assert bool((is_plain ^ is_passed).all())
    assert abs(float(is_passed.float().mean()) - 0.3) < 4 * (0.3 * 0.7 / 2000) ** 0.5
    assert torch.equal(output.indices, plain.indices)
    cotangent = torch.randn_like(z)
    (found,) = torch.autograd.grad((output.quantized * cotangent).sum(), z, retain_graph=True)
    (exact,) = torch.autograd.grad((passed * cotangent).sum(), z)
    torch.testing.assert_close(found[is_passed], exact[is_passed])


def test_codes_learn_from_examples_that_are_dropped() -> None:
    ends = []
    for rate in (0.0, 0.9):
        torch.manual_seed(0)
        inner = lexel.VectorQuantizer(16, 8, learning=lexel.EMA(), upkeep=(lexel.KMeansStart(), lexel.Revival()))
        dropout = lexel.QuantizationDropout(inner, rate)
        losses = [dropout(torch.randn(64, 8, generator=torch.Generator().manual_seed(step))).loss for step in range(20)]
        ends.append((inner.codebook().detach(), torch.stack(losses)))
    torch.testing.assert_close(ends[0], ends[1])


@pytest.mark.parametrize("name", INNER)
def test_the_state_of_the_quantizer_alone_loads(name: str) -> None:
    inner, z = INNER[name](), torch.randn(9, 8)
    inner(z)
    model = torch.nn.ModuleDict({"vq": lexel.QuantizationDropout(INNER[name]())})
    model.load_state_dict({f"vq.{key}": value.clone() for key, value in inner.state_dict().items()})
    assert torch.equal(model.eval()["vq"](z).quantized, inner.eval()(z).quantized)
    again = torch.nn.ModuleDict({"vq": lexel.QuantizationDropout(INNER[name]())})
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()["vq"](z).quantized, inner(z).quantized)
    with pytest.raises(RuntimeError, match="Missing key"):
        again.load_state_dict({})


def test_nothing_is_dropped_when_it_does_not_train() -> None:
    dropout, z = lexel.QuantizationDropout(spread(), rate=0.9), torch.randn(50, 8)
    output = dropout.eval()(z)
    assert torch.equal(output.quantized, dropout.lookup(output.indices))


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan"), "0.1", None, True])
def test_refuses_what_is_no_rate(rate: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"QuantizationDropout: rate must be .*, got"):
        lexel.QuantizationDropout(spread(), rate)


def test_refuses_what_is_no_quantizer() -> None:
    with pytest.raises(TypeError, match="QuantizationDropout: quantizer must be a lexel Quantizer, got"):
        lexel.QuantizationDropout(torch.nn.Identity(), 0.1)  # type: ignore[arg-type]
