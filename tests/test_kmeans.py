"""K-means."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, strategies as st
from sklearn.cluster import KMeans
from torch import Tensor

import lexel
from lexel import Clustering, kmeans
from tests.ranks import on_ranks

MODULE = sys.modules["lexel.kmeans"]  # lexel.kmeans is the function


def patches(size: int = 4, count: int = 6000) -> Tensor:
    """Patches of a photograph, `(count, size²)`."""
    image = torch.from_numpy(skimage.data.camera().copy()).float() / 255
    windows = image.unfold(0, size, 1).unfold(1, size, 1).reshape(-1, size * size)
    return windows[torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))[:count]]


def same(one: Clustering, two: Clustering) -> None:
    """Equal to the bit."""
    assert torch.equal(one.codebook, two.codebook)
    assert torch.equal(one.counts, two.counts)
    assert one[2:] == two[2:]


def squared(rows: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest code of each row and its squared distance, by brute force."""
    distance, nearest = (rows[:, None].double() - codebook.double()).square().sum(2).min(1)
    return nearest, distance


class TestResult:
    def test_finds_clusters_that_lie_apart(self) -> None:
        generator = torch.Generator().manual_seed(0)
        centres = torch.randn(20, 6, generator=generator) * 50
        rows = (centres[:, None] + torch.randn(20, 30, 6, generator=generator)).reshape(-1, 6)
        found = kmeans(rows[torch.randperm(600, generator=generator)], 20).codebook
        means = torch.stack([rows[lexel.nearest_code(rows, centres) == k].mean(0) for k in range(20)])
        torch.testing.assert_close(found[lexel.nearest_code(means, found)], means, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("unit", [False, True])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_says_what_is_true_of_the_codes(self, unit: bool, weighted: bool) -> None:
        rows = patches()
        weights = torch.rand(len(rows), generator=torch.Generator().manual_seed(1)) if weighted else None
        found = kmeans(rows, 50, unit=unit, weights=weights)
        if unit:
            rows = torch.nn.functional.normalize(rows, dim=1)
            torch.testing.assert_close(found.codebook.norm(dim=1), torch.ones(50))
        nearest, distance = squared(rows, found.codebook)
        each = torch.ones(len(rows), dtype=torch.float64) if weights is None else weights.double()
        assert found.error == pytest.approx(float((distance * each).sum() / each.sum()), rel=1e-5)
        counts = torch.zeros(50, dtype=torch.float64).index_add_(0, nearest, each)
        torch.testing.assert_close(found.counts.double(), counts, rtol=1e-6, atol=1e-6)
        assert found.counts.dtype == (torch.float64 if weighted else torch.int64)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_converges_to_a_fixed_point(self, dtype: torch.dtype) -> None:
        rows = patches(count=1500).to(dtype)
        found = kmeans(rows, 30, iterations=500, tolerance=0)
        assert found.iterations < 500
        assert found.codebook.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        nearest = lexel.nearest_code(rows.to(found.codebook.dtype), found.codebook)
        means = torch.stack([rows[nearest == k].double().mean(0) for k in range(30)])
        precise = 1e-10 if dtype == torch.float64 else 1e-6
        torch.testing.assert_close(found.codebook.double(), means, rtol=precise, atol=precise)
        same(kmeans(rows, 30, init=found.codebook, tolerance=0)._replace(iterations=found.iterations), found)

    def test_error_never_grows_with_more_iterations(self) -> None:
        errors = [kmeans(patches(), 40, iterations=count, init="random").error for count in (0, 1, 3, 10)]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 0.8 * errors[0]

    @pytest.mark.parametrize(("size", "count"), [(4, 64), (8, 16), (8, 128)])
    def test_error_is_at_most_that_of_sklearn_at_its_best_of_three(self, size: int, count: int) -> None:
        rows = patches(size)
        best = min(KMeans(count, random_state=seed).fit(rows.cpu().numpy()).inertia_ for seed in range(3)) / len(rows)
        assert kmeans(rows, count, iterations=100, tolerance=1e-5).error <= 1.01 * best
        assert kmeans(rows, count).error <= 1.03 * best

    def test_random_codes_are_different_rows(self) -> None:
        rows = torch.randn(300, 3)
        for count in (1, 17, 300):
            codes = kmeans(rows, count, init="random", iterations=0).codebook
            assert len(codes.unique(dim=0)) == count
            assert (codes[:, None] == rows).all(2).any(1).all()

    def test_codes_start_where_they_are_told_to(self) -> None:
        rows = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
        init = torch.tensor([[3.0], [15.0]])
        assert kmeans(rows, 2, init=init, iterations=0).codebook.tolist() == [[3.0], [15.0]]
        assert kmeans(rows, 2, init=init, iterations=1).codebook.tolist() == [[0.5], [10.5]]
        assert init.tolist() == [[3.0], [15.0]]

    def test_an_empty_code_moves_to_where_the_error_is(self) -> None:
        rows = torch.cat([torch.zeros(50, 1), torch.tensor([[100.0], [140.0]])])
        init = torch.tensor([[0.0], [-500.0], [120.0]])
        found = kmeans(rows, 3, init=init, tolerance=0)
        assert sorted(found.codebook[:, 0].tolist()) == [0, 100, 140]
        assert found.error == 0

    @pytest.mark.parametrize("init", ["split-merge", "split", "random"])
    def test_fewer_different_rows_than_codes_are_all_codes(self, init: Any) -> None:
        rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]]).repeat(40, 1)
        found = kmeans(rows, 7, init=init, tolerance=0)
        assert found.error == 0
        assert found.codebook.unique(dim=0).tolist() == [[0, 0], [1, 2], [3, 4]]
        assert sorted(found.counts.tolist()) == [0, 0, 0, 0, 40, 40, 40]

    def test_most_rows_may_be_equal(self) -> None:
        rows = torch.cat([torch.zeros(20_000, 16), patches(count=1000)])
        assert kmeans(rows, 300).error < 1.2 * 1000 / 21_000 * kmeans(patches(count=1000), 299).error

    def test_minibatches_come_near_to_all_rows(self) -> None:
        rows = patches(count=20000)
        start = kmeans(rows, 64, init="random", iterations=0)
        found = kmeans(rows, 64, init="random", iterations=30, minibatch=1000)
        assert found.iterations == 30
        assert kmeans(rows, 64, init="random").error < found.error < 0.75 * start.error

    @given(
        st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=2), min_size=2, max_size=30),
        st.integers(1, 6),
    )
    def test_any_rows(self, numbers: list[list[float]], count: int) -> None:
        rows = torch.tensor(numbers)
        if count > len(rows) or (count > 1 and len(rows.unique(dim=0)) == 1):
            return
        found = kmeans(rows, count, tolerance=0)
        assert found.counts.sum() == len(rows)
        distance = squared(rows, found.codebook)[1]
        least = 1e-36 + 1e-6 * float(rows.abs().max()) ** 2  # squares below are 0 in float32
        assert found.error == pytest.approx(float(distance.mean()), rel=1e-4, abs=least)


