"""Results that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

__all__ = ["inside", "refuse_existing", "written_beside"]

# What Windows reserves; "/" alone separates folders in a name.
RESERVED = {ord(character): f"%{ord(character):02X}" for character in '\\:*?"<>|'}


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise `FileExistsError` when something stands at `path`, unless it may be overwritten."""
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; give --overwrite to replace it")


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, for a file that takes its place once the block ends without error.

    The file that stood at `path` is there, whole, until then; after an error nothing has changed.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with written_beside(Path(folder) / "answer.txt") as temporary:
        ...         _ = temporary.write_text("42")
        ...     (Path(folder) / "answer.txt").read_text()
        '42'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not called after the file, whose name may be as long as names can be.
    workplace = Path(tempfile.mkdtemp(prefix=".lexel.", dir=path.parent))
    try:
        temporary = workplace / path.name
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # or a crash could leave the new name with none of its content
        temporary.replace(path)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def inside(folder: Path, name: str) -> Path:
    """Return `folder / name`, for a name read from a file: any name that a file can have in a folder, or below it.

    Where the system gives a meaning to characters that are part of a name elsewhere, as Windows does to a colon, they
    are written as `%3A`.

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
