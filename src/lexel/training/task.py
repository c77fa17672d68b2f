"""What one training step does, in Lightning's terms."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from lexel._core.collectives import gather_rows, rank, world_size
from lexel._core.signals import ignore_signals
from lexel.data.images import Images, constant_error
from lexel.metrics import Usage
from lexel.models import Autoencoder, Level
from lexel.quantizers.base import Quantizer
from lexel.training.crops import Batches, RandomCrops
from lexel.training.settings import Settings

__all__ = ["TrainingTask", "Window", "schedule", "seed_step"]

MOST_WAITING = 1 << 16  # positions whose codes wait to be counted


class TrainingTask(L.LightningModule):
    """Reconstruct random crops: loss = reconstruction error / error of a constant image + the quantizer's loss.

    The crops, the learning rate and all random numbers of a step are functions of the seed, the step and the rank. So a
    run that goes on from a checkpoint needs no state of theirs.

    Args:
        model: what is trained.
        images: where the crops come from.
        settings: how to train.
        config: the text of config.yaml, which the checkpoint keeps.
    """

    def __init__(self, model: Autoencoder, images: Images, settings: Settings, config: str = "") -> None:
        super().__init__()
        self.model = model
        self.images = images
        self.settings = settings
        self.config = config
        few = (pixels for _, pixels in islice(images.readable(range(len(images))), 64))
        error = constant_error(few, settings.reconstruction_loss)
        self.constant_error = max(error, 1e-4)  # it is zero for images of a single colour

    @override
    def setup(self, stage: str) -> None:
        """Count codes on the device over which the ranks communicate."""
        self.window = Window(self.model.quantizers, self.trainer.strategy.root_device)

    @override
    def on_train_batch_start(self, batch: Tensor, index: int) -> None:
        """Set the learning rate and the random generators of this step."""
        seed_step(self.settings.seed, self.global_step, self.global_rank, self.device)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.settings.learning_rate * schedule(self.global_step, self.settings.steps)

    @override
    def training_step(self, images: Tensor, index: int) -> Tensor:
        """Return the loss of a batch of crops `(B, C, crop, crop)`."""
        reconstructions, levels = self.model.reconstruct(images)
        output = self.model.joined(levels)
        squared_error = F.mse_loss(reconstructions, images)
        absolute_error = F.l1_loss(reconstructions, images)
        error = squared_error if self.settings.reconstruction_loss == "mse" else absolute_error
        loss: Tensor = error / self.constant_error + output.loss
        self.seen = {"loss": loss, "squared_error": squared_error, "l1": absolute_error}
        self.seen |= {f"quantizer_{name}": term for name, term in output.terms.items()}
        self.seen = {name: value.detach().float() for name, value in self.seen.items()}
        self.window.count(levels)
        return loss

    def figures(self) -> dict[str, float]:
        """Return the figures of the last step and of the codes since the last call. Every rank must call it."""
        of_ranks = gather_rows(torch.stack([*self.seen.values()])[None], absent=0)
        means = dict(zip(self.seen, of_ranks.mean(0).tolist(), strict=True))
        psnr = -10 * math.log10(max(means.pop("squared_error"), 1e-10))
        learning_rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        return {
            "loss": means.pop("loss"),
            "psnr": psnr,
            **means,
            "learning_rate": learning_rate,
            **self.window.figures(),
        }

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Use Adam."""
        # In one kernel: for a small model, Adam's many small operations take as long as a layer. With a scaled loss
        # the kernel would unscale the gradients itself, after they have been clipped.
        fused = self.device.type in ("cpu", "cuda") and self.settings.precision != "16-mixed"
        return torch.optim.Adam(self.parameters(), self.settings.learning_rate, betas=(0.9, 0.99), fused=fused)

    @override
    def train_dataloader(self) -> DataLoader[Tensor]:
        """Load this rank's share of each batch of crops, from the current step on."""
        settings, ranks = self.settings, self.trainer.world_size
        crops = RandomCrops(self.images, settings.crop, settings.steps * settings.batch_size, settings.seed)
        return DataLoader(
            crops,
            batch_sampler=Batches(self.global_step, settings.steps, settings.batch_size, self.global_rank, ranks),
            num_workers=settings.workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=ignore_signals if settings.workers else None,
            generator=torch.Generator(),  # its own: it would draw from the generator of the model
        )

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the settings, and what was counted since the last row. Every rank must call it."""
        checkpoint["config"] = self.config
        checkpoint["window"] = self.window.state()

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what was counted: the next row covers all steps since the row before."""
        self.window.restore(checkpoint["window"])


