"""What a model's codes look like, which of them are alike, and where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lexel.data.images import to_pixels
from lexel.models import ImageAutoencoder
from lexel.nearest import nearest_code
from lexel.report.decoder import middle_cell, reach

__all__ = ["CodeTable", "code_table", "plane", "typical_indices"]

# Positions of the grid that are decoded at once: more would need memory without being quicker.
BATCH = 1 << 14


@dataclass(frozen=True)
class CodeTable:
    """Codes of one of a model's codebooks, the most used first.

    Attributes:
        indices: int64 `(n,)`.
        counts: how often each was chosen, int64 `(n,)`, falling.
        vectors: the quantized vector of each, `(n, D)`.
        patches: what the decoder paints for each, uint8 `(n, C, f, f)`.
    """

    indices: Tensor
    counts: Tensor
    vectors: Tensor
    patches: Tensor

    def rows(self, indices: Tensor) -> Tensor:
        """Return the table's rows for `indices`, in the same shape; −1 for indices that the table lacks."""
        ordered, order = self.indices.sort()
        place = torch.searchsorted(ordered, indices.contiguous()).clamp_max(len(ordered) - 1)
        return torch.where(ordered[place] == indices, order[place], -1)

    def nearest(self, rows: Tensor, most: int) -> Tensor:
        """Return for each of the codes in `rows` `(m,)` the rows of the codes nearest to it, `(m, most or fewer)`."""
        k = min(most + 1, len(self.vectors))
        nearest = nearest_code(self.vectors[rows], self.vectors, k=k).reshape(-1, k)
        itself = nearest == rows[:, None]
        itself[:, -1] |= ~itself.any(1)  # equal vectors with lower indices may have crowded it out
        return nearest[~itself].reshape(len(rows), k - 1)


@torch.no_grad()
def code_table(
    model: ImageAutoencoder,
    indices: Tensor,
    counts: Tensor,
    others: Tensor | None = None,
    book: int = 0,
    *,
    most: int,
    unused: int,
    required: Tensor,
) -> CodeTable:
    """Look at the codes of a codebook: at all, or, if there are too many, at the most used and at some unused ones.

    A code's patch is the middle of the image that the decoder paints if every position of a grid has this code.

    Args:
        model: in eval mode, with a quantizer of single positions.
        indices: the codes that were chosen.
        counts: how often each of them was chosen.
        others: int64 `(Q,)`, the codes that the other codebooks hold meanwhile; None if there is one codebook.
        book: which codebook.
        most: how many of the chosen codes to look at.
        unused: how many unused codes to look at, if not all codes fit.
        required: chosen codes that the table must have, however rare they are.
    """
    num_embeddings = model.quantizers[0].codebook_sizes[book]
    if num_embeddings <= most:
        dead = _without(torch.arange(num_embeddings), indices)
    else:  # drawn at random, since there may be too many to list
        drawn = torch.randint(num_embeddings, (4 * unused,), generator=torch.Generator().manual_seed(0))
        dead = _without(torch.unique(drawn), indices)
        dead = dead[torch.linspace(0, len(dead) - 1, min(unused, len(dead))).long()]
    order = counts.argsort(descending=True, stable=True)
    order = order[torch.isin(indices[order], required) | (torch.arange(len(order)) < most)]
    codes = torch.cat([indices[order], dead])
    counts = torch.cat([counts[order], torch.zeros_like(dead)])

    radius = min(reach(model), 4)
    field = (2 * radius + 1,) * 2
    vectors, patches = [], []
    for some in torch.split(codes, max(1, BATCH // (field[0] * field[1]))):
        vectors.append(model.quantizers[0].lookup(_all_indices(some[:, None, None], others, book))[:, :, 0, 0].float())
        grids = _all_indices(some[:, None, None].expand(-1, *field), others, book)
        patches.append(middle_cell(to_pixels(model.decode(grids)), radius, model.factors[0]))
    return CodeTable(codes, counts, torch.cat(vectors), torch.cat(patches))


def typical_indices(model: ImageAutoencoder, grids: Sequence[Tensor]) -> Tensor:
    """Return the indices `(Q,)` of the position whose quantized vector is nearest to the mean of all positions.

    Args:
        model: with several codebooks.
        grids: indices of images, `(h, w, Q)` each.
    """
    indices = torch.cat([grid.flatten(0, 1) for grid in grids])
    vectors = model.quantizers[0].lookup(indices[:, None, None])[:, :, 0, 0].float()
    return indices[nearest_code(vectors.mean(0, keepdim=True), vectors)[0]]


def plane(vectors: Tensor) -> tuple[Tensor, float]:
    """Project vectors `(n, D)` onto the two directions in which they vary most.

    Returns:
        Coordinates `(n, 2)`, and the share of the variance that they keep. The signs of the directions are fixed, so
        that the same vectors always give the same picture.

    Example:
        >>> xy, share = plane(torch.tensor([[0.0, 0.0, 1.0], [3.0, 0.0, 1.0], [6.0, 0.0, 1.0]]))
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


def _all_indices(codes: Tensor, others: Tensor | None, book: int) -> Tensor:
    """Return the indices of all codebooks for codes of one of them, given those of the others."""
    if others is None:
        return codes
    indices = others.expand(*codes.shape, -1).clone()
    indices[..., book] = codes
    return indices


def _without(codes: Tensor, chosen: Tensor) -> Tensor:
    return codes[~torch.isin(codes, chosen)]
