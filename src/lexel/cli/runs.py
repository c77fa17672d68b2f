"""Commands that train a model: `lexel train` and `lexel demo`, and what all that begin a run share."""

from __future__ import annotations

import dataclasses
import inspect
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from jsonargparse import SUPPRESS, Namespace

import lexel
from lexel._core.arguments import Parser
from lexel._core.config import registry
from lexel._core.console import results
from lexel._core.errors import reason_of, sizes_named
from lexel.cli.common import (
    IMAGES,
    Command,
    add_overwrite,
    add_plugin,
    add_strict,
    command_parser,
    print_evaluation,
)
from lexel.models import ImageAutoencoder
from lexel.training.processes import is_first_process
from lexel.training.settings import ReconstructionSettings, Settings

if TYPE_CHECKING:
    from lexel.training.run import Outcome
    from lexel.training.task import Task

AnySettings = TypeVar("AnySettings", bound=Settings)

PRESETS = [name for name in registry() if name.startswith("lexel.presets.")]
# Chosen for what two CPU cores can learn in two minutes.
DEMO = {
    "out": "runs/demo",
    "steps": 1500,
    "batch_size": 16,
    "learning_rate": 2e-3,
    "model": {"class_path": "lexel.models.VQVAE", "init_args": {"hidden_channels": 64, "upsampling": "resize"}},
}
# The figures that a run shows at its end, and how it writes them.
SHOWN = {
    "loss": ".4f",
    "psnr": ".2f",
    "usage": ".1%",
    "perplexity": ".1f",
    "validation_psnr": ".2f",
    "bits_per_token": ".3f",
    "validation_bits_per_token": ".3f",
}
# Settings of how a command runs, not of what is trained: config.yaml leaves them out.
NOT_CONFIGURED = ("config", "overwrite", "strict", "plugin", "debug")


def train_parser() -> Parser:
    """Parse `lexel train`."""
    parser = command_parser("Train a VQ-VAE on a set of images.")
    parser.add_argument("--config", action="config", help="file of settings, as config.yaml in a run's folder")
    # No default: None would replace the path that --config names.
    parser.add_argument("data", nargs="?", type=str, default=SUPPRESS, help=IMAGES)
    add_run(parser)
    add_strict(parser)
    add_overwrite(parser)
    add_plugin(parser)
    return parser


def train_task(settings: Namespace) -> Task:
    """Return what `lexel train` trains."""
    from lexel.training.reconstruction import ReconstructionTask

    data, how = required(settings, "data", "DATA"), settings_of(settings, ReconstructionSettings)
    return ReconstructionTask(_model(settings), data, how)


def train(settings: Namespace) -> int:
    """Train."""
    return begin(settings, COMMANDS["train"], ("data", "validation"))


def demo_parser() -> Parser:
    """Parse `lexel demo`."""
    parser = command_parser(
        "Train for about two minutes on photographs that Python packages contain, and draw the results."
    )
    parser.add_argument("--config", action="config", help="file of settings, as config.yaml in a run's folder")
    add_run(parser, num_embeddings=1024)
    parser.set_defaults(DEMO)
    add_overwrite(parser)
    add_plugin(parser)
    return parser


def demo(settings: Namespace) -> int:
    """Train on a few photographs and draw the results."""
    from lexel.demo import run_demo

    how = settings_of(settings, ReconstructionSettings)
    demo = run_demo(
        _model(settings),
        Path(settings.out),
        how,
        config=config_text(settings, demo_parser()),
        overwrite=settings.overwrite,
    )
    results.print("Two photographs that were not trained on:")
    print_evaluation(demo.held_out)
    results.print(f"Originals above reconstructions: {demo.reconstructions}", soft_wrap=True)
    results.print(f"A photograph and its tokens:     {demo.tokens}", soft_wrap=True)
    results.print(f"A page to explore all of it:     {demo.report}", soft_wrap=True)
    return 0 if demo.outcome.finished else 128 + demo.outcome.signal


