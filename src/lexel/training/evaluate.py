"""How good a model's reconstructions and codes are, over a whole set of images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lexel._core.console import track
from lexel._core.modules import evaluating
from lexel.audit import Audit, audit
from lexel.data.batches import batches
from lexel.data.images import open_images, psnr, ssim, to_pixels
from lexel.data.images.measure import SSIM_WINDOW
from lexel.metrics import Usage
from lexel.models import Autoencoder

__all__ = ["Evaluation", "audit_model", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """Figures over a set of whole images; reconstructions count as the 8-bit pixels that a file would hold.

    Attributes:
        images: how many were read.
        psnr: mean over images, in dB, of 10 log10(1 / mean squared error).
        ssim: mean structural similarity over images of at least 11 × 11 pixels; NaN without any.
        l1: mean absolute error of a pixel in [0, 1], over images.
        perplexity: exp(entropy) of code usage over the whole set.
        used: how many different codes occur.
        num_embeddings: K, how many there are.
        bits_per_pixel: bits of the indices as they are, of fixed length.
        entropy_bits_per_pixel: bits after an ideal entropy coder that knows how often each code occurs.
        skipped: files that could not be read, with the reason.
    """

    images: int
    psnr: float
    ssim: float
    l1: float
    perplexity: float
    used: int
    num_embeddings: int
    bits_per_pixel: float
    entropy_bits_per_pixel: float
    skipped: dict[str, str]


@torch.no_grad()
def evaluate(model: Autoencoder, data: str | Path, *, strict: bool = False, batch_size: int = 1) -> Evaluation:
    """Evaluate a model on whole images.

    Args:
        model: in eval mode, on any device.
        data: as `lexel.data.images.open_images` takes it.
        strict: refuse data with unreadable files instead of skipping them.
        batch_size: how many images of one size are computed at once; figures may then differ in their last digits.

    Raises:
        FileNotFoundError: `data` does not exist.
        ValueError: there is no readable image in `data`.
    """
    images = open_images(data, model.image_channels)
    device = next(model.parameters()).device
    ratios: dict[int, float] = {}
    similarities: dict[int, float] = {}
    l1: dict[int, float] = {}
    usage = Usage(model.num_embeddings)
    pixels, bits = 0, 0.0
    readable = images.readable(track(range(len(images)), "evaluating"), strict=strict)
    for numbers, batch in batches(readable, batch_size):
        height, width = batch.shape[2:]
        indices = model.encode(batch.to(device).float() / 255)
        decoded_batch = to_pixels(model.decode(indices, (height, width))).cpu()
        usage.update(indices)
        for number, image, decoded_pixels in zip(numbers, batch, decoded_batch, strict=True):
            original, decoded = image[None].float() / 255, decoded_pixels[None].float() / 255
            ratios[number] = psnr(original, decoded)
            l1[number] = float((decoded - original).abs().mean())
            if min(height, width) >= SSIM_WINDOW:
                similarities[number] = ssim(original[0], decoded[0])
            pixels += height * width
            bits += model.bits((height, width))

    codes = usage.compute()
    return Evaluation(
        images=len(ratios),
        psnr=_mean(ratios),
        ssim=_mean(similarities),
        l1=_mean(l1),
        perplexity=codes.perplexity,
        used=codes.used,
        num_embeddings=codes.num_embeddings,
        bits_per_pixel=bits / pixels,
        entropy_bits_per_pixel=codes.total * codes.bits_per_code / pixels,
        skipped=images.skipped,
    )


@torch.no_grad()
def audit_model(model: Autoencoder, data: str | Path, *, strict: bool = False, positions: int = 1 << 14) -> list[Audit]:
    """Audit each of a model's quantizers with `lexel.audit` on the vectors that its encoder gives for images.

    Args:
        model: in any mode.
        data: as `lexel.data.images.open_images` takes it.
        strict: refuse data with unreadable files instead of skipping them.
        positions: how many positions to examine of each; images are read until they have as many.

    Raises:
        FileNotFoundError: `data` does not exist.
        ValueError: there is no readable image in `data`.
    """
    images = open_images(data, model.image_channels)
    latents: list[list[Tensor]] = []
    with evaluating(model):
        for _, image in images.readable(range(len(images)), strict=strict):
            latents.append([level.latents for level in model.quantize(image[None].float() / 255)])
            if sum(each[0][0, 0].numel() for each in latents) >= positions:
                break
    audits = []
    for quantizer, own in zip(model.quantizers, zip(*latents, strict=True), strict=True):
        rows = quantizer.positionwise  # images may differ in size
        audits.append(
            audit(quantizer, torch.cat([each.movedim(1, -1).flatten(0, -2) if rows else each for each in own]))
        )
    return audits


def _mean(values: Mapping[int, float]) -> float:
    """Return the mean, summed in the order of the images, so that it does not depend on the batches."""
    return sum(values[number] for number in sorted(values)) / len(values) if values else math.nan
