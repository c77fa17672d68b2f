"""What is looked at in a pickle before torch reads it, without running anything."""

from __future__ import annotations

import pickletools
import zipfile
from os import PathLike
from typing import IO

__all__ = ["check_names"]

LONGEST_NAME = 1000
OLD_PICKLES = 5  # stand one behind the other in what torch.save wrote before it wrote archives


def check_names(path: str | PathLike[str]) -> None:
    """Refuse a checkpoint in which a class has an endless name: torch's message about it would take hours to write.

    It looks for words in the name by a regular expression whose time grows with the square of the length.

    Raises:
        ValueError: a name is too long, or the file is no pickle.
    """
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:  # noqa: PTH123
            for _ in range(OLD_PICKLES):
                _check_pickle(file)
        return
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith("/data.pkl"):
                with archive.open(name) as inner:
                    _check_pickle(inner)


def _check_pickle(file: IO[bytes]) -> None:
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "GLOBAL" and len(str(argument)) > LONGEST_NAME:
            raise ValueError(f"the name of a class has {len(str(argument)):,} characters")
