"""Kernels of the layer, on a GPU or in Triton's interpreter, against plain torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

import lexel
from lexel._core import by_code

# The tests of the step run here with the kernels.
from tests._core.test_fused_loss import (  # noqa: F401
    test_gradients_have_gradients,
    test_values_and_gradients_are_those_of_the_formulas,
)

triton = pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True, scope="module")
def _small_tiles() -> Iterator[None]:
    with small_tiles():
        assert by_code.why_no_triton(torch.zeros(1).device) == ""
        yield


@contextmanager
def small_tiles() -> Iterator[None]:
    """Let tensors of the device take the kernels, and a few rows several programs, each with several tiles."""
    from lexel._core import _triton

    with pytest.MonkeyPatch.context() as patch, torch.device(DEVICE):
        patch.setattr(by_code, "DEVICES", {DEVICE})
        for name, size in (("HEIGHT", 4), ("WIDTH", 4), ("CHUNKS", 6), ("COUNTED", 16)):
            patch.setattr(_triton, name, size)
        yield


def indices_of(rows: int, num_embeddings: int, hot: float) -> Tensor:
    """Random codes, of which one has a share of its own."""
    indices = torch.randint(num_embeddings, (rows,))
    return torch.where(torch.rand(rows) < hot, num_embeddings // 2, indices)


SIZES = {
    "seed": st.integers(0, 2**31),
    "rows": st.integers(0, 60),
    "num_embeddings": st.sampled_from([1, 2, 7, 40, 40_000]),
    "dim": st.integers(1, 6),
    "hot": st.sampled_from([0.0, 0.5, 0.97]),
}


@settings(max_examples=15, deadline=None)
@given(**SIZES)
def test_sums_are_those_of_a_loop(seed: int, rows: int, num_embeddings: int, dim: int, hot: float) -> None:
    torch.manual_seed(seed)
    indices = indices_of(rows, num_embeddings, hot)
    parts = torch.randn(dim, rows, dtype=torch.float64).T, torch.randint(-9, 9, (rows,))
    found = by_code.sum_by_code(indices, num_embeddings, *parts)
    totals = [torch.ones_like(total.movedim(0, -1)).movedim(-1, 0) for total in found]
    by_code.add_by_code(totals, indices, parts)
    for part, sums, total in zip(parts, found, totals, strict=True):
        expected = torch.zeros_like(sums)
        for index, row in zip(indices.tolist(), part, strict=True):
            expected[index] += row
        torch.testing.assert_close(sums, expected)
        torch.testing.assert_close(total, expected + 1)


@settings(max_examples=8, deadline=None)
@given(**SIZES, batches=st.integers(1, 4))
def test_batches_have_the_sums_of_their_rows(
    seed: int, rows: int, num_embeddings: int, dim: int, hot: float, batches: int
) -> None:
    torch.manual_seed(seed)
    indices = indices_of(batches * rows, num_embeddings, hot).reshape(batches, rows)
    parts = torch.randn(batches, dim, rows).mT.requires_grad_(), torch.rand(batches, rows)
    found = by_code.sum_by_code(indices, num_embeddings, *parts)
    flat = by_code.sum_by_code(indices.flatten(), num_embeddings, *(part.detach().flatten(0, 1) for part in parts))
    assert all(map(torch.equal, found, flat))
    (gradient,) = torch.autograd.grad(found[0].sin().sum(), parts[0])
    torch.testing.assert_close(gradient, flat[0].cos()[indices])


@settings(max_examples=15, deadline=None)
@given(**SIZES)
def test_counts_leave_out_masked_positions(seed: int, rows: int, num_embeddings: int, dim: int, hot: float) -> None:
    torch.manual_seed(seed)
    indices = torch.where(torch.rand(rows) < 0.2, -1, indices_of(rows, num_embeddings, hot))
    counts = by_code.count_by_code(indices, num_embeddings)
    assert counts.tolist() == [float((indices == code).sum()) for code in range(num_embeddings)][: len(counts)]


@settings(max_examples=15, deadline=None)
@given(**SIZES, masked=st.booleans(), batches=st.sampled_from([0, 1, 3]))
def test_difference_is_that_of_plain_torch(
    seed: int, rows: int, num_embeddings: int, dim: int, hot: float, masked: bool, batches: int
) -> None:
    torch.manual_seed(seed)
    z, codes = (torch.randn(dim, n, dtype=torch.float64).T for n in (rows, num_embeddings))
    indices = indices_of(rows, num_embeddings, hot)
    if batches:  # channels first
        z = torch.randn(batches, dim, rows, dtype=torch.float64).mT
        indices = indices_of(batches * rows, num_embeddings, hot).reshape(batches, rows)
    valid = torch.rand(indices.shape) < 0.6 if masked else None
    found = by_code.code_difference(z, codes, indices, valid)
    torch.testing.assert_close(found, by_code._plain_difference(z, codes, indices, valid))
    assert all(part.stride() == torch.empty_like(z).stride() for part in found[:2])


def test_what_is_not_a_number_stays_with_its_code() -> None:
    rows = torch.ones(42, 3)
    rows[17, 1] = torch.nan
    (sums,) = by_code.sum_by_code(torch.arange(42) // 7, 6, rows)
    assert sums.isnan().nonzero().tolist() == [[2, 1]]
    assert sums.nansum() == 42 * 3 - 7


def test_the_order_of_rows_of_other_codes_changes_no_bit() -> None:
    torch.manual_seed(0)
    rows, indices = torch.randn(64, 3), indices_of(64, 4, 0.0)
    order = torch.cat([(indices == code).nonzero()[:, 0] for code in (2, 0, 3, 1)])
    for total, again in zip(
        by_code.sum_by_code(indices, 4, rows), by_code.sum_by_code(indices[order], 4, rows[order]), strict=True
    ):
        assert torch.equal(total, again)


@pytest.mark.parametrize("learning", [lexel.Gradient(), lexel.EMA()], ids=repr)
@pytest.mark.parametrize("compiled", [False, True])
def test_training_comes_to_the_same_end(learning: lexel.Learning, compiled: bool) -> None:
    ends = []
    for devices in ({DEVICE}, set[str]()):
        torch.manual_seed(0)
        torch.compiler.reset()
        vq = lexel.VectorQuantizer(8, 3, learning=learning).double()
        z = torch.randn(2, 3, 5, dtype=torch.float64).requires_grad_()
        optimizer = torch.optim.SGD([z, *vq.parameters()], lr=0.1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(by_code, "DEVICES", devices)
            layer = torch.compile(vq, fullgraph=True, backend="aot_eager") if compiled else vq
            for _ in range(3):
                optimizer.zero_grad()
                output = layer(z, torch.arange(10).reshape(2, 5) % 4 > 0)
                (output.loss + output.quantized.sin().sum()).backward()
                optimizer.step()
        ends.append([z, vq.codebook(), output.perplexity, output.loss])
    torch.testing.assert_close(*ends)


def test_without_triton_the_numbers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    indices, rows = indices_of(50, 6, 0.3), torch.randn(50, 2, dtype=torch.float64)

    def everything() -> list[Tensor]:
        found = by_code.code_difference(rows, rows[:6], indices, None)
        return [*by_code.sum_by_code(indices, 6, rows), by_code.count_by_code(indices, 6), *found]

    kernels = everything()
    monkeypatch.setattr(by_code, "why_no_triton", lambda device: "ImportError: no module triton")
    torch.testing.assert_close(everything(), kernels)
