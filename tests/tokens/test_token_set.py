"""Sets of tokens: what is written can be read, by Lexel and by others, and nothing that is damaged."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

import lexel
import lexel.tokens
from lexel.models import VQVAE
from lexel.tokens import Facts, Row, TokenSet
from lexel.tokens.file import write_file
from lexel.tokens.shards import MANIFEST, file_digest
from lexel.tokens.token_set import Columns
from tests._core.test_files import BAD_NAMES

FACTS = Facts("images", 300, (300,), "0123456789abcdef", {"class_path": "lexel.presets.vqvae"}, ("cat", "dog"))


def rows(count: int = 10, *, labelled: bool = True, sides: tuple[int, int] = (3, 4)) -> list[Row]:
    generator = np.random.default_rng(0)
    size = {"height": 12, "width": 16}
    return [
        Row(f"{n % 3}/{n:03d}.png", size, generator.integers(0, 300, sides), n % 2 if labelled else None)
        for n in range(count)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lexel.tokens.write_set(tmp_path / "tokens", rows(), FACTS, shard_size=4)
    return tmp_path / "tokens"


class TestReading:
    def test_examples_come_back_in_order(self, folder: Path) -> None:
        tokens = lexel.tokens.open(folder)
        assert [path.name for path in sorted(folder.iterdir())] == [MANIFEST, *(f"part-0000{n}.parquet" for n in "012")]
        assert tokens.names == [row.name for row in rows()]
        assert (tokens.kind, tokens.num_embeddings, tokens.codebook_sizes) == ("images", 300, (300,))
        assert (tokens.model, tokens.quantizer, tokens.label_names) == (FACTS.model, FACTS.quantizer, ("cat", "dog"))
        assert tokens.extents["height"].tolist() == [12] * 10
        assert tokens.levels(3) == [(3, 4)]
        for item, row in zip(tokens, rows(), strict=True):
            assert item["indices"].dtype == torch.int64
            assert np.array_equal(item["indices"], row.indices)
            assert item["label"] == row.label

    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_loader_batches_it(self, folder: Path, workers: int) -> None:
        tokens = lexel.tokens.open(folder)
        loader = DataLoader(tokens, batch_size=4, num_workers=workers)
        batches = list(loader)
        assert [tuple(batch["indices"].shape) for batch in batches] == [(4, 3, 4), (4, 3, 4), (2, 3, 4)]
        assert torch.equal(torch.cat([batch["indices"] for batch in batches]), tokens.batch(range(10))["indices"])
        assert torch.equal(torch.cat([batch["label"] for batch in batches]), tokens.labels)

    def test_a_seed_fixes_an_order(self, folder: Path) -> None:
        tokens = lexel.tokens.open(folder)
        one, same, other = tokens.shuffled(0), tokens.shuffled(0), tokens.shuffled(1)
        assert one.names == same.names != other.names != tokens.names
        assert sorted(one.names) == sorted(tokens.names)
        of = dict(zip(tokens.names, tokens, strict=True))
        for name, item in zip(one.names, one, strict=True):
            assert all(torch.equal(item[column], of[name][column]) for column in ("indices", "label"))

    def test_it_is_pickled_by_its_path(self, folder: Path) -> None:
        tokens = lexel.tokens.open(folder).shuffled(3).select([4, 1])
        content = pickle.dumps(tokens)
        again = pickle.loads(content)
        assert again.names == tokens.names
        assert torch.equal(again[1]["indices"], tokens[1]["indices"])

    def test_several_shapes(self, tmp_path: Path) -> None:
        mixed = [
            *rows(2, sides=(2, 2)),
            *(Row(f"other{n}", {"height": 5, "width": 9}, np.full((1, 5), n)) for n in (7, 8)),
        ]
        mixed = [Row(row.name, row.extent, row.indices) for row in mixed]
        lexel.tokens.write_set(tmp_path / "t", mixed, Facts("images", 300, (300,), "m"))
        tokens = lexel.tokens.open(tmp_path / "t")
        assert [item["indices"].tolist() for item in tokens.__getitems__([3, 0])] == [
            [[8] * 5],
            mixed[0].indices.tolist(),
        ]
        assert tokens.labels is None
        assert tokens.total == 18
        with pytest.raises(ValueError, match="one shape"):
            tokens.batch([0, 3])

    @pytest.mark.parametrize("shape", [(3, 4), ()])
    def test_a_batch_of_no_examples_is_refused(self, shape: tuple[int, ...]) -> None:
        flat = np.zeros(2 * math.prod(shape), np.uint8)
        columns = Columns(["a", "b"], {}, np.array([shape, shape], np.int64).reshape(2, -1), flat)
        with pytest.raises(ValueError, match=r"one or more examples of one shape, got \[\]"):
            TokenSet(Facts("vectors", 8, (8,), ""), columns).batch([])

    @pytest.mark.parametrize(
        ("count", "type_"), [(256, "uint8"), (257, "uint16"), (1 << 16, "uint16"), (1 << 40, "int64")]
    )
    def test_indices_have_the_smallest_type(self, tmp_path: Path, count: int, type_: str) -> None:
        grid = np.array([[0, count - 1]])
        row = Row("a", {"height": 1, "width": 2}, grid)
        lexel.tokens.write_set(tmp_path / "t", [row], Facts("images", count, (count,), "m"))
        table = pq.read_table(tmp_path / "t/part-00000.parquet")
        assert str(table.schema.field("indices").type) == f"list<element: {type_}>"
        assert json.loads(table.schema.metadata[b"lexel"])["num_embeddings"] == count
        assert lexel.tokens.open(tmp_path / "t")[0]["indices"].tolist() == grid.tolist()


class TestOthers:
    """Programs that know nothing of Lexel."""

    def test_duckdb(self, folder: Path) -> None:
        duckdb = pytest.importorskip("duckdb")
        query = f"SELECT name, height, width, shape, indices, label FROM '{folder}/*.parquet' ORDER BY name"
        found = duckdb.sql(query).fetchall()
        expected = [
            (row.name, 12, 16, [3, 4], row.indices.ravel().tolist(), row.label)
            for row in sorted(rows(), key=lambda row: row.name)
        ]
        assert found == expected

    def test_datasets(self, folder: Path, tmp_path: Path) -> None:
        found = datasets.load_dataset(
            "parquet", data_files=f"{folder}/*.parquet", cache_dir=str(tmp_path), split="train"
        )
        assert found["name"][:] == [row.name for row in rows()]
        assert found["indices"][:] == [row.indices.ravel().tolist() for row in rows()]


class TestDamage:
    @pytest.mark.parametrize("file", ["part-00001.parquet", MANIFEST])
    def test_a_flipped_byte_is_noticed(self, folder: Path, file: str) -> None:
        content = (folder / file).read_bytes()
        for place in range(0, len(content), 37):
            changed = bytearray(content)
            changed[place] ^= 1
            (folder / file).write_bytes(changed)
            with pytest.raises((ValueError, FileNotFoundError), match=file):
                lexel.tokens.open(folder)

    def test_half_a_shard(self, folder: Path) -> None:
        path = folder / "part-00002.parquet"
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(ValueError, match=r"part-00002\.parquet is damaged"):
            lexel.tokens.open(folder)

    def test_a_missing_shard(self, folder: Path) -> None:
        (folder / "part-00001.parquet").unlink()
        with pytest.raises(FileNotFoundError, match=r"part-00001\.parquet is missing"):
            lexel.tokens.open(folder)

    def test_what_is_no_set(self, folder: Path, tmp_path: Path) -> None:
        (folder / MANIFEST).unlink()
        with pytest.raises(ValueError, match=r"it has no _tokens\.json"):
            lexel.tokens.open(folder)
        with pytest.raises(FileNotFoundError, match="nowhere"):
            lexel.tokens.open(tmp_path / "nowhere")

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            (Row("a", {"height": 1, "width": 1}, np.array([[300]])), r"the indices of 'a' are not all in \[0, 300\)"),
            (Row("fine", {"height": 0, "width": 1}, np.array([[3]])), "below 1"),
            (Row("other", {"height": 1, "width": 1}, np.array([[3]])), "several examples of one name"),
        ],
    )
    def test_tokens_that_cannot_be(self, tmp_path: Path, row: Row, message: str) -> None:
        """Checksums say nothing against a set that somebody made to do harm."""
        other = Row("other", {"height": 1, "width": 1}, np.array([[5]]))
        lexel.tokens.write_set(tmp_path / "t", [other, row], Facts("images", 300, (300,), "m"))
        with pytest.raises(ValueError, match=message):
            lexel.tokens.open(tmp_path / "t")

    @pytest.mark.parametrize("name", BAD_NAMES)
    def test_names_are_plain_paths_in_every_reader_and_for_decode(self, tmp_path: Path, name: str) -> None:
        torch.manual_seed(0)
        model = VQVAE(lexel.VectorQuantizer(300, 4), 1, hidden_channels=4, residual_layers=0, downsampling=1).eval()
        facts, size = lexel.tokens.facts_of(model), {"height": 1, "width": 1}
        rows = [Row(each, size, np.array([[5]])) for each in ("fine", name)]
        lexel.tokens.write_set(tmp_path / "t", rows, facts)
        write_file(tmp_path / "t.safetensors", rows, facts)
        for path in (tmp_path / "t", tmp_path / "t.safetensors"):
            with pytest.raises(ValueError, match=r"the name .* is no plain path below the output folder"):
                lexel.tokens.open(path)
        sizes = {side: np.array([1, 1]) for side in size}
        tokens = TokenSet(facts, Columns(["fine", name], sizes, np.ones((2, 2), np.int64), np.array([5, 5])))
        with pytest.raises(ValueError, match=r"the name .* is no plain path below the output folder"):
            lexel.tokens.decode(model, tokens, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_labels_that_do_not_fit(self, tmp_path: Path) -> None:
        wrong = [Row("a", {"height": 1, "width": 1}, np.array([[5]]), 2)]
        lexel.tokens.write_set(tmp_path / "t", wrong, FACTS)
        with pytest.raises(ValueError, match="labels from 2 to 2, but 2 classes"):
            lexel.tokens.open(tmp_path / "t")

    def test_shards_of_another_set(self, folder: Path, tmp_path: Path) -> None:
        lexel.tokens.write_set(
            tmp_path / "other", rows(4), Facts("images", 300, (300,), "another model", None, FACTS.label_names)
        )
        (folder / "part-00001.parquet").write_bytes((tmp_path / "other/part-00000.parquet").read_bytes())
        manifest = lexel.tokens.shards.read_manifest(folder)
        shards = [vars(shard) for shard in manifest.shards]
        shards[1]["sha256"] = file_digest(folder / "part-00001.parquet")
        lexel.tokens.shards.write_manifest(folder, manifest)
        with pytest.raises(ValueError, match=r"its metadata is not what _tokens\.json says"):
            lexel.tokens.open(folder)

    def test_a_manifest_cannot_name_files_elsewhere(self, folder: Path) -> None:
        manifest = lexel.tokens.shards.read_manifest(folder)
        vars(manifest.shards[0])["file"] = "../tokens/part-00000.parquet"
        lexel.tokens.shards.write_manifest(folder, manifest)
        with pytest.raises(ValueError, match="not the name of a shard"):
            lexel.tokens.open(folder)
