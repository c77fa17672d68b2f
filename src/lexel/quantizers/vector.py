"""The vector quantizer of the VQ-VAE."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexel._core.collectives import AllRows, all_sum, mean_over_ranks
from lexel._core.fused_loss import quantization_step
from lexel.codebook import Codebook, FreeCodebook, Table
from lexel.estimators import Estimator, StraightThrough
from lexel.learning import EMA, Gradient, Learning
from lexel.metrics import perplexity, usage_counts
from lexel.quantizers.base import Quantized, Quantizer, check_weight
from lexel.regularisers import Regulariser
from lexel.upkeep import Kept, Upkeep

__all__ = ["VectorQuantizer"]


class VectorQuantizer(Quantizer):
    """Replaces every vector by the nearest code of a learned codebook (van den Oord et al. 2017, arXiv 1711.00937).

    The channel axis holds the vectors and all other axes are positions: an input of `[16, 64, 32, 32]` is taken as
    16·32·32 = 16,384 vectors of 64 numbers, each is replaced by its nearest code, and the result goes back to
    `[16, 64, 32, 32]`.

        loss = ‖sg[z] − e‖² + commitment_cost · ‖z − sg[e]‖²    (eq. 3 less the reconstruction; means over elements)

    The first term, `terms["codebook"]`, moves the codes to the inputs; the second, `terms["commitment"]`, moves the
    inputs to their codes; the task loss moves the inputs alone, through the estimator. With `learning=EMA()` the codes
    move as averages instead and the first term is absent.

    Attributes:
        codebook: the table of codes, a module; calling it gives the codes, `(K, D)`, and `codebook.weight` is the table
            that they are a function of.
        ema_count: with EMA, the running count N of inputs for each code, `(K,)`.
        ema_sum: with EMA, the running sum m of inputs for each code, `(K, D)`.
        ema_age: with EMA that warms up, in how many steps t each code was chosen, `(K,)`; else None.
        upkeep: the parts of upkeep, each with its state.

    Args:
        num_embeddings: K, how many codes there are.
        embedding_dim: D, the size of a code and of the input's channel axis.
        commitment_cost: β, the weight of the commitment term; not negative.
        codebook: what the codes are a function of: `FreeCodebook()`, `CosineCodebook()`, `SimVQ()`, …
        learning: how the codes move: `Gradient()` or `EMA()`.
        estimator: which gradient the encoder gets, in training: `StraightThrough()`, `RotationTrick()`, …
        regularisers: what else is in the loss, in training: a part or a sequence of parts, as `Entropy(weight=0.1)`.
        upkeep: how codes start and come back to life: a part or a sequence of parts, in order, as in
            `(KMeansStart(), Revival())`. They act in training, before the search.
        channel_dim: which axis of the input holds the channels; −1 for transformers.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: K or D is below 1, `commitment_cost` is negative or not finite, or two parts make no sense together.

    Example:
        >>> import torch, lexel
        >>> vq = lexel.VectorQuantizer(512, 64)
        >>> loss, quantized, perplexity, encodings = vq(torch.randn(2, 64, 8, 8))
        >>> quantized.shape, encodings.shape
        (torch.Size([2, 64, 8, 8]), torch.Size([128, 512]))
        >>> vq.lookup(vq(torch.randn(2, 64, 8, 8)).indices).shape
        torch.Size([2, 64, 8, 8])
    """

    ema_count: Tensor
    ema_sum: Tensor
    ema_age: Tensor | None
    step: Tensor
    upkeep: Sequence[Kept]

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        commitment_cost: float = 0.25,
        *,
        codebook: Codebook = FreeCodebook(),
        learning: Learning = Gradient(),
        estimator: Estimator = StraightThrough(),
        regularisers: Regulariser | Iterable[Regulariser] = (),
        upkeep: Upkeep | Iterable[Upkeep] = (),
        channel_dim: int = 1,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, channel_dim)
        self.commitment_cost = check_weight("VectorQuantizer", "commitment_cost", commitment_cost)
        regularisers = (regularisers,) if isinstance(regularisers, Regulariser) else tuple(regularisers)
        upkeep = (upkeep,) if isinstance(upkeep, Upkeep) else tuple(upkeep)
        for argument, part, kind in [
            ("codebook", codebook, Codebook),
            ("learning", learning, Learning),
            ("estimator", estimator, Estimator),
            *(("regularisers", part, Regulariser) for part in regularisers),
            *(("upkeep", part, Upkeep) for part in upkeep),
        ]:
            if not isinstance(part, kind):
                raise TypeError(f"VectorQuantizer: {argument} must be a lexel {kind.__name__}, got {part!r}")
        _refuse_what_has_no_meaning(codebook, learning, estimator, regularisers, upkeep)
        self.learning = learning
        self.estimator = estimator
        self.regularisers = regularisers
        self.codebook: Table = codebook.build(num_embeddings, embedding_dim, trainable=isinstance(learning, Gradient))
        if isinstance(learning, EMA):
            self.register_buffer("ema_count", torch.ones(num_embeddings))
            self.register_buffer("ema_sum", self.codebook.weight.clone())
            self.register_buffer("ema_age", torch.zeros(num_embeddings) if learning.warmup else None)
        if estimator.annealed:
            self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self._has_codebook_loss = isinstance(learning, Gradient) and not estimator.replaces_codebook_loss
        self.upkeep = cast("Sequence[Kept]", nn.ModuleList(Kept(part, num_embeddings) for part in upkeep))

    def quantize_rows(self, z: Tensor, valid: Tensor | None) -> Quantized:  # noqa: D102
        if self.training:
            self.codebook.begin(z, valid)
        z = self.codebook.project(z)
        if self.training:
            self._keep_up(z, valid)
        codes = self.codebook().to(z.dtype)
        indices, estimated = self._estimate(z, codes)
        moving = codes if self._has_codebook_loss else codes.detach()
        quantized, codebook_error, commitment_error = quantization_step(z, moving, indices, valid)
        quantized = quantized if estimated is None else estimated
        counted = indices if valid is None else torch.where(valid, indices, -1)

        statistics = [usage_counts(counted, self.num_embeddings), commitment_error]
        if isinstance(self.learning, EMA) and self.training:
            statistics.append(torch.zeros_like(codes).index_add_(0, indices, _counted(z.detach(), valid)))
        # Ranks talk to each other in training alone: evaluating on one of them must not wait for the others.
        counts, error, *sums = all_sum(*statistics) if self.training else statistics

        elements = counts.sum().clamp_min(1) * z.shape[1]

        def mean(local: Tensor) -> Tensor:
            return mean_over_ranks(local, error, elements) if self.training else local / elements

        terms = {"commitment": mean(commitment_error)}
        loss = self.commitment_cost * terms["commitment"]
        if self._has_codebook_loss:
            terms["codebook"] = mean(codebook_error)
            # Not a product with 1, so that the loss stays what it was, bit for bit.
            weight = self.learning.weight if isinstance(self.learning, Gradient) else 1.0
            loss = loss + (terms["codebook"] if weight == 1 else weight * terms["codebook"])
        for regulariser in self.regularisers if self.training else ():
            # EMA moves the codes in place before the backward pass reads them.
            terms[regulariser.name] = regulariser(z, codes.clone() if isinstance(self.learning, EMA) else codes, valid)
            loss = loss + regulariser.weight * terms[regulariser.name]
        if isinstance(self.learning, EMA) and self.training:
            self.learning.update(self.codebook.weight, self.ema_count, self.ema_sum, counts, sums[0], self.ema_age)
        if self.training:
            if self.estimator.annealed:
                self.step += counts.sum() > 0
            for part in self.upkeep:
                part.observe(counts)
        return Quantized(loss, self.codebook.expand(quantized), perplexity(counts), indices, terms, self.num_embeddings)

    def unquantized(self, inputs: Tensor) -> Tensor:  # noqa: D102
        rows = inputs.movedim(self.channel_dim, -1)
        z = rows.reshape(-1, rows.shape[-1]).to(torch.promote_types(rows.dtype, torch.float32))
        output = self.codebook.expand(self.codebook.project(z))
        return output.view(rows.shape).movedim(-1, self.channel_dim).to(inputs.dtype)

    def lookup_rows(self, indices: Tensor) -> Tensor:  # noqa: D102
        return self.codebook.expand(F.embedding(indices, self.codebook()))

    @torch.no_grad()
    def pull(self, anchors: Tensor, strength: Tensor) -> None:
        """Move codes towards anchors, e ← (1 − s) e + s · anchor, and what EMA remembers of them with them.

        A code that is replaced (s = 1) starts as all codes do: chosen once, by an input equal to itself. Were its old
        count and sum kept, the next update would take it straight back.

        Args:
            anchors: `(K, D)`, finite.
            strength: s, `(K,)`, in [0, 1].
        """
        table = self.codebook.weight
        strength = strength.to(table.dtype)
        moved = (strength > 0).unsqueeze(1)
        codes = torch.lerp(self.codebook(), anchors.to(table.dtype), strength.unsqueeze(1))
        table.copy_(torch.where(moved, self.codebook.place(codes), table))
        if isinstance(self.learning, EMA):
            self.ema_count.lerp_(torch.ones_like(self.ema_count), strength)
            self.ema_sum.copy_(torch.where(moved, table * self.ema_count.unsqueeze(1), self.ema_sum))
            if self.ema_age is not None:
                self.ema_age.mul_(1 - strength)

    def _estimate(self, z: Tensor, codes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Indices and the estimator's quantized rows; None for the code itself, straight through."""
        if not self.training or isinstance(self.estimator, StraightThrough):
            return self.estimator.select(z, codes), None
        if not self.estimator.annealed:
            return self.estimator.quantize(z, codes)
        return self.estimator.quantize(z, codes, self.step.clone())

    @torch.no_grad()
    def _keep_up(self, z: Tensor, valid: Tensor | None) -> None:
        if not self.upkeep:
            return
        rows = AllRows(z, valid)
        for part in self.upkeep:
            change = part.prepare(self.codebook().to(z.dtype), rows, self.codebook.settings.unit)
            if change is not None:
                self.pull(*change)

    def extra_repr(self) -> str:
        """Show what the codebook's own line does not."""
        return f"commitment_cost={self.commitment_cost}, learning={self.learning}, estimator={self.estimator}"


