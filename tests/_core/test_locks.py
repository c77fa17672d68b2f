"""One process at a time writes into a folder, whoever else waits, comes or goes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lexel._core.locks import LOCK, locked

# Takes the lock again and again. What it does while it holds it fails where another process holds it too: the folder
# is made for this, so that processes also make and remove it under each other.
HOLDER = """
import os, sys
from pathlib import Path
from lexel._core.locks import LOCK, locked

folder, held = Path(sys.argv[1]), 0
print("ready", flush=True)
sys.stdin.readline()
while held < 150:
    try:
        with locked(folder, "writes"):
            os.close(os.open(folder / "mine", os.O_CREAT | os.O_EXCL))
            assert {entry.name for entry in folder.iterdir()} == {LOCK, "mine"}
            (folder / "mine").unlink()
            held += 1
    except BlockingIOError:
        pass
"""


def test_processes_that_wait_come_and_go_never_hold_it_together(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path / "new/folder")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, error = process.communicate()
        assert process.returncode == 0, error
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# Stops before or after it opens the file of a lock, until it is told to go on.
LATE = """
import os, sys
from pathlib import Path
import filelock
from lexel._core.locks import locked

opened, stopped = os.open, False

def stop(when):
    global stopped
    if when == sys.argv[2] and not stopped:
        stopped = True
        print("stopped", flush=True)
        sys.stdin.readline()

def late(path, *words, **settings):
    if not str(path).endswith(".lock"):
        return opened(path, *words, **settings)
    stop("before")
    file = opened(path, *words, **settings)
    stop("after")
    return file

os.open = late
folder = Path(sys.argv[1])
try:
    with locked(folder, "writes"):
        print("holds", (folder / ".lock").exists(), flush=True)
except BlockingIOError:
    print("refused", flush=True)
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_who_opens_the_file_while_its_holder_goes(when: str, tmp_path: Path) -> None:
    """Before it, the whole folder is gone; after it, the file that is open has no name any more."""
    with locked(tmp_path / "t", "writes"):
        process = subprocess.Popen(
            [sys.executable, "-c", LATE, str(tmp_path / "t"), when],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "stopped\n"
    if when == "before":
        assert process.communicate("\n")[0] == "holds True\n"
    else:
        with locked(tmp_path / "t", "writes"):  # another file
            assert process.communicate("\n")[0] == "refused\n"
            assert (tmp_path / "t" / LOCK).exists()
    assert not (tmp_path / "t").exists()


def test_what_was_made_for_it_goes_and_what_is_written_stays(tmp_path: Path) -> None:
    with locked(tmp_path / "a/b/c", "writes"):
        assert (tmp_path / "a/b/c" / LOCK).exists()
    assert not list(tmp_path.iterdir())
    with locked(tmp_path / "a/b/c", "writes"):
        (tmp_path / "a/mine").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "mine"]
    (tmp_path / "file").touch()
    with pytest.raises((FileExistsError, NotADirectoryError)), locked(tmp_path / "file", "writes"):
        pass
    with pytest.raises(NotADirectoryError), locked(tmp_path / "file/below", "writes"):
        pass
