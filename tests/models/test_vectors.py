"""The autoencoder of vectors."""

from __future__ import annotations

import json
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


class Bounded(VectorAutoencoder):
    """A model from elsewhere."""

    def __init__(self, quantizer: lexel.Quantizer, bound: float = 1.0, steps: tuple[int, ...] = (1,)) -> None:
        super().__init__(quantizer)
        self.bound, self.steps = bound, steps


class Forgetful(VectorAutoencoder):
    """One that does not keep what it is given."""

    def __init__(self, quantizer: lexel.Quantizer, bound: float = 1.0) -> None:
        super().__init__(quantizer)


def test_a_model_from_elsewhere_is_saved_by_its_own_name(tmp_path: Path) -> None:
    Bounded(residual(), 0.5, (1, 2)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["class_path"] == "tests.models.test_vectors.Bounded"
    assert config.keys() == {"class_path", "quantizer", "bound", "steps"}
    loaded = Autoencoder.from_pretrained(tmp_path)
    assert type(loaded) is Bounded
    assert loaded.bound == 0.5
    assert list(loaded.steps) == [1, 2]


def test_an_argument_that_a_model_does_not_keep_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"Forgetful must keep each argument of its constructor.* it has no bound$"):
        Forgetful(residual()).save_pretrained(tmp_path)


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
