"""The folder of a run: what stands where in it."""

from __future__ import annotations

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
    "load_model",
]

CONFIG, ENVIRONMENT, METRICS, REPORT = "config.yaml", "environment.json", "metrics.csv", "report.html"
CHECKPOINT, MODEL, SAMPLES, TENSORBOARD = "last.ckpt", "model", "samples", "tensorboard"
MODEL_CONFIG = "config.json"  # in the folder of a model, with or without a run around it


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
