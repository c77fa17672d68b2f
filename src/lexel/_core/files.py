"""Writing files so that a result appears whole or not at all, and never outside its folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from lexel._core.errors import naming

__all__ = ["WORKPLACE", "inside", "refuse_existing", "written_beside"]

WORKPLACE = ".lexel."  # how the name of a folder begins in which a file is being written

# Characters that Windows reserves, and how they are written; "/" alone separates folders in a name.
RESERVED = {ord(character): f"%{ord(character):02X}" for character in '\\:*?"<>|'}


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise `FileExistsError` when `path` exists, unless it may be overwritten."""
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; give --overwrite to replace it")


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; the file written there replaces `path` when the block ends without error.

    Until then an older file at `path` stays whole; after an error nothing has changed.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with written_beside(Path(folder) / "answer.txt") as temporary:
        ...         _ = temporary.write_text("42")
        ...     (Path(folder) / "answer.txt").read_text()
        '42'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Its name does not contain the file's, which may be as long as a name can be.
    folder = Path(tempfile.mkdtemp(prefix=WORKPLACE, dir=path.parent))
    try:
        temporary = folder / path.name
        temporary.touch()
        mode = temporary.stat().st_mode  # as of any new file here; some writers make files that only the owner may read
        with naming(path):
            yield temporary
            temporary.chmod(mode)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())  # otherwise a crash could leave the new name without its content
        temporary.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def inside(folder: Path, name: str) -> Path:
    """Return `folder / name` for a name that was read from a file, if it lies in the folder or below it.

    Characters that have a meaning of their own on this system, such as a colon on Windows, are written as `%3A`.

    Raises:
        ValueError: the name is absolute or leaves the folder.

    Example:
        >>> inside(Path("images"), "cats/1.png").as_posix()
        'images/cats/1.png'
    """
    pure = PurePosixPath(name)
    if not pure.parts or pure.is_absolute() or ".." in pure.parts or "\0" in name:
        raise ValueError(f"the name {name!r} leaves the output folder")
    return folder / (str(pure).translate(RESERVED) if os.name == "nt" else pure)
