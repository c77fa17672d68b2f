"""Arrays of images: each layout and type is read rightly, or refused in a line."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lexel._core import files
from lexel.data.images import open_images
from tests.data.test_open import all_of

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (5, 3, 8, 9)).astype(np.uint8)


def saved(path: Path, array: np.ndarray, suffix: str = ".npy") -> Path:
    path = path / f"a{suffix}"
    {".npy": np.save, ".npz": np.savez, "z.npz": np.savez_compressed}[suffix](path, array)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", "z.npz"])
@pytest.mark.parametrize(
    "change",
    [
        lambda array: np.asfortranarray(array),
        lambda array: (array / 255).astype(">f4"),
        lambda array: (array / 255).astype("<f8"),
        lambda array: (array / 255).astype(np.float16),
        lambda array: (array / 255).astype(np.longdouble),
        lambda array: np.asfortranarray((array / 255).astype(">f8")),
        lambda array: np.repeat(array, 2, axis=0)[::2],
    ],
    ids=["Fortran", "big-endian", "double", "half", "long double", "big-endian Fortran double", "strided"],
)
def test_memory_layout_and_type_do_not_matter(tmp_path: Path, suffix: str, change: object) -> None:
    for index, pixels in open_images(saved(tmp_path, change(COLOUR), suffix)).readable(range(5)):
        assert pixels.is_contiguous()
        assert np.array_equal(pixels.numpy(), COLOUR[index])


def test_truth_is_white(tmp_path: Path) -> None:
    array = RANDOM.random((5, 8, 9)) > 0.5
    assert np.array_equal(torch.stack(all_of(open_images(saved(tmp_path, array))))[:, 0].numpy(), array * np.uint8(255))


@pytest.mark.parametrize("dtype", ["uint16", ">u2", "uint32", "uint64", "int8", "int64", "complex64", "U3", "V4", "M8"])
def test_types_whose_white_is_not_known_are_refused(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(ValueError, match="expected uint8, bool or floating") as caught:
        open_images(saved(tmp_path, np.zeros((5, 8, 9), dtype)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "readings"),
    [
        ((224, 200, 3), ("224 grey", "one image of 3")),
        ((224, 200, 4), ("224 grey", "one image of 4")),
        ((224, 200, 1), ("224 grey", "one image of 1")),
        ((3, 224, 200), ("3 grey", "one image of 3")),
        ((4, 224, 200), ("4 grey", "one image of 4")),
        ((9, 3, 8, 3), ("9 images of 3", "or of 3")),
        ((9, 28, 28, 8), ("9 images of 28", "or of 8")),
        ((9, 12, 28, 28), ("9 images of 12", "or of 28")),
    ],
)
def test_a_shape_that_can_be_read_in_two_ways_is_refused_with_both(
    tmp_path: Path, shape: tuple[int, ...], readings: tuple[str, str]
) -> None:
    path = saved(tmp_path, np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="layout=") as caught:
        open_images(path)
    assert all(reading in str(caught.value) for reading in readings)


@pytest.mark.parametrize(
    ("shape", "count", "each"),
    [
        ((5, 28, 28), 5, (1, 28, 28)),
        ((1, 28, 28), 1, (1, 28, 28)),
        ((2, 28, 28), 2, (1, 28, 28)),
        ((5, 28, 28, 3), 5, (3, 28, 28)),
        ((1, 224, 200, 3), 1, (3, 224, 200)),
        ((224, 200, 3, 1), 224, (1, 200, 3)),
        ((1, 3, 224, 200), 1, (3, 224, 200)),
        ((3, 224, 200, 1), 3, (1, 224, 200)),
        ((5, 4, 28, 28), 5, (4, 28, 28)),
    ],
)
def test_other_shapes_have_one_reading(
    tmp_path: Path, shape: tuple[int, ...], count: int, each: tuple[int, ...]
) -> None:
    images = open_images(saved(tmp_path, np.zeros(shape, np.uint8)))
    assert len(images) == count
    assert images.read(0).shape == each
    assert images.channels == each[0]


def test_who_asks_for_grey_images_has_three_of_them(tmp_path: Path) -> None:
    path = saved(tmp_path, np.zeros((3, 28, 28), np.uint8))
    assert len(open_images(path, 1)) == 3
    with pytest.raises(ValueError, match="layout="):
        open_images(path, 3)
    with pytest.raises(ValueError, match="layout="):
        open_images(saved(tmp_path, np.zeros((224, 200, 3), np.uint8)), 1)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NWHC", "CHWN", "HWC", "CHW", "WHC", "NHW", "HNW", "HW"])
def test_the_layout_can_be_said(tmp_path: Path, layout: str) -> None:
    source = COLOUR[(slice(None) if "N" in layout else 0, slice(None) if "C" in layout else 0)]
    axes = "".join(axis for axis in "NCHW" if axis in layout)
    array = source.transpose([axes.index(axis) for axis in layout])
    images = open_images(saved(tmp_path, array), layout=layout)
    expected = source if "C" in layout else np.expand_dims(source, -3)
    expected = expected if "N" in layout else expected[None]
    assert np.array_equal(torch.stack(all_of(images)).numpy(), expected)


@pytest.mark.parametrize("layout", ["", "NHW", "NHWC1", "NNHW", "nhwc", "NHCC", "BHWC", "NC"])
def test_a_layout_that_does_not_fit_is_refused(tmp_path: Path, layout: str) -> None:
    with pytest.raises(ValueError, match="layout must name the axes"):
        open_images(saved(tmp_path, COLOUR), layout=layout)


class TestDamage:
    @pytest.mark.parametrize("suffix", [".npy", ".npz"])
    @pytest.mark.parametrize("share", [0, 0.001, 0.02, 0.1, 0.5, 0.9, 0.999])
    def test_a_truncated_file_is_refused(self, tmp_path: Path, suffix: str, share: float) -> None:
        path = saved(tmp_path, COLOUR, suffix)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        with pytest.raises(ValueError, match="cannot be read as one array") as caught:
            open_images(path)
        assert "\n" not in str(caught.value)

    def test_a_small_archive_does_not_fill_the_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "LARGE", 1 << 20)
        path = saved(tmp_path, np.zeros((2, 1000, 1000), np.uint8), "z.npz")
        with pytest.raises(ValueError, match="bytes would become 2,000,128"):
            open_images(path)
        assert len(open_images(saved(tmp_path, np.zeros((1, 1000, 1000), np.uint8), "z.npz"))) == 1

    def test_an_archive_with_another_number_of_arrays_is_refused(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "none.npz")
        np.savez(tmp_path / "two.npz", x_train=COLOUR, y_train=np.zeros(5))
        with pytest.raises(ValueError, match="it holds 0 arrays"):
            open_images(tmp_path / "none.npz")
        with pytest.raises(ValueError, match="it holds 2 arrays: x_train, y_train"):
            open_images(tmp_path / "two.npz")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_file_is_told_by_its_content(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path, COLOUR, suffix).rename(tmp_path / "bare")
    assert np.array_equal(torch.stack(all_of(open_images(path))).numpy(), COLOUR)


def test_a_pickle_holds_no_pixels(tmp_path: Path) -> None:
    images = open_images(saved(tmp_path, np.zeros((100, 50, 50), np.uint8)))
    images.read(0)
    packed = pickle.dumps(images)
    assert len(packed) < 10_000
    assert torch.equal(pickle.loads(packed).read(3), images.read(3))


@pytest.mark.parametrize("own", [1, 3, 4])
@pytest.mark.parametrize("wanted", [1, 3, 4])
def test_channels_are_converted_as_those_of_files(own: int, wanted: int, tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (1, 20, 30, own), np.uint8)
    Image.fromarray(array[0].squeeze()).save(tmp_path / "image.png")
    (found,), (expected,) = (
        all_of(open_images(path, wanted)) for path in (saved(tmp_path, array), tmp_path / "image.png")
    )
    assert torch.equal(found, expected)


def test_channels_that_no_file_has_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, np.zeros((3, 20, 30, 2), np.uint8))
    assert open_images(path, 2).channels == 2
    with pytest.raises(ValueError, match="has 2 channels, expected 3"):
        open_images(path, 3)
