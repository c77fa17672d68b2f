"""What is said about a file that cannot be read or written: in one line, with its name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from typing import Any

__all__ = ["blamed_on", "memory_wanted", "naming", "printable", "reason_of", "require_within", "sizes_named"]


def printable(name: str) -> str:
    r"""Return a name as a terminal can show it: unprintable characters become escapes.

    Example:
        >>> print(printable("a\x1b[31m\n.png"))
        a\x1b[31m\n.png
    """
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in name)


def reason_of(error: BaseException) -> str:
    """Say in a line why something could not be read.

    Example:
        >>> reason_of(EOFError()), reason_of(ValueError("truncated")), reason_of(KeyError(7))
        ('EOFError', 'truncated', 'KeyError: 7')
    """
    if (wanted := memory_wanted(error)) is not None:
        return wanted
    text = str(error.strerror if isinstance(error, OSError) and error.strerror else error)
    text = printable(text.strip().partition("\n")[0])[:400]
    if isinstance(error, (OSError, ValueError, SyntaxError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def require_within(name: str, value: float, least: float, most: float) -> None:
    """Check that a setting lies within its range.

    Raises:
        ValueError: it does not, or is not a number.

    Example:
        >>> require_within("batch_size", 0, 1, 1 << 20)
        Traceback (most recent call last):
        ValueError: batch_size must be from 1 to 1,048,576, got 0
    """
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least:,} to {most:,}, got {value}")


def memory_wanted(error: BaseException) -> str | None:
    """Say how much memory there is not, where torch says so in its own words.

    Example:
        >>> memory_wanted(RuntimeError("alloc_cpu.cpp: you tried to allocate 960000000000 bytes. Error code 12"))
        '960.0 GB do not fit into the memory'
    """
    found = re.search(r"tried to allocate (\d+) bytes", str(error)) if isinstance(error, RuntimeError) else None
    return None if found is None else f"{int(found[1]) / 1e9:,.1f} GB do not fit into the memory"


@contextmanager
def sizes_named(what: str, settings: Mapping[str, Any]) -> Iterator[None]:
    """Name the sizes of what is built, where they are beyond all memory.

    Raises:
        ValueError: they are.

    Example:
        >>> with sizes_named("a table", {"num_embeddings": 1 << 60, "metric": "cosine"}):
        ...     raise RuntimeError("overflowed")
        Traceback (most recent call last):
        ValueError: cannot build a table with num_embeddings 1152921504606846976: RuntimeError: overflowed
    """
    try:
        yield
    except (RuntimeError, MemoryError, OverflowError) as error:
        if isinstance(error, RecursionError):
            raise
        sizes = ", ".join(f"{name} {value}" for name, value in settings.items() if type(value) is int)
        raise ValueError(f"cannot build {what}{' with ' * bool(sizes)}{sizes}: {reason_of(error)}") from error


@contextmanager
def blamed_on(path: str | PathLike[str], complaint: str) -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into one line that names it: a damaged file fails in many ways.

    Raises:
        ValueError: something went wrong.

    Example:
        >>> with blamed_on("a.json", "is not a list"):
        ...     {}[0]
        Traceback (most recent call last):
        ValueError: a.json is not a list: KeyError: 0
    """
    try:
        yield
    except ImportError:  # of what reads it
        raise
    except Exception as error:
        if isinstance(error, ValueError) and str(path) in str(error):  # it says so already
            raise
        raise ValueError(f"{path} {complaint}: {reason_of(error)}") from error


@contextmanager
def naming(path: str | PathLike[str], *, instead_of: str | None = None) -> Iterator[None]:
    """Name the file that cannot be written: the system's error about a full disk does not.

    Args:
        path: the file.
        instead_of: paths with this in them are temporary, and `path` is named in their place.

    Raises:
        OSError: it cannot be written.

    Example:
        >>> with naming("a.csv"):
        ...     raise OSError(28, "No space left on device")
        Traceback (most recent call last):
        OSError: [Errno 28] No space left on device: 'a.csv'
    """
    try:
        yield
    except OSError as error:
        named = error.filename is not None and not (instead_of and instead_of in str(error.filename))
        if named or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
