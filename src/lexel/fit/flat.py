"""K-means as a fit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from lexel.codebook import CosineCodebook, FreeCodebook
from lexel.estimators import Prices, StraightThrough, nearest_at_price
from lexel.fit.base import Fit, Rows, State, Tables, Totals, centres
from lexel.nearest import nearest_code
from lexel.quantizers.base import Quantizer
from lexel.quantizers.vector import VectorQuantizer

__all__ = ["FlatFit", "vector_quantizer"]


@dataclass(frozen=True)
class FlatFit(Fit):
    """Fits one codebook by k-means: Lloyd's iterations from the start that `lexel.kmeans` draws.

    Example:
        >>> rows = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
        >>> fit = FlatFit(2)
        >>> vq = fit.quantizer(fit.start(rows))
        >>> vq(rows).indices.shape
        torch.Size([4])
    """

    @override
    def first(self, rows: Rows, state: State) -> Tables:
        return Tables([centres(rows, self.sizes[0], iterations=0, seed=self.seed, unit=self.unit)], [], [])

    @override
    def encode(self, piece: Tensor, tables: Tables, *, rough: bool) -> Tensor:
        return nearest(piece, tables, 0).unsqueeze(1)

    @override
    def decode(self, indices: Tensor, tables: Tables) -> Tensor:
        return tables.codebooks[0][indices[:, 0]]

    @override
    def share(self, piece: Tensor, indices: Tensor, tables: Tables, q: int) -> Tensor:
        return piece

    @override
    def moved(self, tables: Tables, totals: Totals) -> Tables:
        return tables._replace(codebooks=[self.placed(means(tables.codebooks[0], totals.counts, totals.sums))])

    @override
    def placed(self, codes: Tensor) -> Tensor:
        return F.normalize(codes, dim=1) if self.unit else codes

    @override
    def quantizer(self, state: State) -> Quantizer:
        return vector_quantizer(Tables.of(state, ""), 0, unit=self.unit)


def nearest(piece: Tensor, tables: Tables, q: int) -> Tensor:
    """Return the nearest codes of codebook q, at their prices where they have any, int64 `(n,)`."""
    codes = tables.codebooks[q]
    return nearest_at_price(piece, codes, tables.prices[q]) if tables.prices else nearest_code(piece, codes)


def means(codes: Tensor, counts: Tensor, sums: Tensor) -> Tensor:
    """Return the mean of the rows of each code `(K, d)`; the codes themselves where there is no row."""
    moved = (sums / counts.clamp_min(1).unsqueeze(1)).to(codes.dtype)
    return torch.where(counts.unsqueeze(1) > 0, moved, codes)


def vector_quantizer(tables: Tables, q: int, *, unit: bool = False) -> VectorQuantizer:
    """Return a quantizer of codebook q, in eval mode."""
    codes = tables.codebooks[q]
    vq = VectorQuantizer(
        *codes.shape,
        codebook=CosineCodebook() if unit else FreeCodebook(),
        estimator=Prices() if tables.prices else StraightThrough(),
    ).to(codes)
    vq.load_codes(codes)
    if tables.prices:
        vq.estimator.get_buffer("price").copy_(tables.prices[q])
    return vq.eval()
