"""What encode writes decode reads, whatever the images are called."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from PIL import Image

import lexel
import lexel.tokens
from lexel.data.names import file_names
from lexel.models import VQVAE

NAMES = [
    *(
        "12:30.png",
        "a\nb.png",
        "a\\b.png",
        "C:\\windows.png",
        "-rf.png",
        "--help",
        "~",
        "*?<>|.png",
        ' ".png',
        "%41.png",
    ),
    *("A.png", "a.png", "a.jpg", "a.jpg.png", "a", "É.png", unicodedata.normalize("NFD", "É.png"), "\x1b[31m.png"),
    *("[red]x[/red].png", "x" * 251 + ".png", "x" * 253 + ".b", "y" * 255, "猫" * 85, "__metadata__", "a.b/c.png"),
    *("d/" * 20 + "deep.png", "f", "f.png/g.png", "ends.", "ends. ", "\udcff.png", "\\xff.png"),
]


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("target", ["codes", "codes.safetensors"])
def test_every_name_comes_back(target: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = VQVAE(lexel.FiniteScalarQuantizer([256, 256, 256]), hidden_channels=4, residual_layers=0, downsampling=1)
    model = model.eval()
    for seed, name in enumerate(NAMES):
        source = tmp_path / "in" / name
        source.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(seed)).save(source, format="PNG")
    encoded = lexel.tokens.encode(model, tmp_path / "in", tmp_path / target)
    assert not encoded.skipped
    assert encoded.examples == len(NAMES)
    read = lexel.tokens.open(tmp_path / target)
    lexel.tokens.decode(model, read, tmp_path / "out")

    written = sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert len(written) == len(NAMES)
    targets = file_names(read.names, ".png")
    for name, item in zip(read.names, read, strict=True):
        expected = (model.decode(item["indices"][None], (8, 8))[0] * 255).round().byte().movedim(0, -1).numpy()
        with Image.open(tmp_path / "out" / targets[name]) as image:
            assert np.array_equal(np.array(image), expected)
    for name in ("12:30.png", "A.png", "a\\b.png", "a\nb.png", "猫" * 83 + ".png"):
        assert (tmp_path / "out" / name).is_file()


def test_only_names_that_would_meet_are_changed() -> None:
    given = ["a/photo.jpg", "a/photo.webp", "b/photo.jpg", "other.jpg", "kept.png"]
    assert file_names(given, ".png") == {
        "a/photo.jpg": "a/photo.jpg.png",
        "a/photo.webp": "a/photo.webp.png",
        "b/photo.jpg": "b/photo.png",
        "other.jpg": "other.png",
        "kept.png": "kept.png",
    }


def test_names_that_one_file_would_have_are_told_apart() -> None:
    names = ["A.png", "a.png", "b.png"]
    assert file_names(names, ".png") == {name: name for name in names}
    folded = file_names(names, ".png", same=str.lower)
    assert folded["b.png"] == "b.png"
    assert len({target.lower() for target in folded.values()}) == 3


words = st.text(st.sampled_from("ab.A猫"), min_size=1, max_size=4).filter(lambda word: not word.startswith("."))
paths = st.builds(
    lambda parts, suffix: "/".join(parts) + suffix,
    st.lists(words, min_size=1, max_size=3),
    st.sampled_from(["", ".png", ".jpg", ".png.png", ".2.png"]),
)


@given(st.sets(paths, max_size=12), st.sampled_from([str, str.lower]))
def test_targets_are_others_for_all_names_and_none_is_a_folder_of_another(names: set[str], same: object) -> None:
    targets = file_names(names, ".png", same=same)
    files = {same(target) for target in targets.values()}
    assert len(files) == len(targets) == len(names)
    for name, target in targets.items():
        assert target.endswith(".png")
        assert PurePosixPath(target).parent == PurePosixPath(name).parent
        assert not {same(str(folder)) for folder in PurePosixPath(target).parents} & files
        assert max(len(os.fsencode(part)) for part in PurePosixPath(target).parts) <= 255
