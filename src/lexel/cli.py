"""The command line: each command parses, calls one function of the floors below, and prints what it returned."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lexel

try:
    from jsonargparse import SUPPRESS, ArgumentParser, Namespace, set_parsing_settings
    from rich.table import Table

    from lexel._core.console import messages, results
    from lexel._core.files import refuse_existing
    from lexel.data.images import listed
    from lexel.models import VQVAE
    from lexel.runs import CONFIG, load_model
    from lexel.tokens import decode_images, encode_images, read_tokens, write_tokens
    from lexel.training.settings import Settings
except ImportError as error:
    sys.exit(f"lexel: the command line needs more than the library: pip install 'lexel[train]' ({error})")

if TYPE_CHECKING:
    from lexel.training.evaluate import Evaluation

DATA = "folder of images at any depth, one image, a .npy or .npz array, or what datasets.load_dataset opens locally"
QUANTIZER: dict[str, Any] = {"class_path": "lexel.presets.default"}
# Chosen for what two CPU cores can learn in two minutes.
DEMO = {
    "out": "runs/demo",
    "steps": 1500,
    "batch_size": 16,
    "learning_rate": 2e-3,
    "model.hidden_channels": 64,
    "model.upsampling": "resize",
    "quantizer": {**QUANTIZER, "init_args": {"num_embeddings": 1024}},
}
# What says where and how a command runs, not what is trained: it stays out of config.yaml.
NOT_KEPT = ("config", "overwrite", "strict", "debug")


# No configuration file can have anything imported but Lexel's own classes.
set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=["lexel"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; exit code 0, 1 when an audit finds a fault, 2 for bad input, 130 when interrupted."""
    parser, commands = _parsers()
    parsed = parser.parse_args([_underscored(word) for word in (sys.argv[1:] if arguments is None else arguments)])
    settings = parsed[parsed.command]
    try:
        return COMMANDS[parsed.command](settings, commands)
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError, ImportError) as error:
        if settings.debug:
            raise
        messages.print(f"lexel: {error}", markup=False, soft_wrap=True)
        return 2


# Lightning takes seconds to import: only the commands that need it do.


def _train(settings: Namespace, commands: dict[str, ArgumentParser]) -> int:
    from lexel.training.run import train

    data, out = _given(settings, "data", "DATA"), Path(_given(settings, "out", "--out"))
    finished = train(
        _model(settings),
        data,
        out,
        _settings(settings),
        config=_kept(settings, commands["train"]),
        strict=settings.strict,
        overwrite=settings.overwrite,
    )
    return _ended(out, finished)


def _resume(settings: Namespace, commands: dict[str, ArgumentParser]) -> int:
    from lexel.training.run import train

    run = Path(settings.run)
    if not (run / CONFIG).is_file():
        raise FileNotFoundError(f"{run} is not a run: it has no {CONFIG}")
    kept = commands["train"].parse_path(run / CONFIG)
    data = _given(kept, "data", f"data in {run / CONFIG}")
    finished = train(_model(kept), data, run, _settings(kept), resume=True)
    return _ended(run, finished)


def _evaluate(settings: Namespace, commands: dict[str, ArgumentParser]) -> int:
    from lexel.training.evaluate import evaluate

    evaluation = evaluate(load_model(Path(settings.run)), settings.data, strict=settings.strict)
    if settings.json:
        results.print_json(json.dumps(dataclasses.asdict(evaluation)))
    else:
        _print(evaluation)
    return 0


def _audit(settings: Namespace, commands: dict[str, ArgumentParser]) -> int:
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else torch.profiler tells standard error when it starts
    from lexel.training.evaluate import audit_model

    found = audit_model(load_model(Path(settings.run)), settings.data, strict=settings.strict)
    results.print(str(found), markup=False, soft_wrap=True)
    return 0 if found.ok else 1


def _report(settings: Namespace, commands: dict[str, ArgumentParser]) -> int:
    from lexel.report.page import write_report

    out = None if settings.out is None else Path(settings.out)
    written = write_report(Path(settings.run), out, settings.data, overwrite=settings.overwrite)
    results.print(f"report: {written}", soft_wrap=True)
    return 0


def _encode(settings: Namespace, commands: dict[str, ArgumentParser]) -> int:
    out = Path(settings.out)
    refuse_existing(out, overwrite=settings.overwrite)
    tokens, skipped = encode_images(load_model(Path(settings.run)), settings.data, strict=settings.strict)
    write_tokens(out, tokens)
    if skipped:
        messages.print(f"skipped {listed(skipped)}", style="yellow", markup=False)
    count = sum(grid.numel() for grid in tokens.indices.values())
    results.print(f"{len(tokens.indices)} images as {count:,} tokens in {out}", soft_wrap=True)
    return 0


def _decode(settings: Namespace, commands: dict[str, ArgumentParser]) -> int:
    out = Path(settings.out)
    refuse_existing(out, overwrite=settings.overwrite)
    tokens = read_tokens(Path(settings.codes))
    decode_images(load_model(Path(settings.run)), tokens, out)
    results.print(f"{len(tokens.indices)} images in {out}", soft_wrap=True)
    return 0


