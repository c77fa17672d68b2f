"""What is worked out about codes beforehand is what the model says of them."""

from __future__ import annotations

import pytest
import torch

import lexel
from lexel.data.images import to_pixels
from lexel.models import VQVAE
from lexel.report.codes import choices, code_table, on_a_plane, ordinary, reach, swaps


def model(quantizer: lexel.Quantizer | None = None, **settings: object) -> VQVAE:
    torch.manual_seed(0)
    quantizer = quantizer or lexel.VectorQuantizer(12, 4)
    built = VQVAE(quantizer, hidden_channels=8, residual_channels=4, **settings).eval()
    if isinstance(quantizer, lexel.VectorQuantizer):
        torch.nn.init.normal_(quantizer.codebook.weight, std=3)
    return built


@pytest.mark.parametrize("settings", [{}, {"upsampling": "resize"}, {"downsampling": 1}, {"downsampling": 8}])
@torch.no_grad()
def test_a_code_changes_what_is_within_its_reach_and_nothing_else(settings: dict[str, object]) -> None:
    vqvae = model(residual_layers=1, **settings)
    radius, f = reach(vqvae), vqvae.downsampling
    z = torch.randn(1, 4, 25, 25)
    other = z.clone()
    other[:, :, 12, 12] += 1e4  # so large that what it does at the edge of its reach is seen
    changed = (vqvae.images(z) - vqvae.images(other)).abs().amax((0, 1)) > 1e-3
    cells = torch.nn.functional.max_pool2d(changed[None].float(), f)[0].nonzero()
    assert int((cells - 12).abs().max()) == radius


