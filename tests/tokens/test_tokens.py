"""Token files, and images to tokens and back."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import lexel
from lexel.cli import main
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
            assert "leaves the output folder" in refused(["decode", run, changed, "--out", tmp_path / "images"], capsys)
            assert not list(tmp_path.rglob("escaped*"))

    @pytest.mark.parametrize("value", [-1, 16])
    def test_indices_out_of_range_are_refused(
        self, run: Path, codes: Path, tmp_path: Path, value: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        changed = _changed(codes, tmp_path, value=value)
        assert "not all in [0, 16)" in refused(["decode", run, changed, "--out", tmp_path / "images"], capsys)

    @pytest.mark.parametrize("sizes", ["[]", "{", '{"coffee.webp": [0, 3]}', "null"])
    def test_malformed_sizes_are_refused(
        self, run: Path, codes: Path, tmp_path: Path, sizes: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        changed = _changed(codes, tmp_path, sizes=sizes)
        assert "not a valid token file" in refused(["decode", run, changed, "--out", tmp_path / "images"], capsys)

    def test_a_size_that_does_not_fit_the_grid(
        self, run: Path, codes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        sizes = {name: [4000, 4000] for name in load_file(codes)}
        changed = _changed(codes, tmp_path, sizes=json.dumps(sizes))
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


def _changed(
    codes: Path, folder: Path, *, name: str | None = None, value: int | None = None, sizes: str | None = None
) -> Path:
    """Copy a token file with one thing changed."""
    from safetensors import safe_open

    tensors = {key: grid.to(torch.int32) for key, grid in load_file(codes).items()}
    with safe_open(codes, "pt") as file:
        metadata = dict(file.metadata())
    if name is not None:
        metadata["sizes"] = metadata["sizes"].replace("coffee.webp", name)
        tensors[name] = tensors.pop("coffee.webp")
    if value is not None:
        tensors["coffee.webp"][0, 0] = value
    if sizes is not None:
        metadata["sizes"] = sizes
    save_file(tensors, folder / "changed.safetensors", metadata)
    return folder / "changed.safetensors"


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
