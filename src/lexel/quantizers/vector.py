"""The vector quantizer of the VQ-VAE."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from lexel._core.by_code import sum_by_code
from lexel._core.checks import check_number
from lexel._core.collectives import AllRows, all_sum, mean_over_ranks
from lexel._core.config import Configurable
from lexel._core.fused_loss import quantization_step
from lexel._core.modules import TypedModuleList
from lexel.codebook import Codebook, CodebookModule, FreeCodebook
from lexel.estimators import Estimator, EstimatorModule, StraightThrough
from lexel.learning import Gradient, Learning, LearningModule
from lexel.metrics import usage_counts
from lexel.quantizers.base import Choice, RowQuantizer, check_choice
from lexel.regularisers import Regulariser, RegulariserModule
from lexel.upkeep import Change, StepErrors, Upkeep, UpkeepModule

__all__ = ["VectorQuantizer"]


PartT = TypeVar("PartT", Regulariser, Upkeep)
ModuleT = TypeVar("ModuleT")


class VectorQuantizer(RowQuantizer):
    """Replaces every vector by the nearest code of a learned codebook (van den Oord et al. 2017, arXiv 1711.00937).

    The channel axis holds the vectors and all other axes are positions: an input of `[16, 64, 32, 32]` is taken as
    16·32·32 = 16,384 vectors of 64 numbers, each is replaced by its nearest code, and the result goes back to
    `[16, 64, 32, 32]`.

        loss = ‖sg[z] − e‖² + commitment_cost · ‖z − sg[e]‖²    (eq. 3, terms 2 and 3; means over elements)

    The first term, `terms["codebook"]`, moves the codes to the inputs; the second, `terms["commitment"]`, moves the
    inputs to their codes; the task loss moves the inputs alone, through the estimator. With `learning=EMA()` the codes
    are moving averages of the inputs instead, and the first term is absent.

    The arguments are settings; each attribute is the module that they build, and holds them as its `settings`.

    Attributes:
        codebook: calling it returns the codes, `(K, D)`; `codebook.weight` is the table that they are a function of.
        learning: with `EMA`, it holds the running `count` N of inputs for each code, `(K,)`, and their `sum` m,
            `(K, D)`.
        estimator: chooses codes and passes gradients on in training.
        regularisers: further terms of the loss.
        upkeep: what starts and revives codes.

    Args:
        num_embeddings: K, how many codes there are.
        embedding_dim: D, the size of a code and of the input's channel axis.
        commitment_cost: β, the weight of the commitment term; not negative.
        codebook: what the codes are a function of: `FreeCodebook()`, `CosineCodebook()`, `SimVQ()`, …
        learning: how the codes move: `Gradient()` or `EMA()`.
        estimator: which gradient the encoder gets, in training: `StraightThrough()`, `RotationTrick()`, …
        regularisers: what else is in the loss in training: a part or a sequence of parts, as `Entropy(weight=0.1)`.
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

    codebook: CodebookModule[Codebook]
    learning: LearningModule[Learning]
    estimator: EstimatorModule[Estimator]
    regularisers: TypedModuleList[RegulariserModule[Regulariser]]
    upkeep: TypedModuleList[UpkeepModule[Upkeep]]

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
        self.commitment_cost = float(check_number("VectorQuantizer", "commitment_cost", commitment_cost, least=0))
        regularisers, upkeep = _as_tuple(regularisers), _as_tuple(upkeep)
        names = [part.name for part in regularisers]
        if len({*names, "codebook", "commitment", "double"}) < len(names) + 3:
            raise ValueError(f"VectorQuantizer: the terms of the loss must have names of their own, got {names}")
        _check_combination(codebook, learning, estimator, regularisers, upkeep)
        table = codebook.build(num_embeddings, embedding_dim, trainable=learning.trainable)
        self.codebook = _checked(codebook, table, CodebookModule)
        sizes = num_embeddings, self.codebook.weight.shape[1]
        self.learning = _checked(learning, learning.build(*sizes), LearningModule)
        self.learning.restart(self.codebook.weight, torch.ones(num_embeddings))
        self.estimator = _checked(estimator, estimator.build(*sizes), EstimatorModule)
        self.regularisers = TypedModuleList(
            _checked(part, part.build(*sizes), RegulariserModule) for part in regularisers
        )
        self.upkeep = TypedModuleList(_checked(part, part.build(*sizes), UpkeepModule) for part in upkeep)
        self._upkeep_needs_errors = any(part.needs_errors for part in upkeep)
        self._has_codebook_loss = learning.has_codebook_loss and not estimator.replaces_codebook_loss

    @property
    @override
    def learns_from_task(self) -> bool:
        return self.estimator.settings.moves_codes or self.codebook.settings.learns_from_task

    @property
    @override
    def has_own_gradient(self) -> bool:
        return not self.estimator.is_straight_through

    @property
    @override
    def prices(self) -> Tensor | None:
        return self.estimator.prices

    @property
    @override
    def could_use_upkeep(self) -> bool:
        return self.codebook.settings.accepts_placement and len(self.upkeep) == 0

    @property
    @override
    def accepts_positions(self) -> bool:
        # What a base class says of its own code does not hold for code that somebody derives from it.
        if type(self).quantize_rows is not VectorQuantizer.quantize_rows:
            return False
        parts = self.codebook.settings, self.learning.settings, self.estimator.settings
        declared = all("accepts_positions" in vars(type(part)) and part.accepts_positions for part in parts)
        return declared and len(self.regularisers) == 0  # torch 2.11 compiles no `not` of a list of modules

    @override
    def quantize_rows(self, z: Tensor, valid: Tensor | None) -> Choice:
        inputs, z = z, self.codebook.project(z)
        moving = self.training and not self.frozen
        rows = self._apply_upkeep(z, valid) if moving and self.upkeep else None
        codes = self._codes().to(z.dtype)

        if self.training and not self.estimator.is_straight_through:
            indices, estimated = self.estimator(z, codes)
            check_choice(type(self.estimator.settings).__name__, indices, estimated, z.shape)
        else:
            indices, estimated = self.estimator.nearest(z, codes), None
        learned = codes if self._has_codebook_loss else codes.detach()
        quantized, codebook_error, commitment_error = quantization_step(z, learned, indices, valid)
        own_errors = self._errors(z, quantized, valid) if moving and self._upkeep_needs_errors else None
        quantized = quantized if estimated is None else estimated

        statistics = [self._counts(indices, valid), commitment_error]
        if own_errors is not None:
            statistics += sum_by_code(indices.flatten(), self.num_embeddings, own_errors)
        if moving:
            counted = z.detach()
            if valid is not None and z is not inputs:  # of which those that do not count are zero already
                counted = torch.where(valid.unsqueeze(-1), counted, 0)
            statistics += self.learning.statistics(counted, indices, self.num_embeddings)
        if self.training:
            # In training alone: evaluating on one rank must not wait for the others.
            statistics = list(all_sum(*statistics))
        counts, error, *sums = statistics
        errors = None
        if own_errors is not None and rows is not None:
            errors, sums = StepErrors(sums[0], own_errors, rows), sums[1:]
        elements = counts.sum().clamp_min(1) * z.shape[-1]

        def mean(local: Tensor) -> Tensor:
            return mean_over_ranks(local, error, elements) if self.training else local / elements

        terms = {"commitment": mean(commitment_error)}
        loss = self.commitment_cost * terms["commitment"]
        if estimated is not None and self.estimator.settings.has_double_loss:
            squares = (z - estimated).square().sum(1)
            terms["double"] = mean(squares.sum() if valid is None else squares @ valid.to(squares.dtype))
            loss = loss + terms["double"]
        if self._has_codebook_loss:
            terms["codebook"] = mean(codebook_error)
            weight = self.learning.settings.codebook_weight
            loss = loss + (terms["codebook"] if weight == 1 else weight * terms["codebook"])
        if self.training:
            # A learning rule that moves the codes in place does so before the backward pass reads them.
            fixed = codes if self.learning.settings.trainable or len(self.regularisers) == 0 else codes.clone()
            for part in self.regularisers:
                # A product: an empty batch has no loss, and needs no branch.
                terms[part.settings.name] = part(z, fixed, valid) * (counts.sum() > 0)
                loss = loss + part.settings.weight * terms[part.settings.name]
            self.estimator.observe(counts)
        if moving:
            self.learning.update(self.codebook.weight, counts, *sums)
            for keeper in self.upkeep:
                if errors is not None and keeper.settings.needs_errors:
                    self._follow(keeper.observe_errors(counts, errors))
                else:
                    keeper.observe(counts)
        return Choice(indices, self.codebook.expand(quantized), loss, terms)

    @override
    def lookup_rows(self, indices: Tensor) -> Tensor:
        return self.codebook.expand(F.embedding(indices, self.codebook()))

    @override
    def unquantized_positions(self, z: Tensor) -> Tensor:
        rows = self.codebook.expand(self.codebook.project(self._rows(z)))
        return rows.reshape(*z.shape[:-1], rows.shape[-1])

    @torch.no_grad()
    def pull(self, anchors: Tensor, strength: Tensor) -> None:
        """Move codes towards anchors, e ← (1 − s) e + s · anchor, and restart the learning rule's state of these codes.

        Args:
            anchors: `(K, d)`, finite, in the space of the codes.
            strength: s, `(K,)`, in [0, 1].
        """
        self.codebook.pull(anchors, strength)
        self.learning.restart(self.codebook.weight, strength)

    @torch.no_grad()
    def load_codes(self, table: Tensor, **averages: Tensor) -> None:
        """Load codes that were trained elsewhere, and keep upkeep from starting others.

        Args:
            table: the new `codebook.weight`, of the same shape.
            **averages: the state of the learning rule, by the names of its buffers: with `EMA`, `count` `(K,)` and
                `sum` `(K, D)`. Those left out start as if each code had been chosen once, by an input equal to itself.

        Raises:
            TypeError: a value is not a tensor.
            ValueError: a shape does not fit, a value is not finite, or the learning rule has no such buffer.

        Example:
            >>> import torch, lexel
            >>> vq = lexel.VectorQuantizer(2, 1, upkeep=lexel.KMeansStart())
            >>> vq.load_codes(torch.tensor([[1.0], [5.0]]))
            >>> vq(torch.tensor([[4.0], [8.0]])).indices
            tensor([1, 1])
        """
        buffers = dict(self.learning.named_buffers())
        for name, value, own in (
            ("table", table, self.codebook.weight),
            *((name, value, buffers.get(name)) for name, value in averages.items()),
        ):
            if own is None:
                raise ValueError(f"VectorQuantizer.load_codes: {self.learning.settings} has no {name}")
            if not isinstance(value, Tensor):
                raise TypeError(f"VectorQuantizer.load_codes: {name} must be a tensor, got {type(value).__name__}")
            if own.shape != value.shape:
                raise ValueError(
                    f"VectorQuantizer.load_codes: {name} must have shape {tuple(own.shape)}, got {tuple(value.shape)}"
                )
            if not value.is_meta and not value.isfinite().all():
                raise ValueError(f"VectorQuantizer.load_codes: {name} must be finite, got NaN or infinity")
        self.codebook.write(table)
        self.learning.restart(self.codebook.weight, torch.ones_like(self.codebook.weight[:, 0]))
        for name, value in averages.items():
            buffers[name].copy_(value)
        for part in self.upkeep:
            part.skip_start()

    def _codes(self) -> Tensor:
        """The codes, of a copy of the table where upkeep may move that before the backward pass reads it."""
        table = self.codebook.weight
        copies: dict[str, Tensor] = {}
        if self.upkeep and self.training and table.requires_grad and torch.is_grad_enabled():
            copies = {name: table.clone() for name, value in self.codebook.named_parameters() if value is table}
        codes: Tensor = torch.func.functional_call(self.codebook, copies, ()) if copies else self.codebook()
        return codes

    def _counts(self, indices: Tensor, valid: Tensor | None) -> Tensor:
        return usage_counts(indices if valid is None else torch.where(valid, indices, -1), self.num_embeddings)

    @staticmethod
    @torch.no_grad()
    def _errors(z: Tensor, quantized: Tensor, valid: Tensor | None) -> Tensor:
        """The squared error of each input, `(N,)`; zero where it does not count."""
        errors = torch.linalg.vector_norm(z - quantized, dim=-1).square_()
        return (errors if valid is None else torch.where(valid, errors, 0)).flatten()

    @torch.no_grad()
    def _apply_upkeep(self, z: Tensor, valid: Tensor | None) -> AllRows:
        rows = AllRows(z, valid)
        for part in self.upkeep:
            codes = self.codebook().to(z.dtype)
            self._follow(part.prepare(codes, rows, unit_length=self.codebook.settings.unit_length))
        return rows

    def _follow(self, change: Change | None) -> None:
        """Move the codes to where a part of the upkeep wants them."""
        if change is not None:
            self.pull(*change)

    def extra_repr(self) -> str:
        """Show what the parts' own lines do not."""
        return f"{self.num_embeddings}, {self.embedding_dim}, commitment_cost={self.commitment_cost}"


