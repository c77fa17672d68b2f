"""One image as one small file."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import constriction
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

import lexel
from lexel.cli import main
from lexel.models import VQVAE
from lexel.runs import load_model
from lexel.tokens import compress, context_bits, decompress
from lexel.tokens._contexts import LOGISTIC, ONE, Codebook, Grid, code_order, decoded, encoded, packed, unpacked
from lexel.tokens.compressed import compress_indices, decompress_indices
from tests.commands import refused, train
from tests.tokens.fuzz_compressed import fuzz, resealed, small_model, whole_files

GOLDEN = Path(__file__).parent.parent / "golden"


class TestCoder:
    @given(st.data())
    @settings(max_examples=40, deadline=None)
    def test_any_grids_come_back(self, data: st.DataObject) -> None:
        sizes = data.draw(st.lists(st.sampled_from([1, 2, 3, 300, 1000, 2**16 + 1, 2**62]), min_size=1, max_size=3))
        shapes = data.draw(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=3))
        length = sum(rows * columns for rows, columns in shapes)
        spread = data.draw(st.sampled_from([1, 3, 2**62]))  # one index, a few, or any
        columns = [data.draw(_indices(min(size, spread), length)) for size in sizes]
        flat = np.array(columns, np.int64).T.reshape(-1)

        def grids() -> list[Grid]:
            books = [Codebook(size) for size in sizes]
            return [Grid(*shape, books) for shape in shapes]

        assert np.array_equal(decoded(grids(), encoded(grids(), flat)), flat)
        every = sizes * length
        assert unpacked(every, packed(every, flat.tolist())) == flat.tolist()

    @pytest.mark.parametrize("usage", [False, True])
    def test_any_order_of_codes_comes_back(self, usage: bool) -> None:
        rng = np.random.default_rng(0)
        table = rng.normal(size=(37, 5)).astype(np.float32)
        table[3], table[4] = np.nan, np.inf
        order = code_order(table, rng.random(37) if usage else None)
        assert sorted(order.code) == list(range(37))
        assert [order.code[place] for place in order.place] == list(range(37))
        flat = rng.integers(0, 37, 64)
        coded = encoded([Grid(8, 8, [Codebook(37, order)])], flat)
        assert np.array_equal(decoded([Grid(8, 8, [Codebook(37, order)])], coded), flat)

    def test_the_order_is_that_of_the_codes_along_a_line(self) -> None:
        line = np.random.default_rng(0).permutation(64).astype(np.float32)
        order = code_order(np.stack([line, 0 * line], 1))
        assert np.array_equal(line[order.code], np.arange(64))

    def test_what_repeats_takes_little_and_noise_no_more_than_it_must(self) -> None:
        model, rng = small_model(), np.random.default_rng(0)
        noise = torch.from_numpy(rng.integers(0, 300, (32, 32)))
        assert len(compress_indices(model, noise, (128, 128))) <= np.log2(300) * 1024 / 8 + 25
        stripes = torch.arange(32).expand(32, 32).contiguous()
        assert len(compress_indices(model, stripes, (128, 128))) < 200
        assert context_bits([noise.numpy()], [300]) < 1.05 * np.log2(300) * 1024
        twice = [stripes.numpy()] * 2
        assert context_bits(twice, [300], together=True) < 0.7 * context_bits(twice, [300])

    def test_probabilities_reach_the_coder_without_rounding(self) -> None:
        """The cost of a bit is that of an integer out of 2^24, for every probability."""
        for place in range(0, len(LOGISTIC), 97):
            exact = LOGISTIC[place] * (2**24 - 2)
            assert float(LOGISTIC[place] / ONE) * ONE == LOGISTIC[place]
            assert exact < 2**53
            zero = ((ONE - LOGISTIC[place]) * (2**24 - 2)) // ONE + 1
            words = [_boundary(zero - 1), _boundary(zero)]
            model = constriction.stream.model.Bernoulli(LOGISTIC[place] / ONE, perfect=False)
            found = [constriction.stream.queue.RangeDecoder(word).decode(model) for word in words]
            assert found == [0, 1], place

    def test_the_tables_are_these(self) -> None:
        """Another table would be another format."""
        assert hashlib.sha256(str(LOGISTIC).encode()).hexdigest()[:16] == "59a332c4a0e6a264"

    def test_what_grids_may_be(self) -> None:
        for grid, sizes, said in (
            (np.zeros((2, 2), int) - 1, [4], "index -1"),
            (np.full((2, 2), 4), [4], "index 4"),
            (np.zeros((2, 2)), [4], "integers"),
            (np.zeros((2, 2, 3), int), [4, 4], "do not fit"),
        ):
            with pytest.raises(ValueError, match=said):
                context_bits([grid], sizes)


def _indices(size: int, length: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, size - 1), min_size=length, max_size=length)


def _boundary(quantile: int) -> np.ndarray:
    """Return the first words of which the range decoder reads this quantile of 2^24."""
    point = quantile * ((2**64 - 1) >> 24)
    return np.array([point >> 32, point & 0xFFFFFFFF], np.uint32)


@pytest.mark.parametrize(
    "quantizer",
    [
        lexel.presets.default(64, 8),
        lexel.FiniteScalarQuantizer([8, 5, 5, 5]),
        lexel.LookupFreeQuantizer(embedding_dim=40),
        lexel.ResidualQuantizer([lexel.VectorQuantizer(16, 4) for _ in range(3)]),
        lexel.ProductQuantizer([lexel.VectorQuantizer(16, 4)], heads=2),
        lexel.presets.var((1, 2, 3, 4), embedding_dim=4),
    ],
    ids=["default", "finite scalar", "lookup-free, 2^40", "residual", "product", "multi-scale"],
)
def test_an_image_comes_back_as_its_indices_say(quantizer: lexel.Quantizer) -> None:
    torch.manual_seed(0)
    model = VQVAE(quantizer, hidden_channels=8, residual_layers=0).eval()
    image = torch.randint(256, (3, 15, 14), dtype=torch.uint8)
    expected = model.encode(image[None].float() / 255)
    data = compress(model, image)
    indices, size = decompress_indices(model, data)
    assert torch.equal(indices, expected[0])
    assert size == (15, 14)
    decoded_image = model.decode(expected, size)
    assert torch.equal(decompress(model, data), (decoded_image[0] * 255).round().to(torch.uint8))
    assert data == compress(model, image)


@pytest.mark.parametrize("path", sorted((GOLDEN / "compressed").glob("*.lxl")), ids=lambda path: path.stem)
def test_files_that_earlier_versions_wrote_give_the_same_indices(path: Path) -> None:
    indices, _ = decompress_indices(load_model(GOLDEN / "run"), path.read_bytes())
    assert np.array_equal(indices.numpy(), np.load(path.with_suffix(".npy")))


class TestRefusals:
    def test_damaged_and_hostile_files(self) -> None:
        assert set(fuzz(400)) == {"refused", "read"}

    def test_every_flipped_bit_and_every_shorter_file(self) -> None:
        model = small_model()
        for data in whole_files(model):
            for length in range(len(data)):
                with pytest.raises(ValueError, match=r"damaged|not a file"):
                    decompress(model, data[:length])
            for place in range(len(data)):
                changed = bytearray(data)
                changed[place] ^= 1 << place % 8
                with pytest.raises(ValueError, match=r"damaged|not a file|not know"):
                    decompress(model, bytes(changed))

    def test_another_model_is_named(self) -> None:
        data = whole_files(small_model())[0]
        with pytest.raises(ValueError, match=r"fingerprint .* decompress it with the model that made it"):
            decompress(small_model(seed=1), data)

    @pytest.mark.parametrize("how", [1, 2])
    @pytest.mark.parametrize("side", [b"\xff\xff\xff\xff\x0f", b"\x80\x40", b"\x00"])
    def test_sizes_that_the_file_cannot_hold(self, how: int, side: bytes) -> None:
        model = small_model()
        start = bytearray(whole_files(model)[0][:12])
        start[3] = how
        with pytest.raises(ValueError, match=r"cannot hold|the most is"):
            decompress(model, resealed(bytes(start) + side + side + bytes(10) + bytes(4)))

    def test_images_and_indices_that_do_not_fit(self) -> None:
        model = small_model()
        with pytest.raises(TypeError, match="uint8"):
            compress(model, torch.rand(3, 8, 8))
        for shape in ((1, 3, 8, 8), (1, 8, 8), (3, 0, 8)):
            with pytest.raises(ValueError, match="shape"):
                compress(model, torch.zeros(shape, dtype=torch.uint8))
        for index in (-1, 300):
            with pytest.raises(ValueError, match=f"index {index}"):
                compress_indices(model, torch.full((2, 2), index), (8, 8))
        with pytest.raises(ValueError, match="indices of shape"):
            compress_indices(model, torch.zeros(3, 2, dtype=torch.int64), (8, 8))
        multi = VQVAE(lexel.presets.var((1, 2, 3, 4), embedding_dim=4), hidden_channels=8, residual_layers=0).eval()
        with pytest.raises(ValueError, match="4"):
            compress(multi, torch.zeros(3, 8, 8, dtype=torch.uint8))


class TestCommands:
    def test_an_image_becomes_a_file_and_comes_back(
        self, run: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source, file, copy = photographs / "coffee.webp", tmp_path / "coffee.lxl", tmp_path / "coffee.png"
        assert main(["compress", str(run), str(source), "--out", str(file)]) == 0
        assert f"{file.stat().st_size:,} bytes" in capsys.readouterr().out
        assert main(["decompress", str(run), str(file), "--out", str(copy)]) == 0
        with Image.open(copy) as image, Image.open(source) as original:
            assert image.size == original.size
            pixels = torch.from_numpy(np.array(image)).movedim(-1, 0)
        assert torch.equal(pixels, decompress(load_model(run), file.read_bytes()))
        for words in (["compress", run, source, "--out", file], ["decompress", run, file, "--out", copy]):
            assert "--overwrite" in refused(words, capsys)

    def test_bad_input_gets_a_line(
        self, run: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file, out = tmp_path / "a.lxl", tmp_path / "a.png"
        assert "give one" in refused(["compress", run, photographs, "--out", file], capsys)
        assert "nowhere" in refused(["decompress", run, tmp_path / "nowhere", "--out", out], capsys)
        (tmp_path / "text.png").write_text("none")
        assert "text.png" in refused(["compress", run, tmp_path / "text.png", "--out", file], capsys)
        assert "not a file that" in refused(["decompress", run, photographs / "coffee.webp", "--out", out], capsys)
        assert main(["compress", str(run), str(photographs / "coffee.webp"), "--out", str(file)]) == 0
        train(photographs, tmp_path / "other", "--seed", "1", steps=1)
        said = refused(["decompress", tmp_path / "other", file, "--out", out], capsys)
        assert str(file) in said
        assert "fingerprint" in said
        file.write_bytes(file.read_bytes()[:-1])
        assert "damaged" in refused(["decompress", run, file, "--out", out], capsys)
        assert not out.exists()

    def test_bench_measures_every_codec(
        self, run: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        picture = tmp_path / "curves.svg"
        words = ["bench", str(run), str(photographs / "animals")]
        assert main([*words, "--json", "--plot", str(picture)]) == 0
        curves = json.loads(capsys.readouterr().out)
        assert [curve["name"] for curve in curves][:2] == ["Lexel", "JPEG"]
        for curve in curves:
            assert {"name", "description", "results"} == set(curve)
            assert len({len(values) for values in curve["results"].values()}) == 1
        own = curves[0]["results"]
        assert own["bpp-indices"][0] < own["bpp"][0]
        assert own["bpp-indices"][0] <= own["bpp-uniform"][0] + 0.01
        for curve in curves[1:]:
            assert sorted(curve["results"]["bpp"]) == curve["results"]["bpp"]
        assert picture.read_text().lstrip().startswith("<?xml")
        assert main(words) == 0
        assert "The model, which is in no file" in capsys.readouterr().out
        assert "exists" in refused([*words, "--plot", picture], capsys)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_is_refused_and_not_waited_for(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_model().save_pretrained(tmp_path / "model")
    path = Path("/dev/zero") if kind == "device" else tmp_path / "a.lxl"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    assert str(path) in refused(["decompress", tmp_path / "model", path, "--out", tmp_path / "a.png"], capsys)