@pytest.mark.parametrize(
    "quantizer",
    [lexel.VectorQuantizer(12, 4), lexel.ResidualQuantizer([lexel.VectorQuantizer(12, 4) for _ in range(2)])],
    ids=["one codebook", "two"],
)
@pytest.mark.parametrize("size", [(40, 30), (8, 9)], ids=["larger than a window", "smaller"])
@torch.no_grad()
def test_a_swap_is_the_difference_that_decoding_the_changed_grid_makes(
    quantizer: lexel.Quantizer, size: tuple[int, int]
) -> None:
    vqvae = model(quantizer, residual_layers=1)
    radius, f = reach(vqvae), vqvae.downsampling
    grid = torch.randint(12, (*size, *quantizer.index_shape))
    places = torch.tensor([[0, 0], [size[0] - 1, 3], [5, size[1] - 1], [size[0] // 2, size[1] // 2]])
    codes = torch.randint(12, (4, 3))
    whole = to_pixels(vqvae.decode(grid[None]))[0]
    book = len(quantizer.codebook_sizes) - 1
    changes = swaps(vqvae, grid, places, codes, radius, book)
    for (y, x), tiles, offered in zip(places.tolist(), changes, codes, strict=True):
        for tile, code in zip(tiles, offered, strict=True):
            edited = grid.clone()
            edited.view(*size, -1)[y, x, book] = code
            expected = to_pixels(vqvae.decode(edited[None]))[0]
            margin = radius * f
            padded = torch.nn.functional.pad(whole, (margin, margin, margin, margin))
            padded[:, y * f : y * f + tile.shape[1], x * f : x * f + tile.shape[2]] += tile
            found = padded[:, margin : margin + whole.shape[1], margin : margin + whole.shape[2]]
            assert (found.int() - expected.int()).abs().max() <= 1  # rounding may differ by the size of what is decoded


def test_a_table_has_every_code_that_fits_and_else_the_most_used() -> None:
    vqvae = model()
    indices, counts = torch.tensor([2, 5, 7, 9]), torch.tensor([3, 8, 3, 1])
    table = code_table(vqvae, indices, counts, most=12, unused=3, keep=indices[:0])
    assert table.indices[:4].tolist() == [5, 2, 7, 9]
    assert sorted(table.indices.tolist()) == list(range(12))
    assert table.counts.tolist() == [8, 3, 3, 1] + [0] * 8
    torch.testing.assert_close(table.vectors, vqvae.quantizer.codebook.weight[table.indices])
    field = vqvae.decode(torch.full((1, 9, 9), 7))
    assert (table.patches[2].int() - to_pixels(field)[0, :, 16:20, 16:20].int()).abs().max() <= 1

    fewer = code_table(vqvae, indices, counts, most=2, unused=3, keep=torch.tensor([9]))
    assert fewer.indices[:3].tolist() == [5, 2, 9]
    assert len(fewer.indices) == 6
    assert set(fewer.indices[3:].tolist()).isdisjoint(indices.tolist())
    assert fewer.rows(torch.tensor([[9, 7], [5, 2]])).tolist() == [[2, -1], [0, 1]]


def test_of_very_many_codes_none_is_listed() -> None:
    vqvae = model(lexel.LookupFreeQuantizer(62))
    indices = torch.tensor([2**61, 2**62 - 1])
    table = code_table(vqvae, indices, torch.tensor([1, 2]), most=100, unused=20, keep=indices)
    assert table.indices[:2].tolist() == [2**62 - 1, 2**61]
    assert len(table.indices) == 22


@torch.no_grad()
def test_an_ordinary_position_is_near_the_mean() -> None:
    vqvae = model(lexel.ResidualQuantizer([lexel.VectorQuantizer(12, 4) for _ in range(2)]))
    grids = [torch.randint(12, (5, 7, 2)), torch.randint(12, (4, 4, 2))]
    vectors = torch.cat([vqvae.quantizer.lookup(grid[None])[0].flatten(1).T for grid in grids])
    place = (vectors - vectors.mean(0)).norm(dim=1).argmin()
    assert ordinary(vqvae, grids).tolist() == torch.cat([grid.flatten(0, 1) for grid in grids])[place].tolist()


def test_choices_are_others_each_once() -> None:
    vqvae = model()
    table = code_table(vqvae, torch.arange(12), torch.arange(12), most=12, unused=0, keep=torch.tensor([]))
    offered = choices(table, torch.tensor([3, 0, 11]), 4, 4)
    for row, own in zip((3, 0, 11), offered.tolist(), strict=True):
        assert len({row, *own}) == 9
        distances = (table.vectors - table.vectors[row]).norm(dim=1)
        assert set(own[:4]) == set(distances.argsort()[1:5].tolist())
        assert own[4:] == [code for code in range(12) if code not in (row, *own[:4])][:4]
    assert choices(table, torch.tensor([3]), 20, 4).shape == (1, 11)


def test_no_code_is_its_own_neighbour() -> None:
    vqvae = model(lexel.VectorQuantizer(40, 4))
    with torch.no_grad():
        vqvae.quantizer.codebook.weight[::2] = vqvae.quantizer.codebook.weight[0]  # half of them stand in one place
    table = code_table(vqvae, torch.arange(40), torch.arange(40), most=40, unused=0, keep=torch.tensor([]))
    near = table.nearest(torch.arange(40), 8)
    assert near.shape == (40, 8)
    assert all(len({row, *others}) == 9 for row, others in enumerate(near.tolist()))
    distances = torch.cdist(table.vectors.double(), table.vectors.double()).fill_diagonal_(torch.inf)
    torch.testing.assert_close(distances.gather(1, near), distances.sort(1).values[:, :8], atol=1e-5, rtol=1e-5)


def test_a_plane_keeps_what_lies_in_one() -> None:
    flat = torch.randn(20, 2, dtype=torch.float64) @ torch.linalg.qr(torch.randn(5, 2, dtype=torch.float64))[0].T
    xy, share = on_a_plane(flat)
    assert share == pytest.approx(1)
    torch.testing.assert_close(torch.pdist(xy), torch.pdist(flat))
    torch.testing.assert_close(on_a_plane(flat)[0], xy)
    assert on_a_plane(torch.randn(5, 1))[0].shape == (5, 2)
    assert on_a_plane(torch.zeros(1, 3))[0].tolist() == [[0, 0]]
