"""The layout of a run's folder: which file holds what."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lexel._core.errors import blamed_on
from lexel._core.files import ENVIRONMENT, environment_of, remove_halves, require_file
from lexel._core.locks import LOCK, locked
from lexel._core.places import MODEL, PRIOR_FACTS, instead, stands_at
from lexel._core.pretrained import CONFIG as MODEL_CONFIG, WEIGHTS
from lexel.models import Autoencoder

__all__ = [
    "CHECKPOINT",
    "COMMAND",
    "CONFIG",
    "ENVIRONMENT",
    "METRICS",
    "MODEL",
    "REPORT",
    "REPORT_MARK",
    "SAMPLES",
    "TENSORBOARD",
    "TOKENIZER",
    "RunFolder",
    "is_report",
    "load_model",
    "model_folder",
    "read_metrics",
]

CONFIG, METRICS, REPORT = "config.yaml", "metrics.csv", "report.html"
CHECKPOINT, SAMPLES, TENSORBOARD = "last.ckpt", "samples", "tensorboard"
TOKENIZER = "tokenizer"  # within the model of a prior: the folder of the model whose tokens it knows
DAMAGED_METRICS = "metrics.damaged-*.csv"  # what a run that goes on found in place of its curves
COMMAND = "command"  # the entry of environment.json with the command that the run belongs to
REPORT_MARK = '<meta name="generator" content="Lexel">'  # a file that begins with it is a report, and may be replaced
# All that training writes, as patterns within the folder.
# The environment comes last when they are removed, since it tells that the folder is a run's.
WRITTEN = (
    *(
        CHECKPOINT,
        METRICS,
        DAMAGED_METRICS,
        f"{MODEL}/{MODEL_CONFIG}",
        f"{MODEL}/{WEIGHTS}",
        f"{MODEL}/README.md",
        f"{MODEL}/{PRIOR_FACTS}",
        *(f"{MODEL}/{TOKENIZER}/{name}" for name in (MODEL_CONFIG, WEIGHTS, "README.md")),
        f"{SAMPLES}/step-*.png",
    ),
    *(f"{TENSORBOARD}/events.out.tfevents.*", CONFIG, ENVIRONMENT),
)


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run.

    Args:
        path: the folder's path.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The settings, as `lexel train --config` reads them."""
        return self.path / CONFIG

    @property
    def environment(self) -> Path:
        """The command and the versions that the run was started with; only the folder of a run has this file."""
        return self.path / ENVIRONMENT

    @property
    def metrics(self) -> Path:
        """The curves: a row every so many steps."""
        return self.path / METRICS

    @property
    def checkpoint(self) -> Path:
        """Everything that the run needs to go on."""
        return self.path / CHECKPOINT

    @property
    def model(self) -> Path:
        """The folder of the model, once the run has ended or was stopped."""
        return self.path / MODEL

    @property
    def report(self) -> Path:
        """The page that `lexel report` writes."""
        return self.path / REPORT

    @property
    def tensorboard(self) -> Path:
        """The folder of the logs that TensorBoard shows."""
        return self.path / TENSORBOARD

    def sample(self, step: int) -> Path:
        """The picture of images and their reconstructions after so many steps."""
        return self.path / SAMPLES / f"step-{step:07d}.png"

    @property
    def is_run(self) -> bool:
        """Whether training wrote this folder."""
        return bool(environment_of(self.path))

    @property
    def command(self) -> str:
        """The command that started this run: `train`, unless the folder says another."""
        return str(environment_of(self.path).get(COMMAND, "train"))

    def check_files(self) -> None:
        """Check that where a run has a file there is a file, or nothing.

        Raises:
            FileNotFoundError: there is a link that leads nowhere.
            ValueError: there is a folder, or what cannot be read like a file.
        """
        for file in (self.config, self.environment, self.metrics, self.checkpoint):
            if file.exists() or file.is_symlink():
                require_file(file)

    def check_free(self, *, overwrite: bool = False) -> None:
        """Check that a new run may be written here.

        Raises:
            FileExistsError: something stands here and `overwrite` is not set, or no run wrote it.
            ValueError: where a run has a file, there is something else.
        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise FileExistsError(f"{self.path} is a file, not the folder of a run")
        names = {entry.name for entry in self.path.iterdir()} - {LOCK}
        if names and not overwrite:
            resume = f", or go on with it: lexel resume {self.path}" if self.is_run else ""
            raise FileExistsError(f"{self.path} exists; give --overwrite to replace it{resume}")
        mine = names & {CONFIG, ENVIRONMENT, METRICS, CHECKPOINT, MODEL, SAMPLES, TENSORBOARD}
        if mine and not self.is_run:
            raise FileExistsError(f"{self.path} holds {', '.join(sorted(mine))}, which no run wrote: choose another")
        self.check_files()

    def clear(self, *, but: Path | None = None) -> None:
        """Remove what an earlier run wrote, and nothing else.

        Args:
            but: a file to leave.
        """
        self.tidy()
        for file in [file for pattern in WRITTEN for file in self.path.glob(pattern) if file != but]:
            file.unlink()
        if is_report(self.report):
            self.report.unlink()
        for name in (f"{MODEL}/{TOKENIZER}", MODEL, SAMPLES, TENSORBOARD):
            folder = self.path / name
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def tidy(self) -> None:
        """Remove what a process had half written when it was killed."""
        for folder in (self.path, *(self.path / name for name in (MODEL, f"{MODEL}/{TOKENIZER}", SAMPLES))):
            remove_halves(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing here; a folder that was made for this and stays empty goes again.

        Raises:
            BlockingIOError: another process trains here.
            OSError: nothing can be written here.
        """
        with locked(self.path, "trains"):
            yield


def read_metrics(path: Path) -> tuple[list[dict[str, str]], bool]:
    """Return the rows of a file of metrics, and whether these are all: a last row that a kill cut off is none."""
    if not path.is_file():
        return [], True
    rows: list[dict[str, str]] = []
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:  # a spreadsheet may write a mark
            reader = csv.DictReader(file)
            rows.extend(reader)
        sound = "step" in (reader.fieldnames or ())
    except csv.Error:
        sound = False
    if rows and None in rows[-1].values():  # cut off
        rows.pop()
    whole = [row for row in rows if _is_whole(row)]
    return whole, sound and len(whole) == len(rows)


def _is_whole(row: dict[str, str]) -> bool:
    return None not in row and None not in row.values() and row.get("step", "").isdecimal()


def is_report(path: Path) -> bool:
    """Whether a file is a page that `lexel report` wrote."""
    if not path.is_file():
        return False
    with path.open("rb") as page:
        return REPORT_MARK.encode() in page.read(1000)


def model_folder(folder: Path) -> Path:
    """Return where the model of a run, or a saved model, stands.

    Raises:
        FileNotFoundError: there is none.
    """
    found = folder / MODEL if (folder / MODEL).is_dir() else folder
    if not (found / MODEL_CONFIG).is_file() or stands_at(folder) == "prior":
        raise FileNotFoundError(f"{folder} holds no model and no run that is finished{instead(folder)}")
    return found


def load_model(folder: Path) -> Autoencoder:
    """Load the model of a run's folder, or of a folder that `save_pretrained` wrote, in eval mode.

    Raises:
        FileNotFoundError: there is no model.
        ValueError: its files are malformed, or hold another architecture.
    """
    found = model_folder(folder)
    with blamed_on(found, "holds no sound Lexel model"):
        return Autoencoder.from_pretrained(found)
