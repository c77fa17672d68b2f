"""Files: what must be true before one is opened or written; a result appears whole or not at all, inside its folder."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from lexel._core.errors import naming

__all__ = [
    "ENVIRONMENT",
    "WORKPLACE",
    "environment_of",
    "inside",
    "is_one_file",
    "refuse_bomb",
    "refuse_existing",
    "remove_halves",
    "require_file",
    "require_inside",
    "written_beside",
]

ENVIRONMENT = "environment.json"  # of a run's folder
LONGEST_ENVIRONMENT = 1 << 16  # bytes
LARGE = 1 << 30  # bytes
WORKPLACE = ".lexel."  # how the name of a folder begins in which a file is being written

SLASHES = tuple({"/", os.sep})

NO_NAMES = {"", ".", ".."}  # of a file or a folder

# Characters that Windows reserves, and how they are written; "/" alone separates folders in a name.
RESERVED = {ord(character): f"%{ord(character):02X}" for character in '\\:*?"<>|'}


def environment_of(folder: Path) -> dict[str, Any]:
    """Return what a run wrote about itself into its folder; empty for any other folder."""
    path = folder / ENVIRONMENT
    try:
        if not path.is_file() or path.stat().st_size > LONGEST_ENVIRONMENT:
            return {}
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) and "Lexel" in content else {}


def is_one_file(out: str, endings: Collection[str]) -> bool:
    """Whether a result that may be a file or a folder is to be one file: whether its name has one of the endings.

    A name with another ending of letters is taken for a mistake, and not for that of a folder, unless such a folder
    exists or a slash follows it.

    Raises:
        ValueError: the name has such an ending.

    Example:
        >>> [is_one_file(out, [".parquet"]) for out in ("ids.parquet", "tokens-1.5", "ids.new/")]
        [True, False, False]
        >>> is_one_file("ids.csv", [".parquet"])
        Traceback (most recent call last):
        ValueError: no file ids.csv can be written, only one that ends in .parquet; a folder would be ids.csv/
    """
    path = Path(out)
    if path.suffix in endings:
        return True
    if path.suffix[1:].isalpha() and not out.endswith(SLASHES) and not path.is_dir():
        only = f"only one that ends in {' or '.join(endings)}" if endings else "only a folder"
        raise ValueError(f"no file {out} can be written, {only}; a folder would be {out}/")
    return False


def refuse_existing(path: Path, *, overwrite: bool, folder: bool | None = None) -> None:
    """Check that a result may be written at `path`, before the work that it takes.

    Args:
        path: of the result.
        overwrite: whether it may replace what stands there.
        folder: whether it is a folder, or a file; either when None.

    Raises:
        FileExistsError: something stands there and must not be replaced, or cannot be by a result of this kind.
        OSError: nothing can be written there.
    """
    if path.exists() or path.is_symlink():
        if not overwrite:
            raise FileExistsError(f"{path} exists; give --overwrite to replace it")
        if folder is not True and not path.is_dir() and path.exists() and not path.is_file():
            raise FileExistsError(f"{path} is a pipe or a device, and not replaced by a file")
        if folder is not None and path.exists() and path.is_dir() != folder:
            raise FileExistsError(
                f"{path} is a file, and not replaced by a folder" if folder else f"{path} is a folder: give a file"
            )
    above = path.absolute() if folder and path.is_dir() else path.absolute().parent
    while not os.path.lexists(above):
        above = above.parent
    if not above.is_dir():
        raise NotADirectoryError(
            errno.ENOTDIR, f"nothing can be written below it: {os.strerror(errno.ENOTDIR)}", str(above)
        )
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "nothing can be written in this folder", str(above))


def refuse_bomb(archive: ZipFile) -> None:
    """Refuse a small archive that would fill the memory: no data compresses to a hundredth of its size.

    Raises:
        ValueError: it would.
    """
    for entry in archive.infolist():
        if entry.file_size > max(LARGE, 100 * entry.compress_size):
            raise ValueError(f"{entry.compress_size:,} bytes would become {entry.file_size:,}; save it as .npy")


def require_file(path: Path) -> None:
    """Check that a file stands at `path` before it is opened: to open a pipe is to wait for somebody who writes.

    Raises:
        FileNotFoundError: nothing stands there.
        ValueError: something else does.

    Example:
        >>> require_file(Path("/"))
        Traceback (most recent call last):
        ValueError: / is a folder, expected a file
    """
    if path.is_file():
        return
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    raise ValueError(f"{path} is a {'folder' if path.is_dir() else 'pipe or a device'}, expected a file")


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; the file written there replaces `path` when the block ends without error.

    Until then an older file at `path` stays whole; after an error nothing has changed.

    Raises:
        OSError: it cannot be written; `filename` is `path`.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with written_beside(Path(folder) / "answer.txt") as temporary:
        ...         _ = temporary.write_text("42")
        ...     (Path(folder) / "answer.txt").read_text()
        '42'
    """
    # Its name does not contain the file's, which may be as long as a name can be.
    with naming(path, instead_of=WORKPLACE):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=WORKPLACE, dir=path.parent))
        try:
            temporary = folder / path.name
            temporary.touch()
            # As of any new file here; some writers make files that only the owner may read.
            mode = temporary.stat().st_mode
            yield temporary
            temporary.chmod(mode)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())  # otherwise a crash could leave the new name without its content
            temporary.replace(path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def remove_halves(folder: Path, files: Collection[str] | None = None) -> None:
    """Remove what a process had half written with `written_beside` when it was killed.

    Args:
        folder: into which it wrote.
        files: names of the files to which that may have come, which nobody else writes there now; any if None.
    """
    for half in folder.glob(f"{WORKPLACE}*/"):
        with suppress(FileNotFoundError):  # another process has just come to its end
            if files is None or all(path.name in files for path in half.iterdir()):
                shutil.rmtree(half, ignore_errors=True)


def require_inside(names: Iterable[str]) -> None:
    """Check that names that were read from a file are plain paths below whatever folder they will be written into.

    A plain path has a name between any two slashes, none of which is `.` or `..`, so that different ones are different
    files.

    Raises:
        ValueError: one is not.

    Example:
        >>> require_inside(["1.png", "cats/1.png", "cats/./1.png"])
        Traceback (most recent call last):
        ValueError: the name 'cats/./1.png' is no plain path below the output folder
    """
    for name in names:
        if "\0" in name or not NO_NAMES.isdisjoint(name.split("/")):
            raise ValueError(f"the name {name!r} is no plain path below the output folder")


def inside(folder: Path, name: str) -> Path:
    """Return `folder / name` for a name that `require_inside` lets pass.

    Characters that have a meaning of their own on this system, such as a colon on Windows, are written as `%3A`.

    Raises:
        ValueError: it is no plain path below the folder.

    Example:
        >>> inside(Path("images"), "cats/1.png").as_posix()
        'images/cats/1.png'
    """
    require_inside([name])
    return folder / (name.translate(RESERVED) if os.name == "nt" else name)
