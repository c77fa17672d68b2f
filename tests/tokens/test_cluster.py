"""Encoding on a cluster, and in somebody else's engine."""

from __future__ import annotations

import io
import logging
import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image

import lexel
import lexel.tokens
from lexel._core.plugins import import_plugin
from lexel.cli import main
from lexel.models import VQVAE
from lexel.tokens import Encoder
from lexel.tokens.cluster import on_ray

PARTS = Path(__file__).parent.parent / "extension/my_parts.py"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = VQVAE(lexel.VectorQuantizer(300, 4), hidden_channels=4, residual_layers=0, downsampling=2)
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(saved: Path) -> VQVAE:
    return VQVAE.from_pretrained(saved)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for n in range(12):
        pixels = np.random.default_rng(n).integers(0, 256, (8, 8 + 4 * (n % 3 == 0), 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{n:02d}.png")
    (folder / "05.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine, with two processors."""
    ray = pytest.importorskip("ray")
    ray.init(
        num_cpus=2, object_store_memory=1 << 27, include_dashboard=False, log_to_driver=False,
        logging_level=logging.ERROR,
    )  # fmt: skip
    yield
    ray.shutdown()


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("cluster")
class TestRay:
    def test_the_files_are_those_of_one_process(self, model: VQVAE, pictures: Path, tmp_path: Path) -> None:
        lexel.tokens.encode(model, pictures, tmp_path / "here", shard_size=2)
        for workers in (1, 2):
            out = tmp_path / str(workers)
            found = lexel.tokens.encode(model, pictures, out, shard_size=2, engine=on_ray(workers=workers))
            assert (found.examples, found.skipped.keys()) == (11, {"05.png"})
            assert content(out) == content(tmp_path / "here")

    def test_an_error_of_a_worker_is_said_here_and_the_rest_goes_on(
        self, model: VQVAE, pictures: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(ValueError, match=r"^05\.png cannot be read: "):
            lexel.tokens.encode(model, pictures, tmp_path / "t", shard_size=2, strict=True, engine=on_ray())
        assert not (tmp_path / "t/_tokens.json").exists()

    def test_workers_know_the_classes_of_a_plugin(self, pictures: Path, tmp_path: Path) -> None:
        plugin = tmp_path / "of_mine.py"  # a worker cannot import it by its name
        shutil.copy(PARTS, plugin)
        mine = sys.modules[import_plugin(plugin)]
        parts = lexel.VectorQuantizer(8, 3, codebook=mine.ScaledCodebook(), estimator=mine.Attenuated())
        for name, quantizer in (("own", mine.TernaryQuantizer(3)), ("parts", parts)):
            model = VQVAE(quantizer, hidden_channels=4, residual_layers=0, downsampling=2)
            model.save_pretrained(tmp_path / name)
            for out, cluster in (("here", []), ("there", ["--ray"])):
                words = ["--plugin", plugin, "--device", "cpu", "--shard-size", 4, *cluster]
                words = ["encode", tmp_path / name, pictures, "--out", tmp_path / f"{name}-{out}", *words]
                assert main([str(word) for word in words]) == 0
            assert content(tmp_path / f"{name}-here") == content(tmp_path / f"{name}-there")

    def test_a_plugin_that_workers_do_not_see(
        self, model: VQVAE, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("lexel.tokens.cluster.imported_plugins", lambda: [tmp_path / "elsewhere.py"])
        with pytest.raises(OSError, match=r"no such plugin: .*elsewhere\.py"):
            lexel.tokens.encode(model, pictures, tmp_path / "t", engine=on_ray())
        assert not (tmp_path / "t").exists()


def batch(pictures: Path) -> dict[str, list[object]]:
    files = [path for path in sorted(pictures.iterdir()) if path.name != "05.png"]
    return {"image": [path.read_bytes() for path in files], "file": [path.name for path in files]}


class TestEncoder:
    @pytest.fixture
    def expected(self, model: VQVAE, pictures: Path, tmp_path: Path) -> lexel.tokens.TokenSet:
        lexel.tokens.encode(model, pictures, tmp_path / "t")
        return lexel.tokens.open(tmp_path / "t")

    @pytest.mark.parametrize("table", [dict, pd.DataFrame, pa.table], ids=["dictionary", "pandas", "arrow"])
    def test_any_batch(self, table: type, saved: Path, pictures: Path, expected: lexel.tokens.TokenSet) -> None:
        encoder = pickle.loads(pickle.dumps(Encoder(saved, device="cpu")))
        found = encoder(table(batch(pictures)))
        assert list(found) == ["file", "height", "width", "shape", "indices"]
        assert [str(name) for name in found["file"]] == expected.names
        assert found["width"] == expected.extents["width"].tolist()
        assert found["shape"] == expected.shapes.tolist()
        for grid, item in zip(found["indices"], expected, strict=True):
            assert grid.dtype == np.uint16
            assert np.array_equal(grid, item["indices"].ravel())
        assert encoder.facts == expected.facts

    def test_any_way_to_hold_an_image(self, saved: Path, pictures: Path) -> None:
        path = pictures / "03.png"
        image = Image.open(path)
        ways = [path, str(path), path.read_bytes(), image, np.array(image), {"bytes": path.read_bytes(), "path": None}]
        found = Encoder(saved, "it", device="cpu", batch_size=4)({"it": ways})["indices"]
        assert all(np.array_equal(grid, found[0]) for grid in found)

    def test_datasets_map(self, saved: Path, pictures: Path, expected: lexel.tokens.TokenSet) -> None:
        table = datasets.Dataset.from_dict(batch(pictures)).cast_column("image", datasets.Image())
        mapped = table.map(Encoder(saved, device="cpu"), batched=True, batch_size=5, remove_columns="image")
        assert mapped["indices"][:] == [item["indices"].flatten().tolist() for item in expected]

    def test_what_it_refuses(self, saved: Path, tmp_path: Path) -> None:
        encoder = Encoder(saved, device="cpu")
        buffer = io.BytesIO()
        Image.new("L", (4, 4)).save(buffer, "PNG")
        for value, message in (
            (b"no image", "row 1 of the batch: not an image"),
            (np.zeros((4, 4, 3)), "row 1 of the batch: an image must be .* float64"),
            (np.zeros((4, 4), np.uint8), "row 1 of the batch: an image has 1 channels, the model takes 3"),
        ):
            with pytest.raises(ValueError, match=message):
                encoder({"image": [buffer.getvalue(), value]})
        with pytest.raises(ValueError, match="no column 'image', only 'picture'"):
            encoder({"picture": []})
        with pytest.raises(FileNotFoundError, match="no model"):
            Encoder(tmp_path)
