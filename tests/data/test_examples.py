"""A set of examples: what cannot be read is left out with its reason, in whichever process."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader

from lexel._core.errors import printable
from lexel.data import examples
from lexel.data.examples import Examples
from lexel.data.images import listed, open_images
from lexel.training.crops import RandomCrops


@pytest.fixture
def damaged(photographs: Path, tmp_path: Path) -> Path:
    """Four photographs and as many files that only look like some."""
    folder = tmp_path / "damaged"
    shutil.copytree(photographs, folder)
    for file in sorted(photographs.rglob("*.*")):
        (folder / f"{file.name}-half.png").write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return folder


def crops(path: Path, length: int = 24) -> RandomCrops:
    return RandomCrops(open_images(path), 16, length, seed=3)


def in_turn(batches: RandomCrops) -> torch.Tensor:
    return torch.stack([batches[index] for index in range(len(batches))])


class TestTraining:
    def test_a_check_names_the_unreadable_of_a_small_set(self, damaged: Path) -> None:
        images = open_images(damaged)
        images.check(range(len(images)))
        assert len(images.skipped) == 4
        assert all(name.endswith("-half.png") for name in images.skipped)
        assert len(images) == 8

    def test_a_check_of_a_large_set_reads_headers_only(self, damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(examples, "CACHE_BYTES", 0)
        (damaged / "notes.txt").write_text("not an image")
        images = open_images(damaged)
        images.check(range(len(images)))
        assert images.skipped["notes.txt"] == "not an image"
        assert "astronaut.png-half.png" not in images.skipped
        assert not images._cache

    def test_a_strict_check_reads_everything(self, damaged: Path) -> None:
        images = open_images(damaged)
        with pytest.raises(ValueError, match=r"-half\.png cannot be read"):
            images.check(range(len(images)), strict=True)

    def test_a_set_without_a_readable_example_is_refused_with_reasons(self, tmp_path: Path, photographs: Path) -> None:
        for number in range(12):
            (tmp_path / f"{number:02}.png").write_bytes((photographs / "people/astronaut.png").read_bytes()[:500])
        images = open_images(tmp_path)
        for refused in (images.check, lambda indices: list(images.readable(indices)), images.first_readable):
            with pytest.raises(ValueError, match=r"no readable image among 12 files: 00\.png \(.+\), .* and 7 more"):
                refused(range(12))
        with pytest.raises(ValueError, match="no readable image among 12 files"):
            crops(tmp_path)[0]

    def test_damage_changes_only_the_crops_of_the_damaged_image(self, photographs: Path, tmp_path: Path) -> None:
        shutil.copytree(photographs, tmp_path / "a")
        whole = in_turn(crops(tmp_path / "a", 64))
        file = tmp_path / "a/people/astronaut.png"
        file.write_bytes(file.read_bytes()[:-2000])
        one, two = in_turn(crops(tmp_path / "a", 64)), in_turn(crops(tmp_path / "a", 64))
        assert torch.equal(one, two)
        changed = (one != whole).flatten(1).any(1)
        file.unlink()
        (tmp_path / "a/people/astronaut.png").write_text("")
        assert torch.equal(in_turn(crops(tmp_path / "a", 64)), one)
        assert 5 < changed.sum() < 30

    def test_a_file_that_goes_while_training_is_replaced_and_named_once(
        self, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(examples, "CACHE_BYTES", 0)
        shutil.copytree(photographs, tmp_path / "a")
        seen = crops(tmp_path / "a", 64)
        seen.images.check(range(4))
        (tmp_path / "a/coffee.webp").unlink()
        in_turn(seen)
        assert capsys.readouterr().err == "left out coffee.webp (No such file or directory)\n"

    def test_one_readable_among_many_is_found(self, photographs: Path, tmp_path: Path) -> None:
        for number in range(300):
            (tmp_path / f"{number}.png").touch()
        shutil.copy(photographs / "coffee.webp", tmp_path / "150.png")
        assert in_turn(crops(tmp_path, 5)).shape == (5, 3, 16, 16)


class TestMemory:
    def test_the_cache_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(examples, "CACHE_BYTES", 250)
        calls: list[int] = []

        def source(index: int) -> torch.Tensor:
            calls.append(index)
            return torch.full((100,), index, dtype=torch.uint8)

        found = Examples([str(index) for index in range(10)], source)
        for _ in range(3):
            assert [int(found.read(index)[0]) for index in range(10)] == list(range(10))
        assert sorted(calls) == sorted([0, 1, *list(range(2, 10)) * 3])

    def test_a_pass_caches_nothing(self, photographs: Path) -> None:
        images = open_images(photographs)
        for _ in images.readable(range(4)):
            pass
        images.check(range(4), strict=True)
        assert not images._cache
        images.check(range(4))
        assert len(images._cache) == 4
        assert len(pickle.dumps(images)) < 5000


@pytest.mark.parametrize("kind", ["files", "npy", "npz", "parquet", "saved"])
def test_every_kind_can_be_pickled(photographs: Path, tmp_path: Path, kind: str) -> None:
    images = open_images(stored(photographs, tmp_path, kind))
    read = [images.read(index) for index in range(len(images))]
    again = pickle.loads(pickle.dumps(images))
    assert again.names == images.names
    assert all(torch.equal(again.read(index), pixels) for index, pixels in enumerate(read))


def stored(photographs: Path, folder: Path, kind: str) -> Path:
    if kind == "files":
        return photographs
    path = folder / f"data.{kind}"
    array = np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), dtype=np.uint8)
    files = [str(file) for file in sorted(photographs.rglob("*.*"))]
    table = datasets.Dataset.from_dict({"image": files}).cast_column("image", datasets.Image())
    if kind == "saved":
        table.save_to_disk(str(path))
    elif kind == "parquet":
        table.to_parquet(str(path))
    else:
        (np.save if kind == "npy" else np.savez)(path, array)
    return path


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_read_the_same_and_tell_each_reason_once(
    damaged: Path, photographs: Path, tmp_path: Path, method: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    kinds = ("npy", "npz", "parquet", "saved") if method == "spawn" else ("npy",)  # an import of datasets takes long
    paths = [damaged, *(stored(photographs, tmp_path, kind) for kind in kinds)]
    expected = torch.cat([in_turn(crops(path)) for path in paths])
    capfd.readouterr()
    everything = ConcatDataset([crops(path) for path in paths])
    loader = DataLoader(everything, 6, num_workers=2, multiprocessing_context=method)
    assert torch.equal(torch.cat(list(loader)), expected)
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("left out ")]
    assert len(told) == len(set(told)) == 4
    assert all("-half.png (" in line for line in told)


def test_what_is_left_out_of_images_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "b.gif")
    images = open_images(tmp_path)
    images.check(range(2))
    list(images.readable(range(2)))
    assert capsys.readouterr().err == "a.gif (only its first frame is read)\n"


def test_names_and_reasons_are_lines_that_a_terminal_can_show() -> None:
    assert listed({"a\x1b[2J\n\udcff猫.png": "no"}) == "1 unreadable file: a\\x1b[2J\\n\\udcff猫.png (no)"
    assert printable("猫 é.png") == "猫 é.png"
