"""Training of an autoencoder of vectors: RQ-VAE."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from lexel.data.vectors import Vectors
from lexel.models import VectorAutoencoder
from lexel.training.draws import Draws, together
from lexel.training.fitting import digest_of, shown, validated
from lexel.training.reconstruction import CodeWindow
from lexel.training.settings import Settings
from lexel.training.task import Task, mean_of_ranks

__all__ = ["VectorTask"]

CALIBRATED = 1 << 14  # vectors, from which the scale of the encoder's inputs is taken


class VectorTask(Task):
    """Reconstruct vectors: loss = squared error / variance of the vectors + the quantizer's loss (RQ-VAE).

    Args:
        model: what is trained.
        vectors: on what.
        settings: how to train.
        held_out: vectors to measure on.
    """

    command = "fit"
    picture_title = "vectors above reconstructions"
    collate = staticmethod(together)
    model: VectorAutoencoder
    window: CodeWindow

    def __init__(
        self, model: VectorAutoencoder, vectors: Vectors, settings: Settings, held_out: Vectors | None = None
    ) -> None:
        super().__init__(model, settings)
        self.vectors, self.held_out = vectors, held_out
        self.data_facts = digest_of(vectors)
        self.validation_figures = ("validation_relative_error",) if held_out is not None else ()

    @override
    def open(self, *, strict: bool) -> None:
        """Take the scale of the vectors from some of them."""
        count = min(len(self.vectors), CALIBRATED)
        some = self.vectors.batch([len(self.vectors) * number // count for number in range(count)])
        self.model.calibrate(some)
        target = self.model.target(some).double()
        self.variance = max(float((target - target.mean(0)).square().mean()), torch.finfo(torch.float32).tiny)

    @override
    def setup(self, stage: str) -> None:
        """Count codes on the device over which the ranks communicate."""
        self.window = CodeWindow(self.model.quantizers, self.trainer.strategy.root_device)

    @override
    def examples(self, length: int) -> Draws:
        """Return the vectors in random orders."""
        return Draws(self.vectors, length, self.settings.seed)

    @override
    def training_step(self, vectors: Tensor, index: int) -> Tensor:
        """Return the loss of a batch of vectors `(B, dim)`."""
        reconstructions, levels = self.model.reconstruct(vectors)
        output = self.model.joined(levels)
        error = F.mse_loss(reconstructions, self.model.target(vectors)) / self.variance
        loss: Tensor = error + output.loss
        self.seen = {"loss": loss, "relative_error": error}
        self.seen |= {f"quantizer_{name}": term for name, term in output.terms.items()}
        self.seen = {name: value.detach().float() for name, value in self.seen.items()}
        self.window.count(levels)
        return loss

    @override
    def figures(self) -> dict[str, float]:
        """Return the figures of the last step, and of the codes since the last row."""
        return {**mean_of_ranks(self.seen), "learning_rate": self.learning_rate, **self.window.figures()}

    @override
    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return the squared error of other vectors, relative to their squared distances from their mean."""
        return {} if self.held_out is None else {"validation_relative_error": validated(self.model, self.held_out)}

    @override
    def usage(self) -> list[tuple[int, Tensor]]:
        """Return K of each codebook, and how often each of its codes occurred."""
        return self.window.counts()

    @override
    def note(self, figures: Mapping[str, float]) -> str:
        """Tell the error, and how many codes are in use."""
        return f"error {figures['relative_error']:.4f} of the variance · {figures['usage']:.0%} of the codes"

    @override
    @torch.no_grad()
    def picture(self) -> Tensor:
        """Draw vectors above their reconstructions."""
        return shown(self.model, self.vectors)

    @override
    def save(self, folder: Path) -> None:
        """Save the model."""
        self.model.save_pretrained(folder)
