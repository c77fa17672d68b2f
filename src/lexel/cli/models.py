"""Commands that look at a model: `lexel evaluate`, `lexel audit` and `lexel report`."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path

from jsonargparse import Namespace

from lexel._core.arguments import Parser
from lexel._core.console import results
from lexel.cli.common import (
    DATA,
    Command,
    add_computing,
    add_model,
    add_overwrite,
    add_plugin,
    add_strict,
    command_parser,
    loaded,
    print_evaluation,
)
from lexel.runs import load_model


def evaluate_parser() -> Parser:
    """Parse `lexel evaluate`."""
    parser = command_parser("Measure reconstructions and code usage over a whole set of images.")
    add_model(parser)
    parser.add_argument("data", type=str, help=DATA)
    parser.add_argument(
        "--json", action="store_true", help="print JSON instead of a table; null stands for a figure that there is not"
    )
    add_strict(parser)
    add_computing(parser)
    add_plugin(parser)
    return parser


def evaluate(settings: Namespace) -> int:
    """Measure a model."""
    from lexel.training.evaluate import evaluate

    evaluation = evaluate(loaded(settings), settings.data, strict=settings.strict, batch_size=settings.batch_size)
    if settings.json:
        figures = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value  # JSON has no NaN
            for name, value in dataclasses.asdict(evaluation).items()
        }
        results.print_json(json.dumps(figures, allow_nan=False))
    else:
        print_evaluation(evaluation)
    return 0


def audit_parser() -> Parser:
    """Parse `lexel audit`."""
    parser = command_parser("Examine a model's quantizer: is it sound, in training and evaluation, on these images?")
    add_model(parser)
    parser.add_argument("data", type=str, help=DATA)
    add_strict(parser)
    add_plugin(parser)
    return parser


def audit(settings: Namespace) -> int:
    """Examine a model's quantizer."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # otherwise torch.profiler writes to standard error when it starts
    from lexel.training.evaluate import audit_model

    found = audit_model(load_model(Path(settings.run)), settings.data, strict=settings.strict)
    results.print(str(found), soft_wrap=True)
    return 0 if found.ok else 1


def report_parser() -> Parser:
    """Parse `lexel report`."""
    parser = command_parser("Draw a page about a run: reconstructions, every code, and how training went.")
    add_model(parser)
    parser.add_argument("--data", type=str, help=f"{DATA}; by default the images that the run was trained on")
    parser.add_argument("--out", type=str, help="file to write; by default report.html in the run's folder")
    add_overwrite(parser)
    add_plugin(parser)
    return parser


def report(settings: Namespace) -> int:
    """Write a page about a run."""
    from lexel.report.page import write_report

    out = None if settings.out is None else Path(settings.out)
    written = write_report(Path(settings.run), out, settings.data, overwrite=settings.overwrite)
    results.print(f"report: {written}", soft_wrap=True)
    return 0


COMMANDS = {
    "evaluate": Command(evaluate_parser, evaluate),
    "audit": Command(audit_parser, audit),
    "report": Command(report_parser, report),
}
