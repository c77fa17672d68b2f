"""A set of examples of any kind: each has a name, is read when asked for, and may turn out to be unreadable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from lexel._core.console import messages

__all__ = ["Examples", "listed", "printable", "reason_of"]

# What was read is kept up to this many bytes in each process: a small set is decoded once, a large one does not fill
# the memory. Nothing is thrown out again: for draws at random any share of the set serves as well as another.
KEPT_BYTES = 1 << 28


class Examples:
    """A set of examples, each read when asked for. It can be pickled if `source` can: any process may read.

    Args:
        names: of the examples, each another.
        source: returns the example of an index; any exception means that it cannot be read.
        glance: looks at as little of an example as tells most unreadable ones, and raises for those; returns what
            `source` will leave out of it, or None.
        skipped: what is known to be unreadable and has no index, with the reason.
        remarks: what is left out for another reason and has no index, with that.

    Attributes:
        names: as given.
        skipped: what could not be read so far, by name, with the reason.
        noun: what the kind calls an example.
    """

    noun = "example"

    def __init__(
        self,
        names: Sequence[str],
        source: Callable[[int], Tensor],
        glance: Callable[[int], str | None] | None = None,
        skipped: Mapping[str, str] | None = None,
        remarks: Mapping[str, str] | None = None,
    ) -> None:
        self.names = names
        self.skipped = dict(skipped or {})
        self._source, self._glance = source, glance
        self._kept: dict[int, Tensor] = {}
        self._space = KEPT_BYTES
        # Shared by the workers of a DataLoader, so that a reason is told once and not by each of them.
        self._told = torch.zeros(len(names), dtype=torch.bool)
        with suppress(RuntimeError):  # where there is no shared memory each worker tells for itself
            self._told.share_memory_()  # type: ignore[no-untyped-call]
        self._remarks = dict(remarks or {})
        self._remarks_told = False

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}, "_space": KEPT_BYTES}

    def read(self, index: int) -> Tensor:
        """Return an example, not to be written into: it may be kept for the next call.

        Raises:
            ValueError: it cannot be read.
        """
        try:
            return self._read(index)
        except Exception as error:
            raise ValueError(f"{printable(self.names[index])} cannot be read: {reason_of(error)}") from error

    def first_readable(self, indices: Iterable[int]) -> Tensor:
        """Return the first example of `indices` that can be read. The terminal names those before it, each once.

        Raises:
            ValueError: none can be read.
        """
        for index in indices:
            try:
                return self._read(index)
            except Exception as error:
                self.skipped[self.names[index]] = reason_of(error)
                if not self._told[index]:
                    self._told[index] = True
                    _tell(f"left out {_named({self.names[index]: reason_of(error)})}")
        raise self._nothing()

    def readable(self, indices: Iterable[int], *, strict: bool = False) -> Iterator[tuple[int, Tensor]]:
        """Read the examples of `indices` in turn, leaving out those that cannot be read; keeps none of them.

        The terminal says at the end what was left out of examples that were read.

        Args:
            indices: which; a progress bar may be wrapped around them.
            strict: raise on the first example that cannot be read instead of skipping it.

        Raises:
            ValueError: none was readable, or one was not and `strict` is set.
        """
        if strict:
            self._refuse_skipped()
        found = False
        for index in indices:
            try:
                self._look(index)
                example = self._kept[index] if index in self._kept else self._source(index)
            except Exception as error:
                self.skipped[self.names[index]] = reason_of(error)
                if strict:
                    self._refuse_skipped(error)
                continue
            found = True
            yield index, example
        self._tell_remarks()
        if not found:
            raise self._nothing()

    def check(self, indices: Iterable[int], *, strict: bool = False) -> None:
        """Look at the examples of `indices`, before any is needed; `skipped` says what was found.

        The first ones are read whole and kept, as many as may be: all of a small set. Of the others no more is read
        than their headers, so that a large set is ready soon: `first_readable` deals with those that turn out to be
        damaged later. An index keeps its meaning.

        Args:
            indices: which; a progress bar may be wrapped around them.
            strict: read every example whole, and raise on the first that cannot be read.

        Raises:
            ValueError: as `readable`.
        """
        if strict:
            for _ in self.readable(indices, strict=True):
                pass
            return
        found, room = False, True
        for index in indices:
            try:
                self._look(index)
                if room:
                    self._read(index)
                    found, room = True, index in self._kept
            except Exception as error:
                self.skipped[self.names[index]] = reason_of(error)
                self._told[index] = True  # by whoever prints `skipped` next
        self._tell_remarks()
        if not found:
            raise self._nothing()

    def _read(self, index: int) -> Tensor:
        if index in self._kept:
            return self._kept[index]
        example = self._source(index)
        if example.nbytes <= self._space:
            self._space -= example.nbytes
            self._kept[index] = example
        return example

    def _look(self, index: int) -> None:
        remark = None if self._glance is None else self._glance(index)
        if remark is not None:
            self._remarks[self.names[index]] = remark

    def _tell_remarks(self) -> None:
        if self._remarks and not self._remarks_told:
            self._remarks_told = True
            _tell(_named(self._remarks))

    def _refuse_skipped(self, cause: Exception | None = None) -> None:
        for name, reason in self.skipped.items():
            raise ValueError(f"{printable(name)} cannot be read: {reason}") from cause

    def _nothing(self) -> ValueError:
        why = f": {_named(self.skipped)}" if self.skipped else ""
        return ValueError(f"no readable {self.noun} among {_files(len(self))}{why}")


def listed(skipped: Mapping[str, str]) -> str:
    """Name the files that could not be read.

    Example:
        >>> listed({"a.png": "truncated", "b.txt": "not an image"})
        '2 unreadable files: a.png (truncated), b.txt (not an image)'
    """
    return f"{_files(len(skipped), 'unreadable ')}: {_named(skipped)}"


def printable(name: str) -> str:
    r"""Return a name as a terminal can show it: what is not printable, as its escape.

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
    text = printable(text.strip().partition("\n")[0])[:200]
    if isinstance(error, (OSError, ValueError, SyntaxError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _tell(line: str) -> None:
    messages.print(line, style="yellow", markup=False, soft_wrap=True)


def _named(reasons: Mapping[str, str], most: int = 5) -> str:
    named = ", ".join(f"{printable(name)} ({reason})" for name, reason in list(reasons.items())[:most])
    return named + (f" and {len(reasons) - most} more" if len(reasons) > most else "")


def _files(count: int, adjective: str = "") -> str:
    return f"{count} {adjective}file{'s' * (count != 1)}"
