"""The sections of the page, from top to bottom, and the data that their scripts need."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lexel.models import ImageAutoencoder
from lexel.report.board import Board, alternatives, pixel_changes, place_board
from lexel.report.codes import CodeTable, code_table, plane, typical_indices
from lexel.report.findings import Findings
from lexel.report.measuring import Measurement
from lexel.report.pictures import data_uri, tiled
from lexel.report.reading import Run, Source
from lexel.tokens.statistics import TokenStatistics

__all__ = ["MOST_CODES", "MOST_ROWS", "SECTIONS", "Report", "Section", "thinned", "training_rows"]

Row = TypeVar("Row")

MOST_CODEBOOKS = 8
MOST_CODES, UNUSED_CODES = 16384, 48  # of all codebooks together, and of each
PATCH_PIXELS = 2_000_000  # of all patches together: if they would have more, they are made smaller
PATCH_SIDE = 32
SIMILAR, FREQUENT, NEIGHBOURS = 4, 4, 8
MOST_ROWS = 1000


@dataclass(frozen=True)
class Report:
    """Everything that the page shows.

    Attributes:
        run: the files of the run.
        source: the images that its model has reconstructed.
        measurement: the figures of these reconstructions.
        findings: the judgement of these figures.
        statistics: those of a set of tokens that the model made; None where the page is not about one.
    """

    run: Run[ImageAutoencoder]
    source: Source
    measurement: Measurement
    findings: Findings
    statistics: TokenStatistics | None = None


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: its template is `web/NAME.html`; its scripts find their data in `data.NAME`.
        scripts: its scripts, `web/SCRIPT.js` each, in the order in which they run.
        data: returns the data for the scripts, as JSON can hold it.
    """

    name: str
    scripts: tuple[str, ...] = ()
    data: Callable[[Any], Any] | None = None


def training_rows(report: Any) -> dict[str, Any]:
    """Return the rows of metrics of a report's run, no more than can be seen."""
    rows, model = report.run.metrics, report.run.model
    every, some = thinned(rows, MOST_ROWS)
    return {
        "every": every,
        "limit": model.codebook_sizes[0] if model.positionwise else None,  # of the perplexity
        "metrics": {name: [row.get(name) for row in some] for name in (rows[0] if rows else ())},
    }


def thinned(rows: list[Row], most: int) -> tuple[int, list[Row]]:
    """Return n, and every n-th row with the last among them, so that there are at most so many."""
    every = max(1, -(-len(rows) // most))
    return every, rows[(len(rows) - 1) % every :: every]


def _codebooks(report: Report) -> list[dict[str, Any]]:
    model, measurement = report.run.model, report.measurement
    if not model.positionwise:
        return []
    grids = [example.indices for example in measurement.examples]
    others = typical_indices(model, grids) if model.quantizers[0].index_shape else None
    number = min(len(measurement.usages), MOST_CODEBOOKS)
    board = place_board(model, grids[0], changes=number * (SIMILAR + FREQUENT))
    return [_codebook(report, board, others, book, number) for book in range(number)]


def _codebook(report: Report, board: Board, others: Tensor | None, book: int, books: int) -> dict[str, Any]:
    """Return what the page shows of one of `books` codebooks."""
    model, examples = report.run.model, report.measurement.examples
    grids = [example.indices if others is None else example.indices[..., book] for example in examples]
    own = board.cut(grids[0])
    chosen, counts = report.measurement.usages[book].counts()
    most = MOST_CODES // books
    table = code_table(model, chosen, counts, others, book, most=most, unused=UNUSED_CODES, required=own)
    choices = alternatives(table, table.rows(own), SIMILAR, FREQUENT)
    changes = pixel_changes(model, examples[0].indices, board.places, table.indices[choices], board.reach, book)
    xy, share = plane(table.vectors)
    return {
        "codes": {
            "index": [str(index) for index in table.indices.tolist()],  # JavaScript's integers end at 2^53
            "count": table.counts.tolist(),
            "near": table.nearest(torch.arange(len(table.indices)), NEIGHBOURS).tolist(),
            "xy": [[float(f"{value:.4g}") for value in point] for point in xy.tolist()],
            "total": int(counts.sum()),
            "used": len(chosen),
        },
        "share": share,
        "atlas": _atlas(table, PATCH_PIXELS // books),
        "grids": [table.rows(grid).tolist() for grid in grids],
        "board": {
            "top": board.top,
            "left": board.left,
            "side": board.side,
            "factor": board.factor,
            "reach": board.reach,
            "picture": data_uri(board.pixels),
            "similar": min(SIMILAR, choices.shape[1]),
            "codes": table.rows(own).tolist(),
            "choices": choices.tolist(),
            "changes": _changes_picture(changes, board.side),
        },
    }


def _atlas(table: CodeTable, pixels: int) -> dict[str, Any]:
    patches, side = table.patches, min(PATCH_SIDE, math.isqrt(pixels // len(table.patches)))
    if patches.shape[-1] > side:
        patches = F.adaptive_avg_pool2d(patches.float(), side).round().byte()
    columns = math.isqrt(len(patches) - 1) + 1
    return {"columns": columns, "picture": data_uri(tiled(patches, columns))}


def _changes_picture(changes: Tensor, side: int) -> str:
    """Draw the changes of all positions: a column for each of the board's; below each other the choices of each row."""
    if not changes.numel():
        return ""
    return data_uri(tiled(changes.reshape(side, side, *changes.shape[1:]).transpose(1, 2).flatten(0, 2), side))


SECTIONS = (
    Section("summary"),
    Section("images"),
    Section(
        "codebooks",
        ("codebook", "atlas", "inspector", "ranks", "map", "tokens", "codebooks"),
        _codebooks,
    ),
    Section("neighbours"),
    Section("training", ("training",), training_rows),
    Section("origin"),
)
