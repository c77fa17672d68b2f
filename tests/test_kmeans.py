"""Centres of vectors."""

from __future__ import annotations

import pytest
import torch

import lexel
from lexel.kmeans import kmeans
from tests.test_upkeep import distinct_rows_of


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class TestKMeans:
    def test_finds_clusters_that_lie_apart(self) -> None:
        centres = torch.randn(20, 6) * 50
        rows = (centres[:, None] + torch.randn(20, 30, 6)).reshape(-1, 6)[torch.randperm(600)]
        found = kmeans(rows, 20)
        means = torch.stack([rows[lexel.nearest_code(rows, centres) == k].mean(0) for k in range(20)])
        torch.testing.assert_close(found[lexel.nearest_code(means, found)], means, rtol=1e-4, atol=1e-4)

    def test_error_never_grows_with_more_iterations(self) -> None:
        rows = torch.randn(500, 3)
        errors = []
        for iterations in (0, 1, 3, 10):
            codes = kmeans(rows, 40, iterations)
            errors.append(float((rows - codes[lexel.nearest_code(rows, codes)]).square().sum()))
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 0.8 * errors[0]

    @pytest.mark.parametrize("count", [1, 2, 17, 300])
    def test_seeds_are_different_rows(self, count: int) -> None:
        rows = torch.randn(300, 3)
        assert distinct_rows_of(kmeans(rows, count, iterations=0), rows)

    def test_rows_that_are_all_the_same(self) -> None:
        torch.testing.assert_close(kmeans(torch.ones(10, 2), 4), torch.ones(4, 2))
