"""A training run: train a model, and write its configuration, metrics, samples, checkpoint and model into a folder."""

from __future__ import annotations

import json
import logging
import platform
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from typing_extensions import override

try:
    import lightning as L
    import yaml

    from lexel.training.logs import MetricsFile, TensorBoard, Ticker
except ImportError as error:
    raise ImportError(f"training needs further packages: pip install 'lexel[train]' ({error})") from error

from lexel._core.console import messages
from lexel._core.devices import pick_device
from lexel._core.errors import reason_of
from lexel._core.files import WORKPLACE, written_beside
from lexel._core.signals import Stop, stopped_softly
from lexel._core.values import HostValue, at_hand
from lexel.data.images import save_image
from lexel.runs import COMMAND, RunFolder, read_metrics
from lexel.training.checkpoint import WholeCheckpoints, read_checkpoint
from lexel.training.processes import end_with_parent, is_first_process, named_to_children
from lexel.training.settings import Settings
from lexel.training.task import Task

__all__ = ["Outcome", "train"]

# Settings of where and how fast a run computes, not of what: a run may go on with other values.
FREE = {"data", "run", "tokens", "out", "validation", "device", "devices", "workers", "log_every", "save_every"}


@dataclass(frozen=True)
class Outcome:
    """How a run, or a part of it, ended.

    Attributes:
        step: how many steps are done.
        steps: how many there are.
        signal: the number of the signal that stopped it, 0 for none.
        figures: the last row of the metrics; empty where there was none.
        converged: whether it was done before all steps were.
    """

    step: int
    steps: int
    signal: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)
    converged: bool = False

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.converged or self.step >= self.steps


def train(
    task: Task,
    out: Path,
    *,
    config: str = "",
    strict: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    more_steps: bool = False,
) -> Outcome:
    """Train what a task says.

    Writes into `out`: config.yaml, environment.json, metrics.csv, tensorboard/, samples/, last.ckpt and at the end
    model/. Nothing is written, and nothing old removed, before the first step has succeeded. The first Ctrl-C, SIGTERM,
    SIGHUP (unless it is ignored), SIGUSR1 or SIGUSR2 ends the run after the current step with everything written.
    `resume` goes on from last.ckpt and comes to the same end as a run that was never stopped, to the bit on the same
    machine.

    Args:
        task: what to train, in place, on what, and how.
        out: the run's folder.
        config: the text of config.yaml.
        strict: refuse data with unreadable files instead of skipping them.
        overwrite: start anew where a run exists.
        resume: go on with the run in `out`.
        more_steps: a resumed run may have another number of steps than it began with.

    Raises:
        FileExistsError: `out` exists, and neither `overwrite` nor `resume` is set, or it holds what no run wrote.
        BlockingIOError: another process trains in `out`.
        FileNotFoundError: the task's data does not exist, there is no run to resume, or its checkpoint is missing.
        ValueError: nothing in the data is readable, a setting is out of range, or the checkpoint is damaged or belongs
            to another model, other settings or other data.
    """
    settings, task.config = task.settings, config
    run = RunFolder(out)
    with ExitStack() as stack:
        if is_first_process():
            if not resume:
                run.check_free(overwrite=overwrite)
            elif not run.is_run and not run.checkpoint.is_file():
                raise FileNotFoundError(f"there is nothing to resume: {run.checkpoint} does not exist")
            stack.enter_context(run.locked())
            if not resume:
                run.check_free(overwrite=overwrite)  # another process may have been here in between
        else:
            end_with_parent()
        start, began_with = 0, {}
        checkpoint = _checkpoint(run, settings.save_every) if resume else None  # none: the run starts again
        if checkpoint is not None:
            content = read_checkpoint(checkpoint, task.model)
            start = int(content["global_step"])
            _check_config(start, str(content["config"]), config, run, settings, more_steps=more_steps)
            began_with = dict(content.get("data", {}))  # older checkpoints have none
        task.open(strict=strict)
        if began_with and began_with != task.data_facts:
            before, now = (facts.get("examples") for facts in (began_with, task.data_facts))
            raise ValueError(
                f"{run.path} did not begin with this data: it had {before} examples, now {now}"
                f"{' of other names' * (before == now)}; it would come to another end"
            )
        writer = RunWriter(run, task, start, fresh=not resume)
        trainer = _trainer(task, writer)
        try:
            with _interrupts_unchanged(), named_to_children(), _same_again():
                trainer.fit(task, ckpt_path=checkpoint, weights_only=True)
        except BaseException:
            writer.remove_failed_start()
            raise
        if trainer.is_global_zero:
            # Also where all steps were done before: a kill may have come between the checkpoint and the model.
            if not run.sample(trainer.global_step).exists():
                writer.write_sample(trainer.global_step)
            _save_model(task, run.model)
        return Outcome(trainer.global_step, settings.steps, writer.signal, writer.figures, task.finished)


