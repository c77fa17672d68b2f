"""Vectors: what is opened, how it is read, and what is refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save_file

from lexel.data.kind import kind_of
from lexel.data.tables import Columns
from lexel.data.vectors import open_vectors
from lexel.models import VectorAutoencoder

ROWS = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
ITEMS = [f"B{number}" for number in range(50)]


def table(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def lines(path: Path) -> Path:
    rows = ({"id": item, "vec": row.tolist()} for item, row in zip(ITEMS, ROWS, strict=True))
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def saved(path: Path, save: Callable[[Path], Any]) -> Path:
    save(path)
    return path


WRITTEN: dict[str, Callable[[Path], Path]] = {
    "npy": lambda folder: saved(folder / "a.npy", lambda path: np.save(path, ROWS)),
    "npy in Fortran's order": lambda folder: saved(
        folder / "f.npy", lambda path: np.save(path, np.asfortranarray(ROWS.astype(np.float64)))
    ),
    "npz": lambda folder: saved(folder / "a.npz", lambda path: np.savez(path, emb=ROWS, ids=np.array(ITEMS))),
    "safetensors": lambda folder: saved(
        folder / "a.safetensors", lambda path: save_file({"x": ROWS, "other": np.arange(3)}, path)
    ),
    "lists": lambda folder: table(folder / "a.parquet", item=ITEMS, embedding=[*ROWS], text=ITEMS),
    "lists of fixed size": lambda folder: table(
        folder / "b.parquet", e=pa.FixedSizeListArray.from_arrays(pa.array(ROWS.ravel()), 8)
    ),
    "JSON lines": lambda folder: lines(folder / "a.jsonl"),
    "save_to_disk": lambda folder: saved(
        folder / "saved", lambda path: datasets.Dataset.from_dict({"id": ITEMS, "v": ROWS}).save_to_disk(str(path))
    ),
}


@pytest.mark.parametrize("form", WRITTEN)
def test_every_form_holds_the_same_rows_in_any_piece_and_process(tmp_path: Path, form: str) -> None:
    found = open_vectors(WRITTEN[form](tmp_path), 8)
    rows = torch.from_numpy(ROWS)
    assert found.shape == (50, 8)
    assert torch.equal(found[:], rows)
    assert torch.equal(pickle.loads(pickle.dumps(found))[40:10:-3], rows[np.arange(40, 10, -3)])
    assert torch.equal(found.batch([7, 7, 0]), rows[[7, 7, 0]])
    assert torch.equal(found.batch([]), rows[:0])
    assert torch.equal(found[-1], rows[-1])
    read = dict(found.readable([3, 4, 5, 9, 2]))
    assert list(read) == [3, 4, 5, 9, 2]
    assert all(torch.equal(row, rows[number]) for number, row in read.items())
    assert found.items in (ITEMS, list(range(50)))


def test_columns_of_other_names_are_chosen(tmp_path: Path) -> None:
    path = table(
        tmp_path / "a.parquet", pid=ITEMS, a=[*ROWS], b=[*(2 * ROWS)], label=[number % 3 for number in range(50)]
    )
    with pytest.raises(ValueError, match="several: 'a', 'b'; choose one with --column"):
        open_vectors(path)
    found = open_vectors(path, columns=Columns("b", "pid"))
    assert found.items == ITEMS
    assert torch.equal(found[5], 2 * torch.from_numpy(ROWS[5]))
    assert found.labels is not None
    assert found.labels.values.tolist()[:4] == [0, 1, 2, 0]
    assert found.texts("pid") == ITEMS
    with pytest.raises(ValueError, match=r"no column 'c'.* pid \(string\)"):
        found.texts("c")


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "not finite": (lambda p: np.save(p, np.full((9, 8), np.nan)), "finite in the rows 0, 1, 2, 3, 4 and 4 more"),
    "too large": (lambda p: np.save(p, np.full((1, 8), 1e300)), "finite in the row 0"),
    "lists of lists": (lambda p: table(p, embedding=[[[1.0]]]), r"embedding \(List of List of float64\)"),
    "a large number for an item": (
        lambda p: table(p, embedding=[[1.0] * 8], id=np.array([1 << 63], np.uint64)),
        "row 0 has 9223372036854775808 in 'id'; a whole number must fit int64",
    ),
    "text": (lambda p: np.save(p, np.array(["a"])), "it holds <U1, expected numbers"),
    "objects": (lambda p: np.save(p, np.array([{}], dtype=object)), "cannot be read as vectors"),
    "a cube": (lambda p: np.save(p, np.zeros((2, 3, 4))), r"shape is \(2, 3, 4\), expected \(N, D\)"),
    "empty": (lambda p: np.save(p, np.zeros((0, 8))), r"no vectors, its shape is \(0, 8\)"),
    "of another D": (lambda p: np.save(p, np.zeros((3, 9))), "vectors of 9 numbers, expected 8"),
    "damaged": (lambda p: p.write_bytes(b"\x93NUMPY junk"), "cannot be read as vectors"),
    "unknown": (lambda p: p.write_bytes(b"junk"), "it does not begin as an array of numpy"),
    "two items of one name": (lambda p: table(p, id=[1, 1], e=[[0.0] * 8] * 2), "rows 0 and 1 have the same item 1"),
    "an item without name": (lambda p: table(p, id=[1, None], e=[[0.0] * 8] * 2), "the row 1 has None in 'id'"),
    "rows of two lengths": (lambda p: table(p, e=[[0.0] * 8, [1.0]]), "row 1 of the column 'e' holds 1 numbers"),
    "an empty row": (lambda p: table(p, e=[[0.0] * 8, None]), "row 1 of the column 'e' holds nothing"),
    "an empty number": (lambda p: table(p, e=[[0.0] * 7 + [None]]), "finite in the row 0"),
    "no lists": (lambda p: table(p, id=[1], text=["a"]), r"no column of lists of numbers.* id \(int64\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_holds_no_vectors_is_named(tmp_path: Path, case: str) -> None:
    write, message = BAD[case]
    path = tmp_path / "data.npy"
    write(path)
    if path.read_bytes()[:4] == b"PAR1":
        path = path.rename(tmp_path / "data.parquet")
    with pytest.raises(ValueError, match=message) as error:
        list(open_vectors(path, 8).readable(range(9)))
    assert path.name in str(error.value) or "column 'e'" in str(error.value)


@pytest.mark.parametrize("name", ["out.npy", "out.parquet", "folder"])
def test_what_is_written_is_what_is_opened(tmp_path: Path, name: str) -> None:
    kind, rows = kind_of(VectorAutoencoder), torch.from_numpy(ROWS)
    out = tmp_path / name
    with kind.writer(out, ITEMS, [4, 9, 2]) as write:
        for number in (4, 9, 2):
            write(number, rows[number])
    found = open_vectors(out / "vectors.npy" if name == "folder" else out)
    assert torch.equal(found[:], rows[[4, 9, 2]])
    assert found.items == (["B4", "B9", "B2"] if name == "out.parquet" else [0, 1, 2])
    with pytest.raises(FileExistsError, match="exists"), kind.writer(out, ITEMS, [4]):
        pass


def test_an_error_leaves_nothing_half_written(tmp_path: Path) -> None:
    kind = kind_of(VectorAutoencoder)

    def cut_off() -> None:
        with kind.writer(tmp_path / "out.npy", ITEMS, [0, 1]) as write:
            write(0, torch.zeros(8))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cut_off()
    assert not list(tmp_path.iterdir())


def test_figures_are_those_of_their_definitions() -> None:
    kind = kind_of(VectorAutoencoder)
    one, other = torch.tensor([3.0, 4.0]), torch.tensor([4.0, 3.0])
    assert kind.measure(one, other) == pytest.approx({"squared_error": 2, "relative_error": 0.08, "cosine": 0.96})
    assert kind.measure(0 * one, other) == {"squared_error": 25}


def test_a_picture_shows_each_vector_as_a_strip() -> None:
    picture = kind_of(VectorAutoencoder).show([[torch.arange(8.0), torch.arange(8.0).flip(0)]])
    assert picture.shape == (3, 12 + 6 + 12, 256)
    assert torch.equal(picture[:, :12], picture[:, -12:].flip(2))


def test_rows_that_are_read_together_are_named_together(tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[[3, 7], 1] = np.nan
    np.save(tmp_path / "a.npy", rows)
    with pytest.raises(ValueError, match="finite in the rows 3, 7"):
        open_vectors(tmp_path / "a.npy").batch(range(50))


def test_parts_without_rows_are_left_out(tmp_path: Path) -> None:
    whole = pa.table({"item": ITEMS, "embedding": [*ROWS]})
    for number, part in enumerate((whole[:0], whole[:20], whole[:0], whole[20:])):
        pq.write_table(part, tmp_path / f"part-{number}.parquet")
    found = open_vectors(tmp_path)
    assert found.items == ITEMS
    assert torch.equal(found[:], torch.from_numpy(ROWS))
    with pytest.raises(ValueError, match="it has no rows"):
        open_vectors(tmp_path / "part-0.parquet")


def test_the_tables_of_a_folder_may_be_named_in_capitals(tmp_path: Path) -> None:
    """And stand in folders that are named like tables, as Spark writes them."""
    parts = tmp_path / "items.parquet"
    parts.mkdir()
    pq.write_table(pa.table({"item": ITEMS, "embedding": [*ROWS]}), parts / "PART-0.PARQUET")
    assert open_vectors(tmp_path).items == ITEMS


def test_items_that_are_numbers_are_written_as_numbers(tmp_path: Path) -> None:
    kind = kind_of(VectorAutoencoder)
    for name, items in (("numbers", ["7", "12"]), ("texts", ["7", "012"])):
        with kind.writer(tmp_path / f"{name}.parquet", items, [0, 1]) as write:
            for number in range(2):
                write(number, torch.zeros(8))
    assert open_vectors(tmp_path / "numbers.parquet").items == [7, 12]
    assert open_vectors(tmp_path / "texts.parquet").items == ["7", "012"]
