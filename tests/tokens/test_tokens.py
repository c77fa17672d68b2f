"""Token files, and images to tokens and back."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import lexel
import lexel.tokens
from lexel._core.checksums import digest
from lexel.cli import main
from lexel.runs import load_model
from lexel.tokens import Facts, Row, fingerprint
from lexel.tokens.file import write_file
from tests.commands import refused, train


class TestTokens:
    @pytest.fixture
    def codes(self, run: Path, photographs: Path, tmp_path: Path) -> Path:
        path = tmp_path / "codes.safetensors"
        assert main(["encode", str(run), str(photographs), "--out", str(path)]) == 0
        return path

    def test_decoding_writes_the_same_tree(self, run: Path, photographs: Path, codes: Path, tmp_path: Path) -> None:
        assert main(["decode", str(run), str(codes), "--out", str(tmp_path / "images")]) == 0
        originals = {path.relative_to(photographs).with_suffix("") for path in photographs.rglob("*.*")}
        decoded = {path.relative_to(tmp_path / "images").with_suffix("") for path in (tmp_path / "images").rglob("*.*")}
        assert decoded == originals
        for path in (tmp_path / "images").rglob("*.*"):
            original = next((photographs / path.relative_to(tmp_path / "images")).parent.glob(f"{path.stem}.*"))
            with Image.open(path) as one, Image.open(original) as two:
                assert one.size == two.size

    def test_names_that_differ_only_in_extension_stay_apart(self, run: Path, photographs: Path, tmp_path: Path) -> None:
        with Image.open(photographs / "coffee.webp") as image:
            (tmp_path / "data").mkdir()
            image.save(tmp_path / "data/a.png")
            image.save(tmp_path / "data/a.jpg")
        main(["encode", str(run), str(tmp_path / "data"), "--out", str(tmp_path / "codes")])
        main(["decode", str(run), str(tmp_path / "codes"), "--out", str(tmp_path / "images")])
        assert {path.name for path in (tmp_path / "images").iterdir()} == {"a.png.png", "a.jpg.png"}

    def test_names_that_leave_the_folder_are_refused(
        self, run: Path, codes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("../escaped.png", "/escaped.png"):
            changed = _changed(codes, tmp_path, name=name)
            assert "is no plain path below the output folder" in refused(
                ["decode", run, changed, "--out", tmp_path / "images"], capsys
            )
            assert not list(tmp_path.rglob("escaped*"))

    @pytest.mark.parametrize("value", [-1, 16])
    def test_indices_out_of_range_are_refused(
        self, run: Path, codes: Path, tmp_path: Path, value: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        changed = _changed(codes, tmp_path, value=value)
        assert "not all in [0, 16)" in refused(["decode", run, changed, "--out", tmp_path / "images"], capsys)

    @pytest.mark.parametrize("sizes", [[], 3, {"coffee.webp": [0, 3]}, {"coffee.webp": [1]}])
    def test_malformed_sizes_are_refused(
        self, run: Path, codes: Path, tmp_path: Path, sizes: object, capsys: pytest.CaptureFixture[str]
    ) -> None:
        changed = _changed(codes, tmp_path, sizes=sizes)
        assert "not a valid token file" in refused(["decode", run, changed, "--out", tmp_path / "images"], capsys)

    def test_a_size_that_does_not_fit_the_grid(
        self, run: Path, codes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        sizes = {name: [4000, 4000] for name in load_file(codes)}
        changed = _changed(codes, tmp_path, sizes=sizes)
        assert "do not fit this model" in refused(["decode", run, changed, "--out", tmp_path / "images"], capsys)

    @pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"\xff" * 100, pickle.dumps({"a": 1})])
    def test_other_files_are_refused(
        self, run: Path, tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "codes").write_bytes(content)
        message = refused(["decode", run, tmp_path / "codes", "--out", tmp_path / "images"], capsys)
        assert "not a valid token file" in message

    def test_a_model_with_other_codes(
        self, photographs: Path, codes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        train(photographs, tmp_path / "other", "--quantizer.num_embeddings", "8", steps=1)
        message = refused(["decode", tmp_path / "other", codes, "--out", tmp_path / "images"], capsys)
        assert "16 codes, this model has 8" in message

    def test_another_model_with_as_many_codes(
        self, photographs: Path, codes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        train(photographs, tmp_path / "other", "--seed", "1", steps=1)
        message = refused(["decode", tmp_path / "other", codes, "--out", tmp_path / "images"], capsys)
        assert "the tokens come from the model" in message
        assert not (tmp_path / "images").exists()


def _changed(
    codes: Path, folder: Path, *, name: str | None = None, value: int | None = None, sizes: object = None
) -> Path:
    """Copy a token file with one thing changed, and with a checksum that is right."""
    tensors = load_file(codes)
    with safe_open(codes, "pt") as file:
        facts = json.loads(file.metadata()["lexel"])
    del facts["sha256"]
    if name is not None:
        facts["sizes"] = {key.replace("coffee.webp", name): size for key, size in facts["sizes"].items()}
        tensors[name] = tensors.pop("coffee.webp")
    if value is not None:
        tensors = {key: grid.to(torch.int32) for key, grid in tensors.items()}
        tensors["coffee.webp"][0, 0] = value
    if sizes is not None:
        facts["sizes"] = sizes
    facts["sha256"] = digest(tensors, {"facts": json.dumps(facts)})
    save_file(tensors, folder / "changed.safetensors", {"lexel": json.dumps(facts)})
    return folder / "changed.safetensors"


class TestDamage:
    @pytest.mark.parametrize("place", range(0, 100, 3))
    def test_a_flipped_byte_is_an_error_or_changes_nothing(self, place: int, run: Path, tmp_path: Path) -> None:
        model, codes = load_model(run), tmp_path / "codes"
        grid = np.random.default_rng(0).integers(0, 16, (5, 4))
        rows = [Row(name, {"height": 20, "width": 16}, grid) for name in "abc"]
        write_file(codes, rows, Facts("images", 16, (16,), fingerprint(model)))
        tokens = lexel.tokens.open(codes)
        shutil.copytree(run / "model", tmp_path / "model")
        config = tmp_path / "model/config.json"
        for path in (codes, tmp_path / "model/model.safetensors", config):
            good = path.read_bytes()
            flipped = bytearray(good)
            flipped[len(flipped) * place // 100] ^= 1 << place % 8
            path.write_bytes(flipped)
            try:
                found, weights = lexel.tokens.open(codes), load_model(tmp_path / "model").state_dict()
            except ValueError:
                pass
            else:
                assert (found.names, found.facts) == (tokens.names, tokens.facts)
                assert all(torch.equal(a["indices"], b["indices"]) for a, b in zip(found, tokens, strict=True))
                assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
            path.write_bytes(good)

    def test_weights_that_something_else_saved_need_no_checksum(self, run: Path, tmp_path: Path) -> None:
        shutil.copytree(run / "model", tmp_path / "model")
        save_file(load_file(run / "model/model.safetensors"), tmp_path / "model/model.safetensors")
        assert load_model(tmp_path / "model")

    def test_the_same_tokens_make_the_same_file(self, run: Path, photographs: Path, tmp_path: Path) -> None:
        one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
        for path in (one, two):
            assert main(["encode", str(run), str(photographs), "--out", str(path)]) == 0
        assert one.read_bytes() == two.read_bytes()
        assert one.stat().st_mode == (run / "config.yaml").stat().st_mode


def test_batches_change_no_more_than_rounding(run: Path, photographs: Path, tmp_path: Path) -> None:
    for copy in range(3):
        shutil.copytree(photographs, tmp_path / "data" / str(copy))
    for size in ("1", "2"):
        words = ["--batch-size", size, "--device", "cpu"]
        assert main(["encode", str(run), str(tmp_path / "data"), "--out", str(tmp_path / size), *words]) == 0
        assert main(["decode", str(run), str(tmp_path / size), "--out", str(tmp_path / f"images{size}"), *words]) == 0
    one, two = (lexel.tokens.open(tmp_path / size) for size in ("1", "2"))
    assert one.names == two.names
    assert all(torch.equal(one.extents[name], two.extents[name]) for name in ("height", "width"))
    differing = [(a["indices"] != b["indices"]).float().mean() for a, b in zip(one, two, strict=True)]
    assert max(differing) < 0.01
    for path in (tmp_path / "images1").rglob("*.png"):
        with Image.open(path) as a, Image.open(tmp_path / "images2" / path.relative_to(tmp_path / "images1")) as b:
            assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1 or max(differing) > 0


@pytest.mark.parametrize(
    "quantizer",
    [
        ["--quantizer", "lexel.FiniteScalarQuantizer", "--quantizer.levels", "[8,5,5,5]"],
        ["--quantizer", "lexel.LookupFreeQuantizer", "--quantizer.embedding_dim", "40"],
        ["--quantizer", json.dumps(lexel.ResidualQuantizer([lexel.VectorQuantizer(16, 4) for _ in range(2)]).config)],
        ["--quantizer", json.dumps(lexel.ProductQuantizer([lexel.VectorQuantizer(16, 4)], heads=2).config)],
        ["--quantizer", json.dumps(lexel.presets.var((1, 2, 3, 4), embedding_dim=4).config)],
    ],
    ids=["finite scalar", "lookup-free, 2^40", "residual", "product", "multi-scale"],
)
def test_any_quantizer_trains_evaluates_encodes_and_decodes(
    quantizer: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    squares = tmp_path / "squares.npy"  # the multi-scale quantizer takes maps of one size
    np.save(squares, np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8))
    run, codes, images = tmp_path / "run", tmp_path / "codes.safetensors", tmp_path / "images"
    options = ["--steps", "2", "--batch-size", "2", "--crop", "16", "--model.hidden-channels", "8", *quantizer]
    assert main(["train", str(squares), "--out", str(run), *options]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run), str(squares), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert 1 <= figures["perplexity"] <= figures["used"] <= figures["num_embeddings"]
    assert figures["bits_per_pixel"] > 0
    assert main(["encode", str(run), str(squares), "--out", str(codes)]) == 0
    assert main(["decode", str(run), str(codes), "--out", str(images)]) == 0
    assert len(list(images.rglob("*.png"))) == 4
