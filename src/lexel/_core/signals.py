"""Ctrl-C, SIGTERM and their like: what ends a command, and what only ends a run after its step."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Ended", "Stop", "ended_by_signals", "ignore_signals", "stopped_softly"]

# What asks a process to end: by Ctrl-C, by `kill`, by a terminal that closes, or by a scheduler before its limit.
ALWAYS = (signal.SIGINT, signal.SIGTERM)
UNLESS_IGNORED = tuple(
    getattr(signal, name)
    for name in ("SIGHUP", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)  # not on Windows
)

# `timeout` and a few others send the same signal to a process and to its group: together they are one.
ONE_SIGNAL_SECONDS = 1.0


class Ended(KeyboardInterrupt):
    """A signal asked this process to end.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Stop:
    """Whether a signal asked to stop, and which one: 0 for none."""

    number: int = 0


@contextmanager
def ended_by_signals() -> Iterator[Stop]:
    """Raise `Ended` where such a signal arrives, so that what has been begun is tidied up.

    It is noted as well: where it arrives in the middle of an import, something else may be raised in the end.
    """
    stop = Stop()

    def end(number: int, frame: FrameType | None) -> None:
        stop.number = number
        raise Ended(number)

    with _handled(end):
        yield stop


@contextmanager
def stopped_softly() -> Iterator[Stop]:
    """Take note of the first such signal; one that comes later ends at once."""
    stop, first = Stop(), 0.0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if stop.number and time.monotonic() > first + ONE_SIGNAL_SECONDS:
            raise Ended(number)
        stop.number, first = number, first or time.monotonic()

    with _handled(note):
        yield stop


def ignore_signals(*_: object) -> None:
    """Leave these signals, which may reach a whole group of processes, to the one that directs this one."""
    for number in (*ALWAYS, *UNLESS_IGNORED):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # signals reach no other thread
        yield
        return
    # `nohup` ignores the signal of a terminal that closes, and means it.
    heard = (*ALWAYS, *(number for number in UNLESS_IGNORED if signal.getsignal(number) != signal.SIG_IGN))
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
