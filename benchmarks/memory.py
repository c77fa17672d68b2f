"""Peak memory of `lexel encode`, which does not grow with the data: `python -m benchmarks.memory`.

Each set of images is encoded by a process of its own, whose largest resident set the system reports. The images are
noise of 64 × 64 pixels in PNG files; the model has 512 codes and 32 hidden channels.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import lexel
from lexel.models import VQVAE


def peak_of(command: list[str]) -> float:
    """Run a command, and return the megabytes that it took at most."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e6 / 1024)


def main() -> None:
    """Print the peak for 1,000 and for 10,000 images."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        VQVAE(lexel.VectorQuantizer(512, 64), hidden_channels=32).save_pretrained(folder / "model")
        generator = np.random.default_rng(0)
        written = 0
        for count in (1_000, 10_000):
            (folder / "images").mkdir(exist_ok=True)
            for number in range(written, count):
                pixels = generator.integers(0, 256, (64, 64, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"images/{number:05d}.png", compress_level=1)
            written = count
            words = ["encode", f"{folder}/model", f"{folder}/images", "--out", f"{folder}/{count}", "--device", "cpu"]
            print(f"{count:>6,} images: {peak_of([sys.executable, '-m', 'lexel', *words]):.0f} MB", flush=True)


if __name__ == "__main__":
    main()
