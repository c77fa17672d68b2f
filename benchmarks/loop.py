"""Speed of `lexel train`'s loop beside the same training written by hand: `python -m benchmarks.loop [--pairs 5]`.

The loop by hand does what trains: crops, model, loss, gradients clipped, Adam, a learning rate that falls. Lexel's loop
also counts how every code is used, exactly, writes rows and TensorBoard, and can be stopped at any step. Both run one
after the other in one process and on one thread, so that what else the machine does hits them alike; counted is the
processor's time from step 20 on, with rows every 50 steps and the last checkpoint. Writes
`benchmarks/results/loop.md`.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

import lexel
from lexel.data.images import constant_error, open_images
from lexel.models import VQVAE
from lexel.training.crops import RandomCrops
from lexel.training.reconstruction import ReconstructionTask
from lexel.training.run import train
from lexel.training.settings import ReconstructionSettings
from lexel.training.task import schedule

RESULTS = Path(__file__).parent / "results" / "loop.md"
FROM = 20
# Name, channels, K, D, batch, crop, steps.
SIZES = [
    ("tiny", 8, 16, 4, 2, 16, 520),
    ("small", 32, 512, 64, 8, 32, 220),
    ("as `lexel demo`", 64, 1024, 64, 16, 64, 80),
    ("as `lexel train`", 128, 512, 64, 32, 64, 30),
]


class Clock:
    """Counts the processor's time from step `FROM` to the last one."""

    def __init__(self, steps: int) -> None:
        self.steps, self.done = steps, 0

    def tick(self) -> None:
        """Tell that a step begins."""
        if self.done == FROM:
            self.begun = time.process_time()
        self.done += 1

    def rate(self) -> float:
        """Steps a second."""
        return (self.steps - FROM) / (time.process_time() - self.begun)


def build(channels: int, num_embeddings: int, embedding_dim: int) -> VQVAE:
    """The same model each time."""
    torch.manual_seed(0)
    return VQVAE(lexel.presets.default(num_embeddings, embedding_dim), hidden_channels=channels).train()


def by_hand(model: VQVAE, data: Path, settings: ReconstructionSettings) -> float:
    """Train as a script would, and return the steps a second."""
    images = open_images(data)
    scale = constant_error((pixels for _, pixels in images.readable(range(len(images)))), "mse")
    crops = RandomCrops(images, settings.crop, settings.steps * settings.batch_size, settings.seed)
    optimizer = torch.optim.Adam(model.parameters(), settings.learning_rate, betas=(0.9, 0.99))
    clock = Clock(settings.steps)
    for step, batch in enumerate(DataLoader(crops, settings.batch_size)):
        clock.tick()
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * schedule(step, settings.steps)
        reconstructions, output = model(batch)
        loss = F.mse_loss(reconstructions, batch) / scale + output.loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % settings.log_every == 0:
            float(loss.detach())
    return clock.rate()


def by_lexel(model: VQVAE, data: Path, settings: ReconstructionSettings, folder: Path) -> float:
    """Train as `lexel train` does, and return the steps a second."""
    clock, begin = Clock(settings.steps), ReconstructionTask.on_train_batch_start

    def timed(task: ReconstructionTask, batch: torch.Tensor, index: int) -> None:
        clock.tick()
        begin(task, batch, index)

    ReconstructionTask.on_train_batch_start = timed  # type: ignore[method-assign]
    try:
        train(ReconstructionTask(model, data, settings), folder)
    finally:
        ReconstructionTask.on_train_batch_start = begin  # type: ignore[method-assign]
    return clock.rate()


def main(pairs: int) -> None:
    """Measure, and write the table."""
    torch.set_num_threads(1)
    lines = ["| | Lexel, steps/s | by hand, steps/s | ratio, median and range |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "pictures.npy"
        np.save(data, np.random.default_rng(0).integers(0, 256, (64, 80, 80, 3)).astype(np.uint8))
        for size, channels, num_embeddings, embedding_dim, batch, crop, steps in SIZES:
            settings = ReconstructionSettings(steps=steps, batch_size=batch, crop=crop, device="cpu")
            ours, theirs = [], []
            for pair in range(pairs):
                model = build(channels, num_embeddings, embedding_dim)
                ours.append(by_lexel(model, data, settings, Path(name) / f"{channels}-{pair}"))
                theirs.append(by_hand(build(channels, num_embeddings, embedding_dim), data, settings))
            ratios = [one / two for one, two in zip(ours, theirs, strict=True)]
            lines.append(
                f"| {size}: {channels} channels, K = {num_embeddings}, {batch} crops of {crop}² | "
                f"{statistics.median(ours):.3g} | {statistics.median(theirs):.3g} | "
                f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) |"
            )
            print(lines[-1], flush=True)
    text = f"""# The training loop

`python -m benchmarks.loop --pairs {pairs}` printed, on {platform.machine()} with one thread and PyTorch
{torch.__version__}:

{chr(10).join(lines)}
"""
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=5)
    main(parser.parse_args().pairs)
