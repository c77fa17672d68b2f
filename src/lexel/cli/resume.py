"""The command that goes on with a run of any kind: `lexel resume`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from lexel._core.arguments import Parser
from lexel._core.errors import blamed_on
from lexel._core.places import instead
from lexel.cli import fit, priors, runs
from lexel.cli.common import Command, add_plugin, add_strict, command_parser
from lexel.cli.runs import config_text, report_end, task_of
from lexel.runs import RunFolder

TRAINING = {**runs.COMMANDS, **fit.COMMANDS, **priors.COMMANDS}


def resume_parser() -> Parser:
    """Parse `lexel resume`."""
    parser = command_parser("Go on with a run that was interrupted, from its last checkpoint to the same end.")
    parser.add_argument("run", type=str, help="folder of the run")
    parser.add_argument("--steps", type=int | None, help="train for so many steps in all, not for those in config.yaml")
    parser.add_argument("--devices", type=int | Literal["auto"] | None, help="how many to go on with")
    add_strict(parser)
    add_plugin(parser)
    return parser


def resume(settings: Namespace) -> int:
    """Go on with a run."""
    from lexel.training.run import train

    run = RunFolder(Path(settings.run))
    if not run.config.is_file():
        raise FileNotFoundError(f"{run.path} is not a run: it has no {run.config.name}{instead(run.path)}")
    command = TRAINING.get(run.command)
    if command is None or command.task is None:
        raise ValueError(f"{run.environment} names {run.command!r}, which is no command that trains")
    parser = command.parser()
    parser.subject = str(run.config)
    config = parser.parse_path(run.config)
    changes = {name: settings[name] for name in ("steps", "devices") if settings[name] is not None}
    for name, value in changes.items():
        config[name] = value
    with blamed_on(run.config, "cannot be gone on with"):
        task = task_of(config, command)
    outcome = train(
        task,
        run.path,
        config=config_text(config, parser),
        strict=settings.strict,
        resume=True,
        more_steps="steps" in changes,
    )
    return report_end(run.path, outcome)


COMMANDS = {"resume": Command(resume_parser, resume)}
