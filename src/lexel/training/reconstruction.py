"""Training of a model on random crops of images, and how the codes are used meanwhile."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from lexel._core.console import messages, track
from lexel.data.images import Images, constant_error, listed, open_images, psnr, to_pixels
from lexel.data.pictures import centre, columns
from lexel.metrics import Usage
from lexel.models import ImageAutoencoder, Level
from lexel.quantizers.base import Quantizer
from lexel.training.crops import RandomCrops
from lexel.training.processes import is_first_process
from lexel.training.settings import ReconstructionSettings
from lexel.training.task import Average, Task, facts_of, mean_of_ranks

__all__ = ["CodeWindow", "ReconstructionTask"]

MOST_WAITING = 1 << 16  # positions whose codes wait to be counted


class ReconstructionTask(Task):
    """Reconstruct random crops: loss = reconstruction error / error of a constant image + the quantizer's loss.

    Args:
        model: what is trained.
        data: where the crops come from, as `lexel.data.images.open_images` takes it.
        settings: how to train.
    """

    command = "train"
    picture_title = "originals above reconstructions"
    model: ImageAutoencoder
    settings: ReconstructionSettings
    window: CodeWindow

    def __init__(self, model: ImageAutoencoder, data: str | Path, settings: ReconstructionSettings) -> None:
        super().__init__(model, settings)
        self.data = data
        self.validation_figures = ("validation_psnr", "validation_l1") if settings.validation else ()

    @override
    def open(self, *, strict: bool) -> None:
        """Open the images, and find out which error a constant image has."""
        self.images = self._opened(self.data, strict=strict)
        self.data_facts = facts_of(self.images.names)
        self.held_out = self._opened(self.settings.validation, strict=strict) if self.settings.validation else None
        error = constant_error(self._first(64), self.settings.reconstruction_loss)
        self.constant_error = max(error, 1e-4)  # it is zero for images of a single colour
        self.samples = [centre(pixels, 256, 256).float() / 255 for pixels in self._first(4)]

    @override
    def setup(self, stage: str) -> None:
        """Count codes on the device over which the ranks communicate."""
        self.window = CodeWindow(self.model.quantizers, self.trainer.strategy.root_device)

    @override
    def examples(self, length: int) -> RandomCrops:
        """Return random crops."""
        return RandomCrops(self.images, self.settings.crop, length, self.settings.seed)

    @override
    def training_step(self, images: Tensor, index: int) -> Tensor:
        """Return the loss of a batch of crops `(B, C, crop, crop)`."""
        reconstructions, levels = self._reconstruct(images)
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

    def _reconstruct(self, images: Tensor) -> tuple[Tensor, list[Level]]:
        try:
            return self.model.reconstruct(images)
        except ValueError as error:
            if self.global_step == 0:  # what a batch of pixels can be refused for shows in the first one
                raise
            raise ValueError(
                f"training diverged at step {self.global_step + 1}: lower --learning-rate, which is "
                f"{self.settings.learning_rate:g} ({error})"
            ) from error

    @override
    def figures(self) -> dict[str, float]:
        """Return the figures of the last step, and of the codes since the last row."""
        means = mean_of_ranks(self.seen)
        psnr = -10 * math.log10(max(means.pop("squared_error"), 1e-10))
        return {
            "loss": means.pop("loss"),
            "psnr": psnr,
            **means,
            "learning_rate": self.learning_rate,
            **self.window.figures(),
        }

    @override
    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return PSNR and mean absolute error of whole images that are not trained on."""
        if self.held_out is None:
            return {}
        ratios, errors = [], []
        for _, pixels in self.held_out.readable(range(len(self.held_out))):
            original = pixels.float() / 255
            decoded = to_pixels(self._reconstructed(original)).float() / 255
            ratios.append(psnr(original, decoded))
            errors.append(float((decoded - original).abs().mean()))
        return {"validation_psnr": sum(ratios) / len(ratios), "validation_l1": sum(errors) / len(errors)}

    @override
    def usage(self) -> list[tuple[int, Tensor]]:
        """Return K of each codebook, and how often each of its codes occurred."""
        return self.window.counts()

    @override
    def note(self, figures: Mapping[str, float]) -> str:
        """Tell the PSNR, and how many codes are in use."""
        return f"PSNR {figures['psnr']:.1f} dB · {figures['usage']:.0%} of the codes"

    @override
    @torch.no_grad()
    def picture(self) -> Tensor:
        """Draw samples above their reconstructions."""
        return to_pixels(columns([[sample, self._reconstructed(sample)] for sample in self.samples]))

    @override
    def save(self, folder: Path) -> None:
        """Save the model."""
        self.model.save_pretrained(folder)

    def _reconstructed(self, image: Tensor) -> Tensor:
        """Return the reconstruction of one image `(C, H, W)`."""
        indices = self.model.encode(image[None].to(self.device))
        return self.model.decode(indices, (image.shape[1], image.shape[2]))[0].cpu()

    def _first(self, count: int) -> Iterator[Tensor]:
        """Yield the first readable images, uint8 `(C, H, W)`."""
        return (pixels for _, pixels in islice(self.images.readable(range(len(self.images))), count))

    def _opened(self, data: str | Path, *, strict: bool) -> Images:
        images = open_images(data, self.model.image_channels)
        images.check(track(range(len(images)), "reading images"), strict=strict)
        if images.skipped and is_first_process():
            messages.print(f"skipped {listed(images.skipped)}", style="yellow", soft_wrap=True)
        return images