def add_run(parser: Parser, **sizes: int) -> None:
    """Add the settings of a training run; `sizes` are those of its quantizer that differ from the preset's."""
    parser.add_argument("--out", type=str, help="folder to write the run into")
    parser.add_class_arguments(ReconstructionSettings)
    parser.add_subclass_arguments(
        ImageAutoencoder,
        "model",
        skip={"quantizer", "quantizers"},
        fail_untyped=False,
        default={"class_path": "lexel.models.VQVAE"},
        help="the model, lexel.models.VQVAE or lexel.models.VQVAE2, each level of which gets its own quantizer; its "
        "settings follow it, as in --model.hidden-channels 64, and --model.help lists them",
    )
    defaults = inspect.signature(lexel.presets.default).parameters
    shown = {name: sizes.get(name, defaults[name].default) for name in ("num_embeddings", "embedding_dim")}
    parser.add_subclass_arguments(
        lexel.Quantizer,
        "quantizer",
        fail_untyped=False,  # a stranger may leave types out
        default={"class_path": "lexel.presets.default", "init_args": shown},
        help=f"the quantizer, a class or one of the presets {', '.join(PRESETS)}; its own settings follow it",
    )


def _model(settings: Namespace) -> ImageAutoencoder:
    import torch

    torch.manual_seed(settings.seed)
    model = settings.model.as_dict()
    make = ImageAutoencoder.named(model["class_path"]).around
    with sizes_named("the model", model["init_args"]):
        return make(lambda: lexel.from_config(settings.quantizer.as_dict()), **model["init_args"])


def begin(settings: Namespace, command: Command, paths: Iterable[str]) -> int:
    """Begin a run.

    Args:
        settings: of the command.
        command: one that trains.
        paths: which settings are paths; they become absolute, so that the run can be resumed from any folder.
    """
    from lexel.training.run import train

    out = Path(required(settings, "out", "--out"))
    for path in paths:
        if settings.get(path) == "":
            raise ValueError(f"{path} must be a path, got an empty text")
        settings[path] = settings.get(path) and str(Path(settings[path]).absolute())
        if settings[path] and Path(settings[path]).resolve() == out.resolve():
            raise ValueError(
                f"--out {out} is the folder of {path}: a run in it would become part of what it is trained on"
            )
    outcome = train(
        task_of(settings, command),
        out,
        config=config_text(settings, command.parser()),
        strict=settings.get("strict", False),
        overwrite=settings.overwrite,
    )
    return report_end(out, outcome)


def task_of(settings: Namespace, command: Command) -> Task:
    """Return what a command trains; a file of settings may say null for any of them."""
    assert command.task is not None
    try:
        return command.task(settings)
    except (OSError, ValueError, ImportError):
        raise
    except Exception as error:
        raise ValueError(f"these settings make no run: {reason_of(error)}") from error


def settings_of(settings: Namespace, cls: type[AnySettings]) -> AnySettings:
    """Return the settings of training among all settings of a command."""
    return cls(**{field.name: settings[field.name] for field in dataclasses.fields(cls)})


def config_text(settings: Namespace, parser: Parser) -> str:
    """Return the text of config.yaml for a run."""
    config = settings.clone()
    for name in NOT_CONFIGURED:
        config.pop(name, None)
    return str(parser.dump(config))


def required(settings: Namespace, name: str, shown: str) -> str:
    """Return a setting that has no default.

    Raises:
        ValueError: it is missing.
    """
    if settings.get(name) is None:
        raise ValueError(f"{shown} is missing, and there is no {name} in a file of settings; see --help")
    return str(settings[name])


def report_end(run: Path, outcome: Outcome) -> int:
    """Say how a run ended, unless another process does, and return the exit code."""
    if not is_first_process():
        return 0
    if not outcome.finished:
        results.print(
            f"stopped at step {outcome.step:,}: go on with lexel resume {shlex.quote(str(run))}", soft_wrap=True
        )
        return 128 + outcome.signal
    results.print(f"trained: {run}", soft_wrap=True)
    figures = [f"{name} {outcome.figures[name]:{form}}" for name, form in SHOWN.items() if name in outcome.figures]
    if figures:
        results.print(f"last row: {', '.join(figures)}", soft_wrap=True)
    return 0


COMMANDS = {
    "train": Command(train_parser, train, train_task),
    "demo": Command(demo_parser, demo),
}
