"""What is said about a file that cannot be read: in one line, with its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike

__all__ = ["blamed_on", "printable", "reason_of"]


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
    text = str(error.strerror if isinstance(error, OSError) and error.strerror else error)
    text = printable(text.strip().partition("\n")[0])[:400]
    if isinstance(error, (OSError, ValueError, SyntaxError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


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
