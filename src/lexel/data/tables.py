"""Tables: Parquet, Arrow, JSON, CSV, or what `datasets` has saved, mapped from files and never loaded whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lexel._core.errors import reason_of
from lexel.data.labels import Labels, named_labels

__all__ = [
    "LABEL",
    "TABLES",
    "USUAL",
    "Columns",
    "checked_items",
    "is_saved",
    "is_table",
    "items_of",
    "kinds_of_columns",
    "load_table",
    "read_labels",
    "tables_among",
]

TABLES = {".parquet": "parquet", ".arrow": "arrow", ".json": "json", ".jsonl": "json", ".csv": "csv"}
MAPPED = (".parquet", ".arrow")  # what is taken of a folder
LABEL = "label"  # the name of the column of classes


class Columns(NamedTuple):
    """Which columns of a table to read, where its own names and types do not say it.

    Attributes:
        examples: the column that holds the examples.
        items: the column that names them.
    """

    examples: str | None = None
    items: str | None = None

    def refuse(self, path: Path) -> None:
        """Refuse names of columns where there are none.

        Raises:
            ValueError: there is a name.
        """
        for name in filter(None, self):
            raise ValueError(f"{path} is no table, and has no column {name!r}")

    def check(self, table: Any, path: Path) -> None:
        """Check that a table has these columns.

        Raises:
            ValueError: it has not.
        """
        for name in filter(None, self):
            if name not in table.features:
                raise ValueError(f"{path} has no column {name!r}; its columns are {kinds_of_columns(table)}")


USUAL = Columns()  # by their usual names, and by what they hold


def is_table(path: Path) -> bool:
    """Whether the file at a path is a table, by its name or its first bytes."""
    with path.open("rb") as file:
        head = file.read(6)
    return path.suffix.lower() in TABLES or head.startswith((b"PAR1", b"ARROW1"))


def tables_among(names: Iterable[str]) -> list[str]:
    """Return which files of a folder are its tables, by their names, whether in small letters or capitals."""
    return [name for name in names if name.lower().endswith(MAPPED)]


def is_saved(path: Path) -> bool:
    """Whether `datasets.save_to_disk` wrote a folder."""
    return any((path / name).exists() for name in ("dataset_dict.json", "state.json"))


def load_table(path: Path, files: list[str], expected: str) -> Any:
    """Load a `datasets.Dataset`, all splits together.

    Args:
        path: a file or folder, as `datasets.load_dataset` or `datasets.load_from_disk` takes it.
        files: Parquet or Arrow files in the folder, if only these are to be read; otherwise empty.
        expected: what should be there, for the message.

    Raises:
        ImportError: the package `datasets` is missing.
        ValueError: it cannot be opened.
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
        return table.with_format(None)
    except Exception as error:  # the package raises many kinds; all mean that nothing can be read here
        cause = error.__cause__ or error  # what the package's own error hides
        raise ValueError(f"no {expected} found in {path}: {reason_of(cause)}") from error
    finally:
        datasets.logging.set_verbosity(verbosity)
        if barred:
            datasets.enable_progress_bars()


def read_labels(table: Any) -> Labels:
    """Return the class of each row of a table's column `label`.

    Raises:
        ValueError: the column holds something else than classes: numbers from 0, or names.
    """
    import pyarrow.types as types

    feature = table.features[LABEL]
    names = tuple(feature.names) if hasattr(feature, "names") else None
    values = table.with_format("arrow")[LABEL]
    values = values.combine_chunks() if hasattr(values, "combine_chunks") else values[:]
    if types.is_dictionary(values.type):
        values = values.dictionary_decode()
    texts = types.is_string(values.type) or types.is_large_string(values.type) or types.is_string_view(values.type)
    if not (texts or types.is_integer(values.type) or types.is_null(values.type)):
        example = next((f", such as {value.as_py()!r:.60}" for value in values if value.is_valid), "")
        raise ValueError(
            f"labels: the column {LABEL!r} holds {values.type}{example}; expected whole numbers or names of classes"
        )
    if values.null_count:
        row = values.is_null().index(True).as_py()
        raise ValueError(f"labels: the row {row} of the column {LABEL!r} holds no label")
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


def items_of(table: Any, column: str) -> list[Any]:
    """Return what the rows of a table are named in a column: whole numbers or texts, all different.

    Raises:
        ValueError: one is missing, is something else, or comes twice.
    """
    return checked_items(table.select_columns([column]).with_format("arrow")[:].column(column).to_pylist(), column)


def checked_items(items: Sequence[Any], where: str) -> list[Any]:
    """Check that items are whole numbers or texts, and all different.

    Args:
        items: one for each row.
        where: their column, for messages.

    Raises:
        ValueError: one is missing, is something else, does not fit int64, or comes twice.
    """
    rows: dict[Any, int] = {}
    for row, item in enumerate(items):
        if isinstance(item, bool) or not isinstance(item, (int, str)):
            raise ValueError(f"the row {row} has {item!r} in {where!r}; an item must be a whole number or a text")
        if isinstance(item, int) and not -(1 << 63) <= item < 1 << 63:
            raise ValueError(f"the row {row} has {item} in {where!r}; a whole number must fit int64, a text need not")
        if rows.setdefault(item, row) != row:
            raise ValueError(f"the rows {rows[item]} and {row} have the same item {item!r} in {where!r}")
    return list(items)


def kinds_of_columns(table: Any) -> str:
    """List the columns of a table with the types of their cells, for a message."""
    kinds = (f"{name} ({_kind_of_column(feature)})" for name, feature in table.features.items())
    return ", ".join(kinds) or "none"


def _kind_of_column(feature: Any) -> str:
    inner = getattr(feature, "feature", None)
    kind = getattr(feature, "dtype", None) or type(feature).__name__
    return str(kind) if inner is None else f"{kind} of {_kind_of_column(inner)}"


def _with_rows(paths: list[str]) -> list[str]:
    """Leave out files of Parquet without rows, as some programs write them beside others: `datasets` opens none."""
    import pyarrow.parquet as pq

    found = [path for path in paths if not path.lower().endswith(".parquet") or pq.read_metadata(path).num_rows]
    if not found:
        raise ValueError("it has no rows")
    return found


def _load(datasets: Any, path: Path, files: list[str]) -> Any:
    if path.is_dir() and files:
        by_builder = {name: [str(path / file) for file in files if file.lower().endswith(name)] for name in TABLES}
        parts = [
            datasets.load_dataset(TABLES[name], data_files=_with_rows(chosen), split="train")
            for name, chosen in by_builder.items()
            if chosen
        ]
        return datasets.concatenate_datasets(parts)
    if path.is_dir():
        return datasets.load_from_disk(str(path)) if is_saved(path) else datasets.load_dataset(str(path))
    with path.open("rb") as file:
        head = file.read(6)
    builder = {b"PAR1": "parquet", b"ARRO": "arrow"}.get(head[:4], TABLES.get(path.suffix.lower()))
    if builder is None:
        raise ValueError("its format is not known")
    return datasets.load_dataset(builder, data_files=_with_rows([str(path)]))
