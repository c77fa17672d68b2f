"""The command line: each command parses, calls one function of the floors below, and prints what it returned."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import lexel

try:
    from jsonargparse import SUPPRESS, Namespace, set_parsing_settings
    from rich.table import Table

    from lexel._core.arguments import Parser
    from lexel._core.config import registry
    from lexel._core.console import complain, messages, results
    from lexel._core.errors import blamed_on, reason_of
    from lexel._core.files import refuse_existing
    from lexel._core.plugins import import_plugin
    from lexel._core.signals import ended_by_signals
    from lexel.data.images import listed
    from lexel.models import VQVAE
    from lexel.runs import RunFolder, load_model
    from lexel.tokens import decode_images, encode_images, read_tokens, write_tokens
    from lexel.training.settings import Settings
except ImportError as error:
    sys.exit(f"lexel: the command line needs further packages: pip install 'lexel[train]' ({error})")

if TYPE_CHECKING:
    from lexel.training.evaluate import Evaluation
    from lexel.training.run import Outcome

DATA = "folder of images at any depth, one image, a .npy or .npz array, or local files that datasets.load_dataset opens"
PRESETS = [name for name in registry() if name.startswith("lexel.presets.")]
# Chosen for what two CPU cores can learn in two minutes.
DEMO = {
    "out": "runs/demo",
    "steps": 1500,
    "batch_size": 16,
    "learning_rate": 2e-3,
    "model.hidden_channels": 64,
    "model.upsampling": "resize",
}
# Settings of how a command runs, not of what is trained: config.yaml leaves them out.
NOT_CONFIGURED = ("config", "overwrite", "strict", "plugin", "debug")

# A configuration file can name Lexel's own classes; it cannot import anything else.
set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=["lexel"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0; 1 when an audit finds a fault; 2 for bad input; 130 after Ctrl-C and 143 after SIGTERM.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    ended = 0
    try:
        with ended_by_signals() as stop:
            try:
                return _run(words)
            finally:
                ended = stop.number
    except KeyboardInterrupt as interrupt:
        return 128 + getattr(interrupt, "number", signal.SIGINT)
    except Exception as error:
        if ended:  # raised where a signal arrived in the middle of an import
            return 128 + ended
        if debug:
            raise
        complain(_reason(error))
        return 2


def _run(words: Sequence[str]) -> int:
    plugins, others = _plugins(words)
    with _importable(plugins):
        parsed = _parser().parse_args(others)
        settings = parsed[parsed.command]
        if settings.get("plugin"):
            raise ValueError("plugin: only the command line can name a plugin (--plugin FILE), not a file of settings")
        return COMMANDS[parsed.command].run(settings)


def _reason(error: Exception) -> str:
    """Return what an error says, and its kind where it is not one that a user's input is expected to cause."""
    message = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, (OSError, ValueError, ImportError)) and message:
        return message
    return f"{type(error).__name__}: {message} (--debug shows where)"


class Command(NamedTuple):
    """A command: its parser, and the function that runs it with the parsed settings."""

    parser: Callable[[], Parser]
    run: Callable[[Namespace], int]


# What takes long to import is left to the commands that need it.


def train_parser() -> Parser:
    """Parse `lexel train`."""
    parser = _command("Train a VQ-VAE on a set of images.")
    parser.add_argument("--config", action="config", help="file of settings, as config.yaml in a run's folder")
    # No default: None would replace the path that --config names.
    parser.add_argument("data", nargs="?", type=str, default=SUPPRESS, help=DATA)
    _add_run(parser)
    _add_strict(parser)
    _add_overwrite(parser)
    _add_plugin(parser)
    return parser


def train(settings: Namespace) -> int:
    """Train."""
    from lexel.training.run import train

    out = Path(_required(settings, "out", "--out"))
    settings.data = _required(settings, "data", "DATA")
    for name in ("data", "validation"):  # so that the run can be resumed from any folder
        settings[name] = settings[name] and str(Path(settings[name]).absolute())
    model, how = _model_and_settings(settings)
    outcome = train(
        model,
        settings.data,
        out,
        how,
        config=_config(settings, train_parser()),
        strict=settings.strict,
        overwrite=settings.overwrite,
    )
    return _report_end(out, outcome)


