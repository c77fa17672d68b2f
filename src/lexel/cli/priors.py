"""Commands of priors: `lexel train-prior` and `lexel sample`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import SUPPRESS, Namespace

from lexel._core.arguments import Parser
from lexel._core.console import results
from lexel._core.errors import require_within
from lexel._core.files import refuse_existing
from lexel.cli.common import Command, add_device, add_overwrite, add_plugin, command_parser
from lexel.cli.runs import begin, required, settings_of
from lexel.runs import load_model
from lexel.training.settings import PriorSettings

if TYPE_CHECKING:
    from lexel.training.task import Task

MOST_SAMPLES = 1_000_000  # all of them are held until they are written


def train_prior_parser() -> Parser:
    """Parse `lexel train-prior`."""
    parser = command_parser("Train a prior: a network that learns which tokens follow each other, and draws new ones.")
    parser.add_argument("--config", action="config", help="file of settings, as config.yaml in a run's folder")
    # No defaults: None would replace the paths that --config names.
    parser.add_argument("run", nargs="?", type=str, default=SUPPRESS, help="folder of the run that made the tokens")
    parser.add_argument("tokens", nargs="?", type=str, default=SUPPRESS, help="what lexel encode wrote")
    parser.add_argument("--out", type=str, help="folder to write the prior's run into")
    parser.add_class_arguments(PriorSettings)
    add_overwrite(parser)
    add_plugin(parser)
    return parser


def train_prior_task(settings: Namespace) -> Task:
    """Return what `lexel train-prior` trains."""
    import torch

    from lexel import tokens
    from lexel.priors.painter import Painter
    from lexel.training.prior import PriorTask

    model, own = load_model(Path(required(settings, "run", "RUN"))), settings_of(settings, PriorSettings)
    found = tokens.open(required(settings, "tokens", "TOKENS"))
    held_out = tokens.open(own.validation) if own.validation else None
    torch.manual_seed(own.seed)
    painter = Painter.of_tokens(own.kind, model, found, layers=own.layers, width=own.width, heads=own.heads)
    return PriorTask(painter, found, own, held_out)


def train_prior(settings: Namespace) -> int:
    """Train a prior."""
    return begin(settings, COMMANDS["train-prior"], ("run", "tokens", "validation"))


def sample_parser() -> Parser:
    """Parse `lexel sample`."""
    parser = command_parser("Draw new examples with a prior, or complete one.")
    parser.add_argument("prior", type=str, help="folder of a prior's run, or of a saved prior")
    parser.add_argument("--out", type=str, required=True, help="folder to write into")
    parser.add_argument("--num", type=int, default=64, help="how many to draw")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files")
    parser.add_argument("--labels", type=str, nargs="+", help="classes, by number or name; all in turn by default")
    parser.add_argument("--temperature", type=float, default=1.0, help="below 1, the probable becomes more probable")
    parser.add_argument("--top_k", type=int | None, help="draw among the k most probable tokens alone")
    parser.add_argument("--top_p", type=float | None, help="draw among the most probable tokens of this probability")
    parser.add_argument("--guidance", type=float, default=1.0, help="above 1, the class becomes more distinct")
    parser.add_argument("--complete", type=str, metavar="FILE", help="one example, of which a part is kept")
    parser.add_argument("--keep", type=Literal["left", "top", "box"], default="top", help="which part of it")
    parser.add_argument("--batch_size", type=int, default=64, help="how many to draw together")
    add_device(parser)
    add_overwrite(parser)
    add_plugin(parser)
    return parser


def sample(settings: Namespace) -> int:
    """Draw new examples."""
    from lexel._core.devices import pick_device
    from lexel.priors.painter import Painter
    from lexel.priors.write import write_samples

    for name in ("num", "batch_size"):
        require_within(name, settings[name], 1, MOST_SAMPLES)
    out = Path(settings.out)
    refuse_existing(out, overwrite=settings.overwrite, folder=True)
    painter = Painter.load(Path(settings.prior)).to(pick_device(settings.device))
    sheet = write_samples(
        painter,
        out,
        settings.num,
        labels=settings.labels,
        seed=settings.seed,
        complete=None if settings.complete is None else Path(settings.complete),
        keep=settings.keep,
        batch_size=settings.batch_size,
        **{name: settings[name] for name in ("temperature", "top_k", "top_p", "guidance")},
    )
    results.print(f"{settings.num:,} {painter.kind.name} in {out}, and all on {sheet}", soft_wrap=True)
    return 0


COMMANDS = {
    "train-prior": Command(train_prior_parser, train_prior, train_prior_task),
    "sample": Command(sample_parser, sample),
}
