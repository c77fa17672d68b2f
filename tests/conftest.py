"""Real photographs, small enough to be quick."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import skimage
import torch
from PIL import Image

from tests.commands import train

# Without a GPU, Triton's kernels run in its interpreter; it asks when the kernels are imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs at different depths, in different formats and sizes, none of which 4 divides."""
    folder = tmp_path_factory.mktemp("photographs")
    for source, target, size in (
        ("astronaut.png", "people/astronaut.png", (97, 90)),
        ("chelsea.png", "animals/cats/chelsea.jpg", (113, 75)),
        ("coffee.png", "coffee.webp", (75, 50)),
        ("camera.png", "people/camera.bmp", (66, 66)),
    ):
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        with Image.open(PHOTOGRAPHS / source) as image:
            image.resize(size).save(folder / target)
    return folder


@pytest.fixture(scope="session")
def run(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a tiny model; tests that change it take a copy."""
    out = tmp_path_factory.mktemp("runs") / "first"
    assert train(photographs, out) == 0
    return out


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny tensors gain nothing from threads, and lose much where other work wants the same cores."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
