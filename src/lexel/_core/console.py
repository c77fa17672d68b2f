"""What people see in the terminal: messages and progress go to standard error, results to standard output."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import TypeVar

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
except ImportError as error:
    raise ImportError("the command line needs rich: pip install 'lexel[train]'") from error

__all__ = ["messages", "progress_bar", "results", "track"]

Item = TypeVar("Item")

messages = Console(stderr=True, highlight=False)
results = Console(highlight=False)


def progress_bar() -> Progress:
    """Return a bar with count, elapsed time and time left; it vanishes when done, and is mute without a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
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
