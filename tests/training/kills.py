"""Runs that are killed and resumed, beside the same run undisturbed.

`python -m tests.training.kills 50` kills fifty times, with all kinds of quantizers and priors, workers, ranks and
signals, and prints what came of it.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

import lexel
from lexel.runs import RunFolder
from tests import processes

STAGE = lexel.VectorQuantizer(16, 4)
QUANTIZERS = {
    "gumbel": lexel.VectorQuantizer(16, 4, estimator=lexel.GumbelSoftmax()),
    "diveq": lexel.VectorQuantizer(16, 4, estimator=lexel.DiVeQ()),
    "dropout": lexel.ResidualQuantizer([STAGE, lexel.VectorQuantizer(16, 4, learning=lexel.EMA())], dropout=0.5),
    "default": lexel.presets.default(16, 4),
}
PRIORS = ("causal", "masked")
SECONDS = 300


def words(data: Path, out: Path, quantizer: str, steps: int, *options: object) -> list[str]:
    """The command of a small run."""
    sizes = ["--steps", steps, "--batch-size", 4, "--crop", 16, "--log-every", 3, "--model.hidden-channels", 8]
    what = ["--quantizer", json.dumps(QUANTIZERS[quantizer].config), *options]
    return ["lexel", "train", *map(str, [data, "--out", out, *sizes, *what])]


def prior_words(model: Path, tokens: Path, out: Path, kind: str, steps: int, *options: object) -> list[str]:
    """The command of a small run of a prior."""
    sizes = ["--steps", steps, "--batch-size", 4, "--log-every", 3, "--layers", 1, "--width", 8, "--heads", 2]
    return ["lexel", "train-prior", *map(str, [model, tokens, "--out", out, "--kind", kind, *sizes, *options])]


Start = Callable[[Sequence[str]], processes.Started | subprocess.Popen[str]]


def alone(command: Sequence[str]) -> subprocess.Popen[str]:
    """Start a command in a process that imports everything itself, and may be struck meanwhile."""
    words = [sys.executable, "-m", *command]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def whole(command: Sequence[str], start: Start = processes.Started) -> float:
    """Let a run come to its end, and return how long it took."""
    begun, process = time.monotonic(), start(command)
    _, printed = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, printed
    return time.monotonic() - begun


def killed(
    command: Sequence[str],
    number: int,
    after: float,
    run: RunFolder,
    *,
    from_first_step: bool,
    start: Start = processes.Started,
) -> int | None:
    """Send a signal some seconds after the start, or after the first step, and return the exit code.

    None when the run had come to its end before.
    """
    begun_before = run.metrics.stat().st_mtime_ns if run.metrics.exists() else 0
    process = start(command)
    deadline = time.monotonic() + SECONDS
    while from_first_step and process.poll() is None and time.monotonic() < deadline:
        if run.metrics.exists() and run.metrics.stat().st_mtime_ns > begun_before:
            break
        time.sleep(0.002)
    try:
        _, printed = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        _, printed = process.communicate(timeout=SECONDS)
        # A worker whose process was killed may say so, as PyTorch does; a process that may still tidy up says nothing.
        assert number == signal.SIGKILL or "Traceback" not in printed, printed
        assert process.returncode in (0, -number, 128 + number), (process.returncode, printed)
        return process.returncode
    assert process.returncode == 0, printed
    return None


def resumed(run: RunFolder, original: Sequence[str]) -> list[str]:
    """The command that goes on with a run: the same again when it was killed before there was anything."""
    return ["lexel", "resume", str(run.path)] if run.is_run else [*original]


def differences(one: RunFolder, two: RunFolder) -> list[str]:
    """Name what differs, in a single bit, between what two runs left."""
    found = []
    for name in ("metrics.csv", "model/model.safetensors"):
        if (one.path / name).read_bytes() != (two.path / name).read_bytes():
            found.append(name)
    checkpoints = [torch.load(run.checkpoint, weights_only=True) for run in (one, two)]
    for key in ("global_step", "state_dict", "optimizer_states", "window"):
        if not _same(*(checkpoint[key] for checkpoint in checkpoints)):
            found.append(f"{key} in the checkpoint")
    return found


def _same(one: object, two: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return isinstance(two, dict) and one.keys() == two.keys() and all(_same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(_same, one, two))  # type: ignore[arg-type]
    return one == two


def main(kills: int, seed: int = 0) -> int:
    """Kill so many times, and return how many runs came to another end."""
    choice = random.Random(seed)
    folder = Path(tempfile.mkdtemp())
    data = folder / "pictures.npy"
    np.save(data, np.random.default_rng(0).integers(0, 256, (6, 24, 24, 3)).astype(np.uint8))
    os.environ["OMP_NUM_THREADS"] = "1"
    model, tokens = folder / "model", folder / "tokens"
    whole(words(data, model, "default", 20))
    whole(["lexel", "encode", *map(str, [model, data, "--out", tokens])])

    def command_of(what: str, out: Path, *options: object) -> list[str]:
        if what in PRIORS:
            return prior_words(model, tokens, out, what, 120, *options)
        return words(data, out, what, 120, *options)

    cases = list(itertools.product((*QUANTIZERS, *PRIORS), (0, 1, 2), (1, 2)))
    choice.shuffle(cases)
    done, runs, lost, codes = 0, 0, 0, {}
    for what, workers, devices in itertools.cycle(cases):
        if done >= kills:
            break
        options = ["--workers", workers, "--devices", devices, "--seed", runs]
        reference, run = RunFolder(folder / f"whole-{runs}"), RunFolder(folder / f"killed-{runs}")
        seconds = whole(command_of(what, reference.path, *options, "--save-every", 1000), alone)
        save = choice.choice([1, 3, 7, 40, 1000])
        original = command_of(what, run.path, *options, "--save-every", save)
        planned, own, command = choice.randint(1, 4), [], original
        while len(own) < planned:
            number = choice.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            from_first_step = choice.random() < 0.7
            after = choice.uniform(0, 0.6 if from_first_step else 0.9 * seconds)
            code = killed(command, number, after, run, from_first_step=from_first_step, start=alone)
            if code is None:
                break
            own.append(f"{signal.Signals(number).name}:{code}")
            command = resumed(run, original)
        whole(resumed(run, original), alone)
        found = differences(reference, run)
        done, runs, lost = done + len(own), runs + 1, lost + bool(found)
        for each in own:
            codes[each] = codes.get(each, 0) + 1
        print(
            f"{done:4d} kills, {what}, {workers} workers, {devices} ranks, save every {save}: "
            f"{', '.join(own)}: {'differs in ' + ', '.join(found) if found else 'the same to the bit'}",
            flush=True,
        )
    print(f"{done} kills of {runs} runs: {lost} came to another end; exit codes {codes}")
    return lost


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])) > 0)
