"""What the board shows for a changed token is what the decoder returns for the changed grid."""

from __future__ import annotations

import pytest
import torch

import lexel
from lexel.data.images import to_pixels
from lexel.report.board import alternatives, pixel_changes, place_board
from lexel.report.codes import code_table
from lexel.report.decoder import reach
from tests.report.models import tiny_model


@pytest.mark.parametrize(
    "quantizer",
    [lexel.VectorQuantizer(12, 4), lexel.ResidualQuantizer([lexel.VectorQuantizer(12, 4) for _ in range(2)])],
    ids=["one codebook", "two"],
)
@pytest.mark.parametrize("size", [(40, 30), (8, 9)], ids=["larger than a window", "smaller"])
@torch.no_grad()
def test_a_change_is_the_difference_that_decoding_the_changed_grid_makes(
    quantizer: lexel.Quantizer, size: tuple[int, int]
) -> None:
    vqvae = tiny_model(quantizer, residual_layers=1)
    radius, f = reach(vqvae), vqvae.downsampling
    grid = torch.randint(12, (*size, *quantizer.index_shape))
    places = torch.tensor([[0, 0], [size[0] - 1, 3], [5, size[1] - 1], [size[0] // 2, size[1] // 2]])
    codes = torch.randint(12, (4, 3))
    whole = to_pixels(vqvae.decode(grid[None]))[0]
    book = len(quantizer.codebook_sizes) - 1
    changes = pixel_changes(vqvae, grid, places, codes, radius, book)
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


def test_alternatives_are_others_each_once() -> None:
    vqvae = tiny_model()
    table = code_table(vqvae, torch.arange(12), torch.arange(12), most=12, unused=0, required=torch.tensor([]))
    offered = alternatives(table, torch.tensor([3, 0, 11]), 4, 4)
    for row, own in zip((3, 0, 11), offered.tolist(), strict=True):
        assert len({row, *own}) == 9
        distances = (table.vectors - table.vectors[row]).norm(dim=1)
        assert set(own[:4]) == set(distances.argsort()[1:5].tolist())
        assert own[4:] == [code for code in range(12) if code not in (row, *own[:4])][:4]
    assert alternatives(table, torch.tensor([3]), 20, 4).shape == (1, 11)


@torch.no_grad()
def test_the_board_is_the_part_that_varies_most() -> None:
    vqvae = tiny_model(residual_layers=0)
    grid = torch.zeros(40, 30, dtype=torch.int64)
    grid[20:36, 5:21] = torch.randint(12, (16, 16))
    board = place_board(vqvae, grid, changes=8)
    assert (board.side, board.factor) == (16, 4)
    assert abs(board.top - 20) <= 1
    assert abs(board.left - 5) <= 1
    assert torch.equal(board.cut(grid), grid[tuple(board.places.unbind(1))])
    whole = to_pixels(vqvae.decode(grid[None]))[0]
    top, left = 4 * board.top, 4 * board.left
    assert torch.equal(board.pixels, whole[:, top : top + 64, left : left + 64])
    assert place_board(vqvae, grid[:3, :9], changes=8).side == 3
    assert place_board(vqvae, grid, changes=10**9).side == 1