class TestRows:
    def test_a_memory_map_is_as_good_as_memory(self, tmp_path: Path) -> None:
        rows = patches()
        np.save(tmp_path / "rows.npy", rows.cpu().numpy())
        same(kmeans(np.load(tmp_path / "rows.npy", mmap_mode="r"), 40), kmeans(rows, 40))

    def test_pieces_do_not_matter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nor does what else has a length and gives rows for a slice, nor strides."""

        class Slices:
            def __len__(self) -> int:
                return len(rows)

            def __getitem__(self, index: slice) -> Tensor:
                assert 0 < index.stop - index.start <= 500
                return rows[index]

        rows = patches()
        whole = kmeans(rows, 40)
        same(kmeans(rows.T.contiguous().T, 40), whole)
        monkeypatch.setattr(MODULE, "PIECE", 500 * 16)
        same(kmeans(Slices(), 40), whole)

    def test_a_sample_smaller_than_the_rows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As it is for rows larger than memory."""
        rows, whole = patches(), kmeans(patches(), 40)
        monkeypatch.setattr(MODULE, "LEAST", 1000)
        monkeypatch.setattr(MODULE, "SAMPLE", 2000 * 16)
        assert kmeans(rows, 40).error < 1.05 * whole.error

    def test_weights_are_repeated_rows(self) -> None:
        rows = patches(count=1000)
        weights = torch.randint(4, (1000,), generator=torch.Generator().manual_seed(0))
        one = kmeans(rows, 20, init=rows[:20], weights=weights.float())
        two = kmeans(rows.repeat_interleave(weights, 0), 20, init=rows[:20])
        torch.testing.assert_close(one.codebook, two.codebook)
        assert one.counts.tolist() == two.counts.tolist()
        assert one.iterations == two.iterations

    def test_the_order_of_the_rows_does_not_change_a_bit(self) -> None:
        rows = patches()
        one, two = (kmeans(each, 20, init=rows[:20]) for each in (rows, rows.flip(0)))
        same(one, two)


class TestThreadsAndRanks:
    def test_threads_do_not_change_a_bit(self) -> None:
        rows = patches()
        one = kmeans(rows, 40)
        torch.set_num_threads(2)
        two = kmeans(rows, 40)
        torch.set_num_threads(1)
        same(one, two)

    @pytest.mark.parametrize("world", [2, 3])
    def test_ranks_do_not_change_a_bit(self, tmp_path: Path, world: int, device: str) -> None:
        seen = on_ranks(shares, tmp_path, world, device)
        for name, found in cases(patches(count=3000), torch.arange(3000.0)).items():
            for own in seen:
                same(Clustering(*own[name]), found)

    def test_all_ranks_are_told_what_is_wrong_on_one(self, tmp_path: Path, device: str) -> None:
        told = set(on_ranks(damaged, tmp_path, device=device))
        assert told == {"kmeans: 1 rows are NaN, infinite or beyond 1e+16: 103"}


