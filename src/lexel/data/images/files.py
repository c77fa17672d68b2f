"""Image files, in a folder of any depth."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from torch import Tensor

from lexel._core.errors import reason_of
from lexel._core.files import ENVIRONMENT, environment_of
from lexel._core.places import MANIFEST, PROGRESS
from lexel.data.images.decode import decode, glance

__all__ = ["Found", "ImageFiles", "walk"]


@dataclass(frozen=True)
class ImageFiles:
    """Reads image files; it can be pickled.

    Attributes:
        root: the folder.
        files: paths in it.
        channels: as `decode`.
    """

    root: str
    files: list[str]
    channels: int

    def __call__(self, index: int) -> Tensor:
        """Read an image."""
        return decode(self._path(index), self.channels)

    def glance(self, index: int) -> str | None:
        """Read the header of an image."""
        return glance(self._path(index))

    def names(self) -> list[str]:
        """Return the paths with forward slashes, in Unicode: bytes that are not UTF-8 become their escapes."""
        taken: dict[str, None] = {}
        for file in self.files:
            name = os.fsencode(file.replace(os.sep, "/")).decode("utf-8", "backslashreplace")
            while name in taken:  # another file may have the name that the escape spells
                name = f"{name}~"
            taken[name] = None
        return list(taken)

    def _path(self, index: int) -> Path:
        return Path(self.root, self.files[index])


@dataclass
class Found:
    """The content of a folder.

    Attributes:
        files: relative paths of all files that are not hidden, sorted by their parts.
        skipped: what cannot be read, with the reason.
        remarks: what is left out on purpose, with the reason.
    """

    files: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)


def walk(root: Path) -> Found:
    """List the files of a folder at any depth.

    Links to folders are followed after all other folders, and each folder is read once: so a link to a parent folder
    does no harm, and links do not change the names of files that are reached without them. The folders of runs and of
    tokens are left out.

    Raises:
        OSError: `root` itself cannot be read.
    """
    found = Found()
    folders, links = [""], deque[str]()
    read: set[tuple[int, int]] = set()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        try:
            status = (root / folder).stat()
            if (status.st_dev, status.st_ino) in read:
                found.remarks[folder] = "leads to a folder that is read already"
                continue
            read.add((status.st_dev, status.st_ino))
            with os.scandir(root / folder) as listing:
                entries = sorted((entry for entry in listing if not entry.name.startswith(".")), key=lambda e: e.name)
        except OSError as error:
            if not folder:
                raise
            found.skipped[folder] = reason_of(error)
            continue
        if folder and (written := _written(root / folder, entries)):
            found.remarks[folder] = written
            continue
        for entry in entries:
            name = os.path.join(folder, entry.name)  # noqa: PTH118 - a Path would cost more than the rest
            try:
                mode = entry.stat().st_mode
            except OSError as error:
                found.skipped[name] = "a link that leads nowhere" if entry.is_symlink() else reason_of(error)
                continue
            if S_ISDIR(mode):
                (links if entry.is_symlink() else folders).append(name)
            elif S_ISREG(mode):
                found.files.append(name)
            else:  # opening a pipe would wait for data that nobody writes
                found.skipped[name] = "not a regular file"
    found.files.sort(key=lambda name: Path(name).parts)
    return found


def _written(folder: Path, entries: Sequence[os.DirEntry[str]]) -> str | None:
    """Say what Lexel wrote into a folder. It may lie among the images, and the next look must find the same ones."""
    names = {entry.name for entry in entries}
    if not names.isdisjoint((MANIFEST, PROGRESS)):
        return "a set of tokens"
    return "the folder of a run" if ENVIRONMENT in names and environment_of(folder) else None
