"""The page about a prior: how many bits it needs beside simple codes, and samples as they grow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lexel.priors import FREE
from lexel.priors.painter import Painter
from lexel.report.findings import Verdict
from lexel.report.page import check_place, joined, save_page
from lexel.report.pictures import data_uri
from lexel.report.reading import Run, read_run
from lexel.report.sections import MOST_ROWS, Section, thinned
from lexel.runs import REPORT

__all__ = ["PriorReport", "write_prior_report"]

MOST_FRAMES, MOST_SAMPLES = 64, 16
FRAME_PIXELS = 4_000_000  # of all frames together
GREY = 128  # where nothing is drawn yet
BY_HEART = 0.8  # of the held-out bits: a prior whose training tokens need less than that learns them by heart
CODES = ("uniform", "unigram", "context")
EXPLAINED = {
    "uniform": "each token as it is, log2 K",
    "unigram": "an ideal code that knows how often each token occurs",
    "context": "the adaptive code of lexel compress, which looks at the neighbours to the left and above",
}


@dataclass(frozen=True)
class Code:
    """How many bits a code needs for held-out tokens.

    Attributes:
        name: of the code.
        what: what it is.
        per_token: bits per token.
        per_unit: bits per pixel, or whatever the size of an example counts.
    """

    name: str
    what: str
    per_token: float
    per_unit: float


@dataclass(frozen=True)
class PriorReport:
    """Everything that the page of a prior shows.

    Attributes:
        run: the files of the run.
        painter: the prior and its model.
        codes: the prior first, then simple codes; empty where nothing was held out.
        verdict: what the figures say.
        frames: pictures of samples, uint8 `(3, H, W)`, and how many tokens of each are drawn by then.
    """

    run: Run[Any]
    painter: Painter
    codes: list[Code]
    verdict: Verdict
    frames: list[tuple[int, Tensor]]


def write_prior_report(run: Path, out: Path | None = None, *, overwrite: bool = False) -> Path:
    """Write a self-contained HTML page about a prior.

    Args:
        run: folder of a prior's run, or of a saved prior.
        out: the file to write; by default report.html in `run`.
        overwrite: replace `out` even if it is not a report.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: there is no prior in `run`.
        FileExistsError: `out` exists, is no report, and `overwrite` is not set; or it is a folder.
        OSError: nothing can be written there.
        ValueError: a file of the run is malformed, or its samples are no pictures.
    """
    out = run / REPORT if out is None else out
    check_place(out, overwrite=overwrite)
    painter = Painter.load(run)
    if painter.kind.has_ids:
        raise ValueError(
            f"{run} holds a prior of {painter.kind.name}: the page draws samples, and these are no pictures"
        )
    read = read_run(run, painter.model)
    codes = compared(read, painter)
    report = PriorReport(read, painter, codes, judged(read, codes, exact=painter.prior.exact), frames(painter))
    html = joined(
        "prior.html",
        SECTIONS,
        report,
        run=read,
        painter=painter,
        model=painter.model,
        codes=codes,
        verdict=report.verdict,
    )
    return save_page(html, out)


def compared(run: Run[Any], painter: Painter) -> list[Code]:
    """Return the bits of the last row that has some: the prior's first, then those of simple codes."""
    rows = [row for row in run.metrics if row.get("validation_bits_per_token") is not None]
    if not rows:
        return []
    tokens = painter.prior.positions * len(painter.prior.codebook_sizes)
    per_unit = tokens / math.prod(painter.size)
    exact = "exact" if painter.prior.exact else "an upper bound"
    named = [("validation", f"the prior, {exact}"), *((name, EXPLAINED[name]) for name in CODES)]
    found = [(name, what, rows[-1].get(f"{name}_bits_per_token")) for name, what in named]
    return [
        Code(painter.prior.name if name == "validation" else name, what, bits, bits * per_unit)
        for name, what, bits in found
        if bits is not None
    ]


def judged(run: Run[Any], codes: list[Code], *, exact: bool) -> Verdict:
    """Say what the bits mean; where they are exact, the training loss is the same figure of other tokens."""
    if not codes:
        return Verdict("fair", "Not measured", "Give tokens that are not trained on with --validation.")
    prior, best = codes[0], min(codes[1:], key=lambda code: code.per_token, default=codes[0])
    if prior.per_token >= best.per_token:
        reason = f"It needs {prior.per_token:.2f} bits per token, the {best.name} code {best.per_token:.2f}."
        return Verdict("bad", "Has not learnt more than a simple code", reason)
    saved = 1 - prior.per_token / best.per_token
    reason = (
        f"Tokens that it was not trained on take {prior.per_token:.2f} bits each, {saved:.0%} less than with the "
        f"{best.name} code."
    )
    trained = (run.metrics[-1].get("loss") or math.inf) / math.log(2)
    if exact and trained < BY_HEART * prior.per_token:
        reason += f" Those that it was trained on take {trained:.2f}: it begins to learn them by heart."
        return Verdict("fair", "Learns by heart", reason)
    return Verdict("good", "Healthy", reason)


def frames(painter: Painter) -> list[tuple[int, Tensor]]:
    """Draw samples of all classes in turn, and return what can be seen after some of the steps."""
    pixels = math.prod(painter.size) * MOST_FRAMES
    count = max(1, min(MOST_SAMPLES, FRAME_PIXELS // pixels))
    generator = torch.Generator().manual_seed(0)
    steps = list(painter.prior.sample_steps(count, painter.labels(None, count), generator=generator))
    shown = []
    for indices in [torch.full_like(steps[0], FREE), *thinned(steps, MOST_FRAMES)[1]]:
        examples = painter.decoded(indices.clamp_min(0))
        examples = examples.masked_fill(_undrawn(painter, indices), GREY)
        across = -(-count // 2)
        picture = painter.kind.show([[*examples[column::across]] for column in range(across)])
        shown.append((int((indices[0] != FREE).sum()), picture))
    return shown


def _undrawn(painter: Painter, indices: Tensor) -> Tensor:
    """Return where a sample has no token yet, `(B, 1, H, W)`; nowhere where positions are of several grids."""
    height, width = painter.size
    free = indices.cpu() == FREE
    if len(painter.prior.levels) > 1:
        return free.flatten(1).all(1)[:, None, None, None].expand(-1, 1, height, width)
    (rows, columns), count = painter.prior.levels[0], len(indices)
    grid = free.reshape(count, rows, columns, -1).any(-1)
    down = torch.arange(height) // -(-height // rows)
    across = torch.arange(width) // -(-width // columns)
    return grid[:, down][:, :, across][:, None]


def _bits(report: PriorReport) -> dict[str, Any]:
    rows = report.run.metrics
    _, some = thinned(rows, MOST_ROWS)
    columns = ("step", "loss", "validation_bits_per_token")
    return {
        "metrics": {name: [row.get(name) for row in some] for name in columns if rows and name in rows[0]},
        "codes": [[code.name, code.per_token] for code in report.codes[1:]],
        "exact": report.painter.prior.exact,
    }


def _growing(report: PriorReport) -> dict[str, Any]:
    return {
        "frames": [data_uri(picture) for _, picture in report.frames],
        "drawn": [drawn for drawn, _ in report.frames],
    }


SECTIONS = (
    Section("bits", ("bits",), _bits),
    Section("growing", ("growing",), _growing),
    Section("origin"),
)
