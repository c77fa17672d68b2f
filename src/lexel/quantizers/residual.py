"""Residual quantization: each stage quantizes what the stages before it left over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from lexel._core.checks import check_number
from lexel._core.collectives import uniform_of_rows
from lexel._core.gradients import carry, straight_through
from lexel._core.values import double
from lexel.quantizers._composite import Composite, check_parts
from lexel.quantizers.base import Choice, Quantizer

__all__ = ["ResidualQuantizer"]

# Numbers in one tile of scores in the beam search, few enough for a processor's cache.
TILE = 1 << 19
# Numbers in the products of all codes with each other, at most: where there are more, those in use are computed.
PRODUCTS = 1 << 24


class ResidualQuantizer(Composite):
    """Quantizes in stages, each the remainder that the stages before left (SoundStream, arXiv 2107.03312, algorithm 1).

        r_1 = z,  e_q = stage_q(r_q),  r_{q+1} = r_q − sg[e_q],  quantized = Σ_q e_q

    Stages are any quantizers of the same `embedding_dim`. With `depth` they take turns, so that a single one given with
    `depth=4` is RQ-VAE's shared codebook (arXiv 2203.01941); with EMA its codes then move after each turn.

    The indices of a position are ordered from coarse to fine: `lookup(indices[..., :q])` decodes the first q alone.
    With `dropout`, training prepares for this: an example is cut with that probability after a number of stages drawn
    uniformly from 1 to Q (SoundStream's quantizer dropout with `dropout=1`, DAC's with 0.5). The stages cut off have
    index −1 and count in no loss, statistic or perplexity.

    The gradient of the task loss passes straight through the whole, once, as in EnCodec's later versions, and the loss
    of each stage reaches the inputs through r_q, so that every partial sum attracts them (RQ-VAE, eq. 10). Chaining
    the stages' own straight-through outputs would give the inputs Q times the gradient, or none from the later stages'
    commitment. The slope of the bounds of a `FiniteScalarQuantizer` is therefore not used. Where a stage has an
    estimator with a gradient of its own, such as `RotationTrick`, or something that the task loss must move, such as
    codes under `DiVeQ` or the way out of a `FactorisedCodebook` or `ProjectedQuantizer`, all stages are chained
    instead, as in DAC: r_{q+1} = r_q − e_q, and each output keeps its own gradient; in eval mode too, where parameters
    learn from it.

    The levels of a `FiniteScalarQuantizer` have a fixed width, and the remainder is narrower than a level: such stages
    refine each other only if each is wrapped in a `ProjectedQuantizer`, whose maps find the scale. The same holds for
    the codes of a `CosineCodebook`, which all have length 1; with `StraightThrough(metric="cosine")` the angle decides
    as well, and the codes keep their lengths. The `ResidualFSQ` of vector-quantize-pytorch squashes its input, divides
    stage q by L^−q, clamps it, and has levels symmetric about zero for even L too; so its indices differ.

    Args:
        quantizers: the stages, each given once; an `ImplicitQuantizer` gets the sum of those before it.
        depth: Q, if the stages take turns; by default each stage has one turn.
        dropout: the probability that a training example is cut, in [0, 1].
        channel_dim: which axis of the input holds the channels.

    Raises:
        TypeError: `quantizers` holds something that is not a quantizer of single positions.
        ValueError: there are no quantizers, one is given twice, their sizes differ, a number is out of range, or the
            codes of a stage leave no remainder, as those of a `NormalisedQuantizer` that does not scale back.

    Example:
        >>> import torch, lexel
        >>> rvq = lexel.ResidualQuantizer([lexel.VectorQuantizer(1024, 128) for _ in range(8)], dropout=1.0)
        >>> output = rvq.eval()(torch.randn(2, 128, 50))
        >>> output.indices.shape, rvq.bits
        (torch.Size([2, 50, 8]), 80.0)
        >>> rvq.lookup(output.indices[..., :3]).shape
        torch.Size([2, 128, 50])
    """

    def __init__(
        self,
        quantizers: Sequence[Quantizer],
        *,
        depth: int | None = None,
        dropout: float = 0.0,
        channel_dim: int = 1,
    ) -> None:
        name = type(self).__name__
        stages = check_parts(name, quantizers, "set depth")
        check_remainders(name, stages)
        turns = len(stages) if depth is None else depth
        if turns < len(stages):
            raise ValueError(f"{name}: depth must be at least the number of quantizers, {len(stages)}, got {depth}")
        in_turn = [stages[turn % len(stages)] for turn in range(turns)]
        super().__init__(stages, in_turn, stages[0].embedding_dim, channel_dim)
        self.depth = depth
        self.dropout = float(check_number(name, "dropout", dropout, least=0, most=1))

    @override
    def quantize_positions(self, z: Tensor, valid: Tensor | None) -> Choice:
        chained, drops = are_chained(self), self.training and self.dropout > 0
        remainder, total = z, torch.zeros_like(z)
        choices = []
        for stage, reached in zip(self.parts, self._positions_of_stages(z, valid), strict=True):
            present = None if reached is None else reached.unsqueeze(-1)
            if present is not None and drops:
                remainder = torch.where(present, remainder, 0)
            choice = stage.choose(remainder, reached, total)
            e = choice.quantized if chained else choice.quantized.detach()
            if present is None:
                remainder, total = remainder - e, total + e
            else:
                share = present.to(e.dtype)
                remainder, total = torch.addcmul(remainder, e, share, value=-1), torch.addcmul(total, e, share)
            choices.append(choice)
        joined = self._join(choices, total)
        return replace(joined, quantized=with_gradient_of_stages(self, z, total, joined.indices))

    @override
    def lookup_positions(self, indices: Tensor) -> Tensor:
        indices = F.pad(indices, (0, self.index_shape[0] - indices.shape[-1]), value=-1)
        by_stage = [own.squeeze(indices.ndim - 1) for own in self._split(indices)]
        total = self.parts[0].lookup_positions(by_stage[0])
        for stage, own in zip(self.parts[1:], by_stage[1:], strict=True):
            total = total + stage.lookup_after(own, total)
        return total

    @override
    def check_indices(self, indices: Tensor) -> None:
        if indices.ndim and 1 <= indices.shape[-1] < self.index_shape[0]:
            indices = F.pad(indices, (0, self.index_shape[0] - indices.shape[-1]), value=-1)
        super().check_indices(indices)

    @override
    def search_positions(self, z: Tensor, beam_size: int) -> Tensor:
        """Keep, at each stage, the `beam_size` best partial sums over all continuations of those kept before.

        With a beam of 1 that is the choice of `forward`, where the stages choose by the distance.

        Raises:
            ValueError: a stage has several codebooks, more than 65,536 codes or codes that depend on the stages before.

        Example:
            >>> import torch, lexel
            >>> rvq = lexel.ResidualQuantizer([lexel.VectorQuantizer(64, 8) for _ in range(4)])
            >>> rvq.beam_search(torch.randn(2, 8, 10), beam_size=4).shape
            torch.Size([2, 10, 4])
        """
        found = self._beam(z, beam_size)(z.reshape(-1, self.embedding_dim))
        return found.reshape(*z.shape[:-1], len(self.parts))

    @override
    def search_candidates(self, z: Tensor, count: int) -> Tensor:
        found = self._beam(z, count).ends(z.reshape(-1, self.embedding_dim), count)
        return found.reshape(*z.shape[:-1], *found.shape[1:])

    def _beam(self, z: Tensor, beam_size: int) -> Beam:
        for stage in self.parts:
            if stage.index_shape or stage.num_embeddings > 1 << 16 or stage.needs_partial_sum:
                raise ValueError(
                    f"{type(self).__name__}.beam_search: each stage must have one codebook of at most 65,536 codes, "
                    f"got {stage}"
                )
        tables = [
            stage.lookup_positions(torch.arange(stage.num_embeddings, device=z.device)).to(z.dtype)
            for stage in self.parts
        ]
        return Beam(tables, [stage.prices for stage in self.parts], beam_size)

    def _positions_of_stages(self, z: Tensor, valid: Tensor | None) -> Iterator[Tensor | None]:
        """Yield for each stage which positions it quantizes."""
        depth = len(self.parts)
        if not (self.training and self.dropout > 0):
            yield from [valid] * depth
            return
        draws = uniform_of_rows(z)
        stages = torch.where(draws < self.dropout, 1 + (draws / self.dropout * depth).floor(), depth)
        stages = stages.reshape(-1, *[1] * (z.ndim - 2)).expand(z.shape[:-1])
        for stage in range(depth):
            yield stage < stages if valid is None else valid & (stage < stages)

    def extra_repr(self) -> str:
        """Show what the stages' own lines do not."""
        return f"depth={len(self.parts)}, dropout={self.dropout}"


