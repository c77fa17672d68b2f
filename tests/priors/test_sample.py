"""`lexel sample`: the same seed gives the same files, classes and completions are what was asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lexel
from lexel.cli import main
from lexel.data.images import save_image
from lexel.priors import FREE
from lexel.priors.painter import Painter
from lexel.priors.write import SHEET
from lexel.runs import load_model
from tests.commands import TINY as TINY_MODEL, refused
from tests.priors.conftest import TINY


def sample(prior: Path, out: Path, *options: object) -> dict[str, bytes]:
    assert main(["sample", str(prior), "--out", str(out), *map(str, options)]) == 0
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_the_same_seed_gives_the_same_files(prior: Path, tmp_path: Path) -> None:
    one, two, other = (
        sample(prior, tmp_path / str(n), "--num", 11, "--seed", seed) for n, seed in enumerate((5, 5, 6))
    )
    assert set(one) == {SHEET, *(f"{n:02d}.png" for n in range(11))}
    assert one == two
    assert one[SHEET] != other[SHEET]
    with Image.open(tmp_path / "0/03.png") as image:
        assert (image.size, image.mode) == ((9, 5), "L")


def test_a_saved_prior_draws_as_its_run_does(prior: Path, tmp_path: Path) -> None:
    shutil.copytree(prior / "model", tmp_path / "saved")
    assert sample(prior, tmp_path / "one", "--num", 3) == sample(tmp_path / "saved", tmp_path / "two", "--num", 3)


def test_classes_by_number_and_by_name(prior: Path, tmp_path: Path) -> None:
    how = ("--num", 4, "--temperature", 0)
    by_name = sample(prior, tmp_path / "name", *how, "--labels", "owl")
    assert by_name == sample(prior, tmp_path / "number", *how, "--labels", 2)
    assert len({by_name[f"{n}.png"] for n in range(4)}) == 1
    painter = Painter.load(prior)
    assert painter.labels(None, 5).tolist() == [0, 1, 2, 0, 1]
    assert painter.labels(["owl", "0"], 3).tolist() == [2, 0, 2]
    firsts = painter.prior.sample(90, painter.labels(None, 90), top_p=0.9)[:, 0, 0]
    assert float((firsts % 3 == painter.labels(None, 90)).float().mean()) > 0.5  # the class says where they start


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ("left", [[1, 1, 0], [1, 1, 0]]),
        ("top", [[1, 1, 1], [0, 0, 0]]),
        ("box", [[1, 1, 1], [1, 1, 1]]),
    ],
)
def test_a_completion_keeps_what_it_shall(keep: str, kept: list[list[int]], prior: Path, tmp_path: Path) -> None:
    painter = Painter.load(prior)
    original = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 5, 9)).astype(np.uint8))
    save_image(original, tmp_path / "picture.png")
    given = painter.kept(original, keep)
    assert ((given != FREE).int()).tolist() == kept
    files = sample(prior, tmp_path / "out", "--num", 3, "--complete", tmp_path / "picture.png", "--keep", keep)
    assert len(files) == 4
    painted = painter.paint(3, given=given, generator=torch.Generator().manual_seed(0))
    for number, example in enumerate(painted):
        with Image.open(tmp_path / f"out/{number}.png") as image:
            assert np.array_equal(np.asarray(image), example[0].numpy())


def test_refusals(prior: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_image(torch.zeros(1, 8, 8, dtype=torch.uint8), tmp_path / "small.png")
    for words, message in (
        ([run], "holds no prior"),
        ([prior, "--labels", "bird"], "there is no class 'bird'; give a number from 0 to 2 or one of cat, dog, owl"),
        ([prior, "--labels", 3], "there is no class '3'"),
        ([prior, "--temperature", -1], "temperature must be from 0.0001 to 10,000, got -1.0"),
        ([prior, "--temperature", 1e-40], "temperature must be from 0.0001 to 10,000, got 1e-40"),
        ([prior, "--guidance", 1e38], "guidance must be from 0 to 1,000, got 1e+38"),
        ([prior, "--num", 10**12], "num must be from 1 to 1,000,000, got 1000000000000"),
        ([prior, "--batch-size", 10**30], "batch_size must be from 1 to 1,000,000"),
        ([prior, "--top-p", 1.5], "top_p must be above 0 and at most 1"),
        ([prior, "--num", 0], "num must be from 1 to 1,000,000, got 0"),
        ([prior, "--complete", tmp_path / "small.png"], "the image is 8 × 8, but this prior draws images of 5 × 9"),
        ([prior, "--complete", tmp_path / "none.png"], "none.png"),
    ):
        assert message in refused(["sample", *words, "--out", tmp_path / "out"], capsys)
        assert not (tmp_path / "out").exists()


def test_files_that_do_not_belong_together(prior: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(prior / "model", tmp_path / "saved")
    facts = json.loads((tmp_path / "saved/tokens.json").read_text())
    for change, message in (
        ({"model": "0123456789abcdef"}, "is another model than the one whose tokens the prior knows"),
        ({"shape": [2, 4]}, "does not belong to this prior"),
        ({"size": "large"}, "is malformed"),
    ):
        (tmp_path / "saved/tokens.json").write_text(json.dumps(facts | change))
        assert message in refused(["sample", tmp_path / "saved", "--out", tmp_path / "out"], capsys)
    for text in ("[]", "null", "no json"):
        (tmp_path / "saved/config.json").write_text(text)
        refused(["sample", tmp_path / "saved", "--out", tmp_path / "out"], capsys)


SCALES = lexel.MultiScaleResidualQuantizer(lexel.VectorQuantizer(16, 4), [1, 2, 4], convolutions=1)


@pytest.mark.parametrize("kind", ["masked", "next-scale"])
@pytest.mark.parametrize(
    "how",
    [
        ["--model", "lexel.models.VQVAE2", "--model.downsampling", "[8, 4]"],
        [
            "--quantizer",
            json.dumps(
                lexel.MultiScaleResidualQuantizer(lexel.VectorQuantizer(16, 4), [1, 2, 4], convolutions=1).config
            ),
        ],
    ],
    ids=["hierarchy", "scales"],
)
def test_codes_of_several_resolutions_from_images_to_new_images(
    kind: str, how: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A square that a class of images has at the left, and another at the right."""
    images = torch.zeros(8, 16, 16, 1, dtype=torch.uint8)
    images[::2, 4:12, :8], images[1::2, 4:12, 8:] = 255, 255
    for number, image in enumerate(images):
        path = tmp_path / "data" / ("left", "right")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0].numpy()).save(path)
    data, run, found, prior, out = (str(tmp_path / name) for name in ("data", "run", "tokens", "prior", "out"))
    sizes = ["--model.image-channels", "1", "--model.hidden-channels", "8", "--crop", "16", "--steps", "4"]
    small = how if "--quantizer" in how else [*how, *TINY_MODEL[-4:]]
    assert main(["train", data, "--out", run, *small, *sizes, "--batch-size", "4"]) == 0
    assert main(["encode", run, data, "--out", found, "--labels", "folder"]) == 0
    words = ["train-prior", run, found, "--out", prior, "--kind", kind, *TINY]
    assert main([*words, "--steps", "4"]) == 0
    assert main(["resume", prior, "--steps", "6"]) == 0
    painter = Painter.load(Path(prior))
    assert (painter.prior.name, painter.prior.num_classes) == (kind, 2)
    assert painter.prior.levels == load_model(Path(run)).levels((16, 16))
    assert main(["sample", prior, "--out", out, "--num", "3", "--labels", "right"]) == 0
    with Image.open(tmp_path / "out/0.png") as picture:
        assert picture.size == (16, 16)
    completed = ["--complete", str(tmp_path / "data/left/0.png"), "--keep", "left", "--num", "2"]
    assert main(["sample", prior, "--out", str(tmp_path / "completed"), *completed]) == 0
    assert main(["report", prior]) == 0
    capsys.readouterr()


def test_a_kind_that_there_is_not(
    model: Path, learnt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train-prior", model, learnt, "--out", tmp_path / "out", "--kind", "random"]
    assert "'random'; known: causal, masked, next-scale" in refused(words, capsys).replace(", uniform", "")


def test_samples_of_before_are_not_left_between_the_new_ones(prior: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(b"mine")
    for count in (12, 2):
        assert main(["sample", str(prior), "--num", str(count), "--out", str(tmp_path), "--overwrite"]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"mine.png", "0.png", "1.png", "contact-sheet.png"}
