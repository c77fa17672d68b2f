"""Counts of codes, of pairs and of duplicates, beside plain transcriptions of their formulas."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import lexel.tokens
from lexel.cli import main
from lexel.tokens import Facts, Row, TokenSet, statistics as module, statistics_of
from lexel.tokens.token_set import Columns
from tests.commands import refused


def token_set(grids: list[np.ndarray], sizes: tuple[int, ...]) -> TokenSet:
    """A set of grids `(h, w)` or `(h, w, Q)`."""
    shapes = np.array([grid.shape for grid in grids])
    extents = {"height": shapes[:, 0].copy(), "width": shapes[:, 1].copy()}
    flat = np.concatenate([grid.ravel() for grid in grids])
    return TokenSet(
        Facts("images", max(sizes), sizes, "m"), Columns([str(n) for n in range(len(grids))], extents, shapes, flat)
    )


def entropy(values: list[object]) -> float:
    counts = Counter(values).values()
    return -sum(count / len(values) * math.log2(count / len(values)) for count in counts)


def conditional(pairs: list[tuple[int, int]]) -> float:
    return entropy(pairs) - entropy([context for context, _ in pairs]) if pairs else math.nan


sides = st.integers(1, 4)
grids = st.lists(
    st.tuples(sides, sides, st.integers(0, 99)).map(
        lambda drawn: np.random.default_rng(drawn[2]).integers(0, 3, (*drawn[:2], 2)) * (1 << 40)
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60)
@given(grids, st.sampled_from([1, 7, 1 << 22]))
def test_every_figure_is_that_of_its_formula(drawn: list[np.ndarray], chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "CHUNK_TOKENS", chunk)
        found = statistics_of(token_set(drawn, (1 << 42, 1 << 42)))
    assert found.tokens == sum(grid.size for grid in drawn)
    for book, own in enumerate(found.codebooks):
        planes = [grid[..., book] for grid in drawn]
        values = [int(value) for plane in planes for value in plane.ravel()]
        left = [pair for plane in planes for row in plane.tolist() for pair in itertools.pairwise(row)]
        up = [pair for plane in planes for row in plane.T.tolist() for pair in itertools.pairwise(row)]
        assert (own.tokens, own.used) == (len(values), len(set(values)))
        assert own.entropy == pytest.approx(entropy(values), abs=1e-9)
        assert own.left_entropy == pytest.approx(conditional(left), abs=1e-9, nan_ok=True)
        assert own.up_entropy == pytest.approx(conditional(up), abs=1e-9, nan_ok=True)
        counts = Counter(values)
        assert dict(own.most_used) == dict(own.least_used) == counts
        assert [count for _, count in own.most_used] == sorted(counts.values(), reverse=True)
        assert [count for _, count in own.least_used] == sorted(counts.values())
    contents = [(grid.shape, grid.tobytes()) for grid in drawn]
    assert found.duplicates == len(contents) - len(set(contents))
    assert len(found.duplicate_names) == sum(count > 1 for count in Counter(contents).values())


def test_levels_are_grids_of_their_own() -> None:
    """A pair never reaches from one level into the next, nor from a row into the one below."""
    flat = np.array([9, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 9])[:13]
    levels = {(8, 8): [(1, 1), (3, 4)]}
    side = np.array([8])
    columns = Columns(["a"], {"height": side, "width": side}, np.array([[13]]), flat, levels=levels)
    (book,) = statistics_of(TokenSet(Facts("images", 16, (16,), "m"), columns)).codebooks
    assert (book.left_entropy, book.up_entropy) == (0, 0)
    assert book.entropy == pytest.approx(-(12 / 13 * math.log2(3 / 13) + 1 / 13 * math.log2(1 / 13)))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = {"height": 4, "width": 4}
    rows = [Row(name, size, np.array([[0, 1], [0, code]]), code % 2) for name, code in (("a", 1), ("b", 2), ("c", 1))]
    lexel.tokens.write_set(tmp_path / "t", rows, Facts("images", 5, (5,), "m", None, ("even", "odd")))
    assert main(["stats", str(tmp_path / "t"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["examples"], found["tokens"], found["duplicates"]) == (3, 12, 1)
    assert found["duplicate_names"] == [["a", "c"]]
    assert found["labels"] == {"even": 1, "odd": 2}
    (book,) = found["codebooks"]
    assert (book["used"], book["num_embeddings"]) == (3, 5)
    assert book["most_used"] == [[0, 6], [1, 5], [2, 1]]
    assert book["least_used"] == [[2, 1], [1, 5], [0, 6]]
    assert main(["stats", str(tmp_path / "t")]) == 0
    printed = capsys.readouterr().out
    for text in ("3 of 5 (60.0%)", "given the token above", "the same tokens: a, c", "0 (6), 1 (5), 2 (1)"):
        assert text in printed
    one = [Row("one", size, np.array([[4]]))]
    lexel.tokens.write_set(tmp_path / "one", one, Facts("images", 5, (5,), "m"))
    assert main(["stats", str(tmp_path / "one"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["codebooks"][0]["left_entropy"] is None


def test_the_report_shows_them(
    run: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run / "model", tmp_path / "model")
    assert main(["encode", str(run), str(photographs), "--out", str(tmp_path / "t")]) == 0
    found = statistics_of(lexel.tokens.open(tmp_path / "t"))
    words = ["report", str(tmp_path / "model"), "--data", str(photographs)]
    assert main(words) == 0
    assert "The tokens" not in (tmp_path / "model/report.html").read_text()
    assert main([*words, "--tokens", str(tmp_path / "t")]) == 0
    page = (tmp_path / "model/report.html").read_text()
    assert f"{found.tokens:,} tokens of 4 images" in page
    for value in (found.codebooks[0].entropy, found.codebooks[0].left_entropy, found.codebooks[0].up_entropy):
        assert f"{value:.3f} bits" in page
    strange = [Row("a", {"height": 1, "width": 1}, np.array([[0]]))]
    lexel.tokens.write_set(tmp_path / "other", strange, Facts("images", 16, (16,), "another"))
    assert "decode them with the model" in refused([*words, "--tokens", tmp_path / "other"], capsys)