def are_chained(quantizer: Quantizer) -> bool:
    """Whether the stages of a quantizer keep their own gradients, in place of one that passes straight through all."""
    return quantizer.learns_from_task or (quantizer.training and quantizer.has_own_gradient)


def with_gradient_of_stages(quantizer: Quantizer, z: Tensor, total: Tensor, indices: Tensor) -> Tensor:
    """Return the sum of the stages' codes with the gradient that it has as the output for `z`, both `(*positions, D)`.

    In eval mode the value is that of `lookup`: the same sum in the codes' own precision.
    """
    chained = are_chained(quantizer)
    if quantizer.training:
        return total if chained else straight_through(z, total)
    value = quantizer.lookup_positions(indices).to(z.dtype)
    return carry(value.detach(), total) if chained else straight_through(z, value)


def check_remainders(name: str, stages: Sequence[Quantizer]) -> None:
    """Refuse stages whose codes cannot be subtracted from their inputs, or not from those of each other.

    Raises:
        ValueError: the codes of a stage leave no remainder, or the stages' sizes differ.
    """
    for stage in stages:
        if not stage.leaves_remainder:
            raise ValueError(
                f"{name}: the codes of a stage do not lie where its inputs lie, so that they leave no remainder: "
                f"a NormalisedQuantizer must scale back (scale_back=True), and the output must have as many channels "
                f"as the input, got {stage}"
            )
    sizes = [stage.embedding_dim for stage in stages]
    if len(set(sizes)) > 1:
        raise ValueError(f"{name}: all quantizers must have the same embedding_dim, got {sizes}")


