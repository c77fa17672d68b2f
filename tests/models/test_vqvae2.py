"""The hierarchy: what each level codes, how levels depend on each other, and the way from a command to a page."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

import lexel
from lexel.cli import main
from lexel.models import VQVAE, VQVAE2, Autoencoder
from lexel.quantizers.base import Quantizer
from lexel.runs import load_model
from tests.commands import TINY, refused

MAKERS = {
    "vector": lambda: lexel.VectorQuantizer(16, 4),
    "finite scalar": lambda: lexel.FiniteScalarQuantizer([4, 4]),
    "residual": lambda: lexel.ResidualQuantizer([lexel.VectorQuantizer(16, 4), lexel.VectorQuantizer(8, 4)]),
    "normalised": lambda: lexel.presets.default(16, 4),
}


def make(*quantizers: Quantizer, **how: object) -> VQVAE2:
    torch.manual_seed(0)
    sizes = {"hidden_channels": 8, "residual_channels": 4, "residual_layers": 1}
    return VQVAE2(quantizers or [lexel.VectorQuantizer(16, 4) for _ in range(2)], **{**sizes, **how}).eval()


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    factors=st.sampled_from([[4, 2], [8, 4, 2], [8, 1], [2, 1]]),
    name=st.sampled_from(sorted(MAKERS)),
)
def test_any_size_comes_back_in_its_size(height: int, width: int, factors: list[int], name: str) -> None:
    model = make(*(MAKERS[name]() for _ in factors), downsampling=factors)
    images, size = torch.rand(2, 3, height, width), (height, width)
    levels = model.levels(size)
    assert levels == [
        (-(-height // factors[0]) * factors[0] // f, -(-width // factors[0]) * factors[0] // f) for f in factors
    ]
    indices = model.encode(images)
    assert indices.dtype == torch.int64
    assert indices.shape == (2, sum(h * w for h, w in levels), *model.quantizers[0].index_shape)
    reconstructions, output = model(images)
    assert torch.equal(indices, output.indices)
    assert model.bits(size) == pytest.approx(sum(h * w for h, w in levels) * model.quantizers[0].bits)
    torch.testing.assert_close(model.decode(indices, size), reconstructions.clamp(0, 1), rtol=0, atol=0)


def test_the_indices_are_those_of_the_levels_coarse_to_fine_and_row_by_row() -> None:
    model, images = make(), torch.rand(2, 3, 16, 24)
    coarse, fine = (level.output.indices for level in model.quantize(images))
    assert (coarse.shape, fine.shape) == ((2, 2, 3), (2, 4, 6))
    assert torch.equal(model.encode(images), torch.cat([coarse.flatten(1), fine.flatten(1)], 1))
    books = model.by_codebook(model.encode(images), (16, 24))
    assert [book.tolist() for book in books] == [coarse.flatten().tolist(), fine.flatten().tolist()]


def test_a_level_may_have_a_quantizer_of_whole_maps() -> None:
    multi = lexel.MultiScaleResidualQuantizer(lexel.VectorQuantizer(16, 4), [1, 2], convolutions=1)
    model, images = make(multi, lexel.VectorQuantizer(16, 4)), torch.rand(2, 3, 16, 16)
    assert model.levels((16, 16)) == [(1, 1), (2, 2), (4, 4)]
    assert model.image_size == (16, 16)
    indices = model.encode(images)
    assert indices.shape == (2, 21)
    torch.testing.assert_close(model.decode(indices, (16, 16)), model(images)[0].clamp(0, 1), rtol=0, atol=0)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_each_level_depends_on_the_coarser_codes_and_the_image_on_all(level: int) -> None:
    """Another code at a coarse level changes what the finer levels are given, and no coarser one."""
    model = make(*(lexel.VectorQuantizer(16, 4) for _ in range(3)), downsampling=[8, 4, 2])
    for quantizer in model.quantizers:
        torch.nn.init.normal_(quantizer.codebook.weight)
    images, size = torch.rand(1, 3, 16, 16), (16, 16)
    before, indices = model.quantize(images), model.encode(images)
    image = model.decode(indices, size)
    model.quantizers[level].codebook.weight.data += 1
    after = model.quantize(images)
    changed = [not torch.equal(a.latents, b.latents) for a, b in zip(before, after, strict=True)]
    assert changed == [k > level for k in range(3)]
    assert not torch.equal(model.decode(indices, size), image)


def test_gradient_reaches_every_part() -> None:
    model = make().train()
    images = torch.rand(1, 3, 16, 16)
    reconstructions, output = model(images)
    (torch.nn.functional.mse_loss(reconstructions, images) + output.loss).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_what_the_levels_return_is_joined() -> None:
    model, images = make(), torch.rand(1, 3, 16, 16)
    _, levels = model.reconstruct(images)
    joined, outputs = model.joined(levels), [level.output for level in levels]
    torch.testing.assert_close(joined.loss, outputs[0].loss + outputs[1].loss)
    torch.testing.assert_close(joined.perplexity, (outputs[0].perplexity * outputs[1].perplexity).sqrt())
    assert joined.terms["1.commitment"] is outputs[1].terms["commitment"]
    assert joined.quantized.shape == (1, 8, 4, 4)
    assert torch.equal(joined.quantized[:, 4:], outputs[1].quantized)
    assert torch.equal(joined.quantized[:, :4, ::2, 1::2], outputs[0].quantized)


def test_encode_changes_no_state_in_training_mode() -> None:
    model = make(*(lexel.VectorQuantizer(16, 4, learning=lexel.EMA()) for _ in range(2))).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.encode(torch.rand(1, 3, 16, 16))
    assert all(module.training for module in model.modules())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_a_folder_alone_rebuilds_the_model(tmp_path: Path) -> None:
    model = make(MAKERS["normalised"](), lexel.VectorQuantizer(16, 4), downsampling=[8, 2], upsampling="resize")
    model.save_pretrained(tmp_path)
    images = torch.rand(1, 3, 30, 20)
    for found in (VQVAE2.from_pretrained(tmp_path), Autoencoder.from_pretrained(tmp_path), load_model(tmp_path)):
        assert isinstance(found, VQVAE2)
        assert not found.training
        assert found.config == model.config
        torch.testing.assert_close(found(images)[0], model(images)[0], rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"'lexel\.models\.VQVAE2' of a model; known: lexel\.models\.VQVAE$"):
        VQVAE.from_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "downsampling": [4, 2]}))
    with pytest.raises(ValueError, match=r"was changed|weights of this model"):
        load_model(tmp_path)


class TestRefusals:
    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"downsampling": [4]}, r"two or more numbers that fall, got \[4\]"),
            ({"downsampling": [4, 8]}, r"two or more numbers that fall, got \[4, 8\]"),
            ({"downsampling": [4, 4]}, "two or more numbers that fall"),
            ({"downsampling": [6, 2]}, "power of two, got 6"),
            ({"downsampling": [8, 4, 2]}, "each of 3 levels, got 2"),
            ({"hidden_channels": 1}, "hidden_channels must be at least 2"),
        ],
    )
    def test_arguments(self, wrong: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            make(**wrong)

    def test_quantizers(self) -> None:
        one = lexel.VectorQuantizer(16, 4)
        with pytest.raises(ValueError, match="another one for each"):
            make(one, one)
        with pytest.raises(ValueError, match=r"same codebook_sizes, got \[\[16\], \[8\]\]"):
            make(one, lexel.VectorQuantizer(8, 4))
        with pytest.raises(TypeError, match="sequence of Quantizer, got a VectorQuantizer"):
            VQVAE2(one)
        with pytest.raises(TypeError, match="got Linear"):
            make(one, torch.nn.Linear(1, 1))

    def test_indices_of_another_size(self) -> None:
        model = make()
        indices = model.encode(torch.rand(1, 3, 16, 16))
        with pytest.raises(ValueError, match=r"shape \(B, 40, …\), got \(1, 20\)"):
            model.decode(indices, (16, 32))
        with pytest.raises(ValueError, match="need the size"):
            model.decode(indices)
        with pytest.raises(ValueError, match=r"\[-1, 16\), got"):
            model.decode(indices + 16, (16, 16))


LEVELS = ["--model", "lexel.models.VQVAE2", "--model.downsampling", "[8, 4]"]


def test_from_the_command_line_to_a_page(photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, codes, out = (str(tmp_path / name) for name in ("run", "codes.safetensors", "decoded"))
    assert main(["train", str(photographs), "--out", run, "--steps", "4", *LEVELS, *TINY]) == 0
    model = load_model(Path(run))
    assert isinstance(model, VQVAE2)
    assert (model.downsampling, model.hidden_channels, len(model.quantizers)) == ([8, 4], 8, 2)
    assert main(["resume", run, "--steps", "6"]) == 0
    header = (tmp_path / "run/metrics.csv").read_text().splitlines()[0]
    assert "quantizer_0.commitment" in header
    assert "quantizer_1.commitment" in header

    assert main(["encode", run, str(photographs), "--out", codes]) == 0
    assert main(["decode", run, codes, "--out", out]) == 0
    with Image.open(photographs / "coffee.webp") as original, Image.open(tmp_path / "decoded/coffee.png") as decoded:
        assert original.size == decoded.size
    capsys.readouterr()
    assert main(["evaluate", run, str(photographs), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert math.isfinite(figures["psnr"])
    pixels = positions = 0
    for width, height in ((97, 90), (113, 75), (75, 50), (66, 66)):
        pixels += width * height
        positions += 5 * (-(-width // 8) * -(-height // 8))
    assert figures["bits_per_pixel"] == pytest.approx(4 * positions / pixels)
    packed, unpacked = (str(tmp_path / name) for name in ("coffee.lxl", "unpacked.png"))
    assert main(["compress", run, str(photographs / "coffee.webp"), "--out", packed]) == 0
    assert main(["decompress", run, packed, "--out", unpacked]) == 0
    assert Path(unpacked).read_bytes() == (tmp_path / "decoded/coffee.png").read_bytes()
    assert main(["audit", run, str(photographs)]) in (0, 1)
    assert "Level 2 of 2" in capsys.readouterr().out
    assert main(["report", run]) == 0
    page = (tmp_path / "run/report.html").read_text()
    assert "several scales" in page
    assert "VQVAE2" in page


def test_the_same_settings_make_the_same_run(photographs: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    words = [*LEVELS, *TINY, "--save-every", "2"]
    assert main(["train", str(photographs), "--out", str(one), "--steps", "4", *words]) == 0
    assert main(["train", str(photographs), "--out", str(other), "--steps", "4", *words]) == 0
    weights = [(run / "model/model.safetensors").read_bytes() for run in (one, other)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "lexel.models.VQVAE2", "--model.downsampling", "[4, 8]"], "numbers that fall"),
        (["--model", "lexel.models.VQVAE2", "--model.downsampling", "[]"], "numbers that fall"),
    ],
)
def test_settings_out_of_range(
    options: list[str], said: str, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert said in refused(["train", photographs, "--out", out, *TINY, *options], capsys)
    assert not out.exists()


@pytest.mark.parametrize("name", ["lexel.models.VQVAE3", "os.system", "lexel.VectorQuantizer"])
def test_a_model_that_is_none(name: str, photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["train", str(photographs), "--out", "x", "--model", name])
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lexel: ")