def resume_parser() -> Parser:
    """Parse `lexel resume`."""
    parser = _command("Go on with a run that was interrupted, from its last checkpoint to the same end.")
    parser.add_argument("run", type=str, help="folder of the run")
    parser.add_argument("--steps", type=int | None, help="train for so many steps in all, not for those in config.yaml")
    parser.add_argument("--devices", type=int | Literal["auto"] | None, help="how many to go on with")
    _add_strict(parser)
    _add_plugin(parser)
    return parser


def resume(settings: Namespace) -> int:
    """Go on with a run."""
    from lexel.training.run import train

    run = RunFolder(Path(settings.run))
    if not run.config.is_file():
        raise FileNotFoundError(f"{run.path} is not a run: it has no {run.config.name}")
    parser = train_parser()
    parser.subject = str(run.config)
    config = parser.parse_path(run.config)
    data = _required(config, "data", f"data in {run.config}")
    changes = {name: settings[name] for name in ("steps", "devices") if settings[name] is not None}
    for name, value in changes.items():
        config[name] = value
    with blamed_on(run.config, "cannot be gone on with"):
        model, how = _model_and_settings(config)
    outcome = train(
        model,
        data,
        run.path,
        how,
        config=_config(config, parser),
        strict=settings.strict,
        resume=True,
        more_steps="steps" in changes,
    )
    return _report_end(run.path, outcome)


def evaluate_parser() -> Parser:
    """Parse `lexel evaluate`."""
    parser = _command("Measure reconstructions and code usage over a whole set of images.")
    _add_model(parser)
    parser.add_argument("data", type=str, help=DATA)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    _add_strict(parser)
    _add_computing(parser)
    _add_plugin(parser)
    return parser


def evaluate(settings: Namespace) -> int:
    """Measure a model."""
    from lexel.training.evaluate import evaluate

    evaluation = evaluate(_loaded(settings), settings.data, strict=settings.strict, batch_size=settings.batch_size)
    if settings.json:
        results.print_json(json.dumps(dataclasses.asdict(evaluation)))
    else:
        _print(evaluation)
    return 0


def audit_parser() -> Parser:
    """Parse `lexel audit`."""
    parser = _command("Examine a model's quantizer: is it sound, in training and evaluation, on these images?")
    _add_model(parser)
    parser.add_argument("data", type=str, help=DATA)
    _add_strict(parser)
    _add_plugin(parser)
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
    parser = _command("Draw a page about a run: reconstructions, every code, and how training went.")
    _add_model(parser)
    parser.add_argument("--data", type=str, help=f"{DATA}; by default the images that the run was trained on")
    parser.add_argument("--out", type=str, help="file to write; by default report.html in the run's folder")
    _add_overwrite(parser)
    _add_plugin(parser)
    return parser


def report(settings: Namespace) -> int:
    """Write a page about a run."""
    from lexel.report.page import write_report

    out = None if settings.out is None else Path(settings.out)
    written = write_report(Path(settings.run), out, settings.data, overwrite=settings.overwrite)
    results.print(f"report: {written}", soft_wrap=True)
    return 0


def encode_parser() -> Parser:
    """Parse `lexel encode`."""
    parser = _command("Turn images into a file of codes.")
    _add_model(parser)
    parser.add_argument("data", type=str, help=DATA)
    parser.add_argument("--out", type=str, required=True, help="file to write, .safetensors")
    _add_strict(parser)
    _add_overwrite(parser)
    _add_computing(parser)
    _add_plugin(parser)
    return parser


def encode(settings: Namespace) -> int:
    """Turn images into codes."""
    out = Path(settings.out)
    refuse_existing(out, overwrite=settings.overwrite)
    tokens, skipped = encode_images(
        _loaded(settings), settings.data, strict=settings.strict, batch_size=settings.batch_size
    )
    write_tokens(out, tokens)
    if skipped:
        messages.print(f"skipped {listed(skipped)}", style="yellow", soft_wrap=True)
    count = sum(grid.numel() for grid in tokens.indices.values())
    results.print(f"{len(tokens.indices)} images as {count:,} tokens in {out}", soft_wrap=True)
    return 0