class Beam:
    """Search for the codes, one of each codebook, whose sum is nearest to a vector.

        ‖x − Σ_q e_q‖² + Σ_q p_q = ‖x‖² + Σ_q (‖e_q‖² − 2⟨x, e_q⟩ + p_q) + 2 Σ_{q<r} ⟨e_q, e_r⟩

    The products of codes with each other are computed once, those of a row with all codes once for a row, in float64
    where the device has it: so the codes of a row do not depend on the rows beside it, nor on the number of threads.

    Args:
        codebooks: Q of `(K_q, D)`, float32 or float64.
        prices: what each code costs beside the distance, `(K_q,)`; None where it costs nothing.
        beam_size: how many partial sums are kept.

    Example:
        >>> codebooks = [torch.tensor([[0.0], [10.0]]), torch.tensor([[-1.0], [0.0], [2.0]])]
        >>> Beam(codebooks, None, 2)(torch.tensor([[9.2], [1.8]]))
        tensor([[1, 0],
                [0, 2]])
    """

    def __init__(self, codebooks: Sequence[Tensor], prices: Sequence[Tensor | None] | None, beam_size: int) -> None:
        # With the mean of the first codes as the origin, less of each product is rounded away.
        self.origin = codebooks[0].mean(0)
        self.codebooks = [double(codebooks[0] - self.origin), *map(double, codebooks[1:])]
        self.sizes = [len(codes) for codes in codebooks]
        self.beam_size = beam_size
        costs = [codes.square().sum(1) for codes in self.codebooks]
        prices = prices or [None] * len(costs)
        self.costs = torch.cat([c if p is None else c + p for c, p in zip(costs, prices, strict=True)])
        before = [sum(self.sizes[:stage]) for stage in range(len(self.sizes))]
        self.starts = torch.tensor(before, device=self.origin.device)
        self.products: list[Tensor] | None = None
        if sum(self.sizes) * max(self.sizes) * len(self.sizes) <= PRODUCTS:
            self.products = [
                (2 * torch.cat(self.codebooks[: stage + 1])[:start] @ codes.T).to(self.origin.dtype)
                for stage, (start, codes) in enumerate(zip(before, self.codebooks, strict=True))
            ]

    def __call__(self, x: Tensor) -> Tensor:
        """Return the indices of the codes found, int64 `(N, Q)`, for rows `(N, D)`."""
        return self.ends(x, 1)[:, 0]

    def ends(self, x: Tensor, count: int) -> Tensor:
        """Return the `count` best choices of codes found, the best first, int64 `(N, count, Q)`; less if there are."""
        if torch.compiler.is_compiling():  # a graph cannot contain a loop whose length depends on the batch
            return self._search(x, count)
        height = max(1, TILE // max(sum(self.sizes), self.beam_size * max(self.sizes)))
        found = [self._search(tile, count) for tile in torch.split(x, height)]
        return torch.cat(found) if found else self.starts.new_empty(0, count, len(self.sizes))

    def _search(self, x: Tensor, count: int) -> Tensor:
        wide = double(x - self.origin)
        alone = torch.addmm(self.costs, wide, torch.cat(self.codebooks).T, alpha=-2).to(x.dtype)
        scores = x.new_zeros(x.shape[0], 1)
        indices = self.starts.new_empty(x.shape[0], 1, 0)  # (N, beams, stages so far)
        for stage, own in enumerate(torch.split(alone, self.sizes, 1)):
            candidates = (own.unsqueeze(1) + scores.unsqueeze(2)).add_(self._products(indices)).flatten(1)
            last = stage == len(self.sizes) - 1
            scores, best = _least(candidates, min(count if last else self.beam_size, candidates.shape[1]))
            beam, code = (best // own.shape[1]).unsqueeze(2), (best % own.shape[1]).unsqueeze(2)
            indices = torch.cat([indices.gather(1, beam.expand(-1, -1, stage)), code], 2)
        return indices

    def _products(self, indices: Tensor) -> Tensor:
        """Twice the products of the sums of the codes at `indices` `(N, beams, q)` with those of codebook q."""
        stage = indices.shape[2]
        if not stage:
            return self.origin.new_zeros(())
        if self.products is not None:
            places = (indices + self.starts[:stage]).flatten(0, 1)
            return F.embedding_bag(places, self.products[stage], mode="sum").reshape(*indices.shape[:2], -1)
        total = sum(F.embedding(indices[:, :, q], self.codebooks[q]) for q in range(stage))
        assert isinstance(total, Tensor)
        return (2 * total @ self.codebooks[stage].T).to(self.origin.dtype)


def _least(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the least `count` of the scores `(N, M)` of each row and where they are; one of them is the first."""
    if count == 1:
        return scores.min(1, keepdim=True)
    return scores.topk(count, largest=False)
