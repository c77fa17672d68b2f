"""Images in a column of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from lexel._core.errors import reason_of
from lexel.data.images.decode import decode, glance
from lexel.data.labels import Labels, named_labels

__all__ = ["TABLES", "ImageColumn", "open_table"]

TABLES = {".parquet": "parquet", ".arrow": "arrow", ".json": "json", ".jsonl": "json", ".csv": "csv"}
LABEL = "label"  # the name of the column of classes
EXAMINED_ROWS = 100  # of a column, to find an image in it: some rows may be empty or damaged


@dataclass(frozen=True)
class ImageColumn:
    """Reads the images of a column; it can be pickled.

    Attributes:
        table: a `datasets.Dataset` of that column alone, not decoded: bytes, or a struct of `bytes` and `path`.
        column: the column's name.
        channels: as for `decode`.
        labels: a `datasets.Dataset` of the column `label` alone; None if there is none.
    """

    table: Any
    column: str
    channels: int
    labels: Any = None

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
        import pyarrow.types as types

        feature = self.labels.features[LABEL]
        names = tuple(feature.names) if hasattr(feature, "names") else None
        values = self.labels.with_format("arrow")[LABEL]
        values = values.combine_chunks() if hasattr(values, "combine_chunks") else values[:]
        if types.is_dictionary(values.type):
            values = values.dictionary_decode()
        texts = types.is_string(values.type) or types.is_large_string(values.type) or types.is_string_view(values.type)
        if not (texts or types.is_integer(values.type) or types.is_null(values.type)):
            example = next((f", such as {value.as_py()!r:.60}" for value in values if value.is_valid), "")
            raise ValueError(
                f"labels: the column {LABEL!r} holds {values.type}{example}; expected whole numbers or names of "
                "classes (--labels none takes none)"
            )
        if values.null_count:
            row = values.is_null().index(True).as_py()
            raise ValueError(f"labels: the row {row} of the column {LABEL!r} holds no label (--labels none takes none)")
        if texts:
            return named_labels(values.to_pylist())
        found = values.to_numpy(zero_copy_only=False)  # unsigned ones of 64 bits are not yet wrapped
        limit, last = (len(names), f"{len(names) - 1}") if names else (1 << 62, "2^62 - 1")
        if (wrong := (found < 0) | (found >= limit)).any():
            row = int(wrong.argmax())
            raise ValueError(
                f"labels: the row {row} of the column {LABEL!r} holds {found[row]}, expected a number from 0 to {last}"
            )
        return Labels(torch.from_numpy(found.astype("int64")), names)

    def _file(self, index: int) -> Path | IO[bytes]:
        value = self.table[index][self.column]
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return BytesIO(value)
        if isinstance(value, str) and "://" not in value:
            return Path(value)
        raise ValueError("there is no image in this row" if value is None else f"{value!r} is not a local image")


def open_table(path: Path, files: list[str], channels: int) -> ImageColumn:
    """Open the first column of images of a data set, all splits together.

    Args:
        path: a file or folder, as `datasets.load_dataset` or `datasets.load_from_disk` takes it.
        files: Parquet or Arrow files in the folder, if only these are to be read; otherwise empty.
        channels: as for `decode`.

    Raises:
        ImportError: the package `datasets` is missing.
        ValueError: it cannot be opened, or has no such column.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError(f"{path} needs the package datasets to open: pip install 'lexel[train]'") from error

    verbosity, barred = datasets.logging.get_verbosity(), datasets.is_progress_bar_enabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # the error itself says what it would log
    datasets.disable_progress_bars()
    try:
        loaded = _load(datasets, path, files)
        table = datasets.concatenate_datasets(list(loaded.values())) if isinstance(loaded, dict) else loaded
        table = table.with_format(None)
    except Exception as error:  # the package raises many kinds; all mean that nothing can be read here
        raise ValueError(f"no images found in {path}: {reason_of(error)}") from error
    finally:
        datasets.logging.set_verbosity(verbosity)
        if barred:
            datasets.enable_progress_bars()
    labels = table.select_columns([LABEL]) if LABEL in table.features else None
    for column, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            images = table.select_columns([column]).cast_column(column, datasets.Image(decode=False))
            return ImageColumn(images, column, channels, labels)
    # Files of other programs do not have the type `datasets.Image`: look for a column of bytes that are images.
    for column, feature in table.features.items():
        if (isinstance(feature, datasets.Value) and "binary" in feature.dtype) or isinstance(feature, dict):
            images = ImageColumn(table.select_columns([column]), column, channels, labels)
            if _holds_images(images):
                return images
    columns = ", ".join(f"{name} ({_kind(feature)})" for name, feature in table.features.items()) or "none"
    raise ValueError(f"no images found in {path}: its columns are {columns}; expected one image a row")


def _load(datasets: Any, path: Path, files: list[str]) -> Any:
    if path.is_dir() and files:
        by_builder = {name: [str(path / file) for file in files if file.lower().endswith(name)] for name in TABLES}
        parts = [
            datasets.load_dataset(TABLES[name], data_files=chosen, split="train")
            for name, chosen in by_builder.items()
            if chosen
        ]
        return datasets.concatenate_datasets(parts)
    if path.is_dir():
        saved = (path / "dataset_dict.json").exists() or (path / "state.json").exists()
        return datasets.load_from_disk(str(path)) if saved else datasets.load_dataset(str(path))
    with path.open("rb") as file:
        head = file.read(6)
    builder = {b"PAR1": "parquet", b"ARRO": "arrow"}.get(head[:4], TABLES.get(path.suffix.lower()))
    if builder is None:
        raise ValueError("not an image, an array or a data set")
    return datasets.load_dataset(builder, data_files=str(path))


def _holds_images(images: ImageColumn) -> bool:
    """Return whether any of the first rows is an image."""
    for index in range(min(len(images), EXAMINED_ROWS)):
        try:
            images.glance(index)
        except Exception:
            continue
        return True
    return False


def _kind(feature: Any) -> str:
    return str(getattr(feature, "dtype", None) or type(feature).__name__)
