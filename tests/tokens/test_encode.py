"""Encoding, shard by shard: what it takes, what it writes, and how it goes on."""

from __future__ import annotations

import json
import shutil
import signal
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

import lexel
import lexel.tokens
from lexel.cli import main
from lexel.models import VQVAE, VQVAE2
from lexel.tokens.encode import Done, Work, here
from lexel.tokens.shards import MANIFEST, PROGRESS
from tests import processes
from tests.commands import refused


@pytest.fixture(scope="module")
def model() -> VQVAE:
    torch.manual_seed(0)
    return VQVAE(lexel.VectorQuantizer(32, 4), 1, hidden_channels=4, residual_layers=0, downsampling=2).eval()


@pytest.fixture(scope="module")
def saved(model: VQVAE, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small grey pictures in classes, of two sizes, one of which is damaged."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for n in range(30):
        path = folder / ("cats", "dogs")[n % 2] / f"{n:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (8, 8 + 4 * (n % 3 == 0)), np.uint8)).save(path)
    (folder / "cats/03.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestFolders:
    def test_the_tokens_are_those_of_the_model(self, model: VQVAE, pictures: Path, tmp_path: Path) -> None:
        found = lexel.tokens.encode(model, pictures, tmp_path / "t", shard_size=7, labels="folder")
        tokens = lexel.tokens.open(tmp_path / "t")
        assert found.examples == len(tokens) == 30
        assert found.tokens == tokens.total
        assert found.skipped.keys() == {"cats/03.png"}
        assert tokens.label_names == ("cats", "dogs")
        assert tokens.model == lexel.tokens.fingerprint(model)
        assert lexel.from_config(dict(tokens.quantizer)).config == model.quantizer.config
        for name, item in zip(tokens.names, tokens, strict=True):
            with Image.open(pictures / name) as image:
                pixels = torch.from_numpy(np.array(image))[None, None].float() / 255
            assert torch.equal(item["indices"], model.encode(pixels)[0])
            assert tokens.label_names[item["label"]] == name.split("/")[0]

    def test_batches_and_shards_change_no_order(self, model: VQVAE, pictures: Path, tmp_path: Path) -> None:
        for number, (shard, batch) in enumerate(((30, 1), (4, 3), (1, 1))):
            lexel.tokens.encode(model, pictures, tmp_path / str(number), shard_size=shard, batch_size=batch)
        one, two, three = (lexel.tokens.open(tmp_path / str(number)) for number in range(3))
        assert one.names == two.names == three.names
        assert all(torch.equal(a["indices"], b["indices"]) for a, b in zip(one, three, strict=True))

    def test_several_levels(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        model = VQVAE(lexel.presets.var((1, 2, 3, 4), embedding_dim=4), 1, hidden_channels=4, downsampling=2).eval()
        np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 256, (3, 8, 7, 1), np.uint8))
        for out in ("t", "t.safetensors"):
            lexel.tokens.encode(model, tmp_path / "a.npy", tmp_path / out)
            tokens = lexel.tokens.open(tmp_path / out)
            assert tokens.levels(1) == model.levels((8, 7)) == [(1, 1), (2, 2), (3, 3), (4, 4)]
            assert tokens.shapes.tolist() == [[30]] * 3

    def test_several_codebooks(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        stages = [lexel.VectorQuantizer(size, 4) for size in (300, 20)]
        model = VQVAE(lexel.ResidualQuantizer(stages), 1, hidden_channels=4, downsampling=2).eval()
        np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 256, (3, 8, 6, 1), np.uint8))
        lexel.tokens.encode(model, tmp_path / "a.npy", tmp_path / "t")
        tokens = lexel.tokens.open(tmp_path / "t")
        assert tokens.codebook_sizes == (300, 20)
        assert tokens.shapes.tolist() == [[4, 3, 2]] * 3
        assert tokens.levels(0) == [(4, 3)]

    def test_what_stands_there_is_not_replaced(
        self, saved: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["encode", saved, pictures, "--out", tmp_path / "t"]
        assert main([str(word) for word in command]) == 0
        assert "give --overwrite" in refused(command, capsys)
        assert main([str(word) for word in [*command, "--overwrite", "--shard-size", "9"]]) == 0
        assert len(list((tmp_path / "t").glob("*.parquet"))) == 4
        assert main([str(word) for word in [*command, "--overwrite"]]) == 0
        assert sorted(content(tmp_path / "t")) == [MANIFEST, "part-00000.parquet"]
        other = tmp_path / "other"
        other.mkdir()
        (other / "mine.txt").write_text("mine")
        for words in ([], ["--overwrite"]):
            assert "is not a set of tokens" in refused(["encode", saved, pictures, "--out", other, *words], capsys)
        assert sorted(content(other)) == ["mine.txt"]

    def test_nothing_readable_leaves_nothing(
        self, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "a.png").write_bytes(b"")
        message = refused(["encode", saved, tmp_path / "a.png", "--out", tmp_path / "t"], capsys)
        assert "no readable image among 1 file" in message
        assert not (tmp_path / "t").exists()

    @pytest.mark.parametrize("shard_size", [2, 50])
    def test_what_is_refused_leaves_nothing(
        self, shard_size: int, saved: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["encode", saved, pictures, "--out", tmp_path / "new/t", "--strict", "--shard-size", shard_size]
        assert "cats/03.png cannot be read" in refused(words, capsys)
        assert not list(tmp_path.iterdir())
        (tmp_path / "new/t").mkdir(parents=True)
        assert "cats/03.png cannot be read" in refused(words, capsys)
        assert not list((tmp_path / "new/t").iterdir())

    def test_a_disk_that_fails_leaves_what_can_go_on(self, model: VQVAE, pictures: Path, tmp_path: Path) -> None:
        def failing(work: Work, numbers: Sequence[int], advance: Callable[[int], None]) -> Iterator[Done]:
            yield from here(work, numbers[:first], advance)
            raise OSError(28, "No space left on device")

        for first in (0, 3):
            with pytest.raises(OSError, match="No space"):
                lexel.tokens.encode(model, pictures, tmp_path / "t", shard_size=6, engine=failing)
            assert (tmp_path / "t").exists() == (first > 0)
        assert len(list((tmp_path / "t").glob("part-*"))) == 3
        lexel.tokens.encode(model, pictures, tmp_path / "t", shard_size=6)
        lexel.tokens.encode(model, pictures, tmp_path / "whole", shard_size=6)
        assert content(tmp_path / "t") == content(tmp_path / "whole")


class TestGoingOn:
    def test_after_a_kill(self, saved: Path, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 256, (240, 8, 8, 1), np.uint8))
        words = [str(saved), str(tmp_path / "a.npy"), "--shard-size", "4", "--device", "cpu", "--out"]
        assert main(["encode", *words, str(tmp_path / "whole")]) == 0
        process = processes.Started(["lexel", "encode", *words, tmp_path / "killed"])
        while len(list((tmp_path / "killed").glob("part-*"))) < 10:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "killed" / MANIFEST).exists()
        with pytest.raises(ValueError, match="unfinished"):
            lexel.tokens.open(tmp_path / "killed")
        assert main(["encode", *words, str(tmp_path / "killed")]) == 0
        assert content(tmp_path / "killed") == content(tmp_path / "whole")

    @pytest.mark.parametrize("done", range(6))
    def test_wherever_it_stopped(self, done: int, model: VQVAE, pictures: Path, tmp_path: Path) -> None:
        def stopping(work: object, numbers: object, advance: object) -> Iterator[object]:
            for each in here(work, numbers, advance):
                if each.number == done:  # its file is there, and not yet in the list
                    raise RuntimeError("stopped")
                yield each

        lexel.tokens.encode(model, pictures, tmp_path / "whole", shard_size=6)
        for _ in range(2):
            with pytest.raises(RuntimeError):
                lexel.tokens.encode(model, pictures, tmp_path / "t", shard_size=6, engine=stopping)
        progress = tmp_path / "t" / PROGRESS
        assert len(progress.read_text().splitlines()) == done + 1
        with progress.open("a") as file:
            file.write('{"number": 0, "shard": {"fi')  # a line that a kill cut off
        (tmp_path / "t/.lexel.half").mkdir()
        found = lexel.tokens.encode(model, pictures, tmp_path / "t", shard_size=6)
        assert found.skipped.keys() == {"cats/03.png"}
        assert content(tmp_path / "t") == content(tmp_path / "whole")

    def test_a_shard_that_was_changed_meanwhile_is_made_again(
        self, model: VQVAE, pictures: Path, tmp_path: Path
    ) -> None:
        def stopping(work: object, numbers: object, advance: object) -> Iterator[object]:
            yield from here(work, numbers[:3], advance)
            raise RuntimeError("stopped")

        lexel.tokens.encode(model, pictures, tmp_path / "whole", shard_size=6)
        with pytest.raises(RuntimeError):
            lexel.tokens.encode(model, pictures, tmp_path / "t", shard_size=6, engine=stopping)
        (tmp_path / "t/part-00001.parquet").write_bytes(b"half")
        lexel.tokens.encode(model, pictures, tmp_path / "t", shard_size=6)
        assert content(tmp_path / "t") == content(tmp_path / "whole")

    def test_only_with_the_same_settings(self, model: VQVAE, pictures: Path, tmp_path: Path) -> None:
        def stopping(work: object, numbers: object, advance: object) -> Iterator[object]:
            yield from here(work, numbers[:1], advance)
            raise RuntimeError("stopped")

        with pytest.raises(RuntimeError):
            lexel.tokens.encode(model, pictures, tmp_path / "t", shard_size=6, engine=stopping)
        before = content(tmp_path / "t")
        others = {"shard_size": {"shard_size": 7}, "facts, labels": {"shard_size": 6, "labels": "folder"}}
        for name, settings in others.items():
            with pytest.raises(ValueError, match=rf"begun otherwise \({name}\)"):
                lexel.tokens.encode(model, pictures, tmp_path / "t", **settings)
        with pytest.raises(ValueError, match=r"begun otherwise \(data, files\)"):
            lexel.tokens.encode(model, pictures / "cats", tmp_path / "t", shard_size=6)
        assert content(tmp_path / "t") == before
        lexel.tokens.encode(model, pictures, tmp_path / "t", shard_size=7, overwrite=True)
        assert len(lexel.tokens.open(tmp_path / "t")) == 30

    def test_two_at_once(self, model: VQVAE, pictures: Path, tmp_path: Path) -> None:
        (tmp_path / "t").mkdir()
        with FileLock(tmp_path / "t/.lock"), pytest.raises(BlockingIOError, match="in use"):
            lexel.tokens.encode(model, pictures, tmp_path / "t")


