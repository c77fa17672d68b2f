"""Opening whatever stands at a path as a set of images."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from zipfile import is_zipfile

from PIL import Image
from torch import Tensor

from lexel._core.places import instead, stands_at
from lexel.data.examples import Examples
from lexel.data.images.arrays import open_array
from lexel.data.images.decode import is_image, most_pixels
from lexel.data.images.files import ImageFiles, walk
from lexel.data.images.tables import open_table
from lexel.data.labels import Labels
from lexel.data.tables import USUAL, Columns, is_saved, is_table, tables_among

__all__ = ["Images", "open_images"]


class Images(Examples):
    """A set of images: uint8 `(C, H, W)` each, with its own name and size, read when it is needed.

    Args:
        names: relative paths with forward slashes, all different.
        channels: C.
        source: as for `Examples`.
        glance: as for `Examples`.
        skipped: as for `Examples`.
        remarks: as for `Examples`.
        labels: as for `Examples`.
    """

    noun = "image"

    def __init__(
        self,
        names: Sequence[str],
        channels: int,
        source: Callable[[int], Tensor],
        glance: Callable[[int], str | None] | None = None,
        skipped: Mapping[str, str] | None = None,
        remarks: Mapping[str, str] | None = None,
        labels: Callable[[], Labels] | None = None,
    ) -> None:
        super().__init__(names, source, glance, skipped, remarks, labels)
        self.channels = channels


def open_images(
    data: str | os.PathLike[str],
    channels: int | None = None,
    *,
    layout: str | None = None,
    columns: Columns = USUAL,
) -> Images:
    """Open a set of images. Each is decoded only when it is read.

    Args:
        data: a folder of images at any depth; one image; a `.npy` or `.npz` array, `(N, H, W)`, `(N, H, W, C)` or
            `(N, C, H, W)`, uint8, bool, or floating in [0, 1]; or anything local that `datasets.load_dataset` opens (a
            folder or file of Parquet, Arrow, JSON, …), of which the first column of images is taken, from all splits.
            Links to folders are followed, each folder is read once; hidden files and the folders of runs and of tokens
            are left out.
            If the name of a file does not say its type, its content does. An image of more pixels than
            `lexel.data.images.decode.most_pixels` allows cannot be read.
        channels: 1, 3 or 4 to convert to grey, colour, or colour and transparency; by default those of the data (files
            count as colour). `lexel.data.images.decode.decode` says how; an array of other channels is not converted.
        layout: the axes of an array, where its shape can be read in two ways: some of `N`, `C`, `H` and `W`, as in
            `"NHWC"` or `"HWC"`.
        columns: of a table: which holds the images, instead of the first that does, and which names them, instead of
            the numbers of the rows.

    Raises:
        FileNotFoundError: nothing stands at `data`.
        OSError: the folder cannot be read.
        ValueError: there is no image in it, or an array has another type or shape, or two possible layouts.
    """
    path = Path(data)
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    if stands_at(path) not in (None, "images"):
        raise ValueError(f"{path} is not a set of images{instead(path)}")
    most_pixels()  # raises for a malformed limit, before an image is blamed for it
    images = _open(path, channels, layout, columns)
    images.origin = str(path)
    return images


def _open(path: Path, channels: int | None, layout: str | None, columns: Columns) -> Images:
    if path.is_dir():
        return _open_folder(path, channels, columns)
    if not path.is_file():
        raise ValueError(f"{path} is neither a file nor a folder")
    with path.open("rb") as file:
        head = file.read(6)
    if path.suffix.lower() in (".npy", ".npz") or head == b"\x93NUMPY" or (not path.suffix and is_zipfile(path)):
        columns.refuse(path)
        array = open_array(path, channels, layout)
        digits = len(str(len(array) - 1))
        names = [f"{index:0{digits}d}.png" for index in range(len(array))]
        return Images(names, array.channels, array)
    if is_table(path):
        return _open_table(path, [], channels, columns)
    if path.suffix.lower() in Image.registered_extensions() or is_image(path):
        columns.refuse(path)
        files = ImageFiles(str(path.parent), [path.name], channels or 3)
        return Images(files.names(), files.channels, files, files.glance)
    return _open_table(path, [], channels, columns)


def _open_folder(path: Path, channels: int | None, columns: Columns) -> Images:
    found = walk(path)
    tables = tables_among(found.files)
    extensions = Image.registered_extensions()
    saved = is_saved(path)
    pictured = any(Path(name).suffix.lower() in extensions for name in found.files)
    if saved or tables:
        try:
            return _open_table(path, [] if saved else tables, channels, columns)
        except ValueError:
            if not pictured or any(columns):  # otherwise the tables describe the pictures beside them
                raise
    if pictured or (not tables and any(is_image(path / name) for name in found.files)):
        columns.refuse(path)
        files = ImageFiles(str(path), found.files, channels or 3)
        return Images(files.names(), files.channels, files, files.glance, found.skipped, found.remarks)
    return _open_table(path, [], channels, columns)


def _open_table(path: Path, files: list[str], channels: int | None, columns: Columns) -> Images:
    rows = open_table(path, files, channels or 3, columns)
    digits = len(str(max(len(rows) - 1, 0)))
    names = rows.names() or [f"{index:0{digits}d}.png" for index in range(len(rows))]
    return Images(names, rows.channels, rows, rows.glance, labels=None if rows.labels is None else rows.read_labels)
