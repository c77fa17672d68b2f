"""The fused step against autograd on its formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import Tensor

import lexel
from lexel._core.fused_loss import quantization_step


def formulas(z: Tensor, codes: Tensor, indices: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    e = F.embedding(indices, codes)
    counts = 1 if valid is None else valid.unsqueeze(1)
    errors = [((moving - fixed.detach()).square() * counts).sum() for moving, fixed in ((e, z), (z, e))]
    return z + (e - z).detach(), *errors


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(0, 40),
    num_embeddings=st.integers(1, 60),
    dim=st.integers(1, 9),
    masked=st.booleans(),
    used=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_values_and_gradients_are_those_of_the_formulas(
    seed: int, rows: int, num_embeddings: int, dim: int, masked: bool, used: tuple[bool, bool, bool]
) -> None:
    torch.manual_seed(seed)
    z, codes = (torch.randn(n, dim, dtype=torch.float64, requires_grad=True) for n in (rows, num_embeddings))
    indices, valid = torch.randint(num_embeddings, (rows,)), torch.rand(rows) < 0.6 if masked else None
    results = []
    for step in (quantization_step, formulas):
        quantized, codebook, commitment = step(z, codes, indices, valid)
        weights = torch.linspace(-1, 2, rows * dim).reshape(rows, dim)
        parts = ((quantized * weights).sum(), 3 * codebook, 5 * commitment)
        total = z.sum() * 0 + sum(part for part, wanted in zip(parts, used, strict=True) if wanted)
        grads = torch.autograd.grad(total, (z, codes), allow_unused=True, materialize_grads=True)
        results.append((quantized, codebook, commitment, *grads))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_have_gradients(masked: bool) -> None:
    torch.manual_seed(0)
    z, codes = (torch.randn(n, 2, dtype=torch.float64, requires_grad=True) for n in (6, 4))
    indices, valid = torch.tensor([0, 1, 2, 0, 0, 1]), torch.arange(6) % 3 > 0 if masked else None
    results = []
    for step in (quantization_step, formulas):
        quantized, codebook, commitment = step(z, codes, indices, valid)
        total = (quantized.sin() + quantized).sum() + codebook**2 + 3 * commitment**2
        first = torch.autograd.grad(total, (z, codes), create_graph=True)
        penalty = sum((grad * grad.cos()).sum() for grad in first)
        results.append((*first, *torch.autograd.grad(penalty, (z, codes))))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("learning", [lexel.Gradient(), lexel.EMA()], ids=repr)
def test_a_training_step_needs_a_few_times_its_input_and_its_codes(learning: lexel.Learning) -> None:
    vq, z = lexel.VectorQuantizer(1 << 16, 16, learning=learning), torch.randn(1 << 14, 16, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch, torch.profiler.profile(profile_memory=True) as profile:
        patch.setattr("lexel.estimators.nearest_code", lambda z, codes, metric: torch.arange(len(z)))
        output = vq(z)
        (output.loss + output.quantized.sum()).backward()
    balance = peak = 0
    for event in sorted(profile.events(), key=lambda event: event.time_range.end):
        balance += event.self_cpu_memory_usage
        peak = max(peak, balance)
    codes, inputs = (4 * 16 * n for n in (1 << 16, 1 << 14))
    assert peak < 4 * codes + 8 * inputs
