"""A training run: a folder with its configuration, model, metrics, samples, and a checkpoint to go on from."""

from __future__ import annotations

import csv
import json
import logging
import os
import platform
import shutil
import signal
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

try:
    import lightning as L
    from lightning.fabric.plugins import TorchCheckpointIO
    from lightning.fabric.utilities.rank_zero import rank_zero_only
    from lightning.pytorch.loggers import TensorBoardLogger
    from lightning.pytorch.loggers.logger import Logger
except ImportError as error:
    raise ImportError("training needs lightning: pip install 'lexel[train]'") from error

from lexel._core.console import messages, progress_bar, track
from lexel._core.files import refuse_existing, written_beside
from lexel.data.images import Images, listed, open_images, save_image, to_pixels
from lexel.data.pictures import centre, columns
from lexel.models import VQVAE
from lexel.runs import CHECKPOINT, CONFIG, ENVIRONMENT, METRICS, MODEL, REPORT, SAMPLES, TENSORBOARD
from lexel.training.settings import Settings
from lexel.training.task import TrainingTask

__all__ = ["train"]


def train(
    model: VQVAE,
    data: str | Path,
    out: Path,
    settings: Settings,
    *,
    config: str = "",
    strict: bool = False,
    overwrite: bool = False,
    resume: bool = False,
) -> bool:
    """Train a model on random crops of images.

    Writes into `out`: config.yaml, environment.json, metrics.csv, tensorboard/, samples/, last.ckpt and at the end
    model/. The first Ctrl-C ends the run after the current step with everything written. `resume` goes on from
    last.ckpt and comes to the same end as a run that was never stopped.

    Args:
        model: what to train, in place.
        data: as `lexel.data.images.open_images` takes it.
        out: the run's folder.
        settings: how to train.
        config: text to keep as config.yaml.
        strict: refuse data with unreadable files instead of skipping them.
        overwrite: start anew where a run exists.
        resume: go on with the run in `out`.

    Returns:
        Whether all steps are done; False when interrupted.

    Raises:
        FileExistsError: `out` exists, and neither `overwrite` nor `resume` is set.
        FileNotFoundError: `data` does not exist, or there is no checkpoint to resume from.
        ValueError: there is no readable image in `data`, or the checkpoint is malformed or of another model.
    """
    checkpoint = out / CHECKPOINT
    first = os.environ.get("LOCAL_RANK", "0") == "0"  # Lightning starts this program anew for each further device
    state: Mapping[str, Any] | None = None
    if resume:
        state = _read_checkpoint(checkpoint, model)
    elif first:
        refuse_existing(out, overwrite=overwrite)
    images = open_images(data, model.image_channels)
    images.check(track(range(len(images)), "reading images"), strict=strict)
    if first:
        if images.skipped:
            messages.print(f"skipped {listed(images.skipped)}", style="yellow", soft_wrap=True)
        if not resume:
            _clear(out)
            out.mkdir(parents=True, exist_ok=True)
            (out / CONFIG).write_text(config, encoding="utf-8")
            (out / ENVIRONMENT).write_text(json.dumps(_environment()), encoding="utf-8")

    torch.manual_seed(settings.seed)
    # Lightning's advice is for those who write training scripts; errors still come through.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    trainer = L.Trainer(
        max_steps=settings.steps,
        devices=1 if settings.devices == "auto" and not torch.accelerator.is_available() else settings.devices,
        precision=settings.precision,
        gradient_clip_val=1.0,
        logger=[
            CSVMetrics(out / METRICS, from_step=0 if state is None else int(state["global_step"])),
            TensorBoardLogger(out, name="", version=TENSORBOARD),
        ],
        callbacks=[ProgressBar(), KeepUpToDate(out, images, settings.save_every)],
        plugins=[WholeCheckpoints()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=out,
    )
    with _interrupted_softly(trainer):
        trainer.fit(TrainingTask(model, images, settings), ckpt_path=checkpoint if resume else None, weights_only=True)
    return trainer.global_step >= settings.steps


class ProgressBar(L.Callback):
    """A line with the step, the time left, and how well it goes."""

    def __init__(self) -> None:
        self.bar = progress_bar()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the bar, on the first rank."""
        if trainer.is_global_zero:
            self.task = self.bar.add_task("training", total=trainer.max_steps, completed=trainer.global_step, note="")
            self.bar.start()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Advance the bar by a step."""
        if trainer.is_global_zero:
            metrics = trainer.callback_metrics
            note = f"PSNR {metrics['psnr']:.1f} dB"
            if "usage" in metrics:  # from the first row on
                note += f" · {metrics['usage']:.0%} of the codes"
            self.bar.update(self.task, completed=trainer.global_step, note=note)

    def on_train_end(self, *_: Any) -> None:
        """Remove the bar."""
        self.bar.stop()

    def on_exception(self, *_: Any) -> None:
        """Remove the bar, so that the error is readable."""
        self.bar.stop()


