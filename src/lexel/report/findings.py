"""Judge a run by its measurement: its figures, and one sentence on the state of its codebooks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lexel.metrics import CodeUsage
from lexel.models import ImageAutoencoder
from lexel.report.measuring import Measurement
from lexel.report.reading import Run
from lexel.report.wording import amount, counted, percent

__all__ = ["Findings", "Verdict", "judge"]

HEALTHY = 0.9  # of the codes in use
COLLAPSED = 0.1  # of the possible perplexity, as in lexel.audit


@dataclass(frozen=True)
class Verdict:
    """The state of the codebooks.

    Attributes:
        tone: how good it is.
        title: the verdict in a few words.
        reason: the figures behind it, in a sentence or two.
    """

    tone: Literal["good", "fair", "bad"]
    title: str
    reason: str


@dataclass(frozen=True)
class Findings:
    """The figures of a run.

    Attributes:
        verdict: the state of the codebooks.
        codebooks: the usage of each codebook.
        psnr: mean over the images, in dB.
        bits_per_pixel: bits of the indices as they are.
        coded_bits_per_pixel: bits of the indices after an ideal entropy coder.
    """

    verdict: Verdict
    codebooks: tuple[CodeUsage, ...]
    psnr: float
    bits_per_pixel: float
    coded_bits_per_pixel: float

    @property
    def several(self) -> bool:
        """Whether there are several codebooks."""
        return len(self.codebooks) > 1

    @property
    def used(self) -> int:
        """How many codes of all codebooks occur."""
        return sum(each.used for each in self.codebooks)

    @property
    def num_embeddings(self) -> int:
        """How many codes all codebooks have."""
        return sum(each.num_embeddings for each in self.codebooks)

    @property
    def perplexity(self) -> float:
        """The geometric mean over the codebooks."""
        return math.exp(sum(each.entropy for each in self.codebooks) / len(self.codebooks))


def judge(run: Run[ImageAutoencoder], measurement: Measurement) -> Findings:
    """Find out how good a run is."""
    codebooks = tuple(usage.compute() for usage in measurement.usages)
    coded_bits = sum(each.total * each.bits_per_code for each in codebooks)
    return Findings(
        verdict=_verdict(run, codebooks, measurement.positions),
        codebooks=codebooks,
        psnr=measurement.psnr,
        bits_per_pixel=measurement.bits / measurement.pixels,
        coded_bits_per_pixel=coded_bits / measurement.pixels,
    )


def _verdict(run: Run[ImageAutoencoder], codebooks: tuple[CodeUsage, ...], positions: int) -> Verdict:
    several = len(codebooks) > 1
    for number, each in enumerate(codebooks):
        if each.perplexity < COLLAPSED * min(each.num_embeddings, each.total):
            name = f"Codebook {number + 1}" if several else "The codebook"
            return Verdict("bad", "Collapsed", _collapse(name, each) + _advice(run.model))
    used, size = sum(each.used for each in codebooks), sum(each.num_embeddings for each in codebooks)
    all_codebooks = f"all {len(codebooks)} codebooks" if several else "the codebook"
    if used == size:
        return Verdict("good", "Healthy", f"These images use all {size:,} codes of {all_codebooks}.")
    if any(each.num_embeddings > each.total for each in codebooks):
        reason = f"These images have {counted(positions, 'position')}, too few to use all {amount(size)} codes"
        return Verdict("good", "Too many codes to judge by use", f"{reason}; {used:,} different codes occur.")
    reason = f"These images use {used:,} of the {size:,} codes of {all_codebooks} ({percent(used / size)})."
    trained = run.metrics[-1].get("usage") if run.metrics else None
    if trained is not None:
        first, last = [-1, *(int(row["step"] or 0) for row in run.metrics)][-2:]
        reason += f" The last {counted(last - first, 'step')} of training used {percent(trained)} of them."
    if max(used / size, trained or 0) >= HEALTHY:
        return Verdict("good", "Healthy", reason)
    return Verdict("fair", "Worth a look", reason)


def _collapse(name: str, usage: CodeUsage) -> str:
    equal = f"{counted(math.ceil(usage.perplexity), 'code')} used equally often would"
    return (
        f"{name} has collapsed: these images use only {usage.used:,} of {amount(usage.num_embeddings)} codes, "
        f"which carry no more than {equal}."
    )


def _advice(model: ImageAutoencoder) -> str:
    """Say how to prevent a collapse, if the model has no upkeep but could have it."""
    if any(quantizer.could_use_upkeep for quantizer in model.quantizers):
        return " To prevent this, start the codes where the data lies (KMeansStart) and revive dead ones (Revival)."
    return ""
