"""What must stay as it is however long training goes on: `python -m tests.soak [STEPS [AVERAGES]]`.

A tiny model trains in a process of `lexel train`, whose memory, open files, threads and processor time are read from
outside while it runs. Then the moving averages of a float32 quantizer go on beside those of the same in float64.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import lexel
from lexel.runs import RunFolder

LEXEL = [sys.executable, "-m", "lexel"]
# From the second tenth, when all that is allocated once has been, to the last.
MOST_GROWTH = 2 << 20  # bytes of resident memory: 120 bytes a step
MOST_SLOWER = 1.1  # processor time of a step, which other work on the machine disturbs less than its duration
MOST_ERROR = 1e-4  # of a float32 code, relative to the largest number of the table in float64


@dataclass(frozen=True)
class Sample:
    """What a training process and its children take at one moment."""

    step: int
    seconds: float
    processor: float
    memory: int
    files: int
    threads: int
    processes: int


def sample(process: int, run: RunFolder, begun: float) -> Sample | None:
    """Read it from /proc; None before the first row of the metrics, and when the process ends."""
    try:
        with run.metrics.open("rb") as file:
            file.seek(max(0, run.metrics.stat().st_size - 1000))
            step = int(file.read().splitlines()[-1].split(b",")[0])
        family = [process]
        for parent in family:  # grows while it is walked
            for task in Path(f"/proc/{parent}/task").iterdir():
                family += map(int, (task / "children").read_text().split())
        processor, memory, files, threads = 0.0, 0, 0, 0
        for own in family:
            words = Path(f"/proc/{own}/stat").read_text().rpartition(")")[2].split()
            processor += (int(words[11]) + int(words[12])) / 100  # user and system time, in hundredths
            threads += int(words[17])
            memory += int(Path(f"/proc/{own}/statm").read_text().split()[1]) * 4096
            files += len(list(Path(f"/proc/{own}/fd").iterdir()))
    except (OSError, ValueError, IndexError):
        return None
    return Sample(step, time.monotonic() - begun, processor, memory, files, threads, len(family))


def train(steps: int) -> bool:
    """Train for so many steps, print what was taken in each tenth, and return whether the last is like the second."""
    folder = Path(tempfile.mkdtemp())
    np.save(folder / "pictures.npy", np.random.default_rng(0).integers(0, 256, (6, 24, 24, 3)).astype(np.uint8))
    run = RunFolder(folder / "run")
    sizes = ["--steps", steps, "--batch-size", 4, "--crop", 16, "--model.hidden-channels", 8, "--workers", 1]
    often = ["--log-every", 20, "--save-every", 200, "--validation", folder / "pictures.npy"]
    what = ["--quantizer", json.dumps(lexel.presets.default(16, 4).config)]
    words = [*LEXEL, "train", folder / "pictures.npy", "--out", run.path, *sizes, *often, *what]
    begun, samples = time.monotonic(), []
    process = subprocess.Popen([*map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        found = sample(process.pid, run, begun)
        samples += [found] if found else []
        time.sleep(0.1)
    if process.returncode:
        print(process.stderr.read() if process.stderr else "")
        return False
    # Workers start after the process and end before it.
    samples = [each for each in samples if each.processes == max(each.processes for each in samples)]
    tenths = [[each for each in samples if each.step * 10 // steps == tenth] for tenth in range(10)]
    heads = ("steps", "memory, MiB", "open files", "threads", "processor, ms a step", "steps/s")
    print(" ".join(f"{head:>{max(len(head), 13)}}" for head in heads))
    costs = []
    for number, own in enumerate(tenths):
        taken = max(own[-1].step - own[0].step, 1)
        costs.append((own[-1].processor - own[0].processor) / taken * 1e3)
        print(
            f"{f'{number * steps // 10}-{(number + 1) * steps // 10}':>13} "
            f"{max(each.memory for each in own) / 2**20:13.1f} {min(each.files for each in own):13d} "
            f"{min(each.threads for each in own):13d} {costs[-1]:20.2f} "
            f"{taken / (own[-1].seconds - own[0].seconds):13.1f}"
        )
    first, last = tenths[1], tenths[-1]
    checks = {
        "memory": max(each.memory for each in last) - max(each.memory for each in first) <= MOST_GROWTH,
        # The fewest, because a file may be open at the moment for a row or a checkpoint.
        "open files": min(each.files for each in last) <= min(each.files for each in first),
        "threads": min(each.threads for each in last) <= min(each.threads for each in first),
        "speed": costs[-1] <= MOST_SLOWER * costs[1],
    }
    print(f"{steps} steps: {', '.join(name + (' flat' if flat else ' NOT FLAT') for name, flat in checks.items())}")
    return all(checks.values())


def average(steps: int, name: str, centres: torch.Tensor) -> bool:
    """Learn from inputs around centres in float32 and in float64; return whether the codes are nearly the same."""
    torch.manual_seed(0)
    narrow = lexel.VectorQuantizer(16, 4, learning=lexel.EMA())
    wide = lexel.VectorQuantizer(16, 4, learning=lexel.EMA()).double()
    narrow.load_codes(centres.clone())
    wide.load_codes(centres.double())
    for _ in range(steps):
        z = centres[torch.randint(len(centres), (64,))] + 0.3 * torch.randn(64, 4)
        with torch.no_grad():
            narrow(z)
            wide(z.double())
    expected = wide.codebook()
    error = float((narrow.codebook().double() - expected).abs().max() / expected.abs().max())
    print(f"{steps} EMA steps, {name}: codes differ by {error:.1e} of the largest number in the table")
    return error <= MOST_ERROR


def main(steps: int = 20_000, averages: int = 100_000) -> int:
    """Print what was found, and return 0 if nothing changes with time."""
    flat = train(steps)
    centres = 3 * F.normalize(torch.randn(16, 4, generator=torch.Generator().manual_seed(1)))
    good = [
        average(averages, "every code chosen", centres),
        average(averages, "far from the origin", centres + 100),
    ]
    return 0 if flat and all(good) else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