def _demo(settings: Namespace, commands: dict[str, ArgumentParser]) -> int:
    from lexel.demo import run_demo

    model = _model(settings)
    config = _kept(settings, commands["demo"])
    demo = run_demo(model, Path(settings.out), _settings(settings), config=config, overwrite=settings.overwrite)
    results.print("Two photographs that were not trained on:")
    _print(demo.held_out)
    results.print(f"Originals above reconstructions: {demo.reconstructions}", soft_wrap=True)
    results.print(f"A photograph and its tokens:     {demo.tokens}", soft_wrap=True)
    results.print(f"A page to explore all of it:     {demo.report}", soft_wrap=True)
    return 0 if demo.finished else 130


COMMANDS = {
    "train": _train,
    "resume": _resume,
    "evaluate": _evaluate,
    "audit": _audit,
    "report": _report,
    "encode": _encode,
    "decode": _decode,
    "demo": _demo,
}


def _parsers() -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    parser = ArgumentParser(prog="lexel", description="Vector quantization: images to discrete codes and back.")
    parser.add_argument("--version", action="version", version=f"lexel {lexel.__version__}")
    subcommands = parser.add_subcommands(required=True, dest="command")
    commands = {}
    for name, description in (
        ("train", "Train a VQ-VAE on a set of images."),
        ("resume", "Go on with a run that was interrupted, from its last checkpoint to the same end."),
        ("evaluate", "Measure reconstructions and code usage over a whole set of images."),
        ("audit", "Examine a model's quantizer: is it sound, in training and evaluation, on these images?"),
        ("report", "Draw a page about a run: reconstructions, every code, and how training went."),
        ("encode", "Turn images into a file of codes."),
        ("decode", "Turn a file of codes back into images."),
        ("demo", "Train for about two minutes on photographs that packages carry, and draw what comes out."),
    ):
        commands[name] = ArgumentParser(description=description)
        subcommands.add_subcommand(name, commands[name], help=description)

    for name in ("train", "demo"):
        command = commands[name]
        command.add_argument("--config", action="config", help="file of settings, as config.yaml in a run's folder")
        if name == "train":
            # Left out where it is not given: None would take the place of what --config says.
            command.add_argument("data", nargs="?", type=str, default=SUPPRESS, help=DATA)
        command.add_argument("--out", type=str, help="folder to write the run into")
        command.add_class_arguments(Settings)
        command.add_class_arguments(VQVAE, "model", skip={"quantizer"}, instantiate=False)
        command.add_subclass_arguments(
            lexel.Quantizer, "quantizer", help="what makes the codes; its settings follow it"
        )
        command.set_defaults(DEMO if name == "demo" else {"quantizer": QUANTIZER})
    for name in ("resume", "evaluate", "audit", "report", "encode", "decode"):
        commands[name].add_argument("run", type=str, help="folder of a run, or of a saved model")
    for name in ("evaluate", "audit", "encode"):
        commands[name].add_argument("data", type=str, help=DATA)
    commands["evaluate"].add_argument("--json", action="store_true", help="print JSON instead of a table")
    commands["report"].add_argument("--data", type=str, help=f"{DATA}; what the run was trained on by default")
    commands["report"].add_argument("--out", type=str, help="file to write, report.html in the run's folder by default")
    commands["encode"].add_argument("--out", type=str, required=True, help="file to write, .safetensors")
    commands["decode"].add_argument("codes", type=str, help="file that lexel encode wrote")
    commands["decode"].add_argument("--out", type=str, required=True, help="folder to write the images into")
    for name in ("train", "evaluate", "audit", "encode"):
        commands[name].add_argument("--strict", action="store_true", help="refuse unreadable files, do not skip them")
    for name in ("train", "report", "encode", "decode", "demo"):
        commands[name].add_argument("--overwrite", action="store_true", help="replace what is there")
    for command in commands.values():
        command.add_argument("--debug", action="store_true", help="show where an error came from")
        for action in command._actions:
            action.option_strings = [option.replace("_", "-") for option in action.option_strings]
    return parser, commands


def _underscored(word: str) -> str:
    """Let options be typed as they are shown, --batch-size, though their names in files have underscores."""
    option, equals, value = word.partition("=")
    return option[:2] + option[2:].replace("-", "_") + equals + value if option.startswith("--") else word


def _model(settings: Namespace) -> VQVAE:
    import torch

    torch.manual_seed(settings.seed)
    return VQVAE(lexel.from_config(settings.quantizer.as_dict()), **settings.model.as_dict())


def _settings(settings: Namespace) -> Settings:
    return Settings(**{field.name: settings[field.name] for field in dataclasses.fields(Settings)})


def _kept(settings: Namespace, parser: ArgumentParser) -> str:
    kept = settings.clone()
    for name in NOT_KEPT:
        kept.pop(name, None)
    return str(parser.dump(kept))


def _given(settings: Namespace, name: str, shown: str) -> str:
    """Return a setting that has no default."""
    if settings.get(name) is None:
        raise ValueError(f"{shown} is missing; see lexel train --help")
    return str(settings[name])


def _ended(run: Path, finished: bool) -> int:
    if finished:
        results.print(f"trained: {run}", soft_wrap=True)
        return 0
    results.print(f"stopped: go on with lexel resume {run}", soft_wrap=True)
    return 130


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
    table.add_row("… entropy coded", f"{evaluation.entropy_bits_per_pixel:.4f}")
    if evaluation.skipped:
        table.add_row("skipped", listed(evaluation.skipped))
    results.print(table)


if __name__ == "__main__":
    sys.exit(main())
