"""Makes the models and photographs of the live page: `make live-models`, or `python docs/live/models.py`.

Trains on the photographs of the demo, but for the one of an astronaut, which is shown here, unless the runs are there.
All three that are shown are free of copyright: the astronaut was photographed by NASA (public domain), Chelsea
the cat by Stefan van der Walt and the coffee by Rachel Michetti (CC0).
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from lexel.cli import main
from lexel.demo import copy_photographs
from lexel.export import Photo, page_of
from lexel.runs import load_model

HERE = Path(__file__).parent
RUNS = Path("runs/live")
CODES = (16, 128, 1024)
SIDE = 256  # of the photographs, in pixels at most
SHOWN = {"astronaut": ("Astronaut", "宇航员"), "chelsea": ("Cat", "猫"), "coffee": ("Coffee", "咖啡")}
SETTINGS = (
    *("--steps", "3000", "--batch-size", "16", "--crop", "48", "--device", "cpu", "--model.upsampling", "resize"),
    *("--model.hidden-channels", "48", "--model.residual-channels", "16"),
    *("--quantizer", "lexel.presets.default", "--quantizer.embedding-dim", "16"),
)


def trained(codes: int, photographs: Path) -> Path:
    """Return the run of a model, and train it if there is none."""
    run = RUNS / str(codes)
    words = ["train", str(photographs), "--out", str(run), *SETTINGS, "--quantizer.num-embeddings", str(codes)]
    if not (run / "model").is_dir():
        assert main(words) == 0
    return run


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        trained_on, shown = copy_photographs(Path(folder))
        (trained_on / "astronaut.png").rename(shown / "astronaut.png")
        models = {f"K = {codes}": load_model(trained(codes, trained_on)) for codes in CODES}
        for path in shown.iterdir():
            photograph = Image.open(path)
            photograph.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
            photograph.save(path, optimize=True)
        photos = [Photo({"en": en, "zh": zh}, shown / f"{name}.png") for name, (en, zh) in SHOWN.items()]
        page = page_of(models, photos)
    for name, content in page.files.items():
        if name.startswith(("models", "photos")):
            (HERE / name).parent.mkdir(exist_ok=True)
            (HERE / name).write_bytes(content)
