"""The autoencoder: shapes for any size, coding and decoding, saving and loading."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st

import lexel
from lexel.models import VQVAE
from lexel.runs import load_model


def make(**settings: object) -> VQVAE:
    torch.manual_seed(0)
    defaults = {"hidden_channels": 8, "residual_channels": 4, "residual_layers": 1}
    return VQVAE(lexel.VectorQuantizer(16, 4), **{**defaults, **settings}).eval()


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.integers(1, 5),
    downsampling=st.sampled_from([1, 2, 4, 8, 16]),
    upsampling=st.sampled_from(["transposed", "resize"]),
)
def test_any_size_comes_back_in_its_size(
    height: int, width: int, channels: int, downsampling: int, upsampling: str
) -> None:
    model = make(image_channels=channels, downsampling=downsampling, upsampling=upsampling)
    images = torch.rand(2, channels, height, width)
    indices = model.encode(images)
    assert indices.shape == (2, -(-height // downsampling), -(-width // downsampling))
    reconstructions, output = model(images)
    assert torch.equal(indices, output.indices)
    torch.testing.assert_close(model.decode(indices, (height, width)), reconstructions.clamp(0, 1), rtol=0, atol=0)


def test_whole_multiples_are_not_padded() -> None:
    model, images = make(downsampling=4), torch.rand(1, 3, 16, 24)
    assert model.decode(model.encode(images)).shape == images.shape


def test_gradient_reaches_encoder_and_decoder() -> None:
    model = make().train()
    images = torch.rand(1, 3, 16, 16)
    reconstructions, output = model(images)
    (torch.nn.functional.mse_loss(reconstructions, images) + output.loss).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_encode_changes_no_state_in_training_mode() -> None:
    model = VQVAE(lexel.VectorQuantizer(16, 4, learning=lexel.EMA()), hidden_channels=8).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.encode(torch.rand(1, 3, 16, 16))
    assert model.quantizer.training
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("learning", [lexel.Gradient(), lexel.EMA(decay=0.9)])
def test_a_folder_alone_rebuilds_the_model(tmp_path: Path, learning: lexel.Learning) -> None:
    model = VQVAE(lexel.VectorQuantizer(16, 4, 0.5, learning=learning), hidden_channels=8, downsampling=8).eval()
    model.save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    again, images = VQVAE.from_pretrained(tmp_path), torch.rand(1, 3, 30, 20)
    assert not again.training
    assert again.quantizer.config == model.quantizer.config
    torch.testing.assert_close(again(images)[0], model(images)[0], rtol=0, atol=0)
    torch.testing.assert_close(load_model(tmp_path).state_dict(), model.state_dict(), rtol=0, atol=0)


class TestRefusals:
    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"downsampling": 3}, "downsampling must be a power of two, got 3"),
            ({"downsampling": 0}, "downsampling must be a power of two, got 0"),
            ({"image_channels": 0}, "image_channels must be at least 1, got 0"),
            ({"residual_layers": -1}, "residual_layers must be at least 0"),
            ({"upsampling": "magic"}, "'magic'"),
        ],
    )
    def test_arguments(self, wrong: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            make(**wrong)

    def test_quantizers(self) -> None:
        with pytest.raises(TypeError, match="got Linear"):
            VQVAE(torch.nn.Linear(1, 1))
        with pytest.raises(ValueError, match="channel_dim=1, got -1"):
            VQVAE(lexel.VectorQuantizer(8, 8, channel_dim=-1))

    @pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 3, 0, 8)])
    def test_images(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"shape \(B, 3, H, W\)"):
            make()(torch.rand(shape))
        with pytest.raises(TypeError, match="floating"):
            make()(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))

    def test_a_size_that_the_indices_cannot_have_come_from(self) -> None:
        with pytest.raises(ValueError, match="positions"):
            make().decode(torch.zeros(1, 2, 2, dtype=torch.int64), (100, 8))

    def test_folders_that_hold_no_model(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="no model"):
            load_model(tmp_path)

    @pytest.mark.parametrize(
        "config",
        [
            {"quantizer": {"class_path": "os.system", "init_args": {"command": "true"}}},
            {"quantizer": {"class_path": "lexel.VectorQuantizer", "init_args": {"planets": 9}}},
            {"quantizer": 3},
            {},
            [],
        ],
    )
    def test_configurations_of_something_else(self, tmp_path: Path, config: object) -> None:
        make().save_pretrained(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=r"config\.json|class_path|build|model"):
            load_model(tmp_path)

    def test_weights_of_another_architecture(self, tmp_path: Path) -> None:
        make().save_pretrained(tmp_path / "one")
        make(hidden_channels=16).save_pretrained(tmp_path / "two")
        (tmp_path / "one/model.safetensors").replace(tmp_path / "two/model.safetensors")
        with pytest.raises(ValueError, match="not the one that"):
            load_model(tmp_path / "two")

    def test_damaged_weights(self, tmp_path: Path) -> None:
        make().save_pretrained(tmp_path)
        weights = tmp_path / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:100])
        with pytest.raises(ValueError, match="weights of this model"):
            load_model(tmp_path)
