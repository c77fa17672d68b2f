"""The verdict follows from the figures, and says which."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import lexel
from lexel.metrics import Usage
from lexel.report.findings import Findings, judge
from lexel.report.measuring import Measurement
from lexel.report.reading import Run
from tests.report.models import tiny_model


def judged(
    *codes: torch.Tensor, size: int, metrics: list[dict[str, float | None]] | None = None, **settings: Any
) -> Findings:
    """The findings for a quantizer of which each codebook chose these codes, one for every 4 × 4 pixels."""
    books = [lexel.VectorQuantizer(size, 4, **settings) for _ in codes]
    model = tiny_model(books[0] if len(books) == 1 else lexel.ResidualQuantizer(books))
    usages = tuple(Usage(size) for _ in codes)
    for usage, own in zip(usages, codes, strict=True):
        usage.update(own)
    positions = len(codes[0])
    run = Run(Path("run"), model, "", {}, metrics or [], {})
    bits = positions * model.quantizer.bits
    return judge(run, Measurement(usages, (), 2, psnr=30.0, positions=positions, bits=bits, pixels=16 * positions))


def test_figures_follow_their_formulas() -> None:
    found = judged(torch.tensor([0, 0, 1, 2] * 8), torch.arange(32) % 4, size=4)
    p = torch.tensor([0.5, 0.25, 0.25])
    entropies = [float(torch.special.entr(p).sum()), math.log(4)]
    assert (found.used, found.num_embeddings, found.several, found.psnr) == (7, 8, True, 30.0)
    assert found.perplexity == pytest.approx(math.exp(sum(entropies) / 2))
    assert found.bits_per_pixel == pytest.approx(2 * 2 / 16)
    assert found.coded_bits_per_pixel == pytest.approx(sum(entropies) / math.log(2) / 16)


@pytest.mark.parametrize(
    ("codes", "size", "trained", "title", "reason"),
    [
        (torch.arange(64), 64, None, "Healthy", "These images use all 64 codes of the codebook."),
        (torch.arange(58).repeat(3), 64, None, "Healthy", "use 58 of the 64 codes of the codebook (90.6 %)."),
        (torch.arange(57).repeat(3), 64, None, "Worth a look", "use 57 of the 64 codes of the codebook (89.1 %)."),
        (torch.arange(57).repeat(3), 64, 0.95, "Healthy", "The last 50 steps of training used 95 % of them."),
        (torch.arange(57).repeat(3), 64, 0.5, "Worth a look", "The last 50 steps of training used 50 % of them."),
        (
            torch.arange(20),
            2**40,
            None,
            "Too many codes to judge by use",
            "20 positions, too few to use all 2^40 codes",
        ),
        (torch.arange(7).repeat(20), 64, None, "Worth a look", "7 of the 64 codes"),
        (
            torch.arange(6).repeat(20),
            64,
            None,
            "Collapsed",
            "only 6 of 64 codes, which carry no more than 6 codes used",
        ),
        (torch.zeros(50).long(), 64, None, "Collapsed", "only 1 of 64 codes, which carry no more than 1 code used"),
        (torch.zeros(50).long(), 2, None, "Worth a look", "1 of the 2 codes"),
        (torch.zeros(50).long(), 1, None, "Healthy", "all 1 codes"),
    ],
)
def test_the_verdict_has_its_reason(
    codes: torch.Tensor, size: int, trained: float | None, title: str, reason: str
) -> None:
    metrics: list[dict[str, float | None]] = [{"step": 49.0, "usage": 0.0}, {"step": 99.0, "usage": trained}]
    if size == 2**40:
        book = lexel.LookupFreeQuantizer(40)
        usage = Usage(size)
        usage.update(codes)
        run = Run(Path("run"), tiny_model(book), "", {}, metrics, {})
        found = judge(run, Measurement((usage,), (), 2, 30.0, len(codes), 40.0 * len(codes), 16 * len(codes)))
    else:
        found = judged(codes, size=size, metrics=metrics)
    assert found.verdict.title == title
    assert reason in found.verdict.reason
    assert found.verdict.tone == {"Collapsed": "bad", "Worth a look": "fair"}.get(title, "good")


def test_the_collapse_of_one_codebook_is_that_of_all() -> None:
    verdict = judged(torch.arange(64), torch.zeros(64).long(), size=64).verdict
    assert verdict.title == "Collapsed"
    assert verdict.reason.startswith("Codebook 2 has collapsed")


@pytest.mark.parametrize("upkeep", [(), lexel.Revival()], ids=["without", "with"])
def test_advice_is_given_to_those_who_do_not_follow_it_yet(upkeep: Any) -> None:
    reason = judged(torch.zeros(50).long(), size=64, upkeep=upkeep).verdict.reason
    assert ("Revival" in reason) == (upkeep == ())
