"""The command-line parser: options with hyphens, and errors of one line that say what may be meant."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from inspect import isfunction
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import SUPPRESS, ArgumentParser, Namespace
from typing_extensions import override

from lexel._core.config import registry
from lexel._core.console import complain, results

__all__ = ["Parser"]

OPTION = re.compile(r"--[\w.-]+")
MOST_VALUES = 100_000  # in a file of settings
# Lines of jsonargparse's messages that say nothing to a user.
CLASS, LITERAL = re.compile(r"<class '(?:\w+\.)*(\w+)'>"), re.compile(r"typing\.Literal\[(.*?)\]")
LISTS = {"Sequence": "a list, as [8, 5, 5]"}
NOISE = re.compile(r"Expected a path but .*|Given value.*|Does not validate against .*|Subtypes: .*|Errors:")


class Parser(ArgumentParser):
    """A parser of command-line words whose options are typed and shown with hyphens.

    In files and namespaces the same settings have underscores: ``--batch-size 8`` is ``batch_size: 8``.

    Args:
        hints: words to suggest for an unknown one, beside the options.
    """

    def __init__(self, *, hints: Iterable[str] = (), **settings: Any) -> None:
        super().__init__(**settings)
        self.hints = list(hints)
        self.subject = ""  # the file that is being read, for errors to name

    @property
    def options(self) -> list[str]:
        """All options, as they are typed."""
        return OPTION.findall(self.format_help())

    @override
    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **settings: Any) -> Namespace:  # type: ignore[override]
        """Parse words, by default those of the command line."""
        words = list(sys.argv[1:] if args is None else args)
        for word, following in pairwise([*words, ""]):
            if word == "--config" or word.startswith("--config="):
                self._check_readable(Path(word.partition("=")[2] or following))
            option, _, name = word.partition("=")
            preset = registry().get(name or following)
            if option.startswith("--") and option.endswith(".help") and isfunction(preset):
                self._show_settings(option.removeprefix("--").removesuffix(".help"), name or following, preset)
        return super().parse_args([_underscored(word) for word in words], *rest, **settings)

    @override
    def parse_path(self, cfg_path: Any, *rest: Any, **settings: Any) -> Namespace:
        """Parse a file of settings."""
        self._check_readable(Path(cfg_path))
        parsed: Namespace = super().parse_path(cfg_path, *rest, **settings)
        return parsed

    def _show_settings(self, option: str, name: str, preset: Callable[..., Any]) -> NoReturn:
        """Show the settings of a preset, as jsonargparse shows those of a class, and exit."""
        shown = Parser(prog="lexel", usage=SUPPRESS, add_help=False)
        shown.add_function_arguments(preset, option, fail_untyped=False)
        results.print(f"Help for --{option}.help={name}\n\n{shown.format_help().strip()}", soft_wrap=True)
        sys.exit(0)

    def _check_readable(self, path: Path) -> None:
        """Name a file of settings that cannot be read: jsonargparse speaks of its content alone."""
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError("it has no settings")
            if _is_vast(content):
                raise ValueError(f"it has more than {MOST_VALUES:,} values")
        except (ValueError, yaml.YAMLError, RecursionError) as error:
            self.error(f"{path} is not a file of settings: {error}")
        except OSError as error:
            self.error(f"{path}: {error.strerror}")

    @override
    def format_help(self, *formatter: Any) -> str:
        """Return the help, with options as they are typed."""
        return _hyphenated(super().format_help(*formatter))

    @override
    def format_usage(self) -> str:
        """Return the line of usage, with options as they are typed."""
        return _hyphenated(super().format_usage())

    @override
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say in one line what the error is and what may be meant, and exit with code 2."""
        parser = getattr(ex, "subcommand_parser", None) or self
        subject = f"{self.subject}: " if self.subject else ""
        complain(f"{subject}{_one_line(message)}{_hint(message, [*parser.options, *self.hints])}")
        sys.exit(2)


def _is_vast(content: Any) -> bool:
    """Whether settings have more values than any that are meant: a short file can repeat itself without end."""
    waiting, count = [content], 0
    while waiting and count <= MOST_VALUES:
        value, count = waiting.pop(), count + 1
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return count > MOST_VALUES


def _underscored(word: str) -> str:
    option, equals, value = word.partition("=")
    return option[:2] + option[2:].replace("-", "_") + equals + value if option.startswith("--") else word


def _hyphenated(text: str) -> str:
    return OPTION.sub(lambda option: option[0].replace("_", "-"), text)


def _one_line(message: str) -> str:
    """Reduce a message to what a user can act on."""
    denied = re.search(r"Importing '([^']+)' is not allowed", message)
    if denied:
        return f"{denied[1]!r} is not one of Lexel's; if it is yours, name the file that holds it with --plugin"
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    text = " ".join(line for line in lines if line and not NOISE.fullmatch(line))
    text = CLASS.sub(lambda found: LISTS.get(found[1], found[1]), text)
    text = LITERAL.sub(lambda found: found[1].replace("'", "").replace(", ", " or "), text)
    text = text.replace("unrecognized arguments", "unknown option").replace(". Got value: ", ", got ")
    text = re.sub(r"Unable to load config '([^']*)'.*", r"expected settings by name, or a file of them, got '\1'", text)
    text = re.sub(r"Expected a dot import path string:\s*$", "Expected a the name of a class, got an empty text", text)
    first, *others = re.split(r"Expected an? ", text)
    text = f"{first}expected {' or '.join(other.strip() for other in others)}" if others else text
    given = re.search(r"^\s*Given value: (.*)$", message, re.M)
    if given and ", got " not in text:
        text += f", got {given[1]}"
    return re.sub(r'^Parser key "([^"]+)":', r"\1:", _hyphenated(text))


def _hint(message: str, words: Iterable[str]) -> str:
    """Suggest what may be meant by the unknown word of a message, spelt as it would be typed."""
    names: dict[str, str] = {}
    for word in words:
        names.setdefault(_bare(word), word)
    for word in re.findall(r"(?:option|Option|attribute|choice:|arguments:) '?([\w.-]+)'?", message):
        for close in difflib.get_close_matches(_bare(word), names, 1, 0.75):
            return f"; did you mean {names[close] if word.startswith('--') else names[close].lstrip('-')}?"
    return ""


def _bare(word: str) -> str:
    return word.rpartition(".")[2].lstrip("-").lower().replace("-", "_")