def _counted(rows: Tensor, valid: Tensor | None) -> Tensor:
    """Zero in place of the rows that do not count."""
    return rows if valid is None else torch.where(valid.unsqueeze(1), rows, 0)


def _refuse_what_has_no_meaning(
    codebook: Codebook,
    learning: Learning,
    estimator: Estimator,
    regularisers: Iterable[Regulariser],
    upkeep: Iterable[Upkeep],
) -> None:
    ema, names = isinstance(learning, EMA), [type(part).__name__ for part in (codebook, estimator)]
    for refused, reason in (
        (
            ema and estimator.moves_codes,
            f"{names[1]} moves the codes by the gradient of the task loss, and codes that are averages of their inputs "
            "have none: use learning=Gradient(), or another estimator",
        ),
        (
            ema and not codebook.averages,
            f"EMA makes each code the average of its inputs, and the codes of {names[0]} are not free to be that, as "
            "they share parameters: use learning=Gradient(), or another codebook",
        ),
        (
            ema and any(part.only_codes for part in regularisers),
            "Orthogonality moves the codes by its gradient, and codes that are averages of their inputs have none: use "
            "learning=Gradient(), or no such regulariser",
        ),
        (
            upkeep and not codebook.places,
            f"upkeep puts single codes in new places, and every code of {names[0]} moves with all others, so that none "
            "needs it: use no upkeep, or another codebook",
        ),
    ):
        if refused:
            raise ValueError(f"VectorQuantizer: {reason}")
