"""A set of examples of any kind: each has a name, is read when asked for, and may turn out to be unreadable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lexel._core.console import messages
from lexel._core.errors import printable, reason_of
from lexel.data.labels import Labels

__all__ = ["Examples", "listed"]

MOST_NAMED = 5  # files, in a message

# Size of the cache in each process: a small set is decoded once, and a large one does not fill the memory. Nothing
# leaves the cache again: when examples are drawn at random, any share of the set serves as well as another.
CACHE_BYTES = 1 << 28


class Examples:
    """A set of examples, each read when it is needed. It can be pickled if `source` can, so that any process may read.

    Args:
        names: names of the examples, all different.
        source: returns the example of an index; any exception means that it cannot be read.
        glance: reads as little of an example as reveals most unreadable ones, and raises for those; returns what
            `source` will leave out of the example, or None.
        skipped: names that are known to be unreadable and have no index, with the reason.
        remarks: names that are left out for another reason and have no index, with that reason.
        labels: returns the class of each example, or raises for those that do not fit; None where there are none.

    Attributes:
        names: names of the examples.
        skipped: the examples that could not be read so far, by name, with the reason.
        noun: the word for an example of this kind.
        origin: the path of the set, which errors name where the set as a whole is to blame.
    """

    noun = "example"
    origin = ""

    def __init__(
        self,
        names: Sequence[str],
        source: Callable[[int], Tensor],
        glance: Callable[[int], str | None] | None = None,
        skipped: Mapping[str, str] | None = None,
        remarks: Mapping[str, str] | None = None,
        labels: Callable[[], Labels | None] | None = None,
    ) -> None:
        self.names = names
        self._labels = labels
        self.skipped = dict(skipped or {})
        self._source, self._glance = source, glance
        self._cache: dict[int, Tensor] = {}
        self._cache_room = CACHE_BYTES
        # Shared by the workers of a DataLoader, so that only one of them reports an unreadable example.
        self._reported = torch.zeros(len(names), dtype=torch.bool)
        with suppress(RuntimeError):  # without shared memory each worker reports it
            self._reported.share_memory_()  # type: ignore[no-untyped-call]
        self._remarks = dict(remarks or {})
        self._remarks_reported = False

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}, "_cache_room": CACHE_BYTES}

    @cached_property
    def labels(self) -> Labels | None:
        """The class of each example, read when it is asked for; None where there are none.

        Raises:
            ValueError: they do not fit.
        """
        return None if self._labels is None else self._labels()

    def read(self, index: int) -> Tensor:
        """Return an example. Do not write into it: it may come from the cache.

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
                if not self._reported[index]:
                    self._reported[index] = True
                    _warn(f"left out {_with_reasons({self.names[index]: reason_of(error)})}")
        raise self.none_readable()

    def readable(self, indices: Iterable[int], *, strict: bool = False) -> Iterator[tuple[int, Tensor]]:
        """Read the examples of `indices` in turn, leaving out those that cannot be read; none is added to the cache.

        At the end the terminal says what was left out of the examples that were read.

        Args:
            indices: which examples to read; a progress bar may be wrapped around them.
            strict: raise on the first example that cannot be read instead of skipping it.

        Raises:
            ValueError: none was readable, or one was not and `strict` is set.
        """
        found = False
        for item in self.available(indices, strict=strict):
            found = True
            yield item
        self.report_remarks()
        if not found:
            raise self.none_readable()

    def available(self, indices: Iterable[int], *, strict: bool = False) -> Iterator[tuple[int, Tensor]]:
        """Do what `readable` does for a part of the set, in which there may be none, and print nothing."""
        if strict:
            self._refuse_skipped()
        for index in indices:
            try:
                self._glance_at(index)
                example = self._cache[index] if index in self._cache else self._source(index)
            except Exception as error:
                self.skipped[self.names[index]] = reason_of(error)
                if strict:
                    self._refuse_skipped(error)
                continue
            yield index, example

    def check(self, indices: Iterable[int], *, strict: bool = False) -> None:
        """Check which of the examples of `indices` can be read, before any is needed, and fill `skipped`.

        The first ones are read whole until the cache is full: a small set is read completely. Of the others only the
        headers are read, so that a large set is ready soon; `first_readable` deals with those that turn out to be
        damaged later. Indices do not change.

        Args:
            indices: which examples to check; a progress bar may be wrapped around them.
            strict: read every example whole, and raise on the first that cannot be read.

        Raises:
            ValueError: none can be read, or one cannot and `strict` is set.
        """
        if strict:
            for _ in self.readable(indices, strict=True):
                pass
            return
        found, room = False, True
        for index in indices:
            try:
                self._glance_at(index)
                if room:
                    self._read(index)
                    found, room = True, index in self._cache
            except Exception as error:
                self.skipped[self.names[index]] = reason_of(error)
                self._reported[index] = True  # the caller prints `skipped`
        self.report_remarks()
        if not found:
            raise self.none_readable()

    def _read(self, index: int) -> Tensor:
        if index in self._cache:
            return self._cache[index]
        example = self._source(index)
        if example.nbytes <= self._cache_room:
            self._cache_room -= example.nbytes
            self._cache[index] = example
        return example

    def _glance_at(self, index: int) -> None:
        remark = None if self._glance is None else self._glance(index)
        if remark is not None:
            self._remarks[self.names[index]] = remark

    def report_remarks(self) -> None:
        """Print, once, what is left out of the examples that were read."""
        if self._remarks and not self._remarks_reported:
            self._remarks_reported = True
            _warn(_with_reasons(self._remarks))

    def _refuse_skipped(self, cause: Exception | None = None) -> None:
        for name, reason in self.skipped.items():
            raise ValueError(f"{printable(name)} cannot be read: {reason}") from cause

    def none_readable(self) -> ValueError:
        """Return the error that says that no example can be read."""
        why = f": {_with_reasons(self.skipped)}" if self.skipped else ""
        where = f"{self.origin}: " if self.origin else ""
        return ValueError(f"{where}no readable {self.noun} among {_files(len(self))}{why}")


def listed(skipped: Mapping[str, str]) -> str:
    """List the files that could not be read, with the reasons.

    Example:
        >>> listed({"a.png": "truncated", "b.txt": "not an image"})
        '2 unreadable files: a.png (truncated), b.txt (not an image)'
    """
    return f"{_files(len(skipped), 'unreadable ')}: {_with_reasons(skipped)}"


def _warn(line: str) -> None:
    messages.print(line, style="yellow", markup=False, soft_wrap=True)


def _with_reasons(reasons: Mapping[str, str]) -> str:
    named = ", ".join(f"{printable(name)} ({reason})" for name, reason in list(reasons.items())[:MOST_NAMED])
    return named + (f" and {len(reasons) - MOST_NAMED} more" if len(reasons) > MOST_NAMED else "")


def _files(count: int, adjective: str = "") -> str:
    return f"{count} {adjective}file{'s' * (count != 1)}"
