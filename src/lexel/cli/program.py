"""The command line: each command parses, calls one function of the floors below, and prints what it returned."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jsonargparse import set_parsing_settings

import lexel
from lexel._core.arguments import Parser
from lexel._core.console import complain
from lexel._core.errors import memory_wanted
from lexel._core.plugins import import_plugin
from lexel._core.signals import ended_by_signals
from lexel.cli import files, fit, models, priors, resume, runs, tokens, tour
from lexel.cli.common import hints

# What takes long to import is left to the commands that need it.
COMMANDS = {
    **runs.COMMANDS,
    **fit.COMMANDS,
    **resume.COMMANDS,
    **models.COMMANDS,
    **tokens.COMMANDS,
    **priors.COMMANDS,
    **files.COMMANDS,
    **tour.COMMANDS,
}

# A configuration file can name Lexel's own classes; it cannot import anything else.
set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=["lexel"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0; 1 when an audit finds a fault; 2 for bad input; 128 and the number of the signal that
        ended it, as 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Packages that Lexel uses import it. Where no home can be written, its warnings would precede every result.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
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
        parsed = _parser(others).parse_args(others)
        settings = parsed[parsed.command]
        if settings.get("plugin"):
            raise ValueError("plugin: only the command line can name a plugin (--plugin FILE), not a file of settings")
        return COMMANDS[parsed.command].run(settings)


def _reason(error: Exception) -> str:
    """Return what an error says, and its kind where it is not one that a user's input is expected to cause."""
    message = memory_wanted(error) or str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, (OSError, ValueError, ImportError)) and message:
        return message
    return f"{type(error).__name__}: {message} (--debug shows where)"


def _parser(words: Sequence[str]) -> Parser:
    """Return a parser of the command that the words begin with, or of all: to make all takes a tenth of a second."""
    names = words[:1] if words and words[0] in COMMANDS else [*COMMANDS]
    parser = Parser(
        prog="lexel",
        description="Vector quantization: images and vectors to discrete codes and back.",
        hints=(*COMMANDS, *hints()),
    )
    parser.add_argument("--version", action="version", version=f"lexel {lexel.__version__}")
    subcommands = parser.add_subcommands(required=True, dest="command")
    for name in names:
        subparser = COMMANDS[name].parser()
        subcommands.add_subcommand(name, subparser, help=subparser.description)
        parser.hints += subparser.options
    return parser


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