class KeepUpToDate(L.Callback):
    """Writes the checkpoint and sample pictures every so many steps, and the model at the end."""

    def __init__(self, out: Path, images: Images, every: int) -> None:
        self.out, self.every = out, every
        few = islice(images.readable(range(len(images))), 4)
        self.samples = [centre(pixels, 256, 256).float() / 255 for _, pixels in few]

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: TrainingTask, *_: Any) -> None:  # type: ignore[override]
        """Write the checkpoint and samples when it is time."""
        if trainer.global_step % self.every == 0 and trainer.global_step < trainer.max_steps:
            self._write(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: TrainingTask) -> None:  # type: ignore[override]
        """Write everything."""
        self._write(trainer, pl_module)
        if trainer.is_global_zero:
            _save_model(pl_module.model, self.out / MODEL)

    @torch.no_grad()
    def _write(self, trainer: L.Trainer, task: TrainingTask) -> None:
        trainer.save_checkpoint(self.out / CHECKPOINT)
        if not trainer.is_global_zero:
            return
        pairs = []
        for sample in self.samples:
            indices = task.model.encode(sample[None].to(task.device))
            decoded = task.model.decode(indices, (sample.shape[1], sample.shape[2]))
            pairs.append([sample, decoded[0].cpu()])
        save_image(to_pixels(columns(pairs)), self.out / SAMPLES / f"step-{trainer.global_step:07d}.png")


class CSVMetrics(Logger):
    """Metrics as rows of a CSV file. A resumed run keeps the rows before the step from which it goes on."""

    def __init__(self, path: Path, from_step: int) -> None:
        super().__init__()
        self.path, self.from_step = path, from_step
        self.columns: list[str] = []

    @property
    def name(self) -> str:
        """Nothing is filed under a name."""
        return ""

    @property
    def version(self) -> str:
        """Nothing is filed under a version."""
        return ""

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Do nothing: config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row."""
        row = {"step": step, **metrics}
        if not self.columns:
            self._start(list(row))
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def _start(self, columns: list[str]) -> None:
        self.columns = columns
        before: list[dict[str, str]] = []
        if self.from_step and self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as file:
                before = [row for row in csv.DictReader(file) if int(row["step"]) < self.from_step]
        with written_beside(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(before)


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that replace the one before only once they are whole, and that are read without running code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside the old checkpoint, then rename."""
        with written_beside(Path(path)) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Load tensors and plain data; anything else is an error."""
        loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return loaded


def _read_checkpoint(path: Path, model: VQVAE) -> Mapping[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"there is nothing to resume: {path} does not exist")
    try:
        state: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        weights: Mapping[str, Tensor] = state["state_dict"]
        shapes = {name.removeprefix("model."): tuple(value.shape) for name, value in weights.items()}
    except Exception as error:  # a damaged file fails in many ways inside torch.load
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} is not a checkpoint of a run: {reason}") from error
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if shapes != expected:
        different = sorted(name for name in shapes.keys() | expected.keys() if shapes.get(name) != expected.get(name))
        raise ValueError(f"{path} belongs to a model of another architecture; it differs in {', '.join(different[:5])}")
    return state


def _save_model(model: VQVAE, folder: Path) -> None:
    """Replace the files of a model one by one, each whole."""
    new = folder.with_name(f".{folder.name}.new")
    model.save_pretrained(new)
    folder.mkdir(exist_ok=True)
    for file in sorted(new.iterdir()):
        file.replace(folder / file.name)
    new.rmdir()


def _environment() -> dict[str, str]:
    return {
        "Lexel": version("lexel"),
        "PyTorch": torch.__version__,
        "Lightning": L.__version__,
        "Python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "started": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
    }


def _clear(out: Path) -> None:
    """Remove what an earlier run wrote, and nothing else."""
    for name in (CONFIG, ENVIRONMENT, METRICS, CHECKPOINT, REPORT):
        (out / name).unlink(missing_ok=True)
    for name in (MODEL, SAMPLES, TENSORBOARD):
        shutil.rmtree(out / name, ignore_errors=True)


@contextmanager
def _interrupted_softly(trainer: L.Trainer) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM end the run after the current step; the second acts at once."""

    def stop(number: int, frame: Any) -> None:
        trainer.should_stop = True
        signal.signal(number, before[signal.Signals(number)])
        messages.print("stopping after this step; once more to stop at once")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
