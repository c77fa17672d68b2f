"""Residual quantizers, fitted as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from lexel._core.checks import check_integer
from lexel.estimators import nearest_at_price
from lexel.fit.base import Fit, Rows, State, Tables, Totals, centres, pieces
from lexel.fit.flat import FlatFit, vector_quantizer
from lexel.kmeans import common_row
from lexel.quantizers.base import Quantizer
from lexel.quantizers.residual import Beam, ResidualQuantizer
from lexel.quantizers.unit import UnitQuantizer

__all__ = ["ResidualFit"]

# Beam size while there is noise: a wider one finds better codes and leads to no better end.
ROUGH = 2


@dataclass(frozen=True)
class ResidualFit(Fit):
    """Fits a residual quantizer: k-means of each stage, then all codebooks together.

    An iteration encodes the rows x by a beam search and solves for all codebooks at once, by least squares

        min Σ_n ‖x_n − Σ_q e_q(n)‖²,    (A + λ I) E = B + λ E',

    where A counts the rows that share two codes, B sums the rows of each code and E' are the codebooks before (Babenko
    and Lempitsky 2014, §3.2; `Train_refine_codebook` of faiss). Between the two, noise that falls to zero moves the
    codes (LSQ++, Martinez et al. 2018, §4.2), without which the iterations end in the first hollow.

    With `balanced`, stages stay as they are found, one after the other: each is balanced k-means of what those before
    it leave, its search takes the best code at each stage, and `start` does it all, so that what was stopped begins
    anew. Codebooks that move together, with a beam, lose the balance: on embeddings of texts the prices that restore it
    double the error.

    Attributes:
        codebooks: Q.
        beam_size: of the search, in the fit; 1 with `balanced`.

    Example:
        >>> rows = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
        >>> fit = ResidualFit(16, codebooks=2)
        >>> state = fit.start(rows)
        >>> first = state["error"]
        >>> while not fit.finished(state):
        ...     state = fit.advance(rows, state)
        >>> bool(state["error"] < first), fit.quantizer(state).codebook_sizes
        (True, (16, 16))
    """

    needs_pairs: ClassVar[bool] = True

    codebooks: int = 3
    beam_size: int = 5

    def __post_init__(self) -> None:
        for argument in ("codebooks", "beam_size"):
            check_integer(type(self).__name__, argument, getattr(self, argument), least=1)
        super().__post_init__()

    @property
    @override
    def levels(self) -> int:
        return self.codebooks

    @property
    @override
    def beam(self) -> int:
        return 1 if self.balanced else self.beam_size

    @property
    @override
    def length(self) -> int:
        return 1 if self.balanced else super().length

    @override
    def finished(self, state: State) -> bool:
        return self.balanced or super().finished(state)

    @override
    def first(self, rows: Rows, state: State) -> Tables:
        left, tables = _Remainder(rows, self.unit), Tables([], [], [])
        for q, size in enumerate(self.sizes):
            if self.balanced and common_row(left) is None:
                stage = FlatFit(size, self.iterations, self.tolerance, self.seed + q, balanced=True, noise=self.noise)
                found = stage.run(left)
                codes, price = found["codebook.0"], found["price.0"]
            else:
                codes = centres(left, size, iterations=5, seed=self.seed + q)
                price = codes.new_zeros(size)
            tables.codebooks.append(codes)
            tables.prices.extend([price] if self.balanced else [])
            left.subtract(codes, price)
        return tables

    @override
    def encode(self, piece: Tensor, tables: Tables, *, rough: bool) -> Tensor:
        beam_size = min(ROUGH, self.beam) if rough else self.beam
        return Beam(tables.codebooks, tables.prices or None, beam_size)(piece)

    @override
    def decode(self, indices: Tensor, tables: Tables) -> Tensor:
        codes = [codes[own] for codes, own in zip(tables.codebooks, indices.T, strict=True)]
        return torch.stack(codes).sum(0)

    @override
    def share(self, piece: Tensor, indices: Tensor, tables: Tables, q: int) -> Tensor:
        return piece - self.decode(indices, tables) + tables.codebooks[q][indices[:, q]]

    @override
    def moved(self, tables: Tables, totals: Totals) -> Tables:
        assert totals.pairs is not None
        before = torch.cat(tables.codebooks).double()
        ridge = 1e-3
        system = totals.pairs + ridge * torch.eye(len(before), dtype=torch.float64, device=before.device)
        solved = torch.cholesky_solve(totals.sums + ridge * before, torch.linalg.cholesky(system))
        return tables._replace(codebooks=totals.by_codebook(solved.to(tables.codebooks[0].dtype)))

    @override
    def quantizer(self, state: State) -> Quantizer:
        tables = Tables.of(state, "")
        stages = [vector_quantizer(tables, q) for q in range(self.levels)]
        whole = ResidualQuantizer(stages)
        return (UnitQuantizer(whole) if self.unit else whole).eval()


class _Remainder:
    """What the stages so far leave over of rows: rows themselves."""

    def __init__(self, rows: Rows, unit: bool) -> None:
        self.rows, self.unit = rows, unit
        self.stages: list[tuple[Tensor, Tensor]] = []

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice) -> Tensor:
        start, stop, _ = index.indices(len(self))
        piece = torch.cat(list(pieces(self.rows[start:stop], unit=self.unit)))
        for codes, chosen in self.stages:
            piece = piece - codes[chosen[start:stop].long()]
        return piece

    def subtract(self, codes: Tensor, price: Tensor) -> None:
        """Let a further stage take its codes away."""
        kind = torch.int16 if len(codes) <= 1 << 15 else torch.int32
        chosen = [nearest_at_price(piece, codes, price).to(kind) for piece in pieces(self)]
        self.stages.append((codes, torch.cat(chosen)))
