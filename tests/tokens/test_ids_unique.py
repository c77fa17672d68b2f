"""IDs of which no two are equal: what changes, what it costs, and that it cannot cost less."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import lexel
from lexel.tokens import Facts, IDs
from lexel.tokens.unique import duplicates, make_unique


class Pieces:
    """Embeddings of which a slice can be had, and no more."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice) -> np.ndarray[Any, Any]:
        assert isinstance(rows, slice)
        return self.x[rows].numpy()


def product(k: int, books: int, seed: int) -> lexel.ProductQuantizer:
    torch.manual_seed(seed)
    vq = lexel.ProductQuantizer([lexel.VectorQuantizer(k, 1) for _ in range(books)])
    for part in vq.parts:
        part.load_codes(torch.randn(k, 1).double().float())
    return vq.eval()


def crowd(count: int, books: int, seed: int) -> Tensor:
    """Embeddings in a few clusters, some of them equal."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, books, generator=generator)[torch.randint(0, 3, (count,), generator=generator)]
    x = x + 0.2 * torch.randn(count, books, generator=generator)
    x[count // 2 : count // 2 + 3] = x[0].clone()
    return x


@torch.no_grad()
def encoded(vq: lexel.Quantizer, x: Tensor, items: Any = None) -> IDs:
    codes = vq(x).indices
    distances = (vq.lookup(codes) - x).square().sum(1)
    facts = Facts("vectors", vq.num_embeddings, vq.codebook_sizes, "model")
    return IDs(np.arange(len(x)) if items is None else items, codes, facts, distances)


def sharing(ids: IDs) -> list[int]:
    """The rows whose tuple another row has, too."""
    counts = Counter(map(tuple, ids.codes.tolist()))
    return [row for row, code in enumerate(ids.codes.tolist()) if counts[tuple(code)] > 1]


class TestNearestFree:
    @settings(deadline=None, max_examples=40)
    @given(
        st.integers(2, 6),
        st.integers(1, 3),
        st.floats(0.05, 1),
        st.integers(0, 1 << 20),
        st.sampled_from([0.0, 0.3, 1.0]),
    )
    def test_nothing_costs_less(self, k: int, books: int, share: float, seed: int, equal: float) -> None:
        """Over all free tuples, by brute force; for any share of the tuples, up to every one."""
        count = max(int(share * k**books), 1)
        vq, x = product(k, books, seed), crowd(count, books, seed)
        x[: int(equal * count)] = x[0].clone()
        ids = encoded(vq, x)
        found, figures = make_unique(ids, "nearest-free", Pieces(x), vq.candidates)
        assert len(set(map(tuple, found.codes.tolist()))) == count
        some = sharing(ids)
        kept = np.flatnonzero((found.codes == ids.codes).all(1))
        assert set(range(count)) - set(some) <= set(kept.tolist())
        assert found.distances[kept].tobytes() == ids.distances[kept].tobytes()
        assert figures.moved == count - len(kept)
        tuples = torch.cartesian_prod(*[torch.arange(k)] * books).reshape(-1, books)
        held = {tuple(ids.codes[row].tolist()) for row in range(count) if row not in some}
        free = tuples[[tuple(each) not in held for each in tuples.tolist()]]
        costs = (x[some][:, None] - vq.lookup(free).detach()).double().square().sum(2)
        best = costs[linear_sum_assignment(costs)].sum().item() if some else 0.0
        own = (x[some] - vq.lookup(torch.from_numpy(found.codes[some].astype(np.int64)))).double().square().sum()
        assert own.item() == pytest.approx(best, rel=1e-5, abs=1e-6)
        assert found.distances[some].sum(dtype=float) == pytest.approx(best, rel=1e-5, abs=1e-6)
        assert figures.distortion_after == pytest.approx(found.distances.mean(dtype=float))
        assert figures.distortion_before == pytest.approx(ids.distances.mean(dtype=float))

    def test_the_same_each_time(self) -> None:
        vq, x = product(5, 3, 0), crowd(80, 3, 0)
        one, same = (make_unique(encoded(vq, x), "nearest-free", x, vq.candidates)[0] for _ in range(2))
        assert one.codes.tobytes() == same.codes.tobytes()
        assert one.distances.tobytes() == same.distances.tobytes()

    def test_items_without_a_rival_keep_their_codes(self) -> None:
        vq, x = product(6, 3, 0), 0.0 * crowd(4, 3, 0)
        x += vq.lookup(torch.tensor([[0, 0, 0], [1, 2, 3], [4, 4, 4], [5, 0, 1]])).detach()
        found, figures = make_unique(encoded(vq, x), "nearest-free", x, vq.candidates)
        assert found.codes.tolist() == encoded(vq, x).codes.tolist()
        assert (figures.moved, figures.shared, figures.largest, figures.cost) == (0, 0, 1, 0)

    def test_a_residual_of_which_every_tuple_is_needed(self) -> None:
        torch.manual_seed(0)
        vq = lexel.ResidualQuantizer([lexel.VectorQuantizer(4, 2) for _ in range(3)]).eval()
        x = crowd(64, 2, 0)
        found, figures = make_unique(encoded(vq, x), "nearest-free", x, vq.candidates)
        assert len(found.trie()) == 64
        assert figures.duplicates == 3

    def test_a_crowd_of_equal_embeddings(self) -> None:
        """As items without a text have them. Nobody else wants their tuples: they get the nearest ones."""
        torch.manual_seed(0)
        vq = lexel.ProductQuantizer([lexel.VectorQuantizer(16, 4) for _ in range(3)]).eval()
        x = torch.zeros(3000, 12)
        found, figures = make_unique(encoded(vq, x), "nearest-free", x, vq.candidates)
        every = vq.lookup(torch.cartesian_prod(*[torch.arange(16)] * 3)).detach().double().square().sum(1)
        assert len(found.trie()) == 3000
        assert figures.distortion_after == pytest.approx(float(every.sort()[0][:3000].mean()), rel=1e-6)

    def test_too_few_tuples(self) -> None:
        vq, x = product(3, 2, 0), crowd(10, 2, 0)
        with pytest.raises(ValueError, match="there are 9 tuples of 3 x 3 codes for 10 items"):
            make_unique(encoded(vq, x), "nearest-free", x, vq.candidates)

    @settings(deadline=None, max_examples=20)
    @given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 1 << 20))
    def test_what_comes_later_leaves_the_old_alone(self, before: int, after: int, seed: int) -> None:
        vq, x = product(5, 3, seed), crowd(before + after, 3, seed)
        names = [f"item {row}" for row in range(before + after)]
        old, _ = make_unique(encoded(vq, x[:before], names[:before]), "nearest-free", x[:before], vq.candidates)
        fresh = encoded(vq, x[before:], names[before:])
        new, _ = make_unique(fresh, "nearest-free", x[before:], vq.candidates, taken=old)
        both = old.append(new)
        assert len(both.trie()) == before + after
        assert both.codes[:before].tobytes() == old.codes.tobytes()
        alone = [
            row
            for row, code in enumerate(fresh.codes.tolist())
            if not old.items[tuple(code)] and fresh.codes.tolist().count(code) == 1
        ]
        assert new.codes[alone].tolist() == fresh.codes[alone].tolist()


class TestSuffix:
    @given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 20))
    def test_numbers_those_that_share_their_codes(self, codes: list[int], before: int) -> None:
        """In their order, from 0, and on from where the older ones end."""
        facts = Facts("vectors", 5, (5,), "model")
        old = IDs(range(before), codes[:1] * before, facts) if before else None
        old = None if old is None else make_unique(old, "suffix")[0]
        ids = IDs(range(100, 100 + len(codes)), codes, facts, np.ones(len(codes)))
        found, figures = make_unique(ids, "suffix", taken=old)
        seen = Counter({codes[0]: before})
        for row, code in enumerate(codes):
            assert found.codes[row].tolist() == [code, seen[code]]
            seen[code] += 1
        assert (figures.largest, figures.moved, figures.cost) == (max(seen.values()), 0, 0)
        shared = [code for code in codes if codes.count(code) > 1 or (before and code == codes[0])]
        assert figures.shared == len(shared)
        if old is not None:
            both = old.append(found)
            assert both.codebook_sizes == (5, max(seen.values()))
            assert both.codes[:before].tolist() == old.codes.tolist()

    def test_without_collisions_it_has_one_value(self) -> None:
        found, _ = make_unique(IDs("ab", [1, 0], Facts("vectors", 2, (2,), "")), "suffix")
        assert (found.codebook_sizes, found.codes.tolist()) == ((2, 1), [[1, 0], [0, 0]])
        assert found.indices.tolist() == [[1], [0]]


class TestDuplicates:
    @pytest.mark.parametrize("method", ["suffix", "nearest-free"])
    def test_are_named_and_get_ids_of_their_own(self, method: str) -> None:
        vq, x = product(6, 3, 1), crowd(30, 3, 1)
        x[7], x[20] = 0.0, -0.0
        found, figures = make_unique(encoded(vq, x), method, x, vq.candidates)
        assert duplicates(encoded(vq, x), x) == duplicates(found, x) == [[0, 15, 16, 17], [7, 20]]
        assert figures.duplicate_items == [[0, 15, 16, 17], [7, 20]]
        assert figures.as_json()["duplicates"] == 4
        assert len(found.trie()) == 30

    def test_are_not_looked_for_without_embeddings(self) -> None:
        vq, x = product(6, 3, 1), crowd(30, 3, 1)
        assert make_unique(encoded(vq, x), "suffix")[1].duplicates is None


class TestRefusals:
    def test_each_says_what_is_wrong(self) -> None:
        vq, x = product(5, 2, 0), crowd(8, 2, 0)
        ids = encoded(vq, x)
        unknown = IDs(range(8), ids.codes, ids.facts)
        suffixed = make_unique(ids, "suffix")[0]
        for arguments, message in (
            ((ids, "prefix"), "method must be one of suffix, nearest-free"),
            ((suffixed, "suffix"), "unique already, by 'suffix'"),
            ((ids, "nearest-free"), "needs the embeddings and their candidates"),
            ((ids, "nearest-free", x[:7], vq.candidates), "7 embeddings for 8 items"),
            ((unknown, "nearest-free", x, vq.candidates), "needs the distances"),
        ):
            with pytest.raises(ValueError, match=message):
                make_unique(*arguments)
        with pytest.raises(ValueError, match="unique by 'suffix' and of the model model, expected 'nearest-free'"):
            make_unique(ids, "nearest-free", x, vq.candidates, taken=suffixed)
