"""Images from folders, arrays and data sets."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from lexel.data.images import listed, open_images, save_image


def all_of(images: object) -> list[torch.Tensor]:
    return [pixels for _, pixels in images.readable(range(len(images)))]


def test_a_folder_is_read_at_any_depth(photographs: Path) -> None:
    images = open_images(photographs)
    assert images.names == ["animals/cats/chelsea.jpg", "coffee.webp", "people/astronaut.png", "people/camera.bmp"]
    shapes = [tuple(pixels.shape) for pixels in all_of(images)]
    assert shapes == [(3, 75, 113), (3, 50, 75), (3, 90, 97), (3, 66, 66)]
    with Image.open(photographs / "people/astronaut.png") as file:
        expected = torch.from_numpy(np.array(file.convert("RGB"))).movedim(-1, 0)
    assert torch.equal(images.read(2), expected)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_files_are_converted_to_the_channels_asked_for(photographs: Path, channels: int) -> None:
    assert {len(pixels) for pixels in all_of(open_images(photographs, channels))} == {channels}


def test_one_file(photographs: Path) -> None:
    images = open_images(photographs / "coffee.webp")
    assert images.names == ["coffee.webp"]
    assert images.read(0).shape == (3, 50, 75)


def test_rotation_in_the_file_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.new("RGB", (30, 10)).save(tmp_path / "a.jpg", exif=exif)
    assert open_images(tmp_path).read(0).shape == (3, 30, 10)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 128 * 256, dtype=np.uint16)).save(tmp_path / "a.png")
    assert (open_images(tmp_path, 1).read(0) == 128).all()


@pytest.mark.parametrize(
    ("shape", "expected"), [((5, 8, 9), (1, 8, 9)), ((5, 8, 9, 3), (3, 8, 9)), ((5, 2, 8, 9), (2, 8, 9))]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...], dtype: type, suffix: str) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    stored = array if dtype is np.uint8 else (array / 255).astype(dtype)
    path = tmp_path / f"images{suffix}"
    (np.save if suffix == ".npy" else np.savez)(path, stored)
    images = open_images(path)
    assert len(images) == 5
    assert images.channels == expected[0]
    channels_first = np.moveaxis(array, -1, 1) if shape[-1] == 3 else array.reshape(5, *expected)
    for pixels, original in zip(all_of(images), channels_first, strict=True):
        assert pixels.shape == expected
        assert np.array_equal(pixels.numpy(), original)


@pytest.mark.parametrize("kind", ["parquet file", "parquet folder", "saved to disk"])
def test_datasets(tmp_path: Path, photographs: Path, kind: str) -> None:
    files = [str(photographs / name) for name in ("coffee.webp", "people/astronaut.png")]
    columns = {"label": [0, 1], "picture": files}
    table = datasets.Dataset.from_dict(columns).cast_column("picture", datasets.Image())
    path = tmp_path / "data"
    if kind == "saved to disk":
        table.save_to_disk(str(path))
    elif kind == "parquet folder":
        path.mkdir()
        table.to_parquet(str(path / "train.parquet"))
    else:
        path = tmp_path / "data.parquet"
        table.to_parquet(str(path))
    assert [tuple(pixels.shape) for pixels in all_of(open_images(path))] == [(3, 50, 75), (3, 90, 97)]


def test_unreadable_files_are_skipped_and_named_or_refused(tmp_path: Path, photographs: Path) -> None:
    whole = (photographs / "people/astronaut.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole)
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.txt").write_text("not an image")
    images = open_images(tmp_path)
    assert [index for index, _ in images.readable(range(3))] == [0]
    assert set(images.skipped) == {"b.png", "c.txt"}
    assert "2 unreadable files: b.png" in listed(images.skipped)
    with pytest.raises(ValueError, match=r"b\.png cannot be read"):
        open_images(tmp_path).check(range(3), strict=True)


def test_saving_and_reading_is_lossless(tmp_path: Path) -> None:
    for channels in (1, 3, 4):
        pixels = torch.randint(0, 256, (channels, 7, 5), dtype=torch.uint8)
        save_image(pixels, tmp_path / "a.png")
        assert torch.equal(open_images(tmp_path / "a.png", channels).read(0), pixels)
    with pytest.raises(ValueError, match="not 2"):
        save_image(torch.zeros(2, 4, 4, dtype=torch.uint8), tmp_path / "a.png")


class TestRefusals:
    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="nowhere"):
            open_images(tmp_path / "nowhere")

    def test_no_images(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no images found"):
            open_images(tmp_path)
        (tmp_path / "a.txt").write_text("a")
        with pytest.raises(ValueError, match="no images found"):
            open_images(tmp_path / "a.txt")

    def test_no_readable_image(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_text("a")
        images = open_images(tmp_path)
        with pytest.raises(ValueError, match="no readable image"):
            images.check(range(1))

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.zeros((4, 4), np.uint8), "shape"),
            (np.zeros((0, 4, 4), np.uint8), "no image"),
            (np.zeros((2, 4, 4), np.int64), "int64"),
        ],
    )
    def test_arrays(self, tmp_path: Path, array: np.ndarray, message: str) -> None:
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(ValueError, match=message):
            open_images(tmp_path / "a.npy")

    def test_floating_arrays_out_of_range_are_unreadable(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.full((1, 4, 4), 200.0))
        images = open_images(tmp_path / "a.npy")
        with pytest.raises(ValueError, match="no readable image"):
            images.check(range(1))

    def test_pickled_arrays_are_not_loaded(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
        with pytest.raises(ValueError, match="Python objects"):
            open_images(tmp_path / "a.npy")
