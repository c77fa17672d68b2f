"""The demo: train on photographs that Python packages contain, and show how the codes reproduce two others."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from lexel._core.files import refuse_existing
from lexel.data.images import open_images, save_image, to_pixels
from lexel.data.pictures import centre, columns, token_colours, token_picture
from lexel.models import VQVAE
from lexel.report.page import write_report
from lexel.runs import RunFolder
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
    model: VQVAE,
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
        FileExistsError: `out` exists and `overwrite` is not set.
        ImportError: a package that contains the photographs is missing.
    """
    refuse_existing(out, overwrite=overwrite)
    trained_on, held_out = copy_photographs(out / "photographs")
    try:
        outcome = train(ReconstructionTask(model, trained_on, settings), out, config=config, overwrite=True)
    except BaseException:
        if not RunFolder(out).is_run:  # a start that failed must not stand in the way of the next one
            shutil.rmtree(out / "photographs")
            if not any(out.iterdir()):
                out.rmdir()
        raise

    model = model.cpu().eval()
    images = [image.float() / 255 for _, image in open_images(held_out).readable(range(2))]
    with torch.no_grad():
        grids = [model.encode(image[None]) for image in images]
        decoded = [
            model.decode(grid, (image.shape[1], image.shape[2]))[0] for grid, image in zip(grids, images, strict=True)
        ]
    reconstructions, tokens = out / "reconstructions.png", out / "tokens.png"
    shown = [
        [centre(original, 300, 450), centre(copy, 300, 450)] for original, copy in zip(images, decoded, strict=True)
    ]
    save_image(to_pixels(columns(shown)), reconstructions)
    save_image(to_pixels(_token_page(model, images[0], grids[0])), tokens)
    report = write_report(out, data=held_out)
    return Demo(evaluate(model, held_out), reconstructions, tokens, report, outcome)


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


def _token_page(model: VQVAE, image: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Draw an image beside its tokens: each is a square, and each code has its own colour."""
    vectors = model.quantizer.lookup(grid)[0].movedim(0, -1)
    height, width, dim = vectors.shape
    codes, which = torch.unique(vectors.reshape(-1, dim), dim=0, return_inverse=True)
    colours = token_colours(codes)[which].reshape(height, width, 3)
    zoom = 2
    enlarged = image.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
    return columns([[enlarged], [token_picture(colours, model.downsampling * zoom)]])