def cases(rows: Tensor, weights: Tensor) -> dict[str, Clustering]:
    return {
        "plain": kmeans(rows, 60),
        "weights": kmeans(rows, 20, weights=weights, unit=True),
        "random": kmeans(rows, 20, init="random"),
        "minibatch": kmeans(rows, 20, minibatch=500, iterations=3),
    }


def shares(rank: int) -> dict[str, tuple[Any, ...]]:
    """Rank 0 has most of the rows, rank 1 the rest, rank 2 nothing."""
    own = slice(0, 2100) if rank == 0 else slice(2100, 3000) if rank == 1 else slice(0, 0)
    found = cases(patches(count=3000)[own], torch.arange(3000.0)[own])
    return {name: tuple(each) for name, each in found.items()}


def damaged(rank: int) -> str:
    rows = torch.ones(100, 2)
    if rank:
        rows[3, 1] = torch.nan
    with pytest.raises(ValueError, match="NaN") as error:
        kmeans(rows, 3)
    return str(error.value)


ROWS = torch.arange(20.0).reshape(10, 2)
HOLES = torch.where(torch.arange(10).unsqueeze(1) % 7 == 2, torch.inf, ROWS)


class TestErrors:
    @pytest.mark.parametrize(
        ("rows", "count", "settings", "message"),
        [
            (ROWS, 0, {}, "num_embeddings must be at least 1, got 0"),
            (ROWS, 2, {"iterations": -1}, "iterations must be at least 0, got -1"),
            (ROWS, 2, {"minibatch": 0}, "minibatch must be at least 1, got 0"),
            (ROWS, 2, {"tolerance": 1.0}, "tolerance must be in [0, 1), got 1.0"),
            (
                ROWS,
                2,
                {"init": "k-means||"},
                "init must be 'split-merge', 'split', 'random' or codes (K, D), got 'k-means||'",
            ),
            (
                ROWS,
                2,
                {"init": ROWS[:3]},
                "init must be finite floating codes (2, 2), got torch.float32 of shape (3, 2)",
            ),
            (ROWS, 11, {}, "11 codes need at least as many rows, got 10"),
            (ROWS[0], 2, {}, "rows must be (N, D), got (2,)"),
            (torch.ones(5, 0), 2, {}, "rows must be (N, D), got (5, 0)"),
            (torch.ones(5, 2), 2, {}, "all 5 rows are equal, which leaves nothing to divide among 2 codes"),
            (HOLES, 2, {}, "2 rows are NaN, infinite or beyond 1e+16: 2, 9"),
            (ROWS * torch.nan, 2, {}, "10 rows are NaN, infinite or beyond 1e+16: 0, 1, 2, 3, 4, …"),
            (ROWS - ROWS[3], 2, {"unit": True}, "1 rows are zero, and have no direction for unit=True: 3"),
            (ROWS, 2, {"weights": torch.ones(9)}, "weights must have shape (10,) and be finite, not negative and not"),
            (ROWS, 2, {"weights": -torch.ones(10)}, "weights must have shape (10,) and be finite"),
            (ROWS, 2, {"weights": torch.zeros(10)}, "weights must have shape (10,) and be finite"),
        ],
    )
    def test_says_what_is_wrong(self, rows: Tensor, count: int, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=re.escape("kmeans: " + message)):
            kmeans(rows, count, **settings)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"rows": ROWS.long()}, "rows must be of a floating type, got torch.int64"),
            ({"rows": "ab"}, "rows must be a tensor or an array (N, D), got 'ab'"),
            ({"num_embeddings": 2.5}, "num_embeddings must be an int, got 2.5 (float)"),
            ({"tolerance": "1"}, "tolerance must be a number, got '1'"),
            ({"unit": "yes"}, "unit must be True or False, got 'yes'"),
        ],
    )
    def test_other_types_are_refused(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(TypeError, match=re.escape(f"kmeans: {message}")):
            kmeans(**{"rows": ROWS, "num_embeddings": 2} | arguments)

    def test_one_code_is_the_mean_even_of_equal_rows(self) -> None:
        assert kmeans(torch.ones(5, 2), 1).codebook.tolist() == [[1, 1]]

    def test_large_and_small_numbers(self) -> None:
        one = kmeans(patches(count=500), 9)
        for scale in (2.0**-40, 2.0**50):
            two = kmeans(patches(count=500) * scale, 9)
            assert torch.equal(two.codebook / scale, one.codebook)


def test_pseudo_random_numbers_lie_between_zero_and_one() -> None:
    """Those that start from what the mixing takes to the outermost integers, found by undoing it."""
    ends = torch.tensor([each + 256 * top for top in (0, (1 << 24) - 1) for each in range(256)])
    x, mask = ends, (1 << 32) - 1
    for multiplier in (1, 73244475, 73244475):
        x = (x ^ (x >> 16)) * pow(multiplier, -1, 1 << 32) & mask
    numbers = (x - 40503) * pow(2654435761, -1, 1 << 32) & mask
    found = MODULE._uniform(numbers)
    assert found[:256].unique().tolist() == [2**-25]
    assert found[256:].unique().tolist() == [1 - 2**-24]
