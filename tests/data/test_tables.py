"""Columns of images, as other programs than `datasets` write them too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lexel.data.images import open_images

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture
def files(photographs: Path) -> list[bytes]:
    return [(photographs / name).read_bytes() for name in ("coffee.webp", "people/astronaut.png")]


def shapes(path: Path) -> dict[int, tuple[int, ...]]:
    images = open_images(path)
    return {index: tuple(pixels.shape) for index, pixels in images.readable(range(len(images)))}


BOTH = {0: (3, 50, 75), 1: (3, 90, 97)}


@pytest.mark.parametrize("kind", ["bytes", "large bytes", "struct", "struct of bytes alone"])
def test_columns_of_bytes_are_images_if_they_hold_some(tmp_path: Path, files: list[bytes], kind: str) -> None:
    column = {
        "bytes": lambda: pa.array(files, pa.binary()),
        "large bytes": lambda: pa.array(files, pa.large_binary()),
        "struct": lambda: pa.array([{"bytes": file, "path": "x.png"} for file in files], STRUCT),
        "struct of bytes alone": lambda: pa.array([{"bytes": file} for file in files]),
    }[kind]()
    other = pa.array([b"not", b"images"])
    pq.write_table(pa.table({"label": [0, 1], "hash": other, "picture": column}), tmp_path / "a.parquet")
    assert shapes(tmp_path / "a.parquet") == BOTH
    assert shapes(tmp_path) == BOTH
    (tmp_path / "a.parquet").rename(tmp_path / "bare")
    assert shapes(tmp_path / "bare") == BOTH


def test_rows_without_an_image_are_skipped(tmp_path: Path, files: list[bytes], photographs: Path) -> None:
    rows = [None, {"bytes": files[0], "path": None}, {"bytes": None, "path": None}, {"bytes": b"", "path": None}]
    rows += [{"bytes": b"no image", "path": None}, {"bytes": files[1][:500], "path": None}]
    rows += [{"bytes": None, "path": "/nowhere.png"}, {"bytes": None, "path": "https://localhost/a.png"}]
    rows += [{"bytes": None, "path": str(photographs / "people/astronaut.png")}]
    pq.write_table(pa.table({"image": pa.array(rows, STRUCT)}), tmp_path / "a.parquet")
    images = open_images(tmp_path / "a.parquet")
    assert [index for index, _ in images.readable(range(len(images)))] == [1, 8]
    assert images.skipped["0.png"] == images.skipped["2.png"] == "there is no image in this row"
    assert len(images.skipped) == 7


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[b"a", b"b"]]),
        pa.array([["a.png"]]),
        pa.array(["a.png"]),
        pa.array([[[1, 2], [3, 4]]]),
        pa.array([{"x": 1}]),
        pa.array([None]),
        pa.array([b"text"]),
        pa.array([1.5]),
    ],
    ids=["lists of bytes", "lists", "text", "lists of lists", "struct", "null", "other bytes", "numbers"],
)
def test_other_columns_are_refused_in_a_line(tmp_path: Path, column: pa.Array) -> None:
    pq.write_table(pa.table({"c": column}), tmp_path / "a.parquet")
    for path in (tmp_path, tmp_path / "a.parquet"):
        with pytest.raises(ValueError, match=r"no images found in .*: its columns are c \(") as caught:
            open_images(path)
        assert "\n" not in str(caught.value)


def test_a_table_without_rows_has_no_image(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": pa.array([], STRUCT)}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="no images found"):
        open_images(tmp_path)


@pytest.mark.parametrize("damage", ["empty", "half", "text"])
@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".json", ".jsonl", ".csv"])
def test_damaged_tables_are_refused_in_a_line(tmp_path: Path, files: list[bytes], damage: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    pq.write_table(pa.table({"image": pa.array(files)}), path)
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "half": content[: len(content) // 2], "text": b"\xff\xfe[{"}[damage])
    with pytest.raises(ValueError, match="no images found in ") as caught:
        open_images(path)
    assert "\n" not in str(caught.value)


def test_pictures_beside_a_table_of_images_are_not_taken_for_the_data(
    tmp_path: Path, files: list[bytes], photographs: Path
) -> None:
    shutil.copy(photographs / "people/camera.bmp", tmp_path / "teaser.png")
    (tmp_path / "README.md").write_text("# A data set")
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        pq.write_table(pa.table({"image": pa.array(files), "label": [0, 1]}), tmp_path / part / "0.parquet")
    assert shapes(tmp_path) == {**BOTH, 2: BOTH[0], 3: BOTH[1]}


def test_a_table_about_pictures_is_not_taken_for_the_pictures(tmp_path: Path, photographs: Path) -> None:
    shutil.copytree(photographs, tmp_path, dirs_exist_ok=True)
    pq.write_table(pa.table({"file_name": ["coffee.webp"], "label": [0]}), tmp_path / "metadata.parquet")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "coffee.webp", "label": 0}))
    assert len(shapes(tmp_path)) == 4
