"""Read the files of a run, and open the images for its model to reconstruct."""

from __future__ import annotations

import json
import math
import platform
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

import lexel
from lexel._core.errors import blamed_on
from lexel.data.images import Images, open_images
from lexel.models import Autoencoder, ImageAutoencoder
from lexel.runs import CONFIG, ENVIRONMENT, METRICS, MODEL, read_metrics

try:
    import yaml
except ImportError as error:
    raise ImportError("lexel.report needs PyYAML: pip install 'lexel[train]'") from error

__all__ = ["Run", "Source", "open_source", "read_run", "trained_on"]


AnyModel = TypeVar("AnyModel", bound=Autoencoder)


@dataclass(frozen=True)
class Run(Generic[AnyModel]):
    """The content of a run's folder. The folder of a saved model alone has no configuration and no metrics.

    Attributes:
        folder: the path of the folder.
        model: the model, in eval mode.
        config_text: the text of config.yaml; empty for a model alone.
        config: the settings in config.yaml.
        metrics: the rows of metrics.csv, each with a step; None for a value that is missing or not finite.
        environment: the versions and dates of the training, of the model and of this page.
    """

    folder: Path
    model: AnyModel
    config_text: str
    config: dict[str, Any]
    metrics: list[dict[str, float | None]]
    environment: dict[str, str]

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    @property
    def steps(self) -> int | None:
        """How many steps the metrics cover; None without metrics."""
        return int(self.metrics[-1]["step"] or 0) + 1 if self.metrics else None


@dataclass(frozen=True)
class Source:
    """The images for the model to reconstruct.

    Attributes:
        path: the path of the images.
        images: the images themselves.
        is_training_data: whether the model was trained on them.
    """

    path: Path
    images: Images
    is_training_data: bool

    @property
    def description(self) -> str:
        """The name of these images within a sentence."""
        return "training images" if self.is_training_data else f"images from “{self.path.name}”"


def read_run(folder: Path, model: AnyModel) -> Run[AnyModel]:
    """Read the folder of a run, or of a saved model.

    Args:
        folder: of the run.
        model: what it trained.

    Raises:
        ValueError: a file is malformed.
    """
    text, config = _read_config(folder / CONFIG)
    return Run(folder, model, text, config, _read_metrics(folder / METRICS), _read_environment(folder))


def open_source(run: Run[ImageAutoencoder], data: str | Path | None = None) -> Source:
    """Open the images at `data`, or those that the run was trained on.

    Raises:
        FileNotFoundError: there is nothing at that path.
        ValueError: there is no image, or no `data` is given and the run does not name its images.
    """
    path, is_training_data = trained_on(run, data, "images")
    return Source(path, open_images(path, run.model.image_channels), is_training_data)


def trained_on(run: Run[Any], data: str | Path | None, what: str) -> tuple[Path, bool]:
    """Return the path of data, by default of that which a run was trained on, and whether it is that.

    Args:
        run: which names its data in its configuration.
        data: the path; None for the run's own.
        what: the name of such data, for messages.

    Raises:
        FileNotFoundError: there is nothing at the path of the run's data.
        ValueError: no `data` is given and the run does not name its own.
    """
    own = Path(str(run.config["data"])) if run.config.get("data") is not None else None
    if data is not None:
        path = Path(data)
    elif own is None:
        raise ValueError(f"{run.folder} does not say which {what} it was trained on; give some with --data")
    elif not own.exists():
        relative = "" if own.is_absolute() else " (a path from the folder where training was started)"
        raise FileNotFoundError(
            f"{run.folder} was trained on {own}{relative}, but {own.absolute()} does not exist: "
            f"give the path of these {what}, or of others, with --data"
        )
    else:
        path = own
    return path, own is not None and path.resolve() == own.resolve()


def _read_config(path: Path) -> tuple[str, dict[str, Any]]:
    if not path.is_file():
        return "", {}
    with blamed_on(path, "cannot be read"):
        text = path.read_text(encoding="utf-8")
        config = yaml.safe_load(text)
    return text, config if isinstance(config, dict) else {}


def _read_metrics(path: Path) -> list[dict[str, float | None]]:
    def number(cell: str) -> float | None:
        value = float(cell) if cell else math.nan
        return value if math.isfinite(value) else None

    with blamed_on(path, "cannot be read"):
        rows, whole = read_metrics(path)
        numbers = [{name: number(cell) for name, cell in row.items()} for row in rows]
        if not whole or any(row["step"] is None for row in numbers):
            raise ValueError("a row has no step, or not a value for each column")
    return numbers


def _read_environment(folder: Path) -> dict[str, str]:
    path = folder / ENVIRONMENT
    environment: dict[str, str] = {}
    if path.is_file():
        with blamed_on(path, "cannot be read"):
            content = json.loads(path.read_text(encoding="utf-8"))
            environment = {str(name): str(value) for name, value in content.items()}
    saved = (folder / MODEL if (folder / MODEL).is_dir() else folder).stat().st_mtime
    environment["model saved"] = f"{datetime.fromtimestamp(saved, timezone.utc):%Y-%m-%d %H:%M} UTC"
    here = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    environment["page written by"] = f"Lexel {lexel.__version__}, PyTorch {torch.__version__}, Python {here}"
    return environment
