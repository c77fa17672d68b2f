"""Fits of quantizers to vectors."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import lexel
from lexel.fit import Fit, FlatFit, ProductFit, ResidualFit, State
from tests.ranks import on_ranks

FITS: dict[str, Fit] = {
    "flat": FlatFit(12, iterations=8),
    "flat, without noise": FlatFit(12, iterations=8, noise=0.0),
    "flat, unit": FlatFit(12, iterations=8, unit=True),
    "flat, balanced": FlatFit(12, iterations=8, balanced=True),
    "residual": ResidualFit((12, 8, 5), codebooks=3, iterations=8, noise=0.2),
    "residual, unit": ResidualFit(8, codebooks=2, iterations=8, unit=True, beam_size=1, noise=0.0),
    "residual, balanced": ResidualFit(8, codebooks=2, iterations=8, balanced=True),
    "product": ProductFit((12, 8), codebooks=2, iterations=8),
    "product, unit, balanced": ProductFit(8, codebooks=2, iterations=8, rotation=False, unit=True, balanced=True),
}
every = pytest.mark.parametrize("fit", FITS.values(), ids=FITS)


def rows_of(count: int = 600, dim: int = 6, dtype: torch.dtype = torch.float32) -> Tensor:
    """Vectors of correlated channels in a few clumps, away from the origin."""
    generator = torch.Generator().manual_seed(0)
    clumps = 3 * torch.randn(7, dim, generator=generator, dtype=dtype)
    mixed = torch.randn(count, dim, generator=generator, dtype=dtype) @ torch.randn(dim, dim, generator=generator).to(
        dtype
    )
    return 5 + clumps[torch.randint(7, (count,), generator=generator)] + mixed


def run(fit: Fit, rows: object) -> State:
    return fit.run(rows)  # type: ignore[arg-type]


def assert_same(one: State, other: State) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype, name
        assert torch.equal(value, other[name]), name


def relative_error(fit: Fit, state: State, rows: Tensor) -> float:
    quantizer = fit.quantizer(state)
    decoded = quantizer.lookup(quantizer.beam_search(rows, fit.beam)).detach()
    target = torch.nn.functional.normalize(rows, dim=1) if fit.unit else rows
    spread = (target - target.mean(0)).double().square().sum()
    return float((decoded - target).double().square().sum() / spread)


@every
class TestEveryFit:
    def test_the_quantizer_has_the_error_of_the_state(self, fit: Fit) -> None:
        rows = rows_of()
        first, last = fit.start(rows), run(fit, rows)
        for state in (first, last):
            assert relative_error(fit, state, rows) == pytest.approx(float(state["error"]), rel=1e-4)
        if not fit.balanced:
            assert last["error"] <= first["error"]

    def test_goes_on_from_any_state_as_if_it_had_never_stopped(self, fit: Fit, tmp_path: Path) -> None:
        rows = rows_of()
        state = fit.start(rows)
        states = [{name: value.clone() for name, value in state.items()}]
        while not fit.finished(state):
            state = fit.advance(rows, state)
            states.append({name: value.clone() for name, value in state.items()})
        for stopped in (states[0], states[len(states) // 2], states[-1]):
            torch.save(stopped, tmp_path / "state.pt")
            again = torch.load(tmp_path / "state.pt", weights_only=True)
            while not fit.finished(again):
                again = fit.advance(rows, again)
            assert_same(again, state)

    def test_threads_change_nothing(self, fit: Fit) -> None:
        rows, threads = rows_of(), torch.get_num_threads()
        states = []
        try:
            for count in (1, 2):
                torch.set_num_threads(count)
                states.append(run(fit, rows))
        finally:
            torch.set_num_threads(threads)
        assert_same(*states)

    def test_pieces_and_kinds_of_rows_change_nothing(
        self, fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = rows_of()
        whole = run(fit, rows)
        np.save(tmp_path / "rows.npy", rows.numpy())
        mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
        monkeypatch.setattr("lexel.fit.base.PIECE", 7 * 97)
        assert_same(run(fit, mapped), whole)

    def test_settings_and_quantizers_can_be_written_down(self, fit: Fit, tmp_path: Path) -> None:
        assert lexel.from_config(fit.config) == fit
        rows = rows_of(200)
        quantizer = fit.quantizer(run(replace(fit, iterations=2), rows))
        torch.save(quantizer.state_dict(), tmp_path / "codes.pt")
        again = lexel.from_config(quantizer.config).eval()
        again.load_state_dict(torch.load(tmp_path / "codes.pt", weights_only=True))
        assert torch.equal(again(rows).indices, quantizer(rows).indices)
        assert torch.equal(again.lookup(again(rows).indices), again(rows).quantized)

    def test_another_seed_gives_another_quantizer(self, fit: Fit) -> None:
        rows = rows_of()
        one, other = (run(replace(fit, seed=seed), rows) for seed in (0, 1))
        assert not torch.equal(one["codebook.0"], other["codebook.0"])

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda rows: rows.index_fill(0, torch.tensor([5, 9]), torch.nan), "row 5 holds NaN or infinity; row 9"),
            (lambda rows: rows.index_fill(0, torch.tensor(7), -torch.inf), "row 7 holds NaN"),
            (lambda rows: rows[:4], "4 rows are fewer than the"),
            (lambda rows: rows[:0], "0 rows are fewer than the"),
            (lambda rows: rows[:1].expand(600, -1), "all 600 rows are equal"),
            (lambda rows: rows[:, 0], r"rows must be \(N, D\)"),
        ],
    )
    def test_bad_rows(self, fit: Fit, spoil: object, message: str) -> None:
        with pytest.raises(ValueError, match=f"^{type(fit).__name__}: {message}"):
            fit.start(spoil(rows_of()))  # type: ignore[operator]


class TestFlat:
    def test_finds_clumps_that_lie_apart(self) -> None:
        centres = 50 * torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
        rows = centres.repeat(30, 1) + torch.randn(600, 6, generator=torch.Generator().manual_seed(2))
        vq = FlatFit(20).quantizer(run(FlatFit(20), rows))
        means = rows.reshape(30, 20, 6).mean(0)
        torch.testing.assert_close(vq(means).quantized, means, atol=1e-3, rtol=1e-4)

    def test_only_directions_count(self) -> None:
        rows = rows_of()
        longer = rows * torch.rand(600, 1, generator=torch.Generator().manual_seed(1)).add(0.5)
        fit = FlatFit(12, unit=True, iterations=8)
        one, other = (fit.quantizer(run(fit, each))(rows) for each in (rows, longer))
        assert torch.equal(one.indices, other.indices)
        torch.testing.assert_close(one.quantized.norm(dim=1), torch.ones(600))

    def test_zero_rows_have_no_direction(self) -> None:
        rows = rows_of().index_fill(0, torch.tensor([3]), 0)
        with pytest.raises(ValueError, match="row 3 is zero and has no direction"):
            FlatFit(12, unit=True).start(rows)

    def test_fewer_distinct_rows_than_codes(self) -> None:
        rows = torch.eye(3).repeat(10, 1)
        state = run(FlatFit(8, iterations=4), rows)
        assert float(state["error"]) == pytest.approx(0, abs=1e-6)


class TestResidual:
    def test_refinement_is_better_than_k_means_of_each_stage(self) -> None:
        rows = rows_of(3000, 16)
        fit = ResidualFit(32, codebooks=3, noise=0.1)
        greedy, refined = fit.start(rows), run(fit, rows)
        calm = run(replace(fit, noise=0.0), rows)
        assert refined["error"] < calm["error"] < greedy["error"]
        assert refined["error"] < 0.95 * greedy["error"]

    def test_least_squares_are_the_best_codebooks_for_the_codes(self) -> None:
        rows = rows_of(dtype=torch.float64)
        fit = ResidualFit(8, codebooks=2, noise=0.0, beam_size=1, iterations=1)
        state = fit.start(rows)
        codebooks = [state[f"codebook.{q}"] for q in range(2)]
        first = lexel.nearest_code(rows, codebooks[0])
        second = lexel.nearest_code(rows - codebooks[0][first], codebooks[1])
        design = torch.cat([torch.nn.functional.one_hot(each, 8).double() for each in (first, second)], 1)
        best = torch.linalg.lstsq(design, rows, driver="gelsd").solution
        solved = torch.cat([state[f"next.codebook.{q}"] for q in range(2)])
        torch.testing.assert_close(design @ solved, design @ best, rtol=1e-3, atol=1e-3)


class TestProduct:
    def test_the_rotation_is_orthogonal_and_helps(self) -> None:
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(3000, 8, generator=generator) @ torch.randn(8, 8, generator=generator)
        fit = ProductFit(16, codebooks=4)
        state = run(fit, rows)
        rotation = state["rotation"]
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(8), atol=1e-5, rtol=0)
        assert state["error"] < run(replace(fit, rotation=False), rows)["error"]

    def test_channels_must_divide(self) -> None:
        with pytest.raises(ValueError, match="6 channels, which is not a multiple of codebooks=4"):
            ProductFit(8, codebooks=4).start(rows_of())


class TestBalance:
    @pytest.mark.parametrize("fit", [FlatFit(16), ResidualFit(8, codebooks=2)], ids=["flat", "residual"])
    def test_no_cluster_is_much_larger_than_the_mean(self, fit: Fit) -> None:
        rows = rows_of(2000, 6)
        free, balanced = run(fit, rows), run(replace(fit, balanced=True), rows)
        for state, level in ((free, False), (balanced, True)):
            trial = replace(fit, balanced=level)
            indices = trial.quantizer(state).beam_search(rows, trial.beam)
            sizes = [torch.bincount(own, minlength=fit.sizes[0]) for own in indices.reshape(2000, -1).T]
            largest = max(float(size.max()) * fit.sizes[0] / 2000 for size in sizes)
            assert (largest <= 1.05) == level

    def test_balance_costs_little_where_clumps_are_equal(self) -> None:
        rows = rows_of(1000, 6)
        fit = FlatFit(10, iterations=10)
        free, balanced = run(fit, rows), run(replace(fit, balanced=True), rows)
        assert balanced["error"] < 1.2 * free["error"]

    @every
    def test_no_fit_is_longer_than_it_says(self, fit: Fit) -> None:
        assert int(run(fit, rows_of())["iteration"]) < fit.length

    def test_prices_decide_as_the_formula_says(self) -> None:
        generator = torch.Generator().manual_seed(0)
        rows, codes, prices = (torch.randn(*shape, generator=generator) for shape in ((300, 4), (20, 4), (20,)))
        vq = lexel.VectorQuantizer(20, 4, estimator=lexel.Prices())
        vq.load_codes(codes)
        vq.estimator.price.copy_(prices)
        costs = (rows[:, None] - codes).double().square().sum(2) + prices.double()
        assert torch.equal(vq(rows).indices, costs.argmin(1))
        assert torch.equal(vq.eval()(rows).indices, costs.argmin(1))
        residual = lexel.ResidualQuantizer([vq, lexel.VectorQuantizer(1, 4)])
        residual.quantizers[1].load_codes(torch.zeros(1, 4))
        assert torch.equal(residual.beam_search(rows, 1)[:, 0], costs.argmin(1))

    def test_prices_of_zero_change_nothing(self) -> None:
        z = torch.randn(50, 6, requires_grad=True)
        plain = lexel.VectorQuantizer(12, 6)
        priced = lexel.VectorQuantizer(12, 6, estimator=lexel.Prices())
        priced.load_codes(plain.codebook().detach())
        outputs = [vq(z) for vq in (plain, priced)]
        for one, other in zip(*outputs, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FlatFit(0), "num_embeddings must be at least 1"),
        (lambda: FlatFit((3, 4)), "one for each of the 1 codebooks"),
        (lambda: ResidualFit(8, codebooks=0), "codebooks must be at least 1"),
        (lambda: ResidualFit(8, beam_size=0), "beam_size must be at least 1"),
        (lambda: FlatFit(8, iterations=0), "iterations must be at least 1"),
        (lambda: FlatFit(8, tolerance=math.nan), "tolerance must be finite"),
        (lambda: FlatFit(8, noise=-1.0), "noise must be finite and not negative"),
    ],
)
def test_bad_settings(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def own_share(rank: int) -> dict[str, State]:
    rows = rows_of()
    own = rows[:217] if rank == 0 else rows[217:]
    states = {name: run(fit, own) for name, fit in FITS.items()}
    try:
        FlatFit(12).start(own.index_fill(0, torch.tensor([2]), torch.nan) if rank else own)
        raise AssertionError("NaN of one rank was not refused on the other")
    except ValueError:
        return states


def test_ranks_find_what_one_process_finds(tmp_path: Path) -> None:
    expected = {name: run(fit, rows_of()) for name, fit in FITS.items()}
    for states in on_ranks(own_share, tmp_path):
        for name, state in states.items():
            assert_same(state, expected[name])


def test_stages_that_have_nothing_left_to_code_change_nothing() -> None:
    rows = torch.tensor([[0.0, 1.0], [2.0, 3.0], [5.0, 4.0], [9.0, 9.0]])
    fit = ResidualFit(4, codebooks=2, iterations=4)
    state = fit.run(rows)
    assert float(state["error"]) == pytest.approx(0, abs=1e-9)
    quantizer = fit.quantizer(state)
    assert torch.allclose(quantizer.lookup(quantizer.beam_search(rows, fit.beam)), rows, atol=1e-4)
