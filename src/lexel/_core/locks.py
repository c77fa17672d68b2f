"""A folder into which one process writes at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    from filelock import FileLock, Timeout
except ImportError as error:
    raise ImportError("runs and data sets of tokens need filelock: pip install 'lexel[train]'") from error

__all__ = ["LOCK", "locked"]

LOCK = ".lock"
MOST_ATTEMPTS = 100


@contextmanager
def locked(folder: Path, use: str) -> Iterator[None]:
    """Keep other processes from writing into a folder; what was made for this and stays empty goes again.

    The file of the lock is removed by its holder, as the last thing that it does there. Who had opened it meanwhile
    gets the lock of a file that has no name any more; filelock notices that, and does not count it as held.

    Args:
        folder: created if it is missing, with those above it.
        use: what another process does there, for the message.

    Raises:
        BlockingIOError: another process holds it.
        OSError: nothing can be written there.
    """
    lock, made = FileLock(folder / LOCK), list[Path]()
    for attempt in range(MOST_ATTEMPTS):
        made += [each for each in (folder, *folder.parents) if each not in made and not each.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
            break
        except Timeout as error:
            raise BlockingIOError(f"{folder} is in use: another process {use} there") from error
        except (FileNotFoundError, FileExistsError):  # another process has just removed the folder that it had made
            if attempt == MOST_ATTEMPTS - 1 or (os.path.lexists(folder) and not folder.is_dir()):
                raise
    try:
        yield
    finally:
        if os.name == "nt":  # where no open file can be removed, and one that another process has opened stays
            lock.release()
        with suppress(OSError):
            (folder / LOCK).unlink()
        for each in made:
            with suppress(OSError):  # it is not empty: something was written, or another process begins there
                each.rmdir()
        lock.release()
