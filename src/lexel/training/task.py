"""What a run trains: everything that differs between one kind of training and another, in Lightning's terms."""

from __future__ import annotations

import hashlib
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from lexel._core.collectives import gather_rows, rank, world_size
from lexel._core.signals import ignore_signals
from lexel.training.batches import Batches
from lexel.training.settings import Settings

__all__ = ["Average", "Task", "Window", "facts_of", "mean_of_ranks", "schedule", "seed_step"]


class Window(Protocol):
    """What was counted since the last row of the metrics, over all ranks. Every rank must call each method."""

    def state(self) -> dict[str, Any]:
        """Return what was counted, for the checkpoint."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with what was counted."""


class Task(L.LightningModule, ABC):
    """What a run trains: its data, the loss of a step, the figures of a row, a picture to look at, and what is saved.

    The examples, the learning rate and all random numbers of a step are functions of the seed, the step and the rank.
    So a run that goes on from a checkpoint needs no state of theirs.

    Attributes:
        command: the command that trains this, by which `lexel resume` knows what to go on with.
        picture_title: what the picture shows.
        validation_figures: the names of the figures that `validate` returns.
        window: what was counted since the last row.
        config: the text of config.yaml, which the checkpoint keeps.
        data_facts: how many examples there are, and a digest of their names, known once the data is open. The
            checkpoint keeps them: a run goes on with the same data.

    Args:
        model: what is trained, in place; the checkpoint holds its state.
        settings: how to train.
    """

    command: ClassVar[str]
    picture_title: ClassVar[str]
    collate: ClassVar[Callable[..., Any] | None] = None
    validation_figures: Sequence[str] = ()
    window: Window

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.config = ""
        self.data_facts: dict[str, Any] = {}

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do, before all steps are done."""
        return False

    def open(self, *, strict: bool) -> None:
        """Open and check the data, once the folder is this run's.

        Args:
            strict: refuse data with unreadable files instead of skipping them.

        Raises:
            FileNotFoundError: the data does not exist.
            ValueError: nothing in it is readable.
        """

    @abstractmethod
    def examples(self, length: int) -> Dataset[Any]:
        """Return the examples of a whole run, `length` of them; the i-th is a function of the seed and i alone."""

    @abstractmethod
    def figures(self) -> dict[str, float]:
        """Return the figures of a row, and start the window anew. Every rank must call it."""

    def validate(self) -> dict[str, float]:
        """Return the figures of data that is not trained on, by their names in `validation_figures`."""
        return {}

    def usage(self) -> list[tuple[int, Tensor]]:
        """Return K of each codebook and how often each used code occurred in the window. Every rank must call it."""
        return []

    @abstractmethod
    def note(self, figures: Mapping[str, float]) -> str:
        """Say in a few words how well it goes."""

    @abstractmethod
    def picture(self) -> Tensor:
        """Draw what can be looked at while training goes on, uint8 `(3, H, W)`."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Save the model."""

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.trainer.optimizers[0].param_groups[0]["lr"])

    @override
    def on_train_batch_start(self, batch: Any, index: int) -> None:
        """Set the learning rate and the random generators of this step."""
        seed_step(self.settings.seed, self.global_step, self.global_rank, self.device)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.settings.learning_rate * schedule(self.global_step, self.settings.steps)

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Use Adam."""
        # In one kernel: for a small model, Adam's many small operations take as long as a layer. But the kernel may
        # unscale gradients by itself after they have been clipped, so Lightning refuses it in mixed precision.
        fused = self.device.type in ("cpu", "cuda") and self.settings.precision == "32-true"
        return torch.optim.Adam(self.parameters(), self.settings.learning_rate, betas=(0.9, 0.99), fused=fused)

    @override
    def train_dataloader(self) -> DataLoader[Any]:
        """Load this rank's share of each batch of examples, from the current step on."""
        settings, ranks = self.settings, self.trainer.world_size
        return DataLoader(
            self.examples(settings.steps * settings.batch_size),
            batch_sampler=Batches(self.global_step, settings.steps, settings.batch_size, self.global_rank, ranks),
            collate_fn=self.collate,
            num_workers=settings.workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=ignore_signals if settings.workers else None,
            generator=torch.Generator(),  # its own: it would draw from the generator of the model
        )

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the settings, and what was counted since the last row. Every rank must call it."""
        checkpoint["config"] = self.config
        checkpoint["data"] = self.data_facts
        checkpoint["window"] = self.window.state()

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what was counted: the next row covers all steps since the row before."""
        self.window.restore(checkpoint["window"])


def facts_of(names: Sequence[str]) -> dict[str, Any]:
    """Return how many examples there are, and a digest of their names.

    Example:
        >>> facts_of(["a.png", "b.png"])["examples"]
        2
    """
    digest = hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass"))
    return {"examples": len(names), "names": digest.hexdigest()}


class Average:
    """The mean of numbers that come step by step, over all ranks.

    Args:
        device: where they are added up; the ranks must be able to exchange tensors of this device.
    """

    def __init__(self, device: torch.device) -> None:
        # MPS has no float64, in which they are added up.
        self.device = torch.device("cpu") if device.type == "mps" else device
        self.reset()

    def reset(self) -> None:
        """Forget all numbers."""
        self.sum, self.count = torch.zeros((), dtype=torch.float64, device=self.device), 0

    def add(self, total: Tensor, count: int) -> None:
        """Take in so many numbers, of which `total` is the sum."""
        self.sum += total.detach().to(self.device)
        self.count += count

    def compute(self) -> float:
        """Return the mean. Every rank must call it."""
        sums, counts = self.of_ranks()
        return float(sums.sum()) / float(counts.sum())

    def of_ranks(self) -> tuple[Tensor, Tensor]:
        """Return the sum and the count of each rank. Every rank must call it."""
        own = torch.stack([self.sum, self.sum.new_tensor(self.count)])
        sums, counts = gather_rows(own[None], absent=0).cpu().unbind(1)
        return sums.contiguous(), counts.contiguous()

    def restore(self, sums: Tensor, counts: Tensor) -> None:
        """Go on with what `of_ranks` returned: each rank with its own if there are as many ranks as before."""
        if len(sums) == world_size():
            own, count = sums[rank()], counts[rank()]
        else:
            own, count = sums.sum() * (rank() == 0), counts.sum() * (rank() == 0)
        self.sum, self.count = own.clone().to(self.device), int(count)


def mean_of_ranks(seen: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the means over all ranks of scalars that each has seen. Every rank must call it, with the same names.

    Example:
        >>> mean_of_ranks({"loss": torch.tensor(0.5)})
        {'loss': 0.5}
    """
    of_ranks = gather_rows(torch.stack([*seen.values()])[None], absent=0)
    return dict(zip(seen, of_ranks.mean(0).tolist(), strict=True))


def schedule(step: int, steps: int) -> float:
    """Return the share of the learning rate at a step: a short warm-up, then a cosine down to zero.

    Example:
        >>> [round(schedule(step, 100), 3) for step in (0, 5, 50, 99)]
        [0.167, 0.994, 0.5, 0.0]
    """
    return min((step + 1) / (1 + 0.05 * steps), (1 + math.cos(math.pi * min(step / steps, 1))) / 2)


def seed_step(seed: int, step: int, rank: int, device: torch.device) -> None:
    """Make all random numbers of a step a function of the seed, the step and the rank."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "little")
    # torch.manual_seed asks every kind of accelerator, which takes longer than a step of a small model may.
    torch.default_generator.manual_seed(number)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(number)
    random.seed(number)  # a plugin may draw from either
    np.random.seed(number % (1 << 32))  # noqa: NPY002