def _checked(settings: Configurable, built: ModuleT, kind: type) -> ModuleT:
    """Return what the settings of a part have built, if it is a module of this kind."""
    if not isinstance(built, kind):
        raise TypeError(f"{type(settings).__name__}.build must return a lexel {kind.__name__}, got {built!r}")
    return built


def _as_tuple(parts: PartT | Iterable[PartT]) -> tuple[PartT, ...]:
    if isinstance(parts, Iterable) and not isinstance(parts, (str, type)):
        return tuple(parts)
    return (parts,)  # type: ignore[return-value]


def _check_combination(
    codebook: Codebook,
    learning: Learning,
    estimator: Estimator,
    regularisers: Iterable[Regulariser],
    upkeep: Iterable[Upkeep],
) -> None:
    rule = type(learning).__name__
    code_regularisers = [type(part).__name__ for part in regularisers if part.only_codes]
    for refused, reason in (
        (
            not learning.trainable and estimator.moves_codes,
            f"{type(estimator).__name__} moves the codes by the gradient of the task loss, and codes that {rule} moves "
            "get none: use learning=Gradient(), or another estimator",
        ),
        (
            not learning.trainable and not codebook.accepts_averages,
            f"{rule} moves each code on its own, and the codes of {type(codebook).__name__} cannot be moved so, since "
            "they share parameters: use learning=Gradient(), or another codebook",
        ),
        (
            not learning.trainable and code_regularisers,
            f"{', '.join(code_regularisers)} moves the codes by its gradient, and codes that {rule} moves get none: "
            "use learning=Gradient(), or no such regulariser",
        ),
        (
            upkeep and not codebook.accepts_placement,
            f"upkeep moves single codes to new places, and the codes of {type(codebook).__name__} all move together, "
            "so that none is left behind: use no upkeep, or another codebook",
        ),
    ):
        if refused:
            raise ValueError(f"VectorQuantizer: {reason}")
