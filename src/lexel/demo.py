"""The demo: train on photographs that Python packages contain, and show how the codes reproduce two others."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import yaml

from lexel.data.images import open_images, save_image, to_pixels
from lexel.data.pictures import centre, columns, token_colours, token_picture
from lexel.models import ImageAutoencoder
from lexel.report.page import write_report
from lexel.runs import RunFolder, is_report
from lexel.training.evaluate import Evaluation, evaluate
from lexel.training.reconstruction import ReconstructionTask
from lexel.training.run import Outcome, train
from lexel.training.settings import ReconstructionSettings

__all__ = ["Demo", "copy_photographs", "run_demo"]

TRAINED_ON = {
    "skimage": [
        *("data/astronaut.png", "data/camera.png", "data/hubble_deep_field.jpg", "data/ihc.png"),
        *("data/motorcycle_left.png", "data/motorcycle_right.png", "data/retina.jpg", "data/rocket.jpg"),
    ],
    "sklearn": ["datasets/images/china.jpg", "datasets/images/flower.jpg"],
}
# What the demo adds to the folder of its run.
PHOTOGRAPHS, RECONSTRUCTIONS, TOKENS = "photographs", "reconstructions.png", "tokens.png"
HELD_OUT = {"skimage": ["data/chelsea.png", "data/coffee.png"]}


@dataclass(frozen=True)
class Demo:
    """The results of the demo.

    Attributes:
        held_out: figures on the two photographs that were not trained on.
        reconstructions: picture of those photographs above their reconstructions.
        tokens: picture of a photograph beside its grid of tokens.
        report: page about the run, on those photographs.
        outcome: how training ended.
    """

    held_out: Evaluation
    reconstructions: Path
    tokens: Path
    report: Path
    outcome: Outcome


def run_demo(
    model: ImageAutoencoder,
    out: Path,
    settings: ReconstructionSettings,
    *,
    config: str = "",
    overwrite: bool = False,
) -> Demo:
    """Train `model` on photographs of scikit-image and scikit-learn, evaluate it on two others, and draw both.

    Args:
        model: what to train.
        out: the run's folder, to which the photographs and the pictures are added.
        settings: how to train.
        config: the text of config.yaml.
        overwrite: start anew where a run exists.

    Raises:
        FileExistsError: `out` exists and `overwrite` is not set, or it holds what no demo wrote.
        ImportError: a package that contains the photographs is missing.
    """
    _check_additions(out)
    # The photographs come into `out` at the end: what fails before leaves the folder as it was.
    with TemporaryDirectory() as folder:
        trained_on, held_out = copy_photographs(Path(folder))
        outcome = train(ReconstructionTask(model, trained_on, settings), out, config=config, overwrite=overwrite)
        shutil.copytree(folder, out / PHOTOGRAPHS, dirs_exist_ok=True)

        model = model.cpu().eval()
        images = [image.float() / 255 for _, image in open_images(held_out).readable(range(2))]
        with torch.no_grad():
            grids = [model.encode(image[None]) for image in images]
            decoded = [
                model.decode(grid, (image.shape[1], image.shape[2]))[0]
                for grid, image in zip(grids, images, strict=True)
            ]
        reconstructions, tokens = out / RECONSTRUCTIONS, out / TOKENS
        shown = [
            [centre(original, 300, 450), centre(copy, 300, 450)] for original, copy in zip(images, decoded, strict=True)
        ]
        save_image(to_pixels(columns(shown)), reconstructions)
        save_image(to_pixels(_token_page(model, images[0], grids[0])), tokens)
        report = write_report(out, data=held_out)
        return Demo(evaluate(model, held_out), reconstructions, tokens, report, outcome)


def _check_additions(out: Path) -> None:
    """Check that the files of a demo replace none but those of a demo, which is a run that names no data.

    Raises:
        FileExistsError: they would.
    """
    run = RunFolder(out)
    strange = [name for name in (PHOTOGRAPHS, RECONSTRUCTIONS, TOKENS) if os.path.lexists(out / name)]
    try:
        if run.is_run and yaml.safe_load(run.config.read_text(encoding="utf-8")).get("data") is None:
            strange = []
    except (OSError, ValueError, AttributeError, RecursionError, yaml.YAMLError):
        pass
    if os.path.lexists(run.report) and not is_report(run.report):
        strange.append(run.report.name)
    if strange:
        raise FileExistsError(f"{out} holds {', '.join(strange)}, which no demo wrote: choose another folder")


def copy_photographs(folder: Path) -> tuple[Path, Path]:
    """Copy the photographs into `folder`, and return the folders of those to train on and of those to hold out.

    Raises:
        ImportError: a package that contains the photographs is missing.
    """
    folders = folder / "trained-on", folder / "held-out"
    for photographs, target in zip((TRAINED_ON, HELD_OUT), folders, strict=True):
        target.mkdir(parents=True, exist_ok=True)
        for package, names in photographs.items():
            spec = find_spec(package)
            if spec is None or spec.origin is None:
                raise ImportError(f"the demo needs the photographs of {package}: pip install 'lexel[demo]'")
            for name in names:
                shutil.copy(Path(spec.origin).parent / name, target)
    return folders


def _token_page(model: ImageAutoencoder, image: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Draw an image beside its tokens, of the finest level: each is a square, and each code has its own colour."""
    vectors = model.lookup(grid, (image.shape[1], image.shape[2]))[-1][0].movedim(0, -1)
    height, width, dim = vectors.shape
    codes, which = torch.unique(vectors.reshape(-1, dim), dim=0, return_inverse=True)
    colours = token_colours(codes)[which].reshape(height, width, 3)
    zoom = 2
    enlarged = image.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
    return columns([[enlarged], [token_picture(colours, model.factors[-1] * zoom)]])
