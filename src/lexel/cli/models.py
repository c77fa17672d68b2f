"""Commands about a model: `lexel evaluate`, `lexel audit`, `lexel report`, `lexel export` and `lexel serve`."""

from __future__ import annotations

import json
import math
import os
import signal
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Literal

from jsonargparse import Namespace
from rich.table import Table

from lexel._core.arguments import Parser
from lexel._core.console import messages, results
from lexel._core.errors import require_within
from lexel._core.files import refuse_existing
from lexel.cli.common import (
    DATA,
    Command,
    add_columns,
    add_computing,
    add_model,
    add_overwrite,
    add_plugin,
    add_strict,
    columns_of,
    command_parser,
    loaded,
    print_evaluation,
)
from lexel.data.kind import kind_of
from lexel.runs import is_report, load_model

if TYPE_CHECKING:
    from lexel.export import Verdict
    from lexel.models import Autoencoder
    from lexel.tokens.quality import IDQuality, LevelQuality

MOST_PORT = (1 << 16) - 1


def evaluate_parser() -> Parser:
    """Parse `lexel evaluate`."""
    parser = command_parser("Measure reconstructions and code usage over a whole set of data.")
    add_model(parser)
    parser.add_argument("data", type=str, help=DATA)
    parser.add_argument(
        "--json", action="store_true", help="print JSON instead of a table; null stands for a figure that there is not"
    )
    parser.add_argument(
        "--ids",
        type=str,
        help="file of IDs that lexel encode wrote of these vectors, to judge them in place of new ones",
    )
    add_columns(parser)
    add_strict(parser)
    add_computing(parser)
    add_plugin(parser)
    return parser


def evaluate(settings: Namespace) -> int:
    """Measure a model."""
    from lexel.tokens.identify import judge_ids
    from lexel.training.evaluate import evaluate

    model, columns = loaded(settings), columns_of(settings)
    evaluation = evaluate(model, settings.data, strict=settings.strict, batch_size=settings.batch_size, columns=columns)
    quality = None
    if kind_of(model).has_ids or settings.ids:
        quality = judge_ids(model, settings.data, settings.ids, columns, codes=evaluation.codes)
    if settings.json:
        content = evaluation.as_json() | ({} if quality is None else {"ids": quality.as_json()})
        results.print_json(json.dumps(content, allow_nan=False))
        return 0
    print_evaluation(evaluation)
    if quality is not None:
        _print_quality(quality)
    return 0


def _print_quality(quality: IDQuality) -> None:
    """Print how good IDs are: a column for each level."""
    shares = (
        f"IDs: {quality.shared:.2%} of {quality.items:,} items share theirs, up to {quality.largest_collision:,} one"
    )
    recall = f"; recall@{quality.recall_at} of reconstructed neighbours {quality.recall:.1%}"
    results.print(shares + (recall if quality.recall_at else ""), soft_wrap=True)
    table = Table("by level", *(str(number + 1) for number in range(len(quality.levels))))
    rows: dict[str, Callable[[LevelQuality], tuple[str, float | None]]] = {
        "distortion ÷ energy": lambda level: ("{:.4f}", level.relative_distortion),
        "codes in use": lambda level: (f"{{:,}} of {level.num_embeddings:,}", level.used),
        "entropy, bits": lambda level: ("{:.2f}", level.entropy),
        "Gini": lambda level: ("{:.3f}", level.gini),
        "largest ÷ mean": lambda level: ("{:.2f}", level.balance),
        "different prefixes": lambda level: ("{:,}", level.prefixes),
        "neighbours with this prefix": lambda level: ("{:.1%}", level.neighbours),
        "all items with it, for chance": lambda level: ("{:.1%}", level.chance),
        "purity of labels": lambda level: ("{:.1%}", level.purity),
        "mutual information of labels": lambda level: ("{:.3f}", level.nmi),
    }
    for title, shown in rows.items():
        figures = [shown(level) for level in quality.levels]
        if all(value is not None and math.isfinite(value) for _, value in figures):
            table.add_row(title, *(form.format(value) for form, value in figures))
    results.print(table)


def audit_parser() -> Parser:
    """Parse `lexel audit`."""
    parser = command_parser("Examine a model's quantizer: is it sound, in training and evaluation, on this data?")
    add_model(parser)
    parser.add_argument("data", type=str, help=DATA)
    add_columns(parser)
    add_strict(parser)
    add_plugin(parser)
    return parser


