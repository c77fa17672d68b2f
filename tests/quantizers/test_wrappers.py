"""Quantizers around another quantizer: what they say of themselves is what is so of the whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import lexel

WRAPPERS: dict[str, Callable[[lexel.Quantizer], lexel.Quantizer]] = {
    "unit": lexel.UnitQuantizer,
    "projected": lambda quantizer: lexel.ProjectedQuantizer(quantizer, 6),
    "one way": lambda quantizer: lexel.ProjectedQuantizer(quantizer, 6, back=False),
    "normalised": lambda quantizer: lexel.NormalisedQuantizer(quantizer, scale_back=False),
    "dropped": lambda quantizer: lexel.QuantizationDropout(quantizer, 0.0),
}
NARROWING: dict[str, Callable[[], lexel.Quantizer]] = {
    "categorical": lambda: lexel.CategoricalQuantizer(8, 6, code_dim=3),
    "projected": lambda: lexel.ProjectedQuantizer(lexel.VectorQuantizer(8, 3), 6, back=False),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("inner", NARROWING)
@pytest.mark.parametrize("outer", WRAPPERS)
def test_the_output_has_the_channels_that_it_says(outer: str, inner: str, training: bool) -> None:
    torch.manual_seed(0)
    quantizer, z, mask = WRAPPERS[outer](NARROWING[inner]()).train(training), torch.randn(2, 6, 5), torch.ones(2, 5)
    mask[0, 3:] = 0
    output = quantizer(z, mask > 0)
    assert output.quantized.shape == quantizer.lookup(output.indices).shape == (2, quantizer.output_dim, 5)
    padding = output.quantized[0, :, 3:]
    if quantizer.output_dim == 6:
        assert torch.equal(padding, z[0, :, 3:])
    else:
        assert not padding.any()
        assert not quantizer.leaves_remainder


def test_codes_of_other_channels_are_not_scaled_back() -> None:
    for make in NARROWING.values():
        with pytest.raises(ValueError, match="the quantizer turns 6 into 3: use scale_back=False"):
            lexel.NormalisedQuantizer(make())


@pytest.mark.parametrize("outer", WRAPPERS)
def test_codes_that_approximate_no_inputs_are_named(outer: str) -> None:
    quantizer, z = WRAPPERS[outer](lexel.CategoricalQuantizer(8, 6, code_dim=3)), torch.randn(10, 6)
    refused = pytest.raises(ValueError, match="CategoricalQuantizer: its codes do not approximate its inputs")
    with refused:
        quantizer.unquantized(z)
    with refused:
        quantizer.candidates(z, 2)
    with refused:
        lexel.QuantizationDropout(quantizer, 0.5)(z)


def priced(estimator: lexel.Estimator) -> lexel.VectorQuantizer:
    """A table whose prices decide many a choice."""
    vq = lexel.VectorQuantizer(16, 4, estimator=estimator)
    vq.load_codes(torch.randn(16, 4))
    price = vq.prices
    assert price is not None
    price.uniform_(0, 3)
    return vq


KEEPING: dict[str, Callable[[lexel.Quantizer], lexel.Quantizer]] = {
    "itself": lambda quantizer: quantizer,
    "dropped": lambda quantizer: lexel.QuantizationDropout(quantizer, 0.0),
    "normalised": lambda quantizer: lexel.NormalisedQuantizer(quantizer, std=0.5),
    "both": lambda quantizer: lexel.QuantizationDropout(lexel.NormalisedQuantizer(quantizer, std=3.0), 0.0),
}


@pytest.mark.parametrize("estimator", [lexel.Prices(), lexel.Synchronised(estimator=lexel.Prices())], ids=str)
@pytest.mark.parametrize("wrap", KEEPING)
def test_prices_decide_alike_in_training_in_eval_mode_and_in_a_beam(wrap: str, estimator: lexel.Estimator) -> None:
    torch.manual_seed(0)
    stages = [KEEPING[wrap](priced(estimator)) for _ in range(2)]
    quantizer, z = lexel.ResidualQuantizer(stages), torch.randn(500, 4)
    trained = quantizer(z).indices
    assert torch.equal(quantizer.eval()(z).indices, trained)
    assert torch.equal(quantizer.beam_search(z, 1), trained)


def test_maps_that_keep_no_distances_refuse_prices() -> None:
    quantizer = lexel.ResidualQuantizer([lexel.ProjectedQuantizer(priced(lexel.Prices()), 6)])
    quantizer(torch.randn(5, 6))
    with pytest.raises(ValueError, match="ProjectedQuantizer: its quantizer has prices"):
        quantizer.beam_search(torch.randn(5, 6), 1)
