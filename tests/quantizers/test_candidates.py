"""Several choices of indices for each vector: all different, the best first, and none that was left out is better."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

import lexel

EXACT = {
    "table": lambda: lexel.VectorQuantizer(7, 4),
    "cosine": lambda: lexel.VectorQuantizer(7, 4, codebook=lexel.CosineCodebook()),
    "levels": lambda: lexel.FiniteScalarQuantizer([3, 2, 2, 2]),
    "product": lambda: lexel.ProductQuantizer([lexel.VectorQuantizer(3, 1), lexel.VectorQuantizer(4, 3)]),
    "heads": lambda: lexel.ProductQuantizer([lexel.VectorQuantizer(4, 2)], heads=2),
    "nested": lambda: lexel.ProductQuantizer(
        [lexel.ProductQuantizer([lexel.VectorQuantizer(3, 1) for _ in range(2)]), lexel.VectorQuantizer(3, 2)]
    ),
}


def everything(vq: lexel.Quantizer) -> Tensor:
    """All indices that there are."""
    return torch.cartesian_prod(*(torch.arange(size) for size in vq.codebook_sizes)).reshape(-1, *vq.index_shape)


def errors_of(vq: lexel.Quantizer, z: Tensor, indices: Tensor) -> Tensor:
    back = vq.lookup(indices.reshape(-1, *vq.index_shape)).reshape(len(z), -1, vq.output_dim)
    return (vq.unquantized(z)[:, None] - back).double().square().sum(2)


@pytest.mark.parametrize("name", EXACT)
@settings(deadline=None, max_examples=15)
@given(count=st.integers(1, 60), seed=st.integers(0, 1 << 20))
@torch.no_grad()
def test_none_is_better(name: str, count: int, seed: int) -> None:
    torch.manual_seed(seed)
    vq, z = EXACT[name]().eval(), torch.randn(5, 4)
    found = vq.candidates(z, count)
    whole = everything(vq)
    n = min(count, len(whole))
    assert found.indices.shape == (5, n, *vq.index_shape)
    expected = errors_of(vq, z, whole.expand(5, *whole.shape)).sort(1).values[:, :n]
    assert torch.allclose(found.errors.double(), expected, atol=1e-5)
    assert torch.allclose(errors_of(vq, z, found.indices), found.errors.double(), atol=1e-5)
    assert (found.errors.diff(dim=1) >= 0).all()
    for row in found.indices.reshape(5, n, -1):
        assert len(row.unique(dim=0)) == n


@torch.no_grad()
def test_a_residual_has_those_of_its_beam() -> None:
    torch.manual_seed(0)
    vq, z = lexel.ResidualQuantizer([lexel.VectorQuantizer(k, 4) for k in (5, 3, 4)]).eval(), torch.randn(20, 4)
    for count in (1, 4, 59):
        found = vq.candidates(z, count)
        assert torch.equal(found.indices[:, 0], vq.beam_search(z, count))
        assert all(len(row.unique(dim=0)) == count for row in found.indices)
        assert torch.allclose(errors_of(vq, z, found.indices), found.errors.double(), atol=1e-5)
        assert (found.errors.diff(dim=1) >= 0).all()
    whole = vq.candidates(z, 1000)
    expected = errors_of(vq, z, everything(vq).expand(20, 60, 3)).sort(1).values
    assert torch.allclose(whole.errors.double(), expected, atol=1e-5)


@torch.no_grad()
def test_layouts_and_wrappers() -> None:
    torch.manual_seed(0)
    vq = lexel.ProductQuantizer([lexel.VectorQuantizer(5, 2) for _ in range(2)]).eval()
    z = torch.randn(2, 4, 3, 5)
    found = vq.candidates(z, 6)
    assert (found.indices.shape, found.errors.shape) == ((2, 3, 5, 6, 2), (2, 3, 5, 6))
    rows = vq.candidates(z.movedim(1, -1).reshape(-1, 4), 6)
    assert torch.equal(found.indices.reshape(-1, 6, 2), rows.indices)
    assert vq.candidates(z[:0], 6).errors.shape == (0, 3, 5, 6)
    projected = lexel.ProjectedQuantizer(lexel.VectorQuantizer(6, 2), 4).eval()
    own = projected.candidates(z[:, :, 0, 0], 6)
    assert torch.allclose(errors_of(projected, z[:, :, 0, 0], own.indices), own.errors.double(), atol=1e-5)
    assert (own.errors.diff(dim=1) >= 0).all()  # after the way back, where the order is another
    assert torch.equal(own.indices.sort(1).values, torch.arange(6).expand(2, 6))


def test_refusals() -> None:
    vq = lexel.VectorQuantizer(4, 2)
    with pytest.raises(ValueError, match=r"VectorQuantizer.candidates: count must be at least 1, got 0"):
        vq.candidates(torch.randn(3, 2), 0)
    with pytest.raises(ValueError, match="expected embedding_dim=2"):
        vq.candidates(torch.randn(3, 5), 1)
    with pytest.raises(ValueError, match="one codebook of at most 1,048,576 codes"):
        lexel.LookupFreeQuantizer(30).candidates(torch.randn(1, 30), 2)
    with pytest.raises(ValueError, match="NaN or Inf"):
        vq.candidates(torch.full((1, 2), torch.nan), 1)


@pytest.mark.parametrize("bound", ["tan", "symmetric", "sigmoid", "normal"])
def test_the_best_candidate_of_bounded_scalars_is_their_own_choice(bound: Any) -> None:
    fsq = lexel.FiniteScalarQuantizer([8, 5], bound=bound).eval()
    z = 1.5 * torch.randn(300, 2)
    found = fsq.candidates(z, 3)
    assert torch.equal(found.indices[:, 0], fsq(z).indices)
    errors = (fsq.unquantized(z) - fsq(z).quantized).square().sum(1)
    torch.testing.assert_close(found.errors[:, 0], errors)
