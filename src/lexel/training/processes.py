"""The processes of a run: one for each device, the first of which starts the others."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["end_with_parent", "is_first_process", "named_to_children"]

STARTED_BY = "LEXEL_PARENT"  # the variable in which a process finds the one that started it


def is_first_process() -> bool:
    """Whether this process was not started by another one, to train with it on a further device."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def end_with_parent() -> None:
    """End this process when the one that started it has been killed: nobody is left to train with."""
    parent = int(os.environ.get(STARTED_BY, os.getppid()))  # who may be gone by now

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def named_to_children() -> Iterator[None]:
    """Tell the processes that Lightning starts which one started them."""
    if not is_first_process():
        yield
        return
    os.environ[STARTED_BY] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ[STARTED_BY]