def decode_parser() -> Parser:
    """Parse `lexel decode`."""
    parser = _command("Turn a file of codes back into images.")
    _add_model(parser)
    parser.add_argument("codes", type=str, help="file that lexel encode wrote")
    parser.add_argument("--out", type=str, required=True, help="folder to write the images into")
    _add_overwrite(parser)
    _add_computing(parser)
    _add_plugin(parser)
    return parser


def decode(settings: Namespace) -> int:
    """Turn codes into images."""
    out = Path(settings.out)
    refuse_existing(out, overwrite=settings.overwrite)
    tokens = read_tokens(Path(settings.codes))
    decode_images(_loaded(settings), tokens, out, batch_size=settings.batch_size)
    results.print(f"{len(tokens.indices)} images in {out}", soft_wrap=True)
    return 0


def demo_parser() -> Parser:
    """Parse `lexel demo`."""
    parser = _command("Train for about two minutes on photographs that Python packages contain, and draw the results.")
    parser.add_argument("--config", action="config", help="file of settings, as config.yaml in a run's folder")
    _add_run(parser, num_embeddings=1024)
    parser.set_defaults(DEMO)
    _add_overwrite(parser)
    _add_plugin(parser)
    return parser


def demo(settings: Namespace) -> int:
    """Train on a few photographs and draw the results."""
    from lexel.demo import run_demo

    config = _config(settings, demo_parser())
    model, how = _model_and_settings(settings)
    demo = run_demo(
        model,
        Path(settings.out),
        how,
        config=config,
        overwrite=settings.overwrite,
    )
    results.print("Two photographs that were not trained on:")
    _print(demo.held_out)
    results.print(f"Originals above reconstructions: {demo.reconstructions}", soft_wrap=True)
    results.print(f"A photograph and its tokens:     {demo.tokens}", soft_wrap=True)
    results.print(f"A page to explore all of it:     {demo.report}", soft_wrap=True)
    return 0 if demo.outcome.finished else 128 + demo.outcome.signal


COMMANDS = {
    "train": Command(train_parser, train),
    "resume": Command(resume_parser, resume),
    "evaluate": Command(evaluate_parser, evaluate),
    "audit": Command(audit_parser, audit),
    "report": Command(report_parser, report),
    "encode": Command(encode_parser, encode),
    "decode": Command(decode_parser, decode),
    "demo": Command(demo_parser, demo),
}


def _parser() -> Parser:
    parser = Parser(
        prog="lexel",
        description="Vector quantization: images to discrete codes and back.",
        hints=(*COMMANDS, *_hints()),
    )
    parser.add_argument("--version", action="version", version=f"lexel {lexel.__version__}")
    subcommands = parser.add_subcommands(required=True, dest="command")
    for name, command in COMMANDS.items():
        subparser = command.parser()
        subcommands.add_subcommand(name, subparser, help=subparser.description)
        parser.hints += subparser.options
    return parser


@cache
def _hints() -> tuple[str, ...]:
    """Return the names to suggest for an unknown one: classes, presets, and their arguments."""
    makers = registry()
    arguments = {name for maker in makers.values() for name in inspect.signature(maker).parameters}
    return (*makers, *sorted(arguments))


def _command(description: str) -> Parser:
    parser = Parser(description=description, hints=_hints())
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    return parser


def _add_run(parser: Parser, **sizes: int) -> None:
    """Add the settings of a training run; `sizes` are those of its quantizer that differ from the preset's."""
    parser.add_argument("--out", type=str, help="folder to write the run into")
    parser.add_class_arguments(Settings)
    parser.add_class_arguments(VQVAE, "model", skip={"quantizer"}, instantiate=False)
    defaults = inspect.signature(lexel.presets.default).parameters
    shown = {name: sizes.get(name, defaults[name].default) for name in ("num_embeddings", "embedding_dim")}
    parser.add_subclass_arguments(
        lexel.Quantizer,
        "quantizer",
        fail_untyped=False,  # a stranger may leave types out
        default={"class_path": "lexel.presets.default", "init_args": shown},
        help=f"the quantizer, a class or one of the presets {', '.join(PRESETS)}; its own settings follow it",
    )


def _add_model(parser: Parser) -> None:
    parser.add_argument("run", type=str, help="folder of a run, or of a saved model")


