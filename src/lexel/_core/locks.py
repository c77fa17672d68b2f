"""A folder into which one process writes at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    from filelock import FileLock, Timeout
except ImportError as error:
    raise ImportError("runs and data sets of tokens need filelock: pip install 'lexel[train]'") from error

__all__ = ["LOCK", "locked"]

LOCK = ".lock"


@contextmanager
def locked(folder: Path, use: str) -> Iterator[None]:
    """Keep other processes from writing into a folder; one that was made for this and stays empty goes again.

    Args:
        folder: created if it is missing.
        use: what another process does there, for the message.

    Raises:
        BlockingIOError: another process holds it.
        OSError: nothing can be written there.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BlockingIOError(f"{folder} is in use: another process {use} there") from error
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()
        if made and not any(folder.iterdir()):
            folder.rmdir()
