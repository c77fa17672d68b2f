"""The folder of a run: what stands where in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lexel.models import VQVAE

__all__ = [
    "CHECKPOINT",
    "CONFIG",
    "ENVIRONMENT",
    "METRICS",
    "MODEL",
    "REPORT",
    "SAMPLES",
    "TENSORBOARD",
    "RunFolder",
    "load_model",
]

CONFIG, ENVIRONMENT, METRICS, REPORT = "config.yaml", "environment.json", "metrics.csv", "report.html"
CHECKPOINT, MODEL, SAMPLES, TENSORBOARD = "last.ckpt", "model", "samples", "tensorboard"
MODEL_CONFIG = "config.json"  # in the folder of a model, with or without a run around it


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run.

    Args:
        path: where it stands.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The settings, as `lexel train --config` reads them."""
        return self.path / CONFIG

    @property
    def environment(self) -> Path:
        """The versions that the run was started with, by which the folder is known as a run's."""
        return self.path / ENVIRONMENT

    @property
    def metrics(self) -> Path:
        """The curves: a row every so many steps."""
        return self.path / METRICS

    @property
    def checkpoint(self) -> Path:
        """All that the run needs to go on."""
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
        """The folder of what TensorBoard shows."""
        return self.path / TENSORBOARD

    def sample(self, step: int) -> Path:
        """The picture of images and their reconstructions after so many steps."""
        return self.path / SAMPLES / f"step-{step:07d}.png"


def load_model(folder: Path) -> VQVAE:
    """Load the model that stands in a folder, or that a run keeps there, in eval mode.

    Raises:
        FileNotFoundError: there is none.
        ValueError: its files are malformed, or hold another architecture.
    """
    found = folder / MODEL if (folder / MODEL).is_dir() else folder
    if not (found / MODEL_CONFIG).is_file():
        raise FileNotFoundError(f"{folder} holds no model and no run that is finished")
    try:
        return VQVAE.from_pretrained(found)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{found / MODEL_CONFIG} does not describe a Lexel model: {error}") from error
