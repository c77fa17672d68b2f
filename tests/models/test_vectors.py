"""The autoencoder of vectors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lexel
from lexel.models import Autoencoder, ImageAutoencoder, VectorAutoencoder


def residual(codebooks: int = 3, size: int = 16, dim: int = 8) -> lexel.ResidualQuantizer:
    return lexel.ResidualQuantizer([lexel.VectorQuantizer(size, dim) for _ in range(codebooks)])


def test_without_layers_the_quantizer_codes_the_vectors_as_they_are() -> None:
    model = VectorAutoencoder(residual()).eval()
    vectors = torch.randn(50, 8)
    ids = model.encode(vectors)
    assert ids.shape == (50, 3)
    assert torch.equal(ids, model.quantizer(vectors).indices)
    assert torch.equal(model.decode(ids), model.quantizer.lookup(ids))
    assert model.levels(()) == [(1, 1)]
    assert model.bits(()) == 12.0


def test_a_beam_finds_codes_of_no_larger_error() -> None:
    torch.manual_seed(0)
    quantizer, vectors = residual(4), torch.randn(300, 8)
    errors = [
        float((VectorAutoencoder(quantizer, beam_size=size).decode(ids) - vectors).detach().square().sum())
        for size in (1, 8)
        for ids in [VectorAutoencoder(quantizer, beam_size=size).encode(vectors)]
    ]
    assert errors[1] < errors[0]


def test_layers_are_mirrored_and_a_saved_model_codes_as_before(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = VectorAutoencoder(residual(), dim=20, hidden_channels=[16, 12], beam_size=3, unit=True)
    vectors = 5 + 0.01 * torch.randn(40, 20)
    model.calibrate(vectors)
    shapes = [tuple(layer.weight.shape) for layer in (*model.encoder, *model.decoder) if hasattr(layer, "weight")]
    assert shapes == [(16, 20), (12, 16), (8, 12), (12, 8), (16, 12), (20, 16)]
    model.save_pretrained(tmp_path)
    loaded = Autoencoder.from_pretrained(tmp_path)
    assert isinstance(loaded, VectorAutoencoder)
    assert torch.equal(loaded.encode(vectors), model.encode(vectors))
    assert torch.equal(loaded.encode(3 * vectors), model.encode(vectors))  # only directions count
    with pytest.raises(ValueError, match="class_path"):
        ImageAutoencoder.named("lexel.models.VectorAutoencoder")


def test_calibration_brings_the_encoders_inputs_to_mean_0_and_variance_1() -> None:
    model = VectorAutoencoder(residual(), dim=20)
    vectors = 3 + 0.01 * torch.randn(500, 20)
    model.calibrate(vectors)
    given = (vectors - model.mean) / model.scale
    assert given.mean(0).abs().max() < 1e-3
    assert abs(float(given.square().mean()) - 1) < 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "dim must be"),
        ({"hidden_channels": [16, 0]}, "hidden_channels must be"),
        ({"beam_size": 0}, "beam_size must be"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VectorAutoencoder(residual(), **arguments)  # type: ignore[arg-type]


def test_vectors_that_do_not_fit_are_refused() -> None:
    model = VectorAutoencoder(residual(), unit=True)
    with pytest.raises(ValueError, match=r"\(B, 8\), got \(4, 9\)"):
        model.encode(torch.randn(4, 9))
    with pytest.raises(TypeError, match=r"floating, got torch\.int64"):
        model.encode(torch.ones(4, 8, dtype=torch.int64))
    with pytest.raises(ValueError, match="the vector 1 is zero"):
        model.encode(torch.tensor([[1.0] * 8, [0.0] * 8]))