def _trainer(task: Task, writer: RunWriter) -> L.Trainer:
    settings = task.settings
    device = pick_device(settings.device)
    if device.type == "cpu" and settings.precision == "16-mixed":
        raise ValueError("precision 16-mixed needs an accelerator; on a CPU take bf16-mixed or 32-true")
    devices: Any = settings.devices
    if device.index is not None:
        devices = [device.index]
    elif devices == "auto" and device.type == "cpu":
        devices = 1
    # Lightning's advice is for authors of training scripts; errors are still shown.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # who gives --workers wants them
    trainer = L.Trainer(
        max_steps=settings.steps,
        accelerator=device.type,
        devices=devices,
        strategy="auto" if devices == 1 else "ddp_find_unused_parameters_true",
        precision=settings.precision,
        gradient_clip_val=1.0 if task.automatic_optimization else None,
        logger=False,
        callbacks=[writer],
        plugins=[WholeCheckpoints()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    if settings.batch_size % trainer.world_size:
        raise ValueError(
            f"batch_size {settings.batch_size} cannot be shared evenly by {trainer.world_size} devices: set --devices"
        )
    return trainer


class RunWriter(L.Callback):
    """Writes the rows of metrics, the checkpoints and the samples of a run, and stops it where a signal asks for it.

    Args:
        run: where to write.
        task: what is trained.
        start: how many steps were done before.
        fresh: whether the run starts anew, and replaces what was there.
    """

    def __init__(self, run: RunFolder, task: Task, start: int, *, fresh: bool) -> None:
        self.run, self.task, self.settings = run, task, task.settings
        self.start, self.fresh, self.begun = start, fresh, False
        self.figures: dict[str, float] = {}
        self.signal = 0
        self.stop = Stop()
        self.agreed: HostValue | None = None  # the number of a signal, on its way
        self.opened = ExitStack()

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take note of signals, and show how far the run is."""
        # From here on, because Lightning has set handlers of its own, which end a run without a checkpoint.
        self.stop = self.opened.enter_context(stopped_softly())
        self.ticker = Ticker(self.start, self.settings.steps, shown=trainer.is_global_zero)
        self.opened.callback(self.ticker.close)
        trainer.should_stop = self.task.finished

    @override
    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Write what is due after a step."""
        step = trainer.global_step
        if trainer.is_global_zero and not self.begun:
            self._begin()
        # Not where a run is stopped: one that was never stopped has no row there.
        validated = bool(self.task.validation_figures) and self._due(step, self.settings.save_every)
        if validated or step % min(self.settings.log_every, self.settings.steps) == 0:
            self._write_row(trainer, step, validated=validated)
            self.ticker.tell(self.task.note(self.figures), step)
        self.ticker.advance(step)
        self.signal = self._agreed_signal(trainer)
        if self.task.finished:
            trainer.should_stop = True
        elif self.signal:
            trainer.should_stop = True
            if trainer.is_global_zero:
                messages.print("stopping after this step; press Ctrl-C again to stop at once")
        elif step % self.settings.save_every == 0 and step < self.settings.steps:
            self._save(trainer)

    @override
    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Write the checkpoint."""
        self._save(trainer)
        self.opened.close()

    @override
    def on_exception(self, trainer: L.Trainer, *_: Any) -> None:
        """Remove the bar, so that the error is readable."""
        self.opened.close()

    def remove_failed_start(self) -> None:
        """Remove a run that has nothing to go on from: it must not stand in the way of the next one."""
        if self.begun and self.fresh and not (self.run.checkpoint.exists() or self.run.metrics.exists()):
            self.run.clear()

    def write_sample(self, step: int) -> None:
        """Write the picture that shows how far the task is."""
        picture = self.task.picture()
        with written_beside(self.run.sample(step)) as temporary:
            save_image(picture, temporary)
        if self.begun:
            self.board.picture(self.task.picture_title, picture, step - 1)
            self.board.flush()

    def _begin(self) -> None:
        """Take over the folder, once a step has succeeded."""
        if self.fresh:
            with written_beside(self.run.environment) as temporary:  # first, since it tells that this is a run
                temporary.write_text(json.dumps(_environment(self.task.command)), encoding="utf-8")
            self.run.clear(but=self.run.environment)
        self.begun = True
        self.run.tidy()
        if self.task.config:
            with written_beside(self.run.config) as temporary:
                temporary.write_text(self.task.config, encoding="utf-8")
        self.metrics = MetricsFile(self.run.metrics, from_step=self.start)
        self.board = TensorBoard(self.run.tensorboard, from_step=self.start)
        self.opened.callback(self.board.close)

    def _due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.settings.steps

    def _agreed_signal(self, trainer: L.Trainer) -> int:
        """Return the number of the signal that any rank received, 0 for none; on accelerators a step later."""
        if trainer.world_size == 1:
            return self.stop.number
        number = torch.full((), self.stop.number, device=trainer.strategy.root_device)
        number = trainer.strategy.reduce(number, reduce_op="max")
        before, self.agreed = self.agreed, HostValue(number)
        known = self.agreed if at_hand(number) else before
        return 0 if known is None else known.wait()

    def _write_row(self, trainer: L.Trainer, step: int, *, validated: bool) -> None:
        counts = self.task.usage()  # first, since the figures start the window anew
        known = self.task.figures() | (self._validate() if validated else {})
        self.figures = known
        if trainer.is_global_zero:
            self.metrics.write(known, step - 1, columns=[*dict.fromkeys([*known, *self.task.validation_figures])])
            self.board.curves(known, step - 1)
            self.board.usage(counts, step - 1)

    def _validate(self) -> dict[str, float]:
        """Return the figures of validation, none if it fails: a run of days does not end for that."""
        try:
            return self.task.validate()
        except Exception as error:
            if is_first_process():
                held_out = f"{self.settings.validation}: "
                messages.print(
                    f"--validation {held_out}{reason_of(error).removeprefix(held_out)}; a row has no figures of it",
                    style="yellow",
                    soft_wrap=True,
                )
            return {}

    def _save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.run.checkpoint)
        if trainer.is_global_zero:
            self.write_sample(trainer.global_step)


@contextmanager
def _same_again() -> Iterator[None]:
    """Let convolutions on CUDA give the same result again for the same inputs, to the bit."""
    before, torch.backends.cudnn.deterministic = torch.backends.cudnn.deterministic, True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


@contextmanager
def _interrupts_unchanged() -> Iterator[None]:
    """Let a Ctrl-C come through as it was raised: Lightning makes a SystemExit of it."""
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise


def _checkpoint(run: RunFolder, save_every: int) -> Path | None:
    """Return the checkpoint to go on from, None where a run was killed before it had one.

    Raises:
        FileNotFoundError: it is missing, though there was one.
        ValueError: it is no file.
    """
    run.check_files()
    if run.checkpoint.is_file():
        return run.checkpoint
    rows, _ = read_metrics(run.metrics)
    if run.model.exists() or any(int(row["step"]) >= save_every for row in rows):
        raise FileNotFoundError(
            f"{run.checkpoint} is missing, which this run had: without it, it cannot go on. To train from the start: "
            f"lexel {run.command} --config {run.config} --out {run.path} --overwrite"
        )
    if is_first_process():
        messages.print(f"{run.path} has no checkpoint yet: the run starts again", soft_wrap=True)
    return None


def _check_config(
    step: int, began_with: str, config: str, run: RunFolder, settings: Settings, *, more_steps: bool
) -> None:
    """Check that a run goes on with the settings that it began with."""
    if step > settings.steps:
        raise ValueError(f"{run.path} is at step {step} already, beyond steps={settings.steps}")
    before, now = _flat(yaml.safe_load(began_with or "{}")), _flat(yaml.safe_load(config or "{}"))
    for name in sorted(before.keys() | now.keys()) if began_with and config else ():
        if name in FREE or (name == "steps" and more_steps) or before.get(name) == now.get(name):
            continue
        if name == "model.class_path" and name not in before:
            continue  # written when there was one class; the weights have told that it is still this one
        hint = "; give --steps to change it" if name == "steps" else ""
        raise ValueError(
            f"{run.config} says {name}: {now.get(name)}, but the run began with {before.get(name)}: it would come to "
            f"another end{hint}"
        )


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return all settings by their names on the command line."""
    if not isinstance(config, Mapping):
        return {prefix.rstrip("."): config}
    inner = {key: prefix if key == "init_args" else f"{prefix}{key}." for key in config}
    return {name: value for key, item in config.items() for name, value in _flat(item, inner[key]).items()}


def _save_model(task: Task, folder: Path) -> None:
    """Replace the files of a model one by one, each whole."""
    new = folder.with_name(f"{WORKPLACE}{folder.name}")
    task.save(new)
    for file in sorted(path for path in new.rglob("*") if path.is_file()):
        with written_beside(folder / file.relative_to(new)) as temporary:
            file.replace(temporary)
    shutil.rmtree(new)


def _environment(command: str) -> dict[str, str]:
    return {
        COMMAND: command,
        "Lexel": version("lexel"),
        "PyTorch": torch.__version__,
        "Lightning": L.__version__,
        "Python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "started": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
    }
