"""What becomes of a damaged file: refused in a line that names it, read right, or a fault."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from lexel.cli import main
from tests.fuzz.damage import damaged

SECONDS = 20  # of processor time, the most that a case may take; ten times as long where it waits
MEMORY = 512 << 20  # the most by which resident memory may grow meanwhile
ADDRESSES = 4 << 30  # a greater allocation fails at once, and not the machine
TRAP = Path(tempfile.gettempdir()) / f"lexel-fuzz-{os.getpid()}"  # what hostile files make, if they run
STARTS = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pickle.find_class"}


@dataclass(frozen=True, eq=False)
class Target:
    """A parser, and whole files for it.

    Attributes:
        name: what is read.
        folder: where the files stand.
        files: their names within the folder; each is damaged in its turn, and then made whole again.
        read: returns the content of a file, as plain data, arrays and tensors; an error if it is damaged.
        sure: whether the format has checksums, so that other content is a fault.
        named: whether errors must name the file.
        weight: how often this target's turn comes, beside others.
    """

    name: str
    folder: Path
    files: Sequence[str]
    read: Callable[[Path], Any]
    sure: bool
    named: bool = True
    weight: float = 1.0


class FaultError(Exception):
    """Something that must not happen."""


class _Alarm(BaseException):
    """A case takes too long. Nothing catches it by mistake."""


@dataclass(frozen=True)
class Case:
    """A damaged file and what became of it: an outcome of one word, or a fault with what there is to see."""

    target: str
    file: str
    outcome: str
    seconds: float
    content: bytes


def command(*words: object) -> str:
    """Run a command of Lexel; return what it printed, or raise what it refused with.

    Raises:
        ValueError: the command was refused, in a line.
        FaultError: it ended in another way.
    """
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code: Any = main([str(word) for word in words])
    except SystemExit as end:
        code = end.code
    printed = err.getvalue()
    if code == 0:
        return out.getvalue()
    errors = [line for line in printed.splitlines() if line.startswith("lexel: ")]
    if code != 2 or len(errors) != 1 or "--debug shows where" in printed or "Traceback" in printed:
        raise FaultError(f"exit code {code}: {printed}")
    raise ValueError(errors[0])


def same(one: Any, two: Any) -> bool:
    """Whether two contents are equal, to the bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, np.ndarray):
        return isinstance(two, np.ndarray) and np.array_equal(one, two)
    if isinstance(one, dict):
        return isinstance(two, dict) and one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return isinstance(two, (list, tuple)) and len(one) == len(two) and all(map(same, one, two))
    return bool(one == two) or (one != one and two != two)


def fuzz(targets: Sequence[Target], count: int, seed: int) -> Iterator[Case]:
    """Read the whole files, then damage so many, and tell what became of each."""
    chance = random.Random(seed)
    whole = {(target, name): (target.folder / name).read_bytes() for target in targets for name in target.files}
    expected = {}
    with _watched():
        for target, name in whole:
            expected[target, name], outcome, seconds = _read(target, target.folder / name)
            yield Case(target.name, name, outcome if "FAULT" in outcome else f"whole, {outcome}", seconds, b"")
        for _ in range(count):
            target = chance.choices(targets, [each.weight * len(each.files) ** 0.5 for each in targets])[0]
            name, other = chance.choice(target.files), chance.choice(target.files)
            content, mended = damaged(name, whole[target, name], whole[target, other], chance)
            _replace(target.folder / name, content)
            try:
                found, outcome, seconds = _read(target, target.folder / name)
            finally:
                _replace(target.folder / name, whole[target, name])
            if outcome == "read":
                right = same(found, expected[target, name])
                outcome = (
                    "right" if right else "FAULT: other content" if target.sure and not mended else "other content"
                )
            yield Case(target.name, name, outcome, seconds, content)


def _replace(path: Path, content: bytes) -> None:
    """Write a new file: what was read of the old one may still lie there."""
    path.unlink()
    path.write_bytes(content)


def _read(target: Target, path: Path) -> tuple[Any, str, float]:
    """Read a file; return its content, what became of it, and how many seconds that took."""
    begun, before, found, outcome = time.perf_counter(), _peak(afresh=True), None, "read"
    _STARTED.clear()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    faulthandler.dump_traceback_later(10 * SECONDS, exit=True)  # where Python has no say any more
    try:
        found = target.read(path)
    except (OSError, ValueError) as error:
        text, outcome = str(error), "refused"
        if not text or "\n" in text or (target.named and path.name not in text and str(path.parent) not in text):
            outcome = f"FAULT: {type(error).__name__} {'does not name the file' if text else 'without a word'}: {text}"
    except _Alarm:
        outcome = f"FAULT: more than {SECONDS} s"
    except Exception as error:
        outcome = f"FAULT: {type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
    grown = _peak() - before
    if _STARTED or TRAP.exists():
        outcome = f"FAULT: code was run: {_STARTED}"
        TRAP.unlink(missing_ok=True)
    elif grown > MEMORY:
        outcome = f"FAULT: over-large memory: {grown >> 20} MiB"
    return found, outcome, time.perf_counter() - begun


_STARTED: list[str] = []


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if event in STARTS and len(_STARTED) < 3:
        _STARTED.append(f"{event} {arguments}"[:200])


def _peak(*, afresh: bool = False) -> int:
    """Return the most resident memory of this process, of all time or since it was last asked afresh."""
    if afresh:
        Path("/proc/self/clear_refs").write_text("5")
    return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) << 10


def _alarmed(number: int, frame: FrameType | None) -> None:
    raise _Alarm


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """Bound memory and time of what is read, and listen to what it starts."""
    if _listen not in _HEARD:
        sys.addaudithook(_listen)
        _HEARD.append(_listen)
    handler, limits = signal.signal(signal.SIGPROF, _alarmed), resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ADDRESSES, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGPROF, handler)


_HEARD: list[Any] = []
