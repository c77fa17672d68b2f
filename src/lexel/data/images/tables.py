"""Images in a column of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from lexel.data.images.decode import decode, glance
from lexel.data.labels import Labels
from lexel.data.tables import LABEL, Columns, items_of, kinds_of_columns, load_table, read_labels

__all__ = ["ImageColumn", "open_table"]

EXAMINED_ROWS = 100  # of a column, to find an image in it: some rows may be empty or damaged


@dataclass(frozen=True)
class ImageColumn:
    """Reads the images of a column; it can be pickled.

    Attributes:
        table: a `datasets.Dataset` of that column alone, not decoded: bytes, or a struct of `bytes` and `path`.
        column: the column's name.
        channels: as for `decode`.
        labels: a `datasets.Dataset` of the column `label` alone; None if there is none.
        items: a `datasets.Dataset` of the column alone that names the images; None if there is none.
    """

    table: Any
    column: str
    channels: int
    labels: Any = None
    items: Any = None

    def __len__(self) -> int:
        return len(self.table)

    def __call__(self, index: int) -> Tensor:
        """Read an image."""
        return decode(self._file(index), self.channels)

    def glance(self, index: int) -> str | None:
        """Read the header of an image."""
        return glance(self._file(index))

    def read_labels(self) -> Labels:
        """Return the class of each row.

        Raises:
            ValueError: the column holds something else than classes: numbers from 0, or names.
        """
        return read_labels(self.labels)

    def names(self) -> list[str] | None:
        """Return the name of each row; None if no column names them.

        Raises:
            ValueError: a name is missing, or comes twice.
        """
        if self.items is None:
            return None
        (column,) = self.items.column_names
        return [str(item) for item in items_of(self.items, column)]

    def _file(self, index: int) -> Path | IO[bytes]:
        value = self.table[index][self.column]
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return BytesIO(value)
        if isinstance(value, str) and "://" not in value:
            return Path(value)
        raise ValueError("there is no image in this row" if value is None else f"{value!r} is not a local image")


def open_table(path: Path, files: list[str], channels: int, columns: Columns) -> ImageColumn:
    """Open the first column of images of a data set, all splits together.

    Args:
        path: a file or folder, as `datasets.load_dataset` or `datasets.load_from_disk` takes it.
        files: Parquet or Arrow files in the folder, if only these are to be read; otherwise empty.
        channels: as for `decode`.
        columns: which column to take instead, and which names the images.

    Raises:
        ImportError: the package `datasets` is missing.
        ValueError: it cannot be opened, or has no such column.
    """
    table = load_table(path, files, "images")
    import datasets

    columns.check(table, path)
    labels = table.select_columns([LABEL]) if LABEL in table.features else None
    items = table.select_columns([columns.items]) if columns.items else None
    candidates = {name: table.features[name] for name in ([columns.examples] if columns.examples else table.features)}
    for column, feature in candidates.items():
        if isinstance(feature, datasets.Image):
            images = table.select_columns([column]).cast_column(column, datasets.Image(decode=False))
            return ImageColumn(images, column, channels, labels, items)
    # Files of other programs do not have the type `datasets.Image`: look for a column of bytes that are images.
    for column, feature in candidates.items():
        if (isinstance(feature, datasets.Value) and "binary" in feature.dtype) or isinstance(feature, dict):
            images = ImageColumn(table.select_columns([column]), column, channels, labels, items)
            if _holds_images(images):
                return images
    raise ValueError(f"no images found in {path}: its columns are {kinds_of_columns(table)}; expected one image a row")


def _holds_images(images: ImageColumn) -> bool:
    """Return whether any of the first rows is an image."""
    for index in range(min(len(images), EXAMINED_ROWS)):
        try:
            images.glance(index)
        except Exception:
            continue
        return True
    return False
