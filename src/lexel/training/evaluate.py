"""How good a model's reconstructions and codes are, over a whole set of examples."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lexel._core.console import track
from lexel._core.modules import evaluating
from lexel.audit import Audit, audit
from lexel.data.batches import batches
from lexel.data.kind import kind_of
from lexel.data.tables import USUAL, Columns
from lexel.metrics import Usage
from lexel.models import Autoencoder

__all__ = ["Evaluation", "audit_model", "evaluate"]

AUDITED = 1 << 14  # positions of each quantizer; examples are read until they have as many


@dataclass(frozen=True)
class Evaluation:
    """Figures over a set of whole examples; reconstructions count as what a file would hold, 8-bit pixels for images.

    Attributes:
        kind: the kind of data.
        examples: how many were read.
        figures: means over the examples of what their kind measures: for images `psnr` in dB, `ssim` over those of at
            least 11 × 11 pixels, and `l1`, the mean absolute error of a pixel in [0, 1]; NaN where none has the figure.
        perplexity: exp(entropy) of code usage over the whole set.
        used: how many different codes occur.
        num_embeddings: K, how many there are.
        rate: bits of the indices as they are, of fixed length, for each unit of an example's size, such as a pixel.
        entropy_rate: the same after an ideal entropy coder that knows how often each code occurs.
        skipped: files that could not be read, with the reason.
        codes: of a kind whose tokens are IDs, those of every example, int64 `(N, Q)`; None for others.
    """

    kind: str
    examples: int
    figures: dict[str, float]
    perplexity: float
    used: int
    num_embeddings: int
    rate: float
    entropy_rate: float
    skipped: dict[str, str]
    codes: Tensor | None = field(default=None, repr=False, compare=False)

    def as_json(self) -> dict[str, Any]:
        """Return the figures under the names that the kind of data gives them; None for NaN, which JSON lacks."""
        unit = kind_of(self).unit
        return {
            self.kind: self.examples,
            **{name: value if math.isfinite(value) else None for name, value in self.figures.items()},
            "perplexity": self.perplexity,
            "used": self.used,
            "num_embeddings": self.num_embeddings,
            f"bits_per_{unit}": self.rate,
            f"entropy_bits_per_{unit}": self.entropy_rate,
            "skipped": self.skipped,
        }


@torch.no_grad()
def evaluate(
    model: Autoencoder,
    data: str | Path,
    *,
    strict: bool = False,
    batch_size: int = 1,
    columns: Columns = USUAL,
) -> Evaluation:
    """Evaluate a model on whole examples.

    Args:
        model: in eval mode, on any device.
        data: what the model's kind of data opens.
        strict: refuse data with unreadable files instead of skipping them.
        batch_size: how many examples of one size are computed at once; figures may then differ in their last digits.
        columns: of a table, which hold and which name the examples.

    Raises:
        FileNotFoundError: `data` does not exist.
        ValueError: there is no readable example in `data`.
    """
    kind, device = kind_of(model), model.device
    examples = kind.open(data, model, columns)
    figures = {name: torch.full((len(examples),), math.nan, dtype=torch.float64) for name in kind.figures}
    usage = Usage(model.num_embeddings)
    read = units = 0
    bits = 0.0
    codes: list[Tensor] = []
    readable = examples.readable(track(range(len(examples)), "evaluating"), strict=strict)
    for numbers, batch in batches(readable, batch_size):
        size = tuple(kind.extent(batch[0]).values())
        indices = model.encode(kind.inputs(batch.to(device)))
        copies = kind.examples(model.decode(indices, size)).cpu()
        usage.update(indices)
        if kind.has_ids:
            codes.append(indices.reshape(len(numbers), -1).cpu())
        for number, original, copy in zip(numbers, batch, copies, strict=True):
            for name, value in kind.measure(original, copy).items():
                figures[name][number] = value
        read += len(numbers)
        units += len(numbers) * math.prod(size)
        bits += len(numbers) * model.bits(size)

    counts = usage.compute()
    return Evaluation(
        kind=kind.name,
        examples=read,
        figures={name: float(values.nanmean()) for name, values in figures.items()},
        perplexity=counts.perplexity,
        used=counts.used,
        num_embeddings=counts.num_embeddings,
        rate=bits / units,
        entropy_rate=counts.total * counts.bits_per_code / units,
        skipped=examples.skipped,
        codes=torch.cat(codes) if codes else None,
    )


@torch.no_grad()
def audit_model(
    model: Autoencoder,
    data: str | Path,
    *,
    strict: bool = False,
    columns: Columns = USUAL,
) -> list[Audit]:
    """Audit each of a model's quantizers with `lexel.audit` on the vectors that its encoder gives for examples.

    Args:
        model: in any mode.
        data: what the model's kind of data opens.
        strict: refuse data with unreadable files instead of skipping them.
        columns: of a table, which hold and which name the examples.

    Raises:
        FileNotFoundError: `data` does not exist.
        ValueError: there is no readable example in `data`.
    """
    kind = kind_of(model)
    examples = kind.open(data, model, columns)
    latents: list[list[Tensor]] = []
    with evaluating(model):
        for _, example in examples.readable(range(len(examples)), strict=strict):
            latents.append([level.latents for level in model.quantize(kind.inputs(example[None]))])
            if sum(each[0][:, 0].numel() for each in latents) >= AUDITED:
                break
    audits = []
    for quantizer, own in zip(model.quantizers, zip(*latents, strict=True), strict=True):
        rows = quantizer.positionwise  # examples may differ in size
        audits.append(
            audit(quantizer, torch.cat([each.movedim(1, -1).flatten(0, -2) if rows else each for each in own]))
        )
    return audits