class Window:
    """How the codes were used since the last row of the metrics, over all ranks.

    Args:
        quantizers: whose codes are counted.
        device: where they are counted; the ranks must be able to exchange tensors of this device.
    """

    def __init__(self, quantizers: Sequence[Quantizer], device: torch.device) -> None:
        # MPS has no float64, in which the distortion is summed.
        self.device = torch.device("cpu") if device.type == "mps" else device
        self.quantizers = quantizers
        self.usages = [Usage(size, device=self.device) for each in quantizers for size in each.codebook_sizes]
        self.waiting: list[list[Tensor]] = []  # of each step the indices of each codebook
        self._forget_error()

    @torch.no_grad()
    def count(self, levels: Sequence[Level]) -> None:
        """Count the codes of a step, and its distortion."""
        # The codes of many steps are counted at once: for a small model, counting would take as long as a layer.
        pairs = list(zip(self.quantizers, levels, strict=True))
        codes = [level.output.indices.reshape(-1, len(quantizer.codebook_sizes)) for quantizer, level in pairs]
        self.waiting.append([own for each in codes for own in each.unbind(1)])
        if sum(map(len, codes)) * len(self.waiting) > MOST_WAITING:
            self._count_waiting()
        for quantizer, (latents, output) in pairs:
            difference = output.quantized.detach() - quantizer.unquantized(latents)
            squares = difference.square_().sum(dtype=torch.float64 if self.device == difference.device else None)
            self.error += squares.to(self.device)
            self.elements += difference.numel()

    def figures(self) -> dict[str, float]:
        """Return the figures, and start counting anew. Every rank must call it.

        Several codebooks are averaged (the perplexity geometrically, as in `Quantized`); their dead codes are added up.
        """
        self._count_waiting()
        found = [usage.compute() for usage in self.usages]
        errors, elements = self._errors()
        for usage in self.usages:
            usage.reset()
        self._forget_error()
        entropy = sum(each.entropy for each in found) / len(found)
        return {
            "usage": sum(each.usage for each in found) / len(found),
            "perplexity": math.exp(entropy),
            "dead_codes": sum(each.dead for each in found),
            "bits_per_code": entropy / math.log(2),
            "distortion": float(errors.sum()) / float(elements.sum()),
        }

    def counts(self) -> list[tuple[int, Tensor]]:
        """Return K of each codebook and how often each of its codes occurred. Every rank must call it."""
        self._count_waiting()
        return [(usage.num_embeddings, usage.counts()[1]) for usage in self.usages]

    def state(self) -> dict[str, Any]:
        """Return what was counted, and the errors of each rank. Every rank must call it."""
        self._count_waiting()
        errors, elements = self._errors()
        return {"usages": [usage.state_dict() for usage in self.usages], "errors": errors, "elements": elements}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with what was counted: each rank with its own errors if there are as many ranks as before."""
        for usage, own in zip(self.usages, state["usages"], strict=True):
            usage.load_state_dict(own)
        errors, elements = state["errors"], state["elements"]
        if len(errors) == world_size():
            own_error, own_elements = errors[rank()], elements[rank()]
        else:
            own_error, own_elements = errors.sum() * (rank() == 0), elements.sum() * (rank() == 0)
        self.error, self.elements = own_error.clone().to(self.device), int(own_elements)

    def _count_waiting(self) -> None:
        if self.waiting:
            for usage, indices in zip(self.usages, zip(*self.waiting, strict=True), strict=True):
                usage.update(torch.cat(indices))
        self.waiting = []

    def _forget_error(self) -> None:
        self.error, self.elements = torch.zeros((), dtype=torch.float64, device=self.device), 0

    def _errors(self) -> tuple[Tensor, Tensor]:
        """Return the sum of squares and the number of elements of each rank."""
        own = torch.stack([self.error, self.error.new_tensor(self.elements)])
        squares, elements = gather_rows(own[None], absent=0).cpu().unbind(1)
        return squares.contiguous(), elements.contiguous()


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
