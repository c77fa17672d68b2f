"""What the page says of a model's codes is what the model says of them."""

from __future__ import annotations

import pytest
import torch

import lexel
from lexel.data.images import to_pixels
from lexel.report.codes import code_table, plane, typical_indices
from tests.report.models import tiny_model


def test_a_table_has_every_code_that_fits_and_else_the_most_used() -> None:
    vqvae = tiny_model()
    indices, counts = torch.tensor([2, 5, 7, 9]), torch.tensor([3, 8, 3, 1])
    table = code_table(vqvae, indices, counts, most=12, unused=3, required=indices[:0])
    assert table.indices[:4].tolist() == [5, 2, 7, 9]
    assert sorted(table.indices.tolist()) == list(range(12))
    assert table.counts.tolist() == [8, 3, 3, 1] + [0] * 8
    torch.testing.assert_close(table.vectors, vqvae.quantizer.codebook.weight[table.indices])
    field = vqvae.decode(torch.full((1, 9, 9), 7))
    assert (table.patches[2].int() - to_pixels(field)[0, :, 16:20, 16:20].int()).abs().max() <= 1

    fewer = code_table(vqvae, indices, counts, most=2, unused=3, required=torch.tensor([9]))
    assert fewer.indices[:3].tolist() == [5, 2, 9]
    assert len(fewer.indices) == 6
    assert set(fewer.indices[3:].tolist()).isdisjoint(indices.tolist())
    assert fewer.rows(torch.tensor([[9, 7], [5, 2]])).tolist() == [[2, -1], [0, 1]]


def test_of_very_many_codes_none_is_listed() -> None:
    vqvae = tiny_model(lexel.LookupFreeQuantizer(62))
    indices = torch.tensor([2**61, 2**62 - 1])
    table = code_table(vqvae, indices, torch.tensor([1, 2]), most=100, unused=20, required=indices)
    assert table.indices[:2].tolist() == [2**62 - 1, 2**61]
    assert len(table.indices) == 22


@torch.no_grad()
def test_a_typical_position_is_near_the_mean() -> None:
    vqvae = tiny_model(lexel.ResidualQuantizer([lexel.VectorQuantizer(12, 4) for _ in range(2)]))
    grids = [torch.randint(12, (5, 7, 2)), torch.randint(12, (4, 4, 2))]
    vectors = torch.cat([vqvae.quantizer.lookup(grid[None])[0].flatten(1).T for grid in grids])
    place = (vectors - vectors.mean(0)).norm(dim=1).argmin()
    assert typical_indices(vqvae, grids).tolist() == torch.cat([grid.flatten(0, 1) for grid in grids])[place].tolist()


def test_no_code_is_its_own_neighbour() -> None:
    vqvae = tiny_model(lexel.VectorQuantizer(40, 4))
    with torch.no_grad():
        vqvae.quantizer.codebook.weight[::2] = vqvae.quantizer.codebook.weight[0]  # half of them stand in one place
    table = code_table(vqvae, torch.arange(40), torch.arange(40), most=40, unused=0, required=torch.tensor([]))
    near = table.nearest(torch.arange(40), 8)
    assert near.shape == (40, 8)
    assert all(len({row, *others}) == 9 for row, others in enumerate(near.tolist()))
    distances = torch.cdist(table.vectors.double(), table.vectors.double()).fill_diagonal_(torch.inf)
    torch.testing.assert_close(distances.gather(1, near), distances.sort(1).values[:, :8], atol=1e-5, rtol=1e-5)


def test_a_plane_keeps_what_lies_in_one() -> None:
    flat = torch.randn(20, 2, dtype=torch.float64) @ torch.linalg.qr(torch.randn(5, 2, dtype=torch.float64))[0].T
    xy, share = plane(flat)
    assert share == pytest.approx(1)
    torch.testing.assert_close(torch.pdist(xy), torch.pdist(flat))
    torch.testing.assert_close(plane(flat)[0], xy)
    assert plane(torch.randn(5, 1))[0].shape == (5, 2)
    assert plane(torch.zeros(1, 3))[0].tolist() == [[0, 0]]