def audit(settings: Namespace) -> int:
    """Examine a model's quantizer."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # otherwise torch.profiler writes to standard error when it starts
    from lexel.training.evaluate import audit_model

    model, columns = load_model(Path(settings.run)), columns_of(settings)
    audits = audit_model(model, settings.data, strict=settings.strict, columns=columns)
    for number, found in enumerate(audits):
        if len(audits) > 1:
            results.print(f"Level {number + 1} of {len(audits)}, coarse to fine:")
        results.print(str(found), soft_wrap=True)
    return 0 if all(found.ok for found in audits) else 1


def report_parser() -> Parser:
    """Parse `lexel report`."""
    parser = command_parser("Draw a page about a run: reconstructions, every code, and how training went.")
    add_model(parser)
    parser.add_argument("--data", type=str, help=f"{DATA}; by default what the run was trained on")
    parser.add_argument("--out", type=str, help="file to write; by default report.html in the run's folder")
    parser.add_argument(
        "--tokens",
        type=str,
        help="tokens that lexel encode made with this model, to show their statistics; of vectors, their IDs",
    )
    parser.add_argument("--text", type=str, help="column of the vectors' table with a text for each item")
    add_columns(parser)
    add_overwrite(parser)
    add_plugin(parser)
    return parser


def report(settings: Namespace) -> int:
    """Write a page about a run."""
    from lexel.priors.painter import Painter
    from lexel.report import write_prior_report, write_report, write_vector_report

    run, out = Path(settings.run), None if settings.out is None else Path(settings.out)
    if out is not None:
        refuse_existing(out, overwrite=settings.overwrite or is_report(out), folder=False)
    if Painter.stands_in(run):
        if settings.data is not None:
            raise ValueError("data: the report of a prior shows its own samples, and no data")
        written = write_prior_report(run, out, overwrite=settings.overwrite)
    elif kind_of(load_model(run)).has_ids:
        written = write_vector_report(
            run,
            out,
            settings.data,
            ids=settings.tokens,
            text=settings.text,
            overwrite=settings.overwrite,
            columns=columns_of(settings),
        )
    else:
        if settings.text is not None:
            raise ValueError("text: only items of vectors have one on the page")
        written = write_report(run, out, settings.data, tokens=settings.tokens, overwrite=settings.overwrite)
    results.print(f"report: {written}", soft_wrap=True)
    return 0


def export_parser() -> Parser:
    """Parse `lexel export`."""
    parser = command_parser(
        "Write a model in a format that runs without Lexel: ONNX, or a page that runs in a browser."
    )
    _add_models(parser)
    parser.add_argument(
        "--format",
        type=Literal["onnx", "web"],
        default="onnx",
        help="what to write: onnx, an encoder and a decoder; web, a page of one or several models of images",
    )
    parser.add_argument("--out", type=str, help="folder to write into; by default one in that of the run, onnx or web")
    add_overwrite(parser)
    add_plugin(parser)
    return parser


def export(settings: Namespace) -> int:
    """Write a model as ONNX, or models as a page."""
    from lexel.export import export, export_page

    runs = [Path(run) for run in settings.run]
    if len(runs) > 1 and settings.format == "onnx":
        raise ValueError(f"run: onnx is written of one model, got {len(runs)} runs; --format web takes several")
    if len(runs) > 1 and settings.out is None:
        raise ValueError(f"out: a page of {len(runs)} runs needs the folder to write into")
    out = runs[0] / settings.format if settings.out is None else Path(settings.out)
    refuse_existing(out, overwrite=settings.overwrite, folder=True)
    if settings.format == "onnx":
        written = export(load_model(runs[0]), out, overwrite=settings.overwrite)
    else:
        written = export_page(_titled(runs), out, overwrite=settings.overwrite)
    files = ", ".join(f"{name} ({size:,} bytes)" for name, size in written.files.items())
    results.print(f"{files} in {out}", soft_wrap=True)
    _print_verdicts(written.verdicts)
    return 0


def serve_parser() -> Parser:
    """Parse `lexel serve`."""
    parser = command_parser("Open a page that runs models of images in the browser, on this machine alone.")
    _add_models(parser)
    parser.add_argument("--port", type=int, default=8765, help="where to listen; 0 for any free port")
    parser.add_argument("--no_browser", action="store_true", help="print the address, and open no browser")
    add_plugin(parser)
    return parser


def serve(settings: Namespace) -> int:
    """Serve a page of models until a signal ends it."""
    from lexel.export import page_of
    from lexel.export.serve import PageServer

    require_within("port", settings.port, 0, MOST_PORT)
    with PageServer(settings.port) as server:  # a port that is taken shows before the work
        page = page_of(_titled([Path(run) for run in settings.run]))
        server.files = page.files
        _print_verdicts(page.verdicts)
        results.print(f"the page: {server.address}  (Ctrl-C ends it)", soft_wrap=True)
        try:
            if not settings.no_browser:
                Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
            server.serve_forever()
        except KeyboardInterrupt as interrupt:
            if getattr(interrupt, "number", signal.SIGINT) != signal.SIGINT:
                raise
    return 0


def _add_models(parser: Parser) -> None:
    parser.add_argument("run", type=str, nargs="+", help="folders of runs, or of saved models")


def _titled(runs: Sequence[Path]) -> dict[str, Autoencoder]:
    """Load models, each once, by the names of their folders, or by the paths where two folders have one name."""
    runs = list({run.resolve(): run for run in runs}.values())
    names = [run.resolve().name for run in runs]
    titles = names if len(set(names)) == len(runs) else map(str, runs)
    return {title: load_model(run) for title, run in zip(titles, runs, strict=True)}


def _print_verdicts(verdicts: Sequence[Verdict | None]) -> None:
    for verdict in verdicts:
        if verdict is None:
            messages.print("not compared with the model: onnxruntime is not installed", style="yellow", soft_wrap=True)
        else:
            results.print(
                f"run by onnxruntime, {verdict.examples} examples: {verdict.equal:,} of {verdict.indices:,} indices "
                f"are the model's, decoded numbers differ by at most {verdict.largest_difference:.1e}",
                soft_wrap=True,
            )


COMMANDS = {
    "export": Command(export_parser, export),
    "serve": Command(serve_parser, serve),
    "evaluate": Command(evaluate_parser, evaluate),
    "audit": Command(audit_parser, audit),
    "report": Command(report_parser, report),
}
