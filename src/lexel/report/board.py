"""A part of an image whose tokens can be changed, and how the decoded image changes with them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lexel.data.images import to_pixels
from lexel.models import ImageAutoencoder
from lexel.report.codes import CodeTable
from lexel.report.decoder import reach

__all__ = ["Board", "alternatives", "pixel_changes", "place_board"]

MAX_SIDE = 16  # positions
# Limits for the changes of all codebooks together: positions to decode, and pixels to store.
MOST_DECODED, MOST_PIXELS = 600_000, 8_000_000


@dataclass(frozen=True)
class Board:
    """A square part of an image.

    Attributes:
        top: its first row of the grid of positions.
        left: its first column.
        side: how many rows and columns it has.
        factor: f, the side of a position in pixels.
        reach: how many positions away from its own a code changes the image.
        pixels: what the decoder paints there, uint8 `(C, side·f, side·f)`.
    """

    top: int
    left: int
    side: int
    factor: int
    reach: int
    pixels: Tensor

    @property
    def places(self) -> Tensor:
        """Row and column of each of its positions in the grid, row by row, `(side², 2)`."""
        rows, columns = (torch.arange(start, start + self.side) for start in (self.top, self.left))
        return torch.cartesian_prod(rows, columns)

    def cut(self, grid: Tensor) -> Tensor:
        """Return the codes of its positions, `(side²,)`, of the image's `(h, w)`."""
        return grid[self.top : self.top + self.side, self.left : self.left + self.side].flatten()


@torch.no_grad()
def place_board(model: ImageAutoencoder, grid: Tensor, changes: int) -> Board:
    """Find the part of an image in which the pixels vary most, as large as the limits allow.

    Args:
        model: in eval mode.
        grid: indices of the image, `(h, w)` or `(h, w, Q)`.
        changes: how many changes of each position will be decoded, over all codebooks.
    """
    radius, f, shape = reach(model), model.factors[0], grid.shape[:2]
    window = math.prod(min(side, 4 * radius + 1) for side in shape)
    affordable = min(MOST_DECODED // window, MOST_PIXELS // ((2 * radius + 1) * f) ** 2) // changes
    side = min(MAX_SIDE, *shape, max(1, math.isqrt(affordable)))
    whole = to_pixels(model.decode(grid[None]))[0]
    top, left = _liveliest(whole, side, f)
    pixels = whole[:, top * f : (top + side) * f, left * f : (left + side) * f]
    return Board(top, left, side, f, radius, pixels)


def alternatives(table: CodeTable, rows: Tensor, similar: int, frequent: int) -> Tensor:
    """Return other codes for each code in `rows` `(n,)`: the most similar, then the most frequent of the rest.

    Returns:
        Rows of the table, `(n, similar + frequent)`, or fewer columns in a small table.
    """
    result = []
    for row, alike in zip(rows.tolist(), table.nearest(rows, similar).tolist(), strict=True):
        common = range(min(similar + frequent + 1, len(table.indices)))
        result.append(alike + [code for code in common if code not in (row, *alike)][:frequent])
    return torch.tensor(result, dtype=torch.int64)


@torch.no_grad()
def pixel_changes(
    model: ImageAutoencoder, grid: Tensor, places: Tensor, codes: Tensor, radius: int, book: int = 0
) -> Tensor:
    """Return how the decoded image changes when another code stands at a place, modulo 256.

    Only a window of the grid around the place is decoded, large enough for the result to be the same.

    Args:
        model: in eval mode.
        grid: indices of an image, `(h, w)` or `(h, w, Q)`.
        places: row and column, `(n, 2)`.
        codes: the codes to put at each place, one after the other, `(n, a)`.
        radius: r, the model's reach.
        book: the codebook whose indices are changed.

    Returns:
        uint8 `(n, a, C, (2r+1)·f, (2r+1)·f)`: new minus old pixels around the place; zero outside the image.
    """
    f, tile = model.factors[0], 2 * radius + 1
    height, width = (min(side, 4 * radius + 1) for side in grid.shape[:2])
    changes = torch.zeros(*codes.shape, model.image_channels, tile * f, tile * f, dtype=torch.uint8)
    for number, (y, x) in enumerate(places.tolist()):
        top = min(max(y - 2 * radius, 0), grid.shape[0] - height)
        left = min(max(x - 2 * radius, 0), grid.shape[1] - width)
        window = grid[top : top + height, left : left + width].repeat(codes.shape[1] + 1, *[1] * (grid.ndim))
        window.view(*window.shape[:3], -1)[1:, y - top, x - left, book] = codes[number]
        pixels = to_pixels(model.decode(window))
        # The part of the tile that lies within the window: first as the tile counts positions, then as the window does.
        y0, x0 = max(top - (y - radius), 0), max(left - (x - radius), 0)
        y1, x1 = min(top + height - (y - radius), tile), min(left + width - (x - radius), tile)
        down, right = y - radius - top, x - radius - left
        part = pixels[..., (y0 + down) * f : (y1 + down) * f, (x0 + right) * f : (x1 + right) * f]
        changes[number, ..., y0 * f : y1 * f, x0 * f : x1 * f] = part[1:] - part[:1]
    return changes


def _liveliest(pixels: Tensor, side: int, f: int) -> tuple[int, int]:
    """Return row and column of the square of positions whose pixels vary most."""
    grey = pixels.float().mean(0, keepdim=True)
    mean, square = (F.avg_pool2d(values[None], side * f, f)[0, 0] for values in (grey, grey.square()))
    row, column = divmod(int((square - mean.square()).argmax()), mean.shape[1])
    return row, column
