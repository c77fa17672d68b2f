"""What the commands share: their table's entries, and the options that several of them have."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jsonargparse import Namespace
from rich.table import Table

from lexel._core.arguments import Parser
from lexel._core.config import registry
from lexel._core.console import results
from lexel._core.errors import require_within
from lexel.data.batches import MOST_BATCH
from lexel.data.examples import listed
from lexel.data.kind import kind_of
from lexel.data.tables import Columns
from lexel.models import Autoencoder
from lexel.runs import load_model

if TYPE_CHECKING:
    from lexel.training.evaluate import Evaluation
    from lexel.training.task import Task

IMAGES = (
    "folder of images at any depth, one image, a .npy or .npz array, or local files that datasets.load_dataset opens"
)
VECTORS = "vectors, one a row: a .npy or .npz array, .safetensors, or local files that datasets.load_dataset opens"
DATA = f"what the model takes: a {IMAGES}; or {VECTORS}"


class Command(NamedTuple):
    """A command: its parser, and the function that runs it with the parsed settings.

    A command that trains also says how to make its task from the settings in config.yaml, for `lexel resume`.
    """

    parser: Callable[[], Parser]
    run: Callable[[Namespace], int]
    task: Callable[[Namespace], Task] | None = None


@cache
def hints() -> tuple[str, ...]:
    """Return the names to suggest for an unknown one: classes, presets, and their arguments."""
    makers = registry()
    arguments = {name for maker in makers.values() for name in inspect.signature(maker).parameters}
    return (*makers, *sorted(arguments))


def command_parser(description: str) -> Parser:
    """Return the parser of a command, with the option that every command has."""
    parser = Parser(description=description, hints=hints())
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    return parser


def add_model(parser: Parser) -> None:
    """Add RUN, the folder of the model."""
    parser.add_argument("run", type=str, help="folder of a run, or of a saved model")


def add_columns(parser: Parser) -> None:
    """Add --column and --id_column."""
    parser.add_argument("--column", type=str, help="column of a table that holds the examples, if there are several")
    parser.add_argument("--id_column", type=str, help="column of a table that names the examples")


def columns_of(settings: Namespace) -> Columns:
    """Return which columns of a table to read."""
    return Columns(settings.column, settings.id_column)


def add_strict(parser: Parser) -> None:
    """Add --strict."""
    parser.add_argument("--strict", action="store_true", help="stop at unreadable files instead of skipping them")


def add_overwrite(parser: Parser) -> None:
    """Add --overwrite."""
    parser.add_argument("--overwrite", action="store_true", help="replace what exists")


def add_device(parser: Parser) -> None:
    """Add --device."""
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda or mps; auto takes an accelerator")


def add_computing(parser: Parser) -> None:
    """Add where and in which batches a model computes."""
    add_device(parser)
    parser.add_argument(
        "--batch_size",
        type=int | None,
        help="examples of one size to compute at once; more than 1 may change rounding, and so a token here and there; "
        "by default 1 for images, 256 for vectors",
    )


def add_plugin(parser: Parser) -> None:
    """Add --plugin."""
    parser.add_argument("--plugin", metavar="FILE", type=str, help="Python file to import, with parts of your own")


def loaded(settings: Namespace) -> Autoencoder:
    """Load the model of a run, on the device that is asked for, and settle in which batches it computes."""
    from lexel._core.devices import pick_device

    if settings.get("batch_size") is not None:
        require_within("batch_size", settings.batch_size, 1, MOST_BATCH)
    device = pick_device(settings.device)
    model = load_model(Path(settings.run)).to(device)
    if "batch_size" in settings and settings.batch_size is None:
        settings.batch_size = kind_of(model).batch_size
    return model


def print_evaluation(evaluation: Evaluation) -> None:
    """Print the figures of an evaluation as a table."""
    table = Table(show_header=False)
    table.add_column(style="bold", overflow="fold")  # a narrow terminal must not cut a figure
    table.add_column(justify="right", overflow="fold")
    kind = kind_of(evaluation)
    table.add_row(kind.name, f"{evaluation.examples}")
    for name, figure in kind.figures.items():
        if math.isfinite(evaluation.figures[name]):  # a single small picture has no SSIM
            table.add_row(figure.title, figure.form.format(evaluation.figures[name]))
    table.add_row("perplexity", f"{evaluation.perplexity:.1f}")
    share = evaluation.used / evaluation.num_embeddings
    table.add_row("codes in use", f"{evaluation.used:,} of {evaluation.num_embeddings:,} ({share:.1%})")
    table.add_row(f"bits per {kind.unit}", f"{evaluation.rate:.4f}")
    table.add_row(f"bits per {kind.unit}, entropy-coded", f"{evaluation.entropy_rate:.4f}")
    if evaluation.skipped:
        table.add_row("skipped", listed(evaluation.skipped))
    results.print(table)
