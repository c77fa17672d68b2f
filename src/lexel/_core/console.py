"""Output to the terminal: messages and progress go to standard error, results to standard output."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sized
from typing import Any, TypeVar

try:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text
except ImportError as error:
    raise ImportError("the command line needs rich: pip install 'lexel[train]'") from error

from typing_extensions import override

__all__ = ["complain", "messages", "progress_bar", "results", "track"]

Item = TypeVar("Item")

# Everything that a terminal may take for a command: control characters except line feed and tab, and the marks that
# change the direction of text.
COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def _printable(text: str, encoding: str = "utf-8") -> str:
    r"""Spell out what a terminal would take for a command or cannot encode; return other text unchanged.

    Example:
        >>> print(_printable("a\x1b[31mb[/red].png"))
        a\x1b[31mb[/red].png
    """
    spelt = COMMANDS.sub(lambda character: character[0].encode("unicode_escape").decode(), text)
    return spelt.encode(encoding, "backslashreplace").decode(encoding)


class PlainConsole(Console):
    """A console that prints text literally: the name of a file is neither markup nor a command."""

    @override
    def render_str(self, text: str, **settings: Any) -> Text:
        """Render text that is printed or stands in a table."""
        return super().render_str(_printable(text, self.encoding), **{**settings, "markup": False, "emoji": False})


messages = PlainConsole(stderr=True, highlight=False)
results = PlainConsole(highlight=False)


def complain(message: str) -> None:
    """Print an error in one line of standard error."""
    who = "lexel" if os.environ.get("LOCAL_RANK", "0") == "0" else f"lexel, process {os.environ['LOCAL_RANK']}"
    messages.print(f"{who}: {' '.join(line.strip() for line in message.splitlines())}", soft_wrap=True)


def progress_bar() -> Progress:
    """Return a bar with count, elapsed time and time left; it vanishes at the end, and is silent without a terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=messages,
        transient=True,
        disable=not messages.is_terminal,
    )


def track(items: Iterable[Item], description: str) -> Iterable[Item]:
    """Show the progress through `items`."""
    with progress_bar() as bar:
        length = len(items) if isinstance(items, Sized) else None
        task = bar.add_task(description, total=length, note="")
        for item in items:
            yield item
            bar.advance(task)
