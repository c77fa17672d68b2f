"""Commands in processes of their own, which share what they import.

A process takes seconds to import torch and Lightning. Here a server imports them once, and forks for each command: its
memory, its signals and its end are its own.

Run as a program, `python -m tests.processes`, it is the server.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

SHARED = ("lexel.cli", "lexel.training.reconstruction", "lexel.training.run", "transformers.models.llama")


class Started:
    """A command that was started, with those methods of `subprocess.Popen` that tests need.

    Args:
        command: a module and its arguments, as after `python -m`.
        cwd: the folder in which it runs, by default the current one.
    """

    def __init__(self, command: Sequence[object], cwd: Path | None = None) -> None:
        self.args = [str(word) for word in command]
        self.returncode: int | None = None
        self._folder = tempfile.TemporaryDirectory()
        self._files = [Path(self._folder.name) / name for name in ("out", "err")]
        for file in self._files:
            file.touch()
        self.pid: int = _asked([self.args, str(cwd or Path.cwd()), dict(os.environ), *map(str, self._files)])

    def poll(self) -> int | None:
        """Return the exit code, below 0 after a signal; None while the command runs."""
        if self.returncode is None:
            self.returncode = _asked(self.pid)
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.002)
        return code

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Wait for the end, and return what was printed on standard output and on standard error."""
        self.wait(timeout)
        out, err = (file.read_text(encoding="utf-8") for file in self._files)
        return out, err

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    command: Sequence[object], timeout: float = 300, check: bool = True, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `subprocess.run` does."""
    started = Started(command, cwd)
    try:
        printed = started.communicate(timeout)
    finally:
        started.kill()
    found = subprocess.CompletedProcess(started.args, started.wait(timeout), *printed)
    if check:
        assert found.returncode == 0, found
    return found


@cache
def _server() -> subprocess.Popen[str]:
    command = [sys.executable, "-m", __name__]
    root = Path(__file__).parents[1]
    server = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.communicate)
    return server


def _asked(question: object) -> Any:
    """Ask the server to start a command, or with its number how it ended, and return the answer."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(question) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


def serve() -> list[Any] | None:
    """Answer what is asked, until nobody asks any more; in the process of a command, return what was asked for."""
    for line in sys.stdin:
        asked = json.loads(line)
        if isinstance(asked, int):
            number, status = os.waitpid(asked, os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if number else None
        else:
            answer = os.fork()
            if not answer:
                return asked
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return None


def be(words: list[str], cwd: str, environment: dict[str, str], *files: str) -> None:
    """Be the process of a command, and end."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate((os.devnull, *files)):
        with Path(path).open("r+b") as file:
            os.dup2(file.fileno(), number)
    sys.argv, code = [*words], 0
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()  # then away, without the second that it takes to tidy up what is shared
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    for module in SHARED:
        import_module(module)
    gc.freeze()  # or the collector would copy what is shared in each process
    if (wanted := serve()) is not None:
        be(*wanted)
    os._exit(0)
