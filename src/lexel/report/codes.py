"""What a model's codes look like, where they lie, and what becomes of an image when one takes another's place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lexel.data.images import to_pixels
from lexel.models import VQVAE
from lexel.nearest import nearest_code

__all__ = ["CodeTable", "choices", "code_table", "on_a_plane", "ordinary", "reach", "swaps"]

# Decoded at once, in positions of the grid: more would not be quicker, and needs memory.
BATCH = 1 << 14


@dataclass(frozen=True)
class CodeTable:
    """Codes of one of a model's codebooks, the most used first.

    Attributes:
        indices: int64 `(n,)`.
        counts: how often each was chosen, int64 `(n,)`, falling.
        vectors: what each stands for, `(n, D)`.
        patches: what each looks like, uint8 `(n, C, f, f)`.
    """

    indices: Tensor
    counts: Tensor
    vectors: Tensor
    patches: Tensor

    def rows(self, indices: Tensor) -> Tensor:
        """Return where `indices` stand in the table, the same shape; −1 for those that are not in it."""
        ordered, order = self.indices.sort()
        place = torch.searchsorted(ordered, indices.contiguous()).clamp_max(len(ordered) - 1)
        return torch.where(ordered[place] == indices, order[place], -1)

    def nearest(self, rows: Tensor, most: int) -> Tensor:
        """Return for codes `(m,)` the rows of the codes whose vectors are nearest to theirs, `(m, most or fewer)`."""
        k = min(most + 1, len(self.vectors))
        found = nearest_code(self.vectors[rows], self.vectors, k=k).reshape(-1, k)
        own = found == rows[:, None]
        own[:, -1] |= ~own.any(1)  # equal vectors may have taken its place
        return found[~own].reshape(len(rows), k - 1)


@torch.no_grad()
def code_table(
    model: VQVAE,
    indices: Tensor,
    counts: Tensor,
    others: Tensor | None = None,
    book: int = 0,
    *,
    most: int,
    unused: int,
    keep: Tensor,
) -> CodeTable:
    """Look at the codes of a codebook: all, or if that is too many, the most used and some that are not used.

    A code's patch is the middle of a grid that holds nothing else.

    Args:
        model: in eval mode, with a quantizer of single positions.
        indices: the codes that were chosen.
        counts: how often.
        others: int64 `(Q,)`, what the other codebooks hold meanwhile; None where there is one codebook.
        book: which codebook.
        most: how many codes to look at, if they were chosen.
        unused: how many of the others, where not all codes fit.
        keep: codes to look at in any case, of those that were chosen.
    """
    num_embeddings = model.quantizer.codebook_sizes[book]
    if num_embeddings <= most:
        dead = _without(torch.arange(num_embeddings), indices)
    else:  # drawn, since they may be too many to list
        drawn = torch.randint(num_embeddings, (4 * unused,), generator=torch.Generator().manual_seed(0))
        dead = _without(torch.unique(drawn), indices)
        dead = dead[torch.linspace(0, len(dead) - 1, min(unused, len(dead))).long()]
    order = counts.argsort(descending=True, stable=True)
    kept = torch.isin(indices[order], keep) | (torch.arange(len(order)) < most)
    order = order[kept]
    codes = torch.cat([indices[order], dead])
    counts = torch.cat([counts[order], torch.zeros_like(dead)])

    radius = min(reach(model), 4)
    field = (2 * radius + 1,) * 2
    vectors, patches = [], []
    for some in torch.split(codes, max(1, BATCH // (field[0] * field[1]))):
        vectors.append(model.quantizer.lookup(_with_others(some[:, None, None], others, book))[:, :, 0, 0].float())
        grids = _with_others(some[:, None, None].expand(-1, *field), others, book)
        patches.append(_cell(to_pixels(model.decode(grids)), radius, model.downsampling))
    return CodeTable(codes, counts, torch.cat(vectors), torch.cat(patches))


def ordinary(model: VQVAE, grids: list[Tensor]) -> Tensor:
    """Return the indices `(Q,)` of the position whose quantized vector is nearest to the mean of all positions.

    Args:
        model: with several codebooks.
        grids: indices of images, `(h, w, Q)` each.
    """
    indices = torch.cat([grid.flatten(0, 1) for grid in grids])
    vectors = model.quantizer.lookup(indices[:, None, None])[:, :, 0, 0].float()
    return indices[nearest_code(vectors.mean(0, keepdim=True), vectors)[0]]


def reach(model: VQVAE) -> int:
    """Return how many positions away from its own a code can change the decoded image, in either direction.

    Example:
        >>> import lexel
        >>> reach(VQVAE(lexel.VectorQuantizer(8, 4), residual_layers=0, downsampling=1))
        2
    """
    for radius in (8, 16, 32):
        generator = torch.Generator().manual_seed(0)
        side = 2 * radius + 1
        z = torch.randn(1, model.quantizer.embedding_dim, side, side, generator=generator)
        with torch.enable_grad():
            z.requires_grad_()
            (gradient,) = torch.autograd.grad(_cell(model.images(z), radius, model.downsampling).square().sum(), z)
        touched = (gradient[0] != 0).any(0).nonzero()
        found = int((touched - radius).abs().max())
        if found < radius:
            break
    return found


def choices(table: CodeTable, rows: Tensor, similar: int, frequent: int) -> Tensor:
    """Return others for each code of `rows` `(n,)`: the most similar, then the most frequent of the rest.

    Returns:
        Rows of the table, `(n, similar + frequent)`, or fewer where there are not so many codes.
    """
    offered = []
    for row, alike in zip(rows.tolist(), table.nearest(rows, similar).tolist(), strict=True):
        common = range(min(similar + frequent + 1, len(table.indices)))
        offered.append(alike + [code for code in common if code not in (row, *alike)][:frequent])
    return torch.tensor(offered, dtype=torch.int64)


@torch.no_grad()
def swaps(model: VQVAE, grid: Tensor, places: Tensor, codes: Tensor, radius: int, book: int = 0) -> Tensor:
    """Return how the decoded image changes when another code stands at a place, modulo 256.

    Only a window of the grid around the place is decoded, as wide as anything that can matter.

    Args:
        model: in eval mode.
        grid: indices of an image, `(h, w)` or `(h, w, Q)`.
        places: row and column, `(n, 2)`.
        codes: what to put there instead, one after the other, `(n, a)`.
        radius: r, the model's reach.
        book: whose indices are changed.

    Returns:
        uint8 `(n, a, C, (2r+1)·f, (2r+1)·f)`: new less old pixels around the place; zero outside the image.
    """
    f, tile = model.downsampling, 2 * radius + 1
    height, width = (min(side, 4 * radius + 1) for side in grid.shape[:2])
    changes = torch.zeros(*codes.shape, model.image_channels, tile * f, tile * f, dtype=torch.uint8)
    for number, (y, x) in enumerate(places.tolist()):
        top = min(max(y - 2 * radius, 0), grid.shape[0] - height)
        left = min(max(x - 2 * radius, 0), grid.shape[1] - width)
        window = grid[top : top + height, left : left + width].repeat(codes.shape[1] + 1, *[1] * (grid.ndim))
        window.view(*window.shape[:3], -1)[1:, y - top, x - left, book] = codes[number]
        pixels = to_pixels(model.decode(window))
        # The part of the tile that lies within the window, in the tile's positions and in the window's.
        y0, x0 = max(top - (y - radius), 0), max(left - (x - radius), 0)
        y1, x1 = min(top + height - (y - radius), tile), min(left + width - (x - radius), tile)
        down, right = y - radius - top, x - radius - left
        part = pixels[..., (y0 + down) * f : (y1 + down) * f, (x0 + right) * f : (x1 + right) * f]
        changes[number, ..., y0 * f : y1 * f, x0 * f : x1 * f] = part[1:] - part[:1]
    return changes


def on_a_plane(vectors: Tensor) -> tuple[Tensor, float]:
    """Project vectors `(n, D)` onto the two directions in which they differ most.

    Returns:
        Coordinates `(n, 2)`, and the share of the variance that they keep. The directions' signs are settled, so that
        the same vectors always give the same picture.

    Example:
        >>> xy, share = on_a_plane(torch.tensor([[0.0, 0.0, 1.0], [3.0, 0.0, 1.0], [6.0, 0.0, 1.0]]))
        >>> xy[:, 0].tolist(), share
        ([-3.0, 0.0, 3.0], 1.0)
    """
    centred = vectors.double() - vectors.double().mean(0)
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    directions = directions[:2]
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    xy = torch.zeros(len(vectors), 2, dtype=torch.float64)
    xy[:, : len(directions)] = centred @ (directions * largest.sign()).T
    variance = singular.square()
    return xy, float(variance[:2].sum() / variance.sum().clamp_min(1e-300))


def _cell(pixels: Tensor, radius: int, side: int) -> Tensor:
    """The pixels of the position in the middle of a grid."""
    middle = slice(radius * side, (radius + 1) * side)
    return pixels[..., middle, middle]


def _with_others(codes: Tensor, others: Tensor | None, book: int) -> Tensor:
    """Indices of all codebooks for codes of one."""
    if others is None:
        return codes
    indices = others.expand(*codes.shape, -1).clone()
    indices[..., book] = codes
    return indices


def _without(codes: Tensor, chosen: Tensor) -> Tensor:
    return codes[~torch.isin(codes, chosen)]
