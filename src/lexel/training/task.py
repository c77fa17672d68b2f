"""What one training step does, in Lightning's terms."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from lexel.images import Images
from lexel.models import VQVAE
from lexel.training.crops import RandomCrops, Remaining
from lexel.training.settings import Settings

__all__ = ["TrainingTask"]


class TrainingTask(L.LightningModule):
    """Reconstruct random crops: loss = reconstruction error / that of a constant image + the quantizer's loss."""

    def __init__(self, model: VQVAE, images: Images, settings: Settings) -> None:
        super().__init__()
        self.model = model
        self.images = images
        self.settings = settings
        few = [images.read(index).flatten(1).float() / 255 for index in range(min(len(images), 64))]
        deviation = torch.cat(few, dim=1)
        deviation = deviation - deviation.mean(1, keepdim=True)
        constant_error = deviation.square() if settings.reconstruction_loss == "mse" else deviation.abs()
        self.constant_error = float(constant_error.mean().clamp_min(1e-4))  # data of one colour only has none

    def training_step(self, images: Tensor, index: int) -> Tensor:
        """Return the loss of a batch of crops `(B, C, crop, crop)`."""
        reconstructions, output = self.model(images)
        squared_error = F.mse_loss(reconstructions, images)
        absolute_error = F.l1_loss(reconstructions, images)
        error = squared_error if self.settings.reconstruction_loss == "mse" else absolute_error
        loss: Tensor = error / self.constant_error + output.loss
        self.log_dict(
            {
                "loss": loss,
                "psnr": -10 * squared_error.detach().log10(),
                "l1": absolute_error,
                **{f"quantizer_{name}": term for name, term in output.terms.items()},
                "perplexity": output.perplexity,
                "codes_in_batch": float(output.indices.unique().numel()),
                "learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"],
            }
        )
        return loss

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

    # Estimators may draw random numbers: a resumed run must draw those that the whole run would have drawn.
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state of the random generator."""
        checkpoint["random_state"] = torch.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the state of the random generator back."""
        torch.set_rng_state(checkpoint["random_state"])
