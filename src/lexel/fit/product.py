"""Product quantizers, fitted with their rotation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from lexel._core.checks import check_integer
from lexel._core.collectives import all_sum
from lexel.fit.base import Fit, Rows, State, Tables, Totals, centres, one_thread, pieces
from lexel.fit.flat import means, nearest, vector_quantizer
from lexel.quantizers.base import Quantizer
from lexel.quantizers.product import ProductQuantizer
from lexel.quantizers.projected import ProjectedQuantizer
from lexel.quantizers.unit import UnitQuantizer

__all__ = ["ProductFit"]


@dataclass(frozen=True)
class ProductFit(Fit):
    """Fits a product quantizer: k-means of each group of channels, and the rotation that suits them.

    The rotation R is orthogonal and starts as the principal axes, dealt out so that the groups need equally many
    bits, or as no rotation where that is better. Then R and the codebooks are found in turn (optimised product
    quantization, Ge et al. 2013, §3.1):

        codes of the rows X R;   R = U Vᵀ  with  Xᵀ Y = U S Vᵀ  for the decoded rows Y;   means of the rows X R.

    The quantizer is a `ProjectedQuantizer` whose maps are R and its transpose.

    Attributes:
        codebooks: Q, how many groups of D / Q channels there are.
        rotation: whether to look for one.

    Raises:
        ValueError: when it starts, D is not a multiple of Q.

    Example:
        >>> rows = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
        >>> fit = ProductFit(16, codebooks=2, iterations=8)
        >>> fit.quantizer(fit.start(rows))(rows).indices.shape
        torch.Size([500, 2])
    """

    noise: float = 0.0
    codebooks: int = 2
    rotation: bool = True

    def __post_init__(self) -> None:
        check_integer(type(self).__name__, "codebooks", self.codebooks, least=1)
        super().__post_init__()

    @property
    @override
    def levels(self) -> int:
        return self.codebooks

    @override
    def check(self, dim: int) -> None:
        if dim % self.codebooks:
            raise ValueError(
                f"{type(self).__name__}: the rows have {dim} channels, which is not a multiple of "
                f"codebooks={self.codebooks}"
            )

    @override
    def first(self, rows: Rows, state: State) -> Tables:
        if not self.rotation:
            return self._grouped(rows, None)
        # No rotation is where plain product quantization begins; the axes are better for most rows, not for all.
        axes = self._principal_axes(rows, state)
        starts = [self._grouped(rows, rotation) for rotation in (torch.eye(len(axes)).to(axes), axes)]
        errors = [float(self._totals(rows, state, each, rough=False, gaps=False).error) for each in starts]
        return starts[errors.index(min(errors))]

    def _grouped(self, rows: Rows, rotation: Tensor | None) -> Tables:
        """Return the codebooks that k-means finds for the groups of channels of the rotated rows."""
        tables = Tables([], [], [], rotation)
        for q, size in enumerate(self.sizes):
            group = _Group(self, rows, tables, q)
            tables.codebooks.append(centres(group, size, iterations=0, seed=self.seed + q))
        return tables

    @override
    def encode(self, piece: Tensor, tables: Tables, *, rough: bool) -> Tensor:
        groups = rotated(piece, tables).chunk(self.levels, 1)
        return torch.stack([nearest(group, tables, q) for q, group in enumerate(groups)], 1)

    @override
    def decode(self, indices: Tensor, tables: Tables) -> Tensor:
        codes = [codes[own] for codes, own in zip(tables.codebooks, indices.T, strict=True)]
        decoded = torch.cat(codes, 1).double()
        return decoded if tables.rotation is None else decoded @ tables.rotation.double().T

    @override
    def share(self, piece: Tensor, indices: Tensor, tables: Tables, q: int) -> Tensor:
        return rotated(piece, tables).chunk(self.levels, 1)[q]

    @override
    def moved(self, tables: Tables, totals: Totals) -> Tables:
        sums, counts = totals.by_codebook(totals.sums), totals.by_codebook(totals.counts)
        rotation = tables.rotation
        if rotation is not None:
            decoded = [own.T @ codes.double() for own, codes in zip(sums, tables.codebooks, strict=True)]
            u, _, v = torch.linalg.svd(torch.cat(decoded, 1))
            rotation = (u @ v).to(rotation.dtype)
            axes = rotation.double().chunk(self.levels, 1)
            sums = [own @ group for own, group in zip(sums, axes, strict=True)]
        else:
            sums = [own.chunk(self.levels, 1)[q] for q, own in enumerate(sums)]
        moved = [means(*each) for each in zip(tables.codebooks, counts, sums, strict=True)]
        return tables._replace(codebooks=moved, rotation=rotation)

    @override
    def spread(self, tables: Tables, state: State, q: int) -> Tensor:
        return tables.codebooks[q].std(0, correction=0)

    @override
    def quantizer(self, state: State) -> Quantizer:
        tables = Tables.of(state, "")
        whole: Quantizer = ProductQuantizer([vector_quantizer(tables, q) for q in range(self.levels)])
        if tables.rotation is not None:
            projected = ProjectedQuantizer(whole, len(tables.rotation), bias=False).to(tables.rotation)
            assert projected.up is not None
            with torch.no_grad():
                projected.down.weight.copy_(tables.rotation.T)
                projected.up.weight.copy_(tables.rotation)
            whole = projected
        return (UnitQuantizer(whole) if self.unit else whole).eval()

    def _principal_axes(self, rows: Rows, state: State) -> Tensor:
        """Return the eigenvectors of the covariance, dealt out to the groups (Ge et al. 2013, §3.2.2), `(D, D)`."""
        total, dim = float(state["count"]), len(state["mean"])
        # So coarse that products of two numbers, and sums of these over all rows, are exact in float64.
        step = 2.0 ** math.ceil(math.log2(4 * float(state["peak"]) * math.sqrt(total)) - 26)
        product = torch.zeros(dim, dim, dtype=torch.float64, device=state["mean"].device)
        for piece in pieces(rows, unit=self.unit):
            dtype = piece.dtype
            centred = ((piece.double() - state["mean"]) / step).round()
            product += centred.T @ centred
        (product,) = all_sum(product)
        with one_thread():
            variances, axes = torch.linalg.eigh(product / total)
        depths = self._above_water(variances)
        groups: list[list[int]] = [[] for _ in range(self.levels)]
        loads = [0.0] * self.levels
        for axis in reversed(range(dim)):  # the largest variance first, each to the smallest product so far
            open_groups = [q for q in range(self.levels) if len(groups[q]) < dim // self.levels]
            q = min(open_groups, key=lambda q: (loads[q], q))
            groups[q].append(axis)
            loads[q] += float(depths[axis])
        order = [axis for group in groups for axis in group]
        return torch.index_select(axes, 1, torch.tensor(order, device=axes.device)).to(dtype)

    def _above_water(self, variances: Tensor) -> Tensor:
        """Return the bits that reverse water-filling gives each axis (Cover and Thomas, §10.3.3): none to a narrow one.

        Without the water an axis that nothing is spent on would count as one on which much is saved.
        """
        rate, highest = sum(math.log2(size) for size in self.sizes), variances[-1].clamp_min(1e-300)
        low, high = 0.0, 200.0  # of the water below the highest variance, in octaves
        for _ in range(60):
            middle = (low + high) / 2
            bits = ((variances.clamp_min(1e-300) / highest).log2() + middle).clamp_min(0) / 2
            low, high = (middle, high) if float(bits.sum()) < rate else (low, middle)
        return bits


def rotated(piece: Tensor, tables: Tables) -> Tensor:
    """Return rows `(n, D)` along the axes of the rotation, in float64 before they are rounded to their own type."""
    return piece if tables.rotation is None else (piece.double() @ tables.rotation.double()).to(piece.dtype)


class _Group:
    """One group of channels of rows: rows themselves."""

    def __init__(self, fit: ProductFit, rows: Rows, tables: Tables, q: int) -> None:
        self.fit, self.rows, self.tables, self.q = fit, rows, tables, q

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice) -> Tensor:
        start, stop, _ = index.indices(len(self))
        parts = [rotated(piece, self.tables) for piece in pieces(self.rows[start:stop], unit=self.fit.unit)]
        return torch.cat(parts).chunk(self.fit.levels, 1)[self.q]