def _add_strict(parser: Parser) -> None:
    parser.add_argument("--strict", action="store_true", help="stop at unreadable files instead of skipping them")


def _add_overwrite(parser: Parser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace what exists")


def _add_computing(parser: Parser) -> None:
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda or mps; auto takes an accelerator")
    parser.add_argument(
        "--batch_size",
        type=int,
        default=1,
        help="images of one size to compute at once; more than 1 may change rounding, and so a token here and there",
    )


def _add_plugin(parser: Parser) -> None:
    parser.add_argument("--plugin", metavar="FILE", type=str, help="Python file to import, with parts of your own")


def _plugins(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Take the plugins out of the words: they must be imported before the other words can be parsed."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--plugin", action="append", type=Path, default=[])
    try:
        taken, others = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    return taken.plugin, others


@contextmanager
def _importable(plugins: Sequence[Path]) -> Iterator[None]:
    """Import plugins, and let configurations name their classes for as long as a command runs."""
    names = [import_plugin(path) for path in plugins]
    set_parsing_settings(import_path_allowlist=names)
    try:
        yield
    finally:
        set_parsing_settings(import_path_denylist=names)


def _loaded(settings: Namespace) -> VQVAE:
    """Load the model of a run, on the device that is asked for."""
    from lexel._core.devices import pick_device

    if settings.batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {settings.batch_size}")
    device = pick_device(settings.device)
    return load_model(Path(settings.run)).to(device)


def _model_and_settings(settings: Namespace) -> tuple[VQVAE, Settings]:
    import torch

    try:
        how = Settings(**{field.name: settings[field.name] for field in dataclasses.fields(Settings)})
        torch.manual_seed(settings.seed)
        return VQVAE(lexel.from_config(settings.quantizer.as_dict()), **settings.model.as_dict()), how
    except (OSError, ValueError, ImportError):
        raise
    except Exception as error:  # a file of settings may say null for any of them, or a size beyond all memory
        raise ValueError(f"these settings make no run: {reason_of(error)}") from error


def _config(settings: Namespace, parser: Parser) -> str:
    """Return the text of config.yaml for a run."""
    config = settings.clone()
    for name in NOT_CONFIGURED:
        config.pop(name, None)
    return str(parser.dump(config))


def _required(settings: Namespace, name: str, shown: str) -> str:
    """Return a setting that has no default, or say that it is missing."""
    if settings.get(name) is None:
        raise ValueError(f"{shown} is missing; see lexel train --help")
    return str(settings[name])


def _report_end(run: Path, outcome: Outcome) -> int:
    """Say how a run ended, unless another process does, and return the exit code."""
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return 0
    if not outcome.finished:
        results.print(
            f"stopped at step {outcome.step:,}: go on with lexel resume {shlex.quote(str(run))}", soft_wrap=True
        )
        return 128 + outcome.signal
    results.print(f"trained: {run}", soft_wrap=True)
    if outcome.figures:
        shown = {"loss": ".4f", "psnr": ".2f", "usage": ".1%", "perplexity": ".1f", "validation_psnr": ".2f"}
        figures = [f"{name} {outcome.figures[name]:{form}}" for name, form in shown.items() if name in outcome.figures]
        results.print(f"last row: {', '.join(figures)}", soft_wrap=True)
    return 0


def _print(evaluation: Evaluation) -> None:
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_row("images", f"{evaluation.images}")
    table.add_row("PSNR", f"{evaluation.psnr:.2f} dB")
    table.add_row("SSIM", f"{evaluation.ssim:.4f}")
    table.add_row("L1", f"{evaluation.l1:.4f}")
    table.add_row("perplexity", f"{evaluation.perplexity:.1f}")
    share = evaluation.used / evaluation.num_embeddings
    table.add_row("codes in use", f"{evaluation.used:,} of {evaluation.num_embeddings:,} ({share:.1%})")
    table.add_row("bits per pixel", f"{evaluation.bits_per_pixel:.4f}")
    table.add_row("bits per pixel, entropy-coded", f"{evaluation.entropy_bits_per_pixel:.4f}")
    if evaluation.skipped:
        table.add_row("skipped", listed(evaluation.skipped))
    results.print(table)


if __name__ == "__main__":
    sys.exit(main())
