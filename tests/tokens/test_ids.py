"""Semantic IDs: both directions, one file that others read, and nothing that is damaged or foreign."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, strategies as st

from lexel.tokens import Facts, IDs, Row, open as open_tokens, write_set

MODEL = "0123456789abcdef"


def facts(*sizes: int, **more: Any) -> Facts:
    return Facts("vectors", max(sizes), sizes, MODEL, {"class_path": "lexel.ResidualQuantizer"}, **more)


def some(count: int = 50, sizes: tuple[int, ...] = (4, 300, 8), *, labelled: bool = True, text: bool = True) -> IDs:
    generator = np.random.default_rng(count)
    codes = np.stack([generator.integers(0, size, count) for size in sizes], 1)
    numbers = generator.permutation(count) * 7 - 20
    items = [f"item {number} ü" for number in numbers] if text else numbers
    labels = generator.integers(0, 3, count) if labelled else None
    return IDs(items, codes, facts(*sizes), generator.random(count, np.float32), labels)


def columns(ids: IDs) -> tuple[Any, ...]:
    labels = None if ids.labels is None else ids.labels.tolist()
    return (list(ids), ids.codes.tolist(), ids.codes.dtype, ids.distances.tobytes(), labels, ids.facts, ids.unique)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Any], list[tuple[int, ...]], tuple[int, ...]]:
    """Items of either kind, their codes, and K of each level."""
    sizes = tuple(
        draw(st.lists(st.sampled_from([1, 2, 3, 256, 257, 1 << 16, (1 << 16) + 1, 1 << 33]), min_size=1, max_size=4))
    )
    kind: st.SearchStrategy[Any] = draw(st.sampled_from([st.text(), st.integers(-(1 << 63), (1 << 63) - 1)]))
    items = draw(st.lists(kind, min_size=1, max_size=20, unique=True))
    codes = [tuple(draw(st.sampled_from([0, size // 2, size - 1])) for size in sizes) for _ in items]
    return items, codes, sizes


class TestBothWays:
    @given(tables())
    def test_items_have_codes_and_codes_have_items(self, table: Any) -> None:
        """As a dictionary in either direction, for every prefix, one by one and all at once."""
        items, codes, sizes = table
        ids = IDs(items, codes, facts(*sizes))
        assert list(ids) == list(ids.items) == items
        assert len(ids) == len(ids.items) == len(items)
        assert [ids[item] for item in items] == codes
        assert ids[items[::-1]].tolist() == [list(code) for code in codes[::-1]]
        for length in range(len(sizes) + 1):
            expected = defaultdict(list)
            for code, item in sorted(zip(codes, range(len(items)), strict=True)):
                expected[code[:length]].append(items[item])
            asked = [*expected, (0,) * length, tuple(size - 1 for size in sizes[:length])]
            assert [ids.items[prefix] for prefix in asked] == [expected[prefix] for prefix in asked]
            together = np.array(asked, np.int64).reshape(len(asked), length)
            assert ids.items[together] == [expected[prefix] for prefix in asked]

    def test_what_is_not_there(self) -> None:
        ids, numbers = some(), some(text=False)
        for absent in ("item", "", "\uffdc", 5):
            assert absent not in ids
            with pytest.raises(KeyError, match=repr(absent)):
                ids[absent]
        for absent in (-21, 1 << 62, -(1 << 63), "a"):
            assert absent not in numbers
            with pytest.raises(KeyError, match=str(absent)):
                numbers[[next(iter(numbers)), absent] if isinstance(absent, int) else absent]
        assert ids.items[3, 299, 8] == ids.items[-1,] == ids.items[3, 300] == []
        with pytest.raises(TypeError, match="takes a tuple of codes"):
            ids.items[3]
        with pytest.raises(ValueError, match=r"\(B, L\) with L at most 3"):
            ids.items[0, 0, 0, 0]

    @given(tables(), st.integers(0, 100))
    def test_a_vocabulary_and_back(self, table: Any, start: int) -> None:
        items, codes, sizes = table
        ids = IDs(items, codes, facts(*sizes))
        tokens = ids.vocabulary(start)
        assert ids.offsets == tuple(sum(sizes[:level]) for level in range(len(sizes)))
        assert tokens.tolist() == [
            [start + sum(sizes[:level]) + code for level, code in enumerate(each)] for each in codes
        ]
        assert ids.codes_of(tokens, start).tolist() == ids.codes.tolist()
        for wrong in (start - 1, start + sizes[0]):
            with pytest.raises(ValueError, match=f"the token {wrong} is not one of level 0: they are {start} to"):
                ids.codes_of([wrong, *tokens[0, 1:].tolist()], start)

    @pytest.mark.parametrize("kind", [list, np.array, torch.tensor, pa.array])
    def test_items_of_any_make(self, kind: Any) -> None:
        ids = IDs(kind([5, 2, 9]), torch.tensor([[1], [0], [1]]), facts(2), torch.rand(3, requires_grad=True))
        assert ids[kind([9, 5])].tolist() == [[1], [1]]
        assert (2 in ids, np.int64(2) in ids, 3 in ids, "2" in ids) == (True, True, False, False)
        assert list(ids) == [5, 2, 9]
        assert {type(item) for item in ids} == {int}

    def test_codes_have_the_smallest_type(self) -> None:
        for size, dtype in (
            (256, "uint8"),
            (257, "uint16"),
            (1 << 16, "uint16"),
            (1 << 17, "uint32"),
            (1 << 40, "int64"),
        ):
            assert IDs([1], [size - 1], facts(size)).codes.dtype == dtype


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (([], np.zeros((0, 2), int)), "one item at least"),
            ((["a", "b", "a", "c"], [[0, 0]] * 4), "'a' occurs 2 times"),
            (([7, 8, 8, 8], [[0, 0]] * 4), "8 occurs 3 times"),
            ((["a", "b"], [[0, 0], [0, 4]]), r"code 1 of the item 'b' is 4, not in \[0, 4\)"),
            ((["a", "b"], [[-1, 0], [0, 0]]), "code 0 of the item 'a' is -1"),
            ((["a", "b"], [[0, 0]]), r"codes must have shape \(2, 2\), got \(1, 2\)"),
            ((["a"], [[0, 0, 0]]), r"codes must have shape \(1, 2\)"),
            ((["a"], [[0, 0]], [0.5, 0.5]), r"distances must have shape \(1,\)"),
            ((["a"], [[0, 0]], None, [[1]]), r"labels must have shape \(1,\)"),
            ((["a"], [[0, 0]], None, [2]), "labels go from 2 to 2, but there are 2 classes"),
        ],
    )
    def test_values(self, arguments: tuple[Any, ...], message: str) -> None:
        items, codes, *more = arguments
        with pytest.raises(ValueError, match=message):
            IDs(items, codes, facts(3, 4, label_names=("x", "y")), *more)

    @pytest.mark.parametrize("items", [[1.5], [True], ["a", 1], [None, "a"], [b"a"], [1 << 63], [["a"]], 5])
    def test_types_of_items(self, items: Any) -> None:
        with pytest.raises(TypeError, match="items must be strings, or integers that fit int64"):
            IDs(items, np.zeros((1, 1), int), facts(3))

    def test_types_of_codes(self) -> None:
        with pytest.raises(TypeError, match="codes must be integers, got float64"):
            IDs(["a"], [[0.0]], facts(3))

    def test_what_is_not_unique(self) -> None:
        with pytest.raises(ValueError, match="not unique: 'b' and 'c' have the same codes"):
            IDs(["a", "b", "c"], [[0], [2], [2]], facts(3), unique="nearest-free")
        with pytest.raises(ValueError, match="unique must be one of suffix, nearest-free"):
            IDs(["a"], [[0]], facts(3), unique="prefix")


class TestTokens:
    def test_a_set_of_tokens_has_ids(self, tmp_path: Path) -> None:
        rows = [Row(f"{n}", {}, np.array([n % 3, n]), n % 2) for n in range(9)]
        write_set(tmp_path, rows, facts(3, 9, label_names=("a", "b")))
        ids = IDs.from_tokens(open_tokens(tmp_path), torch.arange(9))
        assert [ids[f"{n}"] for n in range(9)] == [(n % 3, n) for n in range(9)]
        assert (ids.distances.tolist(), ids.labels.tolist()) == ([*range(9)], [n % 2 for n in range(9)])
        assert ids.facts == facts(3, 9, label_names=("a", "b"))
        assert np.isnan(IDs.from_tokens(open_tokens(tmp_path)).distances).all()

    def test_one_codebook_and_no_axis(self, tmp_path: Path) -> None:
        write_set(tmp_path, [Row(f"{n}", {}, np.array(n)) for n in range(4)], facts(4))
        assert IDs.from_tokens(open_tokens(tmp_path)).codes.tolist() == [[0], [1], [2], [3]]

    def test_pictures_have_none(self, tmp_path: Path) -> None:
        write_set(tmp_path, [Row("a", {"height": 4, "width": 4}, np.zeros((2, 2), int))], facts(4))
        with pytest.raises(ValueError, match=r"examples of 1 tokens.*\[\[2, 2\]\]"):
            IDs.from_tokens(open_tokens(tmp_path))


class TestTheFile:
    @given(table=tables())
    def test_comes_back(self, table: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
        items, codes, sizes = table
        path = tmp_path_factory.mktemp("ids") / "ids.parquet"
        labels = np.arange(len(items)) if len(sizes) % 2 else None
        ids = IDs(items, codes, facts(*sizes), np.arange(len(items)), labels, version=3)
        ids.write(path)
        again = IDs.open(path, model=MODEL)
        assert (columns(again), again.version) == (columns(ids), 3)
        content = path.read_bytes()
        again.write(path)
        assert path.read_bytes() == content

    def test_many_rows(self, tmp_path: Path) -> None:
        ids = some(300_000, text=False)
        ids.write(tmp_path / "ids.parquet")
        assert pq.ParquetFile(tmp_path / "ids.parquet").num_row_groups == 3
        assert columns(IDs.open(tmp_path / "ids.parquet")) == columns(ids)

    def test_an_unknown_distance_stays_unknown(self, tmp_path: Path) -> None:
        IDs(["a"], [[0]], facts(2)).write(tmp_path / "ids.parquet")
        assert np.isnan(IDs.open(tmp_path / "ids.parquet").distances).all()

    @pytest.mark.parametrize("text", [True, False])
    def test_others_read_it(self, text: bool, tmp_path: Path) -> None:
        ids, path = some(text=text), tmp_path / "ids.parquet"
        ids.write(path)
        frame = pd.read_parquet(path)
        assert list(frame) == ["item", "codes", "distance", "label"]
        rows = duckdb.sql(f"select * from '{path}'").fetchall()
        table = datasets.load_dataset("parquet", data_files=str(path), cache_dir=str(tmp_path))["train"]
        for item, code, distance, label, from_duckdb, from_datasets, from_pandas in zip(
            ids, ids.codes.tolist(), ids.distances, ids.labels, rows, table, frame.itertuples(), strict=True
        ):
            expected = (item, code, float(distance), label)
            assert from_duckdb == expected
            assert tuple(from_datasets.values()) == expected
            assert (from_pandas.item, from_pandas.codes.tolist(), from_pandas.distance, from_pandas.label) == expected
        assert pq.read_schema(path).field("codes").type.value_type == pa.uint16()

    def test_of_another_model(self, tmp_path: Path) -> None:
        some().write(tmp_path / "ids.parquet")
        with pytest.raises(
            ValueError, match=rf"ids.parquet holds IDs of the model with the fingerprint {MODEL}, not of x"
        ):
            IDs.open(tmp_path / "ids.parquet", model="x")

    def test_what_is_not_one(self, tmp_path: Path) -> None:
        path = tmp_path / "ids.parquet"
        with pytest.raises(FileNotFoundError, match=r"ids\.parquet"):
            IDs.open(path)
        with pytest.raises(ValueError, match="is a folder"):
            IDs.open(tmp_path)
        pq.write_table(pa.table({"item": ["a"], "codes": [[1]]}), path)
        with pytest.raises(ValueError, match=r"ids\.parquet is not a file of IDs: its format is None"):
            IDs.open(path)
        path.write_text("item,codes\na,1\n")
        with pytest.raises(ValueError, match=r"ids\.parquet is not a file of IDs"):
            IDs.open(path)

    @pytest.mark.parametrize("column", ["item", "codes", "distance", "label"])
    def test_whoever_changes_a_value_is_found_out(self, column: str, tmp_path: Path) -> None:
        path = tmp_path / "ids.parquet"
        some().write(path)
        table = pq.read_table(path)
        changed = table.column(column).to_pylist()
        changed.reverse()
        field = table.schema.field(column)
        at = table.schema.get_field_index(column)
        pq.write_table(table.set_column(at, field, pa.array(changed, field.type)), path)
        with pytest.raises(ValueError, match=r"ids\.parquet is not a file of IDs: it is damaged or was changed"):
            IDs.open(path)

    def test_damage(self, tmp_path: Path) -> None:
        """Whatever happens to the bytes, the file is refused by its name or read right."""
        path, chance = tmp_path / "ids.parquet", random.Random(0)
        some(400).write(path)
        whole, expected, refused = path.read_bytes(), columns(some(400)), 0
        for trial in range(300):
            content = bytearray(whole)
            if trial % 3 == 0:
                del content[chance.randrange(len(content)) :]
            elif trial % 3 == 1:
                content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            else:
                start = chance.randrange(len(content))
                content[start : start + 40] = chance.randbytes(chance.randrange(60))
            path.write_bytes(content)
            message = ""
            try:
                found = columns(IDs.open(path))
            except ValueError as error:
                message = str(error)
            assert found == expected if not message else str(path) in message and "\n" not in message
            refused += bool(message)
        assert refused > 250


class TestAppend:
    def test_the_old_stay_to_the_bit(self, tmp_path: Path) -> None:
        old, new = some(40), some(60)
        new = IDs([f"new {item}" for item in new], new.codes, new.facts, new.distances, new.labels)
        both = old.append(new)
        assert both.version == old.version + 1 == 2
        assert (list(both), len(both)) == ([*old, *new], 100)
        for column in ("codes", "distances", "labels"):
            assert getattr(both, column)[:40].tobytes() == getattr(old, column).tobytes()
            assert getattr(both, column)[40:].tobytes() == getattr(new, column).tobytes()
        both.write(tmp_path / "ids.parquet")
        again = IDs.open(tmp_path / "ids.parquet")
        assert (columns(again), again.version) == (columns(both), 2)

    def test_a_longer_suffix_needs_no_other_codes(self) -> None:
        old = IDs([0, 1], [[5, 0], [5, 1]], facts(8), unique="suffix")
        new = IDs(range(2, 400), [[5, n] for n in range(2, 400)], facts(8), unique="suffix")
        both = old.append(new)
        assert (old.codebook_sizes, both.codebook_sizes) == ((8, 2), (8, 400))
        assert both.codes.tolist() == [[5, n] for n in range(400)]
        assert both.vocabulary()[:2].tolist() == old.vocabulary().tolist()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"items": ["c", "b"]}, "the item 'b' already has an ID"),
            ({"items": ["c", "b", "a"]}, "2 items already have an ID, the first is 'b'"),
            ({"items": [1]}, "type of items of the new IDs is int64, expected large_string"),
            ({"facts": replace(facts(8), model="other")}, f"model of the new IDs is other, expected {MODEL}"),
            ({"unique": None}, "unique of the new IDs is None, expected nearest-free"),
            ({"labels": None}, "the IDs here have labels, the new ones no labels"),
            ({"codes": [[3]]}, "not unique: 'a' and 'd' have the same codes"),
        ],
    )
    def test_refusals(self, change: dict[str, Any], message: str) -> None:
        old = IDs(["a", "b"], [[3], [4]], facts(8), None, [0, 1], unique="nearest-free")
        items = change.get("items", ["d"])
        settings = {"codes": [[n] for n in range(len(items))], "facts": facts(8), "labels": [0] * len(items)}
        settings |= {"items": items, "unique": "nearest-free", **change}
        before = columns(old)
        with pytest.raises(ValueError, match=message):
            old.append(IDs(**settings))
        assert columns(old) == before
