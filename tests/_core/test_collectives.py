"""Two processes end where one process ends with the data of both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, strategies as st

import lexel
from lexel._core.collectives import AllRows, uniform_of_rows
from tests import ranks


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, device: str) -> list[dict[object, object]]:
    """What each of two ranks saw, for every case; they may share one accelerator."""
    return ranks.on_ranks(ranks.everything, tmp_path_factory.mktemp("ranks"), device=device)


@pytest.mark.parametrize("case", list(ranks.cases()), ids=str)
def test_two_ranks_are_one_process(pair: list[dict[object, object]], case: tuple[str, str, str, bool]) -> None:
    alone, first, second = ranks.train(case, 0, 1), pair[0][case], pair[1][case]
    joined = [torch.cat(both) for both in zip(first["indices"], second["indices"], strict=True)]
    assert all(map(torch.equal, joined, alone["indices"]))
    for name in ("losses", "state", "encoder"):
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
        torch.testing.assert_close(first[name], alone[name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ranks.QUIET)
def test_two_ranks_are_one_process_for_every_quantizer(pair: list[dict[object, object]], name: str) -> None:
    alone, first, second = ranks.every(name, 0, 1), pair[0][name], pair[1][name]
    for both, expected in zip(zip(first["indices"], second["indices"], strict=True), alone["indices"], strict=True):
        indices, inputs = (torch.cat(parts) for parts in zip(*both, strict=True))
        assert torch.equal(indices, expected[0])
        torch.testing.assert_close(inputs, expected[1], rtol=1e-6, atol=1e-9)
    for part in ("losses", "gradients", "state"):
        torch.testing.assert_close(first[part], second[part], rtol=0, atol=1e-12)
        torch.testing.assert_close(first[part], alone[part], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("place", [0, 900_000])
def test_draws_cover_the_interval_evenly_at_any_row(place: int) -> None:
    draws = uniform_of_rows(torch.zeros(1_000_000, 1))[place : place + 100_000]
    assert draws.min() >= 0
    assert draws.max() < 1
    gaps = draws.double().sort().values.diff()
    assert gaps.min() > 0.1 / 100_000
    assert gaps.max() < 3 / 100_000


def test_all_ranks_refuse_what_is_poison_on_one(pair: list[dict[object, object]]) -> None:
    for seen in pair:
        assert "NaN or Inf" in seen["poisoned"]


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory, device: str) -> list[dict[object, object]]:
    """What each of four ranks saw, for every quantizer."""
    return ranks.on_ranks(ranks.as_one_of_four, tmp_path_factory.mktemp("four"), 4, device)


@pytest.mark.parametrize("name", ranks.QUIET)
def test_four_ranks_are_one_process_for_every_quantizer(four: list[dict[object, object]], name: str) -> None:
    alone, all_ranks = ranks.every(name, 0, 1), [seen[name] for seen in four]
    for parts, expected in zip(
        zip(*(seen["indices"] for seen in all_ranks), strict=True), alone["indices"], strict=True
    ):
        indices, inputs = (torch.cat(each) for each in zip(*parts, strict=True))
        assert torch.equal(indices, expected[0])
        torch.testing.assert_close(inputs, expected[1], rtol=1e-6, atol=1e-9)
    for part in ("losses", "gradients", "state"):
        for seen in all_ranks:
            torch.testing.assert_close(seen[part], alone[part], rtol=1e-6, atol=1e-9)


def test_over_nccl_too(tmp_path: Path, device: str) -> None:
    """Which takes one process for each card."""
    if device != "cuda":
        pytest.skip("NCCL needs CUDA")
    world, expected = min(2, torch.cuda.device_count()), ranks.alone(0)
    seen = ranks.on_ranks(ranks.alone if world == 1 else ranks.everything, tmp_path, world, device, "nccl")
    for name, alone in expected.items():
        for part in ("losses", "state"):
            torch.testing.assert_close(seen[0][name][part], alone[part], rtol=1e-6, atol=1e-9)


def test_a_process_group_says_who_shares_the_inputs(pair: list[dict[object, object]]) -> None:
    """Beside tensor parallelism, where each rank sees all inputs, each counts them once."""
    for rank in range(2):
        world, by_group, by_mesh = pair[rank]["own groups"]
        assert world == 2
        vq = lexel.VectorQuantizer(8, ranks.DIM, learning=lexel.EMA(decay=0.5))
        vq.load_codes(torch.randn(8, ranks.DIM, generator=torch.Generator().manual_seed(9)))
        vq(torch.randn(12, ranks.DIM, generator=torch.Generator().manual_seed(rank)))
        torch.testing.assert_close(by_group, vq.codebook(), rtol=0, atol=0)
        torch.testing.assert_close(by_mesh, vq.codebook(), rtol=0, atol=0)


def test_refuses_what_is_no_process_group() -> None:
    with pytest.raises(TypeError, match="must be a ProcessGroup, a DeviceMesh or None, got 3"):
        lexel.set_process_group(3)


@given(
    st.lists(st.tuples(st.integers(0, 2**30), st.booleans()), min_size=1, max_size=20),
    st.integers(0, 2**20),
    st.integers(0, 2**31 - 1),
)
def test_rows_are_drawn_as_often_as_their_weights_say(rows: list[tuple[int, bool]], count: int, start: int) -> None:
    """Up or down to the next integer, for any number of points: exactly, in integers of Python."""
    valid = torch.tensor([keep for _, keep in rows])
    lengths = [2**30, *(weight * keep for weight, keep in rows)]  # the longest, so that all of them are exact
    drawn = AllRows(torch.zeros(len(lengths), 1), torch.cat([torch.tensor([True]), valid])).draw(
        torch.tensor(lengths).double(), torch.tensor(count), 2**20, torch.tensor(start)
    )
    assert (drawn[count:] == -1).all()
    drawn, kept = drawn[:count], [length for length, keep in zip(lengths, [True, *valid.tolist()], strict=True) if keep]
    assert (drawn.diff() >= 0).all()
    for length, found in zip(kept, drawn.bincount(minlength=len(kept)).tolist(), strict=True):
        low, rest = divmod(count * length, sum(kept))
        assert low <= found <= low + (rest > 0)