class TestLabels:
    def table(self, path: Path, **columns: object) -> Path:
        pictures = [Image.new("L", (4, 4), n) for n in range(4)]
        features = {"image": datasets.Image(), **{name: feature for name, (feature, _) in columns.items()}}
        values = {"image": pictures, **{name: value for name, (_, value) in columns.items()}}
        datasets.Dataset.from_dict(values, features=datasets.Features(features)).to_parquet(str(path))
        return path

    def test_of_a_table(self, model: VQVAE, tmp_path: Path) -> None:
        classes = datasets.ClassLabel(names=["no", "yes"])
        data = self.table(tmp_path / "a.parquet", label=(classes, [1, 0, 0, 1]))
        for out in ("t", "t.safetensors"):
            lexel.tokens.encode(model, data, tmp_path / out)
            tokens = lexel.tokens.open(tmp_path / out)
            assert tokens.labels.tolist() == [1, 0, 0, 1]
            assert tokens.label_names == ("no", "yes")
        lexel.tokens.encode(model, data, tmp_path / "none", labels="none")
        assert lexel.tokens.open(tmp_path / "none").labels is None

    @pytest.mark.parametrize(
        ("feature", "values", "labels", "names"),
        [
            (datasets.Value("int8"), [5, 0, 7, 7], [5, 0, 7, 7], None),
            (datasets.Value("string"), ["b", "a", "b", "c"], [1, 0, 1, 2], ("a", "b", "c")),
        ],
    )
    def test_numbers_and_names(
        self, model: VQVAE, tmp_path: Path, feature: object, values: list[object], labels: list[int], names: object
    ) -> None:
        data = self.table(tmp_path / "a.parquet", label=(feature, values))
        lexel.tokens.encode(model, data, tmp_path / "t")
        tokens = lexel.tokens.open(tmp_path / "t")
        assert (tokens.labels.tolist(), tokens.label_names) == (labels, names)

    @pytest.mark.parametrize(
        ("feature", "values", "message"),
        [
            (datasets.Value("int64"), [0, 1, None, 1], "the row 2 of the column 'label' holds no label"),
            (datasets.Value("null"), [None] * 4, "the row 0 of the column 'label' holds no label"),
            (
                datasets.Value("int64"),
                [0, -4, 1, 1],
                "the row 1 of the column 'label' holds -4, expected a number from 0",
            ),
            (
                datasets.Value("int64"),
                [0, 1, 2**62, 1],
                f"the row 2 of the column 'label' holds {2**62}, expected a number",
            ),
            (datasets.Value("float32"), [0.0, 1.0, 2.0, 0.5], "the column 'label' holds float, such as 0.0; expected"),
            (datasets.Value("float64"), [None, float("nan"), 2.0, 0.5], "'label' holds double, such as nan; expected"),
            (datasets.Value("bool"), [True, False, True, True], "'label' holds bool, such as True; expected whole"),
            (datasets.Value("binary"), [b"a"] * 4, "the column 'label' holds binary, such as b'a'; expected whole"),
            (
                datasets.List(datasets.Value("int64")),
                [[1], [2], [3, 4], []],
                "'label' holds list<item: int64>, such as [1];",
            ),
            (datasets.List(datasets.Value("string")), [["a"]] * 4, "'label' holds list<item: string>, such as ['a'];"),
            (
                datasets.List(datasets.Value("int8"), 2),
                [[1, 2]] * 4,
                "'label' holds fixed_size_list<item: int8>[2], such",
            ),
            (
                {"int": datasets.Value("int64")},
                [{"int": 1}] * 4,
                "'label' holds struct<int: int64>, such as {'int': 1};",
            ),
            (
                datasets.ClassLabel(names=["no", "yes"]),
                [0, 1, 1, -1],
                "the row 3 of the column 'label' holds -1, expected a number from 0 to 1",
            ),
        ],
    )
    def test_those_that_do_not_fit(
        self, saved: Path, tmp_path: Path, feature: object, values: list[object], message: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        data = self.table(tmp_path / "a.parquet", label=(feature, values))
        assert message in refused(["encode", saved, data, "--out", tmp_path / "t"], capsys)
        assert not (tmp_path / "t").exists()

    def test_a_picture_in_no_folder(self, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        Image.new("L", (4, 4)).save(tmp_path / "a.png")
        words = ["encode", saved, tmp_path, "--out", tmp_path / "t", "--labels", "folder"]
        assert "'a.png' lies in no folder" in refused(words, capsys)


class TestFormats:
    @pytest.fixture
    def expected(self, model: VQVAE, pictures: Path, tmp_path: Path) -> lexel.tokens.TokenSet:
        lexel.tokens.encode(model, pictures, tmp_path / "parquet", labels="folder")
        return lexel.tokens.open(tmp_path / "parquet")

    def encoded(self, saved: Path, pictures: Path, out: Path, form: str) -> list[Path]:
        words = [saved, pictures, "--out", out, "--format", form, "--labels", "folder", "--shard-size", "8"]
        assert main(["encode", *map(str, words)]) == 0
        with pytest.raises(ValueError, match="for other programs"):
            lexel.tokens.open(out)
        return sorted(out.glob("part-*"))

    def test_safetensors(self, saved: Path, pictures: Path, tmp_path: Path, expected: lexel.tokens.TokenSet) -> None:
        shards = [lexel.tokens.open(path) for path in self.encoded(saved, pictures, tmp_path / "t", "safetensors")]
        assert [name for shard in shards for name in shard.names] == expected.names
        items = [item for shard in shards for item in shard]
        for item, other in zip(items, expected, strict=True):
            assert all(torch.equal(item[column], other[column]) for column in ("indices", "label"))

    def test_npz(self, saved: Path, pictures: Path, tmp_path: Path, expected: lexel.tokens.TokenSet) -> None:
        number = 0
        for path in self.encoded(saved, pictures, tmp_path / "t", "npz"):
            with np.load(path, allow_pickle=False) as arrays:
                assert json.loads(str(arrays["lexel"]))["num_embeddings"] == 32
                for row, name in enumerate(arrays["name"]):
                    assert (name, arrays["label"][row]) == (expected.names[number], expected.labels[number])
                    own, shape = (
                        arrays[column][arrays[f"{column}_starts"][row] : arrays[f"{column}_starts"][row + 1]]
                        for column in ("indices", "shape")
                    )
                    assert np.array_equal(own.reshape(shape), expected[number]["indices"])
                    number += 1
        assert number == len(expected)

    def test_webdataset(self, saved: Path, pictures: Path, tmp_path: Path, expected: lexel.tokens.TokenSet) -> None:
        webdataset = pytest.importorskip("webdataset")
        paths = [str(path) for path in self.encoded(saved, pictures, tmp_path / "t", "webdataset")]
        found = list(webdataset.WebDataset(paths, shardshuffle=False).decode())
        assert [sample["json"]["name"] for sample in found] == expected.names
        assert len({sample["__key__"] for sample in found}) == len(expected)
        for sample, item in zip(found, expected, strict=True):
            assert np.array_equal(sample["npy"], item["indices"])
            assert sample["json"]["label"] == item["label"]

    def test_an_archive_has_no_time_in_it(self, saved: Path, pictures: Path, tmp_path: Path) -> None:
        with tarfile.open(self.encoded(saved, pictures, tmp_path / "t", "webdataset")[0]) as archive:
            assert {entry.mtime for entry in archive} == {0}


def test_decoding_some_by_name(saved: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(pictures, tmp_path / "data")
    (tmp_path / "data/cats/03.png").unlink()
    assert main(["encode", str(saved), str(tmp_path / "data"), "--out", str(tmp_path / "t")]) == 0
    some = ["--names", "cats/04.png", "dogs/05.png"]
    assert main(["decode", str(saved), str(tmp_path / "t"), "--out", str(tmp_path / "some"), *some]) == 0
    assert main(["decode", str(saved), str(tmp_path / "t"), "--out", str(tmp_path / "all")]) == 0
    written = sorted(path.relative_to(tmp_path / "some") for path in (tmp_path / "some").rglob("*.png"))
    assert [str(path) for path in written] == some[1:]
    for path in written:
        assert (tmp_path / "some" / path).read_bytes() == (tmp_path / "all" / path).read_bytes()
    words = ["decode", saved, tmp_path / "t", "--out", tmp_path / "other", "--names", "cats/05.png"]
    assert "the tokens have no example 'cats/05.png'" in refused(words, capsys)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999"])
def test_a_cluster_that_does_not_answer(
    address: str, saved: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(["encode", saved, pictures, "--out", tmp_path / "t", "--ray", address], capsys)
    assert f"no Ray cluster answers at {address}: " in message
    assert not (tmp_path / "t").exists()


def test_a_refused_command_touches_nothing(model: VQVAE, pictures: Path, tmp_path: Path) -> None:
    for name in (".lexel.abc/half", ".lock", "notes.txt"):
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_text("mine")
    with pytest.raises(FileExistsError, match="is not a set of tokens"):
        lexel.tokens.encode(model, pictures, tmp_path / "mine")
    assert [path.read_text() for path in (tmp_path / "mine").rglob("*") if path.is_file()] == ["mine"] * 3


def test_it_does_not_go_on_with_other_data_of_the_same_names(model: VQVAE, tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 256, (6, 8, 8), np.uint8)
    np.save(tmp_path / "a.npy", data)

    def interrupted(work: Work, numbers: Sequence[int], advance: Callable[[int], None]) -> Iterator[Done]:
        yield from here(work, numbers[:2], advance)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lexel.tokens.encode(model, tmp_path / "a.npy", tmp_path / "t", shard_size=1, engine=interrupted)
    np.save(tmp_path / "a.npy", 255 - data)
    with pytest.raises(ValueError, match=r"begun otherwise \(files\)"):
        lexel.tokens.encode(model, tmp_path / "a.npy", tmp_path / "t", shard_size=1)


@pytest.mark.parametrize("way", ["relative data", "relative out", "a link to the data", "a link to out"])
def test_it_goes_on_within_the_folder_of_its_data_by_whatever_path(
    model: VQVAE, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    data = shutil.copytree(pictures, tmp_path / "data")
    (tmp_path / "link").symlink_to(data / "tokens" if "out" in way else data)
    monkeypatch.chdir(tmp_path)
    given, out = {
        "relative data": ("data", data / "tokens"),
        "relative out": (data, "data/tokens"),
        "a link to the data": ("link", "data/tokens"),
        "a link to out": ("data", "link"),
    }[way]
    (data / "tokens").mkdir()

    def interrupted(work: Work, numbers: Sequence[int], advance: Callable[[int], None]) -> Iterator[Done]:
        yield from here(work, numbers[:2], advance)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lexel.tokens.encode(model, given, out, shard_size=5, engine=interrupted)
    assert lexel.tokens.encode(model, given, out, shard_size=5).examples == 30


def test_every_format_that_is_read_again_keeps_the_grids_of_several_levels(pictures: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    levels = [lexel.VectorQuantizer(8, 4) for _ in range(2)]
    model = VQVAE2(levels, 1, hidden_channels=4, residual_layers=0, downsampling=[4, 2]).eval()
    lexel.tokens.encode(model, pictures, tmp_path / "parquet", shard_size=50)
    lexel.tokens.encode(model, pictures, tmp_path / "other", shard_size=50, form="safetensors")
    whole = lexel.tokens.open(tmp_path / "parquet")
    found = lexel.tokens.open(tmp_path / "other/part-00000.safetensors")
    assert [found.levels(number) for number in range(30)] == [whole.levels(number) for number in range(30)]
    assert len(whole.levels(0)) == 2
