"""Fitting a quantizer to vectors, an iteration of the fit for each step of a run."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset
from typing_extensions import override

from lexel._core.collectives import rank, world_size
from lexel.data.kind import kind_of
from lexel.data.vectors import Vectors
from lexel.fit import Fit, State
from lexel.models import VectorAutoencoder
from lexel.training.settings import Settings
from lexel.training.task import Task, facts_of

__all__ = ["FitTask", "digest_of", "shown", "validated"]

EXAMINED = 1024  # rows whose content tells that data is the same
SHOWN = 8
MEASURED_AT_ONCE = 4096


class FitTask(Task):
    """Fit a quantizer to vectors until it has converged. Each iteration is a step, with a row and a checkpoint.

    Args:
        fit: how.
        vectors: to what.
        settings: of the run, whose steps are the iterations of the fit.
        held_out: vectors to measure on.
    """

    command = "fit"
    picture_title = "vectors above reconstructions"
    window: FitWindow

    def __init__(self, fit: Fit, vectors: Vectors, settings: Settings, held_out: Vectors | None = None) -> None:
        # A step is long here, and what it has come to is worth a row and a checkpoint.
        super().__init__(Nothing(), dataclasses.replace(settings, steps=fit.length, log_every=1, save_every=1))
        self.automatic_optimization = False
        self.fit, self.vectors, self.held_out = fit, vectors, held_out
        self.window = FitWindow()
        self.data_facts = digest_of(vectors)
        self.validation_figures = ("validation_relative_error",) if held_out is not None else ()

    @property
    @override
    def finished(self) -> bool:
        return bool(self.window.content) and self.fit.finished(self.window.content)

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return one that moves nothing: Lightning counts its steps."""
        return torch.optim.SGD(self.parameters(), 1.0)

    @override
    def examples(self, length: int) -> Dataset[Any]:
        """Return nothing, so many times: an iteration reads all vectors."""
        return TensorDataset(torch.empty(length, 0))

    @override
    def training_step(self, batch: Any, index: int) -> None:
        """Make an iteration."""
        rows, state = Share(self.vectors), self.window.content
        self.window.content = self.fit.advance(rows, state) if state else self.fit.start(rows)
        self.optimizers().step()  # type: ignore[union-attr]

    @override
    def figures(self) -> dict[str, float]:
        """Return the error, relative to the energy of the vectors about their mean."""
        return {"relative_error": float(self.window.content["error"])}

    @override
    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return the squared error of other vectors, relative to their squared distances from their mean."""
        if self.held_out is None:
            return {}
        return {"validation_relative_error": validated(self.fitted(), self.held_out)}

    @override
    def note(self, figures: Mapping[str, float]) -> str:
        """Tell the error."""
        return f"error {figures['relative_error']:.5f} of the energy"

    @override
    @torch.no_grad()
    def picture(self) -> Tensor:
        """Draw vectors above their reconstructions."""
        return shown(self.fitted(), self.vectors)

    def fitted(self) -> VectorAutoencoder:
        """Return the model as it is."""
        quantizer = self.fit.quantizer(self.window.content)
        return VectorAutoencoder(quantizer, beam_size=self.fit.beam, unit=self.fit.unit).eval()

    @override
    def save(self, folder: Path) -> None:
        """Save the model."""
        self.fitted().save_pretrained(folder)


class Nothing(nn.Module):
    """What an optimizer may hold where no gradient moves anything."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.empty(0))


class FitWindow:
    """The state of a fit, which a checkpoint keeps.

    Attributes:
        content: the state; empty before the first iteration.
    """

    def __init__(self) -> None:
        self.content: State = {}

    def state(self) -> dict[str, Any]:
        """Return the state."""
        return dict(self.content)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with a state."""
        self.content = dict(state)


class Share:
    """The rows that this process reads: all, or its part of them among several processes.

    Args:
        vectors: all rows.
    """

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors
        self.first, self.last = (len(vectors) * number // world_size() for number in (rank(), rank() + 1))

    @property
    def shape(self) -> tuple[int, int]:
        """(n, D) of this process."""
        return len(self), self.vectors.dim

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, piece: slice) -> Tensor:
        start, stop, step = piece.indices(len(self))
        return self.vectors[self.first + start : self.first + stop : step]


def digest_of(vectors: Vectors) -> dict[str, Any]:
    """Return facts by which a run knows that its data is what it began with: the items, and some rows."""
    digest = hashlib.sha256()
    count = min(len(vectors), EXAMINED)
    digest.update(vectors.batch([len(vectors) * number // count for number in range(count)]).numpy().tobytes())
    return {**facts_of(vectors.names), "rows": digest.hexdigest(), "dim": vectors.dim}


@torch.no_grad()
def shown(model: VectorAutoencoder, vectors: Vectors) -> Tensor:
    """Draw the first vectors above their reconstructions, uint8 `(3, H, W)`."""
    some = vectors[:SHOWN]
    copies = model.decode(model.encode(some.to(model.device))).cpu()
    return kind_of(model).show([[*pair] for pair in zip(some, copies, strict=True)])


@torch.no_grad()
def validated(model: VectorAutoencoder, vectors: Vectors) -> float:
    """Return the squared error of all vectors, relative to their squared distances from their mean."""
    error, square, total = 0.0, 0.0, torch.zeros(model.dim, dtype=torch.float64)
    for start in range(0, len(vectors), MEASURED_AT_ONCE):
        own = vectors[start : start + MEASURED_AT_ONCE].to(model.device)
        target, copies = model.target(own).double().cpu(), model.decode(model.encode(own)).double().cpu()
        error += float((target - copies).square().sum())
        square += float(target.square().sum())
        total += target.sum(0)
    return error / (square - float(total.square().sum()) / len(vectors))
