"""Training of a prior on tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from lexel.priors import Prior
from lexel.priors.codes import batches, simple_codes
from lexel.priors.painter import Painter, check_tokens
from lexel.tokens import TokenSet
from lexel.training.draws import Draws, together
from lexel.training.settings import PriorSettings
from lexel.training.task import Average, Task, facts_of

__all__ = ["PriorTask"]

SAMPLES = 16
MEASURED_AT_ONCE = 1 << 23  # logits


class LossWindow:
    """The mean loss since the last row.

    Args:
        device: over which the ranks communicate.
    """

    def __init__(self, device: torch.device) -> None:
        self.loss = Average(device)

    def state(self) -> dict[str, Any]:
        """Return what was counted, for the checkpoint."""
        sums, counts = self.loss.of_ranks()
        return {"sums": sums, "counts": counts}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with what was counted."""
        self.loss.restore(state["sums"], state["counts"])


class PriorTask(Task):
    """Predict tokens: the loss is the prior's, in nats per token.

    Args:
        painter: the prior to train, and the model whose tokens these are.
        tokens: to learn from.
        settings: how to train.
        held_out: tokens to measure the prior on.

    Raises:
        ValueError: the tokens to measure on are not like those to learn from.
    """

    command = "train-prior"
    picture_title = "samples"
    model: Prior
    window: LossWindow
    collate = staticmethod(together)

    def __init__(
        self, painter: Painter, tokens: TokenSet, settings: PriorSettings, held_out: TokenSet | None = None
    ) -> None:
        super().__init__(painter.prior, settings)
        self.painter, self.tokens, self.held_out = painter, tokens, held_out
        self.data_facts = {**facts_of(tokens.names), "tokens": tokens.digest()}
        if held_out is not None:
            check_tokens(painter, held_out)
            self.codes = {f"{name}_bits_per_token": bits for name, bits in simple_codes(tokens, held_out).items()}
            self.validation_figures = (
                *("validation_bits_per_token", f"validation_bits_per_{painter.kind.unit}"),
                *self.codes,
            )

    @override
    def setup(self, stage: str) -> None:
        """Count on the device over which the ranks communicate."""
        self.window = LossWindow(self.trainer.strategy.root_device)

    @override
    def examples(self, length: int) -> Draws:
        """Return the tokens in random orders."""
        return Draws(self.tokens, length, self.settings.seed)

    @override
    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        """Return the loss of a batch of tokens."""
        loss = self.model.loss(batch["indices"].reshape(-1, *self.model.shape), batch.get("label"))
        self.window.loss.add(loss.double() if self.window.loss.device == loss.device else loss, 1)
        return loss

    @override
    def figures(self) -> dict[str, float]:
        """Return the mean loss since the last row, and the learning rate."""
        loss = self.window.loss.compute()
        self.window.loss.reset()
        return {"loss": loss, "learning_rate": self.learning_rate}

    @override
    def validate(self) -> dict[str, float]:
        """Return the bits of held-out tokens, given their classes, beside those of simple codes."""
        if self.held_out is None:
            return {}
        bits, device = 0.0, self.device
        for batch in batches(self.held_out, MEASURED_AT_ONCE // max(self.model.codebook_sizes)):
            indices = batch["indices"].reshape(-1, *self.model.shape).to(device)
            label = batch.get("label")
            bits += float(self.model.bits(indices, None if label is None else label.to(device)).double().sum())
        units = torch.stack([torch.ones(len(self.held_out)).long(), *self.held_out.extents.values()]).prod(0).sum()
        measured = (bits / self.held_out.total, bits / int(units))
        return dict(zip(self.validation_figures, (*measured, *self.codes.values()), strict=True))

    @override
    def note(self, figures: Mapping[str, float]) -> str:
        """Tell the loss."""
        return f"loss {figures['loss']:.3f} nats per token"

    @override
    def picture(self) -> Tensor:
        """Draw samples of all classes in turn; the same random numbers each time."""
        self.painter.model.to(self.device)
        generator = torch.Generator().manual_seed(self.settings.seed)
        examples = self.painter.paint(SAMPLES, self.painter.labels(None, SAMPLES), generator=generator)
        return self.painter.kind.show([[*column] for column in torch.split(examples, 2)])

    @override
    def save(self, folder: Path) -> None:
        """Save the prior, and the model beside it."""
        self.painter.save(folder)
