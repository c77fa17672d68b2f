"""What one training step does, in Lightning's terms."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader

from lexel.data.images import Images, constant_error
from lexel.metrics import Usage
from lexel.models import VQVAE
from lexel.quantizers.base import Quantized
from lexel.training.crops import RandomCrops, Remaining
from lexel.training.settings import Settings

__all__ = ["TrainingTask"]


# A histogram shows at most so many of the codes that did not occur: there may be 2^62.
MOST_DEAD = 1 << 16


class TrainingTask(L.LightningModule):
    """Reconstruct random crops: loss = reconstruction error / that of a constant image + the quantizer's loss.

    Logged with each row is the usage of the codes over everything since the row before, on all ranks.
    """

    def __init__(self, model: VQVAE, images: Images, settings: Settings) -> None:
        super().__init__()
        self.model = model
        self.images = images
        self.settings = settings
        few = (pixels for _, pixels in islice(images.readable(range(len(images))), 64))
        error = constant_error(few, settings.reconstruction_loss)
        self.constant_error = max(error, 1e-4)  # data of one colour only has none

    def setup(self, stage: str) -> None:
        """Count the usage of each codebook where the ranks can talk about it."""
        sizes = self.model.quantizer.codebook_sizes
        self.usages = [Usage(size, device=self.trainer.strategy.root_device) for size in sizes]

    def training_step(self, images: Tensor, index: int) -> Tensor:
        """Return the loss of a batch of crops `(B, C, crop, crop)`."""
        latents = self.model.latents(images)
        output: Quantized = self.model.quantizer(latents)
        reconstructions = self.model.images(output.quantized, images.shape[-2:])
        squared_error = F.mse_loss(reconstructions, images)
        absolute_error = F.l1_loss(reconstructions, images)
        error = squared_error if self.settings.reconstruction_loss == "mse" else absolute_error
        loss: Tensor = error / self.constant_error + output.loss
        figures: dict[str, Tensor | float] = {
            "loss": loss.detach(),
            "psnr": -10 * squared_error.detach().log10(),
            "l1": absolute_error.detach(),
            **{f"quantizer_{name}": term.detach() for name, term in output.terms.items()},
            "learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"],
        }
        self._count(output, latents)
        # Not left to Lightning, which adds a row where a run is stopped: a run that was never stopped has none there.
        if (self.global_step + 1) % min(self.settings.log_every, self.settings.steps) == 0:
            figures.update(self._usage())
            row = {name: float(value) for name, value in figures.items()}
            for logger in self.loggers:
                logger.log_metrics(row, self.global_step)
        self.log_dict(figures, logger=False)
        return loss

    @torch.no_grad()
    def _count(self, output: Quantized, latents: Tensor) -> None:
        first, *others = output.indices.reshape(-1, len(self.usages)).unbind(1)
        self.usages[0].update(replace(output, indices=first), self.model.quantizer.unquantized(latents))
        for usage, indices in zip(self.usages[1:], others, strict=True):
            usage.update(indices)

    def _usage(self) -> dict[str, float]:
        """Return the figures of all since the last row, and start anew. Every rank must call it.

        Of several codebooks the means, as `Quantized.perplexity` is the geometric mean; of dead codes the sum.
        """
        self._draw_usage()
        found = [usage.compute() for usage in self.usages]
        for usage in self.usages:
            usage.reset()
        entropy = sum(each.entropy for each in found) / len(found)
        return {
            "usage": sum(each.usage for each in found) / len(found),
            "perplexity": math.exp(entropy),
            "dead_codes": sum(each.dead for each in found),
            "bits_per_code": entropy / math.log(2),
            "distortion": found[0].distortion,
        }

    def _draw_usage(self) -> None:
        for number, usage in enumerate(self.usages):
            _, counts = usage.counts()
            # Logarithms, or a few frequent codes leave all others in one bar; one more than the count, so that dead
            # codes have a bar too, at zero.
            dead = min(usage.num_embeddings - len(counts), MOST_DEAD)
            values = F.pad((counts + 1).double().log2(), (dead, 0))
            name = "log2(1 + uses) of a code" + f", codebook {number}" * (len(self.usages) > 1)
            for logger in self.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_histogram(name, values, self.global_step)

    def configure_optimizers(self) -> Any:
        """Adam, with a short warm-up and a cosine down to nothing."""
        optimizer = torch.optim.Adam(self.parameters(), self.settings.learning_rate, betas=(0.9, 0.99))
        steps = self.settings.steps

        def factor(step: int) -> float:
            return min((step + 1) / (1 + 0.05 * steps), (1 + math.cos(math.pi * min(step / steps, 1))) / 2)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Crops from the current step on, this rank's share of each batch."""
        settings, ranks = self.settings, self.trainer.world_size
        length = settings.steps * settings.batch_size
        crops = RandomCrops(self.images, settings.crop, length, settings.seed)
        sampler = Remaining(self.global_step * settings.batch_size, length, self.global_rank, ranks)
        return DataLoader(crops, settings.batch_size // ranks, sampler=sampler, num_workers=settings.workers)

    # Estimators may draw random numbers: a resumed run must draw those that the whole run would have drawn. And its
    # next row must tell of everything since the row before, part of which may lie before the checkpoint.
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state of the random generator, and what was counted since the last row. Every rank must call it."""
        checkpoint["random_state"] = torch.get_rng_state()
        checkpoint["usages"] = [usage.state_dict() for usage in self.usages]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put both back."""
        torch.set_rng_state(checkpoint["random_state"])
        for usage, state in zip(self.usages, checkpoint["usages"], strict=True):
            usage.load_state_dict(state)
