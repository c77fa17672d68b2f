"""The additional terms of the loss against their formulas."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor
from vector_quantize_pytorch.vector_quantize_pytorch import orthogonal_loss_fn

import lexel


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def entropy(z: Tensor, codes: Tensor, gamma: float, temperature: float, metric: str) -> Tensor:
    distances = torch.cdist(z, codes, compute_mode="donot_use_mm_for_euclid_dist").square()
    p = ((-distances if metric == "euclidean" else z @ codes.T) / temperature).softmax(1)
    mean = p.mean(0)
    return -(p * p.log()).sum(1).mean() + gamma * (mean * mean.log()).sum()


def term(regulariser: lexel.Regulariser, z: Tensor, codes: Tensor, valid: Tensor | None = None) -> Tensor:
    return regulariser.build(*codes.shape)(z, codes, valid)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 40),
    codes=st.integers(1, 30),
    gamma=st.floats(0, 3),
    temperature=st.floats(0.3, 10),
    metric=st.sampled_from(["euclidean", "dot"]),
    chunk=st.integers(1, 100),
)
def test_entropy_is_its_formula_for_any_chunk(
    seed: int, rows: int, codes: int, gamma: float, temperature: float, metric: str, chunk: int
) -> None:
    torch.manual_seed(seed)
    z, table = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (rows, codes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lexel._core.soft_assignment.CHUNK", chunk)
        ours = term(lexel.Entropy(diversity=gamma, temperature=temperature, metric=metric), z, table)
        found = torch.autograd.grad(ours, (z, table))
    expected = entropy(z, table, gamma, temperature, metric)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(found, torch.autograd.grad(expected, (z, table)))


def test_entropy_less_the_rows_that_do_not_count() -> None:
    z, codes, valid = torch.randn(20, 3), torch.randn(7, 3), torch.rand(20) < 0.5
    torch.testing.assert_close(term(lexel.Entropy(), z, codes, valid), term(lexel.Entropy(), z[valid], codes))
    assert term(lexel.Entropy(), z[:0], codes) == 0


def test_entropy_keeps_no_matrix_of_inputs_by_codes() -> None:
    z, codes = torch.randn(2048, 2, requires_grad=True), torch.randn(1 << 14, 2, requires_grad=True)
    with torch.profiler.profile(profile_memory=True) as profile:
        term(lexel.Entropy(), z, codes).backward()
    balance = peak = 0
    for event in sorted(profile.events(), key=lambda event: event.time_range.end):
        balance += event.self_cpu_memory_usage
        peak = max(peak, balance)
    assert peak < 4 * len(z) * len(codes) / 2


def test_entropy_spreads_the_codes() -> None:
    z = torch.randn(256, 2)
    perplexities = []
    far = torch.randn(16, 2) * 0.1 + 5
    far[0] = 0  # the only code that is near to any input
    for regularisers in ((), lexel.Entropy(diversity=2, temperature=5.0)):
        vq = lexel.VectorQuantizer(16, 2, regularisers=regularisers)
        vq.pull(far, torch.ones(16))
        optimizer = torch.optim.Adam(vq.parameters(), lr=0.03)
        for _ in range(100):
            optimizer.zero_grad()
            vq(z).loss.backward()
            optimizer.step()
        perplexities.append(vq.eval()(z).perplexity)
    assert perplexities[1] > 1.5 * perplexities[0]


class TestOrthogonality:
    @pytest.mark.parametrize(("codes", "dim"), [(1, 3), (5, 9), (40, 3)])
    def test_is_its_formula(self, codes: int, dim: int) -> None:
        table = torch.randn(codes, dim, dtype=torch.float64, requires_grad=True)
        unit = table / table.norm(dim=1, keepdim=True)
        expected = (unit @ unit.T - torch.eye(codes, dtype=torch.float64)).square().sum() / codes**2
        ours = term(lexel.Orthogonality(), table[:0], table)
        torch.testing.assert_close(ours, expected)
        torch.testing.assert_close(torch.autograd.grad(ours, table), torch.autograd.grad(expected, table))

    def test_agrees_with_vector_quantize_pytorch(self) -> None:
        table = torch.randn(40, 6)
        torch.testing.assert_close(term(lexel.Orthogonality(), table[:0], table), orthogonal_loss_fn(table[None]))


class TestInAQuantizer:
    def test_enters_the_loss_by_its_weight_in_training_alone(self) -> None:
        parts = (lexel.Entropy(weight=0.3), lexel.Orthogonality(weight=2.0))
        vq, z = lexel.VectorQuantizer(16, 4, regularisers=parts), torch.randn(30, 4)
        terms, loss = (output := vq(z)).terms, output.loss
        expected = terms["codebook"] + 0.25 * terms["commitment"] + 0.3 * terms["entropy"] + 2 * terms["orthogonality"]
        torch.testing.assert_close(loss, expected)
        assert set(vq.eval()(z).terms) == {"codebook", "commitment"}
        assert lexel.from_config(vq.config).config == vq.config

    def test_refusals(self) -> None:
        with pytest.raises(ValueError, match="Orthogonality moves the codes"):
            lexel.VectorQuantizer(16, 4, learning=lexel.EMA(), regularisers=lexel.Orthogonality())
        with pytest.raises(TypeError, match=r"regularisers\[0\] must be a lexel Regulariser, got EMA"):
            lexel.VectorQuantizer(16, 4, regularisers=[lexel.EMA()])
        with pytest.raises(ValueError, match="Entropy: temperature"):
            lexel.Entropy(temperature=0.0)
        with pytest.raises(ValueError, match="Entropy: metric must be 'euclidean' or 'dot', got 'cosine'"):
            lexel.Entropy(metric="cosine")
