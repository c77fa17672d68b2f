"""What a run tells while it trains: rows of a CSV file, TensorBoard, and the terminal."""

from __future__ import annotations

import csv
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from lexel._core.console import messages, progress_bar
from lexel._core.errors import naming
from lexel._core.files import written_beside
from lexel.runs import DAMAGED_METRICS, read_metrics

__all__ = ["MetricsFile", "TensorBoard", "Ticker"]

# A histogram shows at most so many of the codes that did not occur: there may be 2^62.
MOST_DEAD = 1 << 16
QUIET_SECONDS = 10.0  # between two lines where there is no terminal


class MetricsFile:
    """A CSV file of metrics. A run that goes on keeps the rows before the step from which it does.

    Args:
        path: of the file.
        from_step: from where the run goes on.
    """

    def __init__(self, path: Path, from_step: int) -> None:
        self.path, self.from_step = path, from_step
        self.columns: list[str] = []

    def write(self, row: Mapping[str, float], step: int, columns: Sequence[str]) -> None:
        """Append a row; a column that it does not tell stays empty."""
        row = {"step": step, **row}
        if not self.columns:
            self._start(["step", *columns])
        with naming(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def _start(self, columns: Sequence[str]) -> None:
        self.columns = list(columns)
        before, whole = read_metrics(self.path) if self.from_step else ([], True)
        before = [row for row in before if int(row["step"]) < self.from_step]
        if not whole:
            aside = self._aside()
            messages.print(
                f"{self.path} is damaged: {len(before)} of its rows can be read; the file as it was is kept as {aside}",
                style="yellow",
                soft_wrap=True,
            )
        with written_beside(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(before)

    def _aside(self) -> Path:
        """Copy a damaged file, and return where to."""
        places = (self.path.with_name(DAMAGED_METRICS.replace("*", str(number))) for number in count(1))
        aside = next(place for place in places if not place.exists())
        with written_beside(aside) as temporary:
            shutil.copyfile(self.path, temporary)
        return aside


class TensorBoard:
    """What TensorBoard shows of a run: curves, how often codes are used, and pictures.

    Args:
        folder: where its files stand.
        from_step: what an earlier process wrote of later steps is not shown.
    """

    def __init__(self, folder: Path, from_step: int) -> None:
        self.folder = folder
        self.hook, threading.excepthook = threading.excepthook, self._silent
        with naming(folder):
            self.writer = SummaryWriter(str(folder), purge_step=from_step or None)

    def curves(self, row: Mapping[str, float], step: int) -> None:
        """Show a point of each curve."""
        with naming(self.folder):
            for name, value in row.items():
                self.writer.add_scalar(name, value, step)

    def usage(self, counts: Sequence[tuple[int, Tensor]], step: int) -> None:
        """Show how often codes are used, of each codebook K and the counts of those that are."""
        for number, (num_embeddings, own) in enumerate(counts):
            # Logarithms, or a few frequent codes leave all others in one bar; one more than the count, so that dead
            # codes have a bar too, at zero.
            dead = min(num_embeddings - len(own), MOST_DEAD)
            values = F.pad((own + 1).double().log2(), (dead, 0))
            name = "log2(1 + uses) of a code" + f", codebook {number}" * (len(counts) > 1)
            with naming(self.folder):
                self.writer.add_histogram(name, values, step)

    def picture(self, title: str, pixels: Tensor, step: int) -> None:
        """Show a picture, uint8 `(3, H, W)`."""
        with naming(self.folder):
            self.writer.add_image(title, pixels, step)

    def flush(self) -> None:
        """Let what was shown so far be on disk."""
        with naming(self.folder):
            self.writer.flush()

    def close(self) -> None:
        """Write all."""
        with naming(self.folder):
            self.writer.close()
        threading.excepthook = self.hook

    def _silent(self, failure: threading.ExceptHookArgs) -> None:
        """Print no traceback of the thread that writes: the next call raises what was raised there."""
        if not isinstance(failure.exc_value, OSError):
            self.hook(failure)


class Ticker:
    """The line that tells how far a run is: a bar in a terminal, else a line of text now and then.

    Args:
        start: steps that are done already.
        steps: all steps.
        shown: whether this process shows anything.
    """

    def __init__(self, start: int, steps: int, *, shown: bool) -> None:
        self.start, self.steps, self.shown = start, steps, shown
        self.bar = progress_bar()
        self.note = ""
        self.begun = time.monotonic()
        self.told = -QUIET_SECONDS
        self.bar_shown = shown and messages.is_terminal
        if self.bar_shown:
            self.task = self.bar.add_task("training", total=steps, completed=start, note="")
            self.bar.start()

    def advance(self, step: int) -> None:
        """Tell that a step is done."""
        if self.bar_shown:
            self.bar.update(self.task, completed=step, note=self.note)

    def tell(self, note: str, step: int) -> None:
        """Say how well it goes."""
        self.note = note
        now = time.monotonic()
        if self.shown and not messages.is_terminal and (now > self.told + QUIET_SECONDS or step == self.steps):
            rate = (step - self.start) / max(now - self.begun, 1e-9)
            messages.print(f"step {step:,} of {self.steps:,} · {self.note} · {rate:.3g} steps/s", soft_wrap=True)
            self.told = now

    def close(self) -> None:
        """Remove the bar."""
        self.bar.stop()