class CodeWindow:
    """How the codes were used since the last row of the metrics, over all ranks.

    Args:
        quantizers: whose codes are counted.
        device: where they are counted; the ranks must be able to exchange tensors of this device.
    """

    def __init__(self, quantizers: Sequence[Quantizer], device: torch.device) -> None:
        self.quantizers = quantizers
        self.distortion = Average(device)
        sizes = [size for quantizer in quantizers for size in quantizer.codebook_sizes]
        self.usages = [Usage(size, device=self.distortion.device) for size in sizes]
        self.waiting: list[list[Tensor]] = []  # of each step the indices of each codebook

    @torch.no_grad()
    def count(self, levels: Sequence[Level]) -> None:
        """Count the codes of a step, and its distortion: the error of what the indices stand for after it.

        `quantized` is something else in training where examples pass unquantized or noise takes the place of rounding.
        """
        # The codes of many steps are counted at once: for a small model, counting would take as long as a layer.
        pairs = list(zip(self.quantizers, levels, strict=True))
        codes = [level.output.indices.reshape(-1, len(quantizer.codebook_sizes)) for quantizer, level in pairs]
        self.waiting.append([own for each in codes for own in each.unbind(1)])
        if sum(map(len, codes)) * len(self.waiting) > MOST_WAITING:
            self._count_waiting()
        for quantizer, (latents, output) in pairs:
            # Not `lookup`, whose check of the indices waits for the device.
            found = quantizer.lookup_positions(output.indices).movedim(-1, quantizer.channel_dim)
            difference = found - quantizer.unquantized(latents)
            wide = torch.float64 if self.distortion.device == difference.device else None
            self.distortion.add(difference.square_().sum(dtype=wide), difference.numel())

    def figures(self) -> dict[str, float]:
        """Return the figures, and start counting anew. Every rank must call it.

        Several codebooks are averaged (the perplexity geometrically, as in `Quantized`); their dead codes are added up.
        """
        self._count_waiting()
        found = [usage.compute() for usage in self.usages]
        distortion = self.distortion.compute()
        for usage in self.usages:
            usage.reset()
        self.distortion.reset()
        entropy = sum(each.entropy for each in found) / len(found)
        return {
            "usage": sum(each.usage for each in found) / len(found),
            "perplexity": math.exp(entropy),
            "dead_codes": sum(each.dead for each in found),
            "bits_per_code": entropy / math.log(2),
            "distortion": distortion,
        }

    def counts(self) -> list[tuple[int, Tensor]]:
        """Return K of each codebook and how often each of its codes occurred. Every rank must call it."""
        self._count_waiting()
        return [(usage.num_embeddings, usage.counts()[1]) for usage in self.usages]

    def state(self) -> dict[str, Any]:
        """Return what was counted, and the errors of each rank. Every rank must call it."""
        self._count_waiting()
        errors, elements = self.distortion.of_ranks()
        return {"usages": [usage.state_dict() for usage in self.usages], "errors": errors, "elements": elements}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with what was counted: each rank with its own errors if there are as many ranks as before."""
        for usage, own in zip(self.usages, state["usages"], strict=True):
            usage.load_state_dict(own)
        self.distortion.restore(state["errors"], state["elements"])

    def _count_waiting(self) -> None:
        if self.waiting:
            for usage, indices in zip(self.usages, zip(*self.waiting, strict=True), strict=True):
                usage.update(torch.cat(indices))
        self.waiting = []
