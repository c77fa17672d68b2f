"""Implicit codebooks: a network computes the codes of a residual stage from the codes of the stages before."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lexel._core.checks import check_number
from lexel._core.gradients import straight_through
from lexel._core.modules import TypedModuleList, ZeroLinear
from lexel.codebook import Codebook, CodebookModule, FreeCodebook
from lexel.quantizers.base import Choice, Quantizer

__all__ = ["ImplicitQuantizer"]

# Numbers in one tile of the search, in which each input has a codebook of its own.
TILE = 1 << 22


class ImplicitQuantizer(Quantizer):
    """A stage of a `ResidualQuantizer` with a codebook for every input: QINCo (Huijben et al. 2024, arXiv 2401.14732).

    With c̄_k the rows of a table and x̂ the sum of the codes that the stages before have chosen for this input:

        c = c̄_k + W [c̄_k; x̂] + b,    then `depth` times  c ← c + W₂ relu(W₁ c)

    and of the K results the one nearest to the remainder is chosen. The first stage, which has x̂ = 0, may as well be a
    `VectorQuantizer`. The loss is that of the VQ-VAE, and its codebook term moves the table and the network; the paper
    trains with that term alone, on fixed vectors. W and W₂ start at zero here, so that the codes start as the table.

    The search computes N · K codes, for a few inputs at a time; none of them is stored for the backward pass.

    Attributes:
        codebook: the table.

    Args:
        num_embeddings: K.
        embedding_dim: D.
        commitment_cost: β, the weight of the commitment term; not negative.
        depth: how many residual blocks.
        width: of their hidden layer; 256 in the paper.
        channel_dim: which axis of the input holds the channels.

    Raises:
        TypeError: K or D is not an integer.
        ValueError: a number is out of its range.

    Example:
        >>> import torch, lexel
        >>> stages = [lexel.VectorQuantizer(256, 16), lexel.ImplicitQuantizer(256, 16)]
        >>> rvq = lexel.ResidualQuantizer(stages).eval()
        >>> output = rvq(torch.randn(2, 16, 10))
        >>> torch.equal(rvq.lookup(output.indices), output.quantized)
        True
    """

    needs_partial_sum = True

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        commitment_cost: float = 0.25,
        *,
        depth: int = 2,
        width: int = 256,
        channel_dim: int = 1,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, channel_dim)
        name = type(self).__name__
        self.commitment_cost = float(check_number(name, "commitment_cost", commitment_cost, least=0))
        if depth < 0 or width < 1:
            raise ValueError(f"{name}: depth must not be negative and width at least 1, got {depth} and {width}")
        self.depth = depth
        self.width = width
        self.codebook: CodebookModule[Codebook] = FreeCodebook().build(num_embeddings, embedding_dim)
        self.mix = ZeroLinear(2 * embedding_dim, embedding_dim)
        self.blocks: TypedModuleList[nn.Sequential] = TypedModuleList(
            nn.Sequential(
                nn.Linear(embedding_dim, width, bias=False), nn.ReLU(), ZeroLinear(width, embedding_dim, bias=False)
            )
            for _ in range(depth)
        )

    @override
    def quantize_after(self, z: Tensor, valid: Tensor | None, partial: Tensor) -> Choice:
        rows, sums = z.reshape(-1, self.embedding_dim), partial.reshape(-1, self.embedding_dim)
        valid_rows = None if valid is None else valid.reshape(-1)
        indices = self._nearest(rows, sums)
        e = self._codes_at(indices, sums).to(z.dtype)
        codebook, commitment = self.means(
            (e - rows.detach()).square().mean(1), (rows - e.detach()).square().mean(1), valid=valid_rows
        )
        return Choice(
            indices.reshape(z.shape[:-1]),
            straight_through(rows, e).reshape(z.shape),
            codebook + self.commitment_cost * commitment,
            {"codebook": codebook, "commitment": commitment},
        )

    @override
    def lookup_after(self, indices: Tensor, partial: Tensor) -> Tensor:
        flat = indices.reshape(-1)
        codes = self._codes_at(flat.clamp_min(0), partial.reshape(-1, self.embedding_dim))
        return torch.where(flat.unsqueeze(1) < 0, 0, codes).reshape(partial.shape)

    @override
    def quantize_positions(self, z: Tensor, valid: Tensor | None) -> Choice:
        return self.quantize_after(z, valid, torch.zeros_like(z))

    @override
    def lookup_positions(self, indices: Tensor) -> Tensor:
        weight = self.codebook.weight
        return self.lookup_after(indices, weight.new_zeros(*indices.shape, self.embedding_dim))

    def _codes_at(self, indices: Tensor, partial: Tensor) -> Tensor:
        """Return the code of each index `(N,)`, given the partial sums `(N, D)`."""
        table, shift = self._table_and_shift(partial)
        return self._codes(F.embedding(indices, table) + shift)

    @torch.no_grad()
    def _nearest(self, z: Tensor, partial: Tensor) -> Tensor:
        """Return for each input the index of the nearest code of its own codebook."""
        table, shift = self._table_and_shift(partial)
        height = max(1, TILE // (self.num_embeddings * max(self.embedding_dim, self.width)))
        found = [
            (self._codes(table + own.unsqueeze(1)) - rows.unsqueeze(1)).square().sum(2).argmin(1)
            for rows, own in zip(torch.split(z, height), torch.split(shift, height), strict=True)
        ]
        return torch.cat(found)

    def _table_and_shift(self, partial: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the first affine map to the table `(K, D)` and to the partial sums `(N, D)` separately."""
        table = self.codebook()
        table_weight, partial_weight = torch.split(self.mix.weight, self.embedding_dim, 1)
        return table + F.linear(table, table_weight, self.mix.bias), F.linear(partial.to(table.dtype), partial_weight)

    def _codes(self, c: Tensor) -> Tensor:
        for block in self.blocks:
            c = c + block(c)
        return c

    def extra_repr(self) -> str:
        """Show β."""
        return f"commitment_cost={self.commitment_cost}"
