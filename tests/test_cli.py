"""The command line as its users meet it: real files, real runs, and one line for every mistake."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import lexel
from lexel.cli import main
from lexel.runs import load_model

TINY = [
    *("--batch-size", "2", "--crop", "16", "--log-every", "2", "--model.hidden-channels", "8"),
    *("--quantizer.num-embeddings", "16", "--quantizer.embedding_dim", "4"),
]

USAGE = ("usage", "perplexity", "dead_codes", "bits_per_code", "distortion")


def train(data: Path, out: Path, *options: str, steps: int = 6) -> int:
    return main(["train", str(data), "--out", str(out), "--steps", str(steps), *TINY, *options])


@pytest.fixture(scope="module")
def run(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    assert train(photographs, out) == 0
    return out


def refused(arguments: Sequence[object], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that a refused command leaves on standard error."""
    capsys.readouterr()
    assert main([str(word) for word in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if not line.startswith("skipped")]
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("lexel: ")
    return lines[0]


class TestARun:
    def test_leaves_everything_that_it_promises(self, run: Path) -> None:
        assert {path.name for path in run.iterdir()} == {
            *("config.yaml", "environment.json", "last.ckpt", "metrics.csv", "model", "samples", "tensorboard"),
        }
        with (run / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [int(row["step"]) for row in rows] == [1, 3, 5]
        assert all(float(row[name]) >= 0 for row in rows for name in ("loss", "psnr", *USAGE))
        assert any((run / "tensorboard").iterdir())
        with Image.open(run / "samples/step-0000006.png") as sample:
            assert len(sample.getcolors(1 << 24)) > 100
        model = load_model(run)
        assert (model.quantizer.num_embeddings, model.quantizer.embedding_dim) == (16, 4)

    def test_comes_out_the_same_from_its_config(self, run: Path, tmp_path: Path) -> None:
        assert main(["train", "--config", str(run / "config.yaml"), "--out", str(tmp_path / "again")]) == 0
        weights = [load_file(folder / "model/model.safetensors") for folder in (run, tmp_path / "again")]
        torch.testing.assert_close(*weights, rtol=0, atol=0)

    def test_options_override_the_config(self, run: Path, tmp_path: Path) -> None:
        out = tmp_path / "other"
        arguments = ["--config", run / "config.yaml", "--out", out, "--quantizer.num_embeddings", 8, "--steps=1"]
        assert main(["train", *map(str, arguments)]) == 0
        assert load_model(out).quantizer.num_embeddings == 8

    def test_takes_any_part_of_a_quantizer_by_name(self, photographs: Path, tmp_path: Path) -> None:
        options = [
            "--quantizer",
            "lexel.VectorQuantizer",
            "--quantizer.num_embeddings=16",
            "--quantizer.embedding_dim=4",
        ]
        options += ["--quantizer.learning", "lexel.EMA", "--quantizer.learning.decay", "0.5"]
        assert train(photographs, tmp_path / "run", *options, steps=1) == 0
        assert load_model(tmp_path / "run").quantizer.learning == lexel.EMA(decay=0.5)

    def test_default_recipe_follows_the_size_of_the_codebook(self, run: Path) -> None:
        assert load_model(run).quantizer.config == lexel.presets.default(16, 4).config

    def test_takes_a_preset_by_name(self, photographs: Path, tmp_path: Path) -> None:
        options = ["--quantizer", "lexel.presets.cosmos"]
        assert train(photographs, tmp_path / "run", *options, steps=1) == 0
        assert load_model(tmp_path / "run").quantizer.config == lexel.presets.cosmos().config

    def test_trains_on_arrays_with_their_own_channels(self, tmp_path: Path) -> None:
        np.save(tmp_path / "grey.npy", np.random.default_rng(0).integers(0, 256, (3, 20, 20)).astype(np.uint8))
        assert train(tmp_path / "grey.npy", tmp_path / "run", "--model.image-channels", "1", steps=1) == 0

    def test_on_two_devices_is_the_run_on_one(self, photographs: Path, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "lexel.cli", "train", photographs, *TINY, "--steps", "4", "--devices"]
        for devices in (1, 2):
            ran = subprocess.run([*command, str(devices), "--out", tmp_path / str(devices)], timeout=300, check=False)
            assert ran.returncode == 0
        weights = [load_file(tmp_path / name / "model/model.safetensors") for name in ("1", "2")]
        torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)
        metrics = []
        for name in ("1", "2"):
            with (tmp_path / name / "metrics.csv").open() as file:
                metrics.append([[float(row[name]) for name in USAGE] for row in csv.DictReader(file)])
        np.testing.assert_allclose(*metrics, rtol=1e-2)


class TestInterruption:
    def test_a_resumed_run_goes_on_like_a_whole_one(self, photographs: Path, tmp_path: Path) -> None:
        """Ctrl-C in a real process, then lexel resume."""
        whole, stopped = tmp_path / "whole", tmp_path / "stopped"
        options = ["--save-every", "1000", "--log-every", "1"]
        assert train(photographs, whole, *options, steps=60) == 0
        command = [sys.executable, "-m", "lexel.cli", "train", photographs, *TINY, *options, "--steps", "60"]
        process = subprocess.Popen([*command, "--out", stopped], stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while not (stopped / "metrics.csv").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        try:
            printed, _ = process.communicate(timeout=120)
        finally:
            process.kill()
        assert process.returncode == 130
        assert f"lexel resume {stopped}" in printed
        assert load_model(stopped).encode(torch.rand(1, 3, 16, 16)).shape == (1, 4, 4)
        step = torch.load(stopped / "last.ckpt", weights_only=True)["global_step"]
        assert 0 < step < 60

        assert main(["resume", str(stopped)]) == 0
        metrics = []
        for folder in (whole, stopped):
            with (folder / "metrics.csv").open() as file:
                rows = [
                    [float(row[name]) for name in ("step", "loss", "psnr", "learning_rate")]
                    for row in csv.DictReader(file)
                ]
            metrics.append(np.array(rows))
        assert list(metrics[1][:, 0]) == list(range(60))
        # Rounding differs between processes, and the choice of codes magnifies it in time: not at once.
        np.testing.assert_allclose(metrics[1][: step + 3], metrics[0][: step + 3], rtol=1e-2)
        np.testing.assert_allclose(metrics[1][:, 3], metrics[0][:, 3])

    def test_a_failed_save_leaves_the_checkpoint_before(self, run: Path, tmp_path: Path) -> None:
        """A real disk that is full: a file system of 1 MiB would need root, a limit on file sizes does not."""
        copy = tmp_path / "run"
        shutil.copytree(run, copy)
        before = (copy / "last.ckpt").read_bytes()
        limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); "
        config = (copy / "config.yaml").read_text().replace("steps: 6", "steps: 8")
        (copy / "config.yaml").write_text(config)
        program = f"{limit}from lexel.cli import main; import sys; sys.exit(main(['resume', {str(copy)!r}]))"
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
        assert ran.returncode != 0
        assert (copy / "last.ckpt").read_bytes() == before
        assert load_model(copy)

    def test_a_checkpoint_of_another_architecture(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        copy = tmp_path / "run"
        shutil.copytree(run, copy)
        config = (copy / "config.yaml").read_text().replace("num_embeddings: 16", "num_embeddings: 32")
        (copy / "config.yaml").write_text(config)
        assert "another architecture" in refused(["resume", copy], capsys)

    def test_a_checkpoint_cannot_run_code(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        copy = tmp_path / "run"
        shutil.copytree(run, copy)
        harm = tmp_path / "harm"
        for save in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))):
            save(_Harmful(harm), copy / "last.ckpt")
            assert "not a checkpoint" in refused(["resume", copy], capsys)
            assert not harm.exists()


class _Harmful:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


class TestEvaluate:
    def test_figures_are_those_of_the_decoded_files(
        self, run: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        main(["encode", str(run), str(photographs), "--out", str(tmp_path / "codes.safetensors")])
        main(["decode", str(run), str(tmp_path / "codes.safetensors"), "--out", str(tmp_path / "images")])
        capsys.readouterr()
        assert main(["evaluate", str(run), str(photographs), "--json"]) == 0
        figures = json.loads(capsys.readouterr().out)

        psnr, l1 = [], []
        for name in ("animals/cats/chelsea.jpg", "coffee.webp", "people/astronaut.png", "people/camera.bmp"):
            pair = photographs / name, (tmp_path / "images" / name).with_suffix(".png")
            original, decoded = (np.array(Image.open(path).convert("RGB")).astype(float) / 255 for path in pair)
            psnr.append(-10 * np.log10(((original - decoded) ** 2).mean()))
            l1.append(np.abs(original - decoded).mean())
        assert figures["images"] == 4
        assert figures["psnr"] == pytest.approx(np.mean(psnr), rel=1e-5)
        assert figures["l1"] == pytest.approx(np.mean(l1), rel=1e-5)

        grids = load_file(tmp_path / "codes.safetensors").values()
        counts = np.bincount(np.concatenate([grid.numpy().ravel() for grid in grids]), minlength=16)
        p = counts[counts > 0] / counts.sum()
        pixels = sum(width * height for width, height in ((97, 90), (113, 75), (75, 50), (66, 66)))
        assert figures["used"] == len(p)
        assert figures["perplexity"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-4)
        assert figures["bits_per_pixel"] == pytest.approx(4 * counts.sum() / pixels)
        entropy = -(p * np.log2(p)).sum() * counts.sum() / pixels
        assert figures["entropy_bits_per_pixel"] == pytest.approx(entropy, rel=1e-4, abs=1e-6)

    def test_prints_a_table(self, run: Path, photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["evaluate", str(run), str(photographs)]) == 0
        printed = capsys.readouterr().out
        for row in ("PSNR", "SSIM", "L1", "perplexity", "codes in use", "bits per pixel"):
            assert row in printed


class TestTokens:
    @pytest.fixture
    def codes(self, run: Path, photographs: Path, tmp_path: Path) -> Path:
        path = tmp_path / "codes.safetensors"
        assert main(["encode", str(run), str(photographs), "--out", str(path)]) == 0
        return path

    def test_decoding_writes_the_same_tree(self, run: Path, photographs: Path, codes: Path, tmp_path: Path) -> None:
        assert main(["decode", str(run), str(codes), "--out", str(tmp_path / "images")]) == 0
        originals = {path.relative_to(photographs).with_suffix("") for path in photographs.rglob("*.*")}
        decoded = {path.relative_to(tmp_path / "images").with_suffix("") for path in (tmp_path / "images").rglob("*.*")}
        assert decoded == originals
        for path in (tmp_path / "images").rglob("*.*"):
            original = next((photographs / path.relative_to(tmp_path / "images")).parent.glob(f"{path.stem}.*"))
            with Image.open(path) as one, Image.open(original) as two:
                assert one.size == two.size

    def test_names_that_differ_only_in_extension_stay_apart(self, run: Path, photographs: Path, tmp_path: Path) -> None:
        with Image.open(photographs / "coffee.webp") as image:
            (tmp_path / "data").mkdir()
            image.save(tmp_path / "data/a.png")
            image.save(tmp_path / "data/a.jpg")
        main(["encode", str(run), str(tmp_path / "data"), "--out", str(tmp_path / "codes")])
        main(["decode", str(run), str(tmp_path / "codes"), "--out", str(tmp_path / "images")])
        assert {path.name for path in (tmp_path / "images").iterdir()} == {"a.png.png", "a.jpg.png"}

    def test_names_that_leave_the_folder_are_refused(
        self, run: Path, codes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("../escaped.png", "/escaped.png"):
            changed = _changed(codes, tmp_path, name=name)
            assert "leaves the output folder" in refused(["decode", run, changed, "--out", tmp_path / "images"], capsys)
            assert not list(tmp_path.rglob("escaped*"))

    @pytest.mark.parametrize("value", [-1, 16])
    def test_indices_out_of_range_are_refused(
        self, run: Path, codes: Path, tmp_path: Path, value: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        changed = _changed(codes, tmp_path, value=value)
        assert "not all in [0, 16)" in refused(["decode", run, changed, "--out", tmp_path / "images"], capsys)

    @pytest.mark.parametrize("sizes", ["[]", "{", '{"coffee.webp": [0, 3]}', "null"])
    def test_malformed_sizes_are_refused(
        self, run: Path, codes: Path, tmp_path: Path, sizes: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        changed = _changed(codes, tmp_path, sizes=sizes)
        assert "not a sound token file" in refused(["decode", run, changed, "--out", tmp_path / "images"], capsys)

    def test_a_size_that_does_not_fit_the_grid(
        self, run: Path, codes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        sizes = {name: [4000, 4000] for name in load_file(codes)}
        changed = _changed(codes, tmp_path, sizes=json.dumps(sizes))
        assert "do not fit this model" in refused(["decode", run, changed, "--out", tmp_path / "images"], capsys)

    @pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"\xff" * 100, pickle.dumps({"a": 1})])
    def test_other_files_are_refused(
        self, run: Path, tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "codes").write_bytes(content)
        message = refused(["decode", run, tmp_path / "codes", "--out", tmp_path / "images"], capsys)
        assert "not a sound token file" in message

    def test_a_model_with_other_codes(
        self, photographs: Path, codes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        train(photographs, tmp_path / "other", "--quantizer.num_embeddings", "8", steps=1)
        message = refused(["decode", tmp_path / "other", codes, "--out", tmp_path / "images"], capsys)
        assert "16 codes, this model has 8" in message


def _changed(
    codes: Path, folder: Path, *, name: str | None = None, value: int | None = None, sizes: str | None = None
) -> Path:
    """Copy a token file with one thing changed."""
    from safetensors import safe_open

    tensors = {key: grid.to(torch.int32) for key, grid in load_file(codes).items()}
    with safe_open(codes, "pt") as file:
        metadata = dict(file.metadata())
    if name is not None:
        metadata["sizes"] = metadata["sizes"].replace("coffee.webp", name)
        tensors[name] = tensors.pop("coffee.webp")
    if value is not None:
        tensors["coffee.webp"][0, 0] = value
    if sizes is not None:
        metadata["sizes"] = sizes
    save_file(tensors, folder / "changed.safetensors", metadata)
    return folder / "changed.safetensors"


class TestAudit:
    def test_tells_every_check_and_ends_with_0_only_when_all_is_well(
        self, run: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        sound = tmp_path / "sound"
        assert train(photographs, sound, "--quantizer.num-embeddings", "64") == 0
        program = (
            f"from lexel.cli import main; import sys; sys.exit(main(['audit', {str(sound)!r}, {str(photographs)!r}]))"
        )
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
        assert "nearest codes " in ran.stdout
        assert "peak grows by" in ran.stdout
        assert ran.stderr == ""
        model = load_model(run)
        with torch.no_grad():
            model.quantizer.codebook.weight[1:] += 1e3
        model.save_pretrained(tmp_path / "collapsed")
        assert main(["audit", str(tmp_path / "collapsed"), str(photographs)]) == 1
        (line,) = (line for line in capsys.readouterr().out.splitlines() if "WRONG" in line)
        assert line.startswith("usage ")
        assert "1 of 16 codes" in line


class TestRefusals:
    def test_data_without_images(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "out"
        for command in (["train"], ["evaluate", run], ["audit", run], ["encode", run]):
            options = [] if command[0] in ("evaluate", "audit") else ["--out", out]
            assert "no images found" in refused([*command, tmp_path, *options], capsys)
            assert "no such file or folder" in refused([*command, tmp_path / "nowhere", *options], capsys)
        assert not out.exists()

    def test_no_such_run(self, tmp_path: Path, photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
        nowhere = tmp_path / "nowhere"
        assert "no model" in refused(["evaluate", nowhere, photographs], capsys)
        assert "not a run" in refused(["resume", nowhere], capsys)
        nowhere.mkdir()
        (nowhere / "config.yaml").write_text("steps: 3")  # as the demo leaves it, which has data of its own
        assert "data in" in refused(["resume", nowhere], capsys)

    def test_what_exists_is_not_overwritten_unless_told_to(
        self, run: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out"
        out.mkdir()
        (out / "precious").write_text("mine")
        codes = tmp_path / "codes"
        main(["encode", str(run), str(photographs), "--out", str(codes)])
        commands = (
            ["train", photographs, "--out", out, "--steps", 1, *TINY],
            ["encode", run, photographs, "--out", codes],
            ["decode", run, codes, "--out", out],
        )
        for command in commands:
            assert "exists; give --overwrite" in refused(command, capsys)
            assert main([*map(str, command), "--overwrite"]) == 0
        assert (out / "precious").read_text() == "mine"

    def test_unreadable_files_are_named_and_with_strict_refused(
        self, photographs: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shutil.copytree(photographs, tmp_path / "data")
        whole = (photographs / "people/astronaut.png").read_bytes()
        (tmp_path / "data/people/astronaut.png").write_bytes(whole[: len(whole) // 2])
        (tmp_path / "data/notes.txt").write_text("none")
        out = tmp_path / "codes"
        assert main(["encode", str(run), str(tmp_path / "data"), "--out", str(out)]) == 0
        assert "skipped 2 unreadable files: notes.txt" in capsys.readouterr().err.replace("\n", " ")
        assert set(load_file(out)) == {"animals/cats/chelsea.jpg", "coffee.webp", "people/camera.bmp"}
        assert "notes.txt cannot be read" in refused(
            ["encode", run, tmp_path / "data", "--out", out, "--overwrite", "--strict"], capsys
        )
        assert train(tmp_path / "data", tmp_path / "run", steps=1) == 0
        assert "people/astronaut.png" in capsys.readouterr().err.replace("\n", "")

    @pytest.mark.parametrize(
        "options",
        [
            ["--steps", "0"],
            ["--learning-rate", "-1"],
            ["--model.downsampling", "3"],
            ["--quantizer.num_embeddings", "0"],
            ["--quantizer", json.dumps(lexel.VectorQuantizer(16, 4).config), "--quantizer.commitment_cost", "-1"],
            ["--batch-size", "3", "--devices", "2"],
        ],
    )
    def test_settings_out_of_range(
        self, photographs: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        refused(["train", photographs, "--out", tmp_path / "out", *TINY, *options], capsys)

    @pytest.mark.parametrize(
        "arguments",
        [
            ["train", "DATA", "--out", "x", "--quantizer", "os.system"],
            ["train", "DATA", "--out", "x", "--quantizer", "lexel.Nothing"],
            ["train", "DATA", "--out", "x", "--steps", "many"],
            ["paint"],
            [],
        ],
    )
    def test_words_that_are_not_of_the_language(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 2
        assert "Traceback" not in capsys.readouterr().err

    def test_debug_shows_where_an_error_came_from(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            main(["evaluate", str(tmp_path / "nowhere"), str(tmp_path), "--debug"])


def test_help_is_quick_to_reach_and_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    printed = capsys.readouterr().out
    for command in ("train", "resume", "evaluate", "audit", "report", "encode", "decode", "demo"):
        assert command in printed


def test_library_needs_torch_alone() -> None:
    """Importing lexel loads none of the packages that the extras bring."""
    extras = ("lightning", "jsonargparse", "rich", "huggingface_hub", "safetensors", "datasets", "PIL", "torchmetrics")
    program = f"import sys, lexel; print([name for name in {extras} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert ran.stdout.strip() == "[]"


def test_demo_draws_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--steps", "2", *TINY]) == 0
    printed = capsys.readouterr().out
    for figure in ("PSNR", "SSIM", "bits per pixel", "perplexity", "codes in use"):
        assert figure in printed
    held_out = {path.name for path in (out / "photographs/held-out").iterdir()}
    assert len(held_out) == 2
    assert held_out.isdisjoint(path.name for path in (out / "photographs/trained-on").iterdir())
    assert str(out / "report.html") in printed.replace("\n", "")
    assert "from “held-out”" in (out / "report.html").read_text()
    for picture in ("reconstructions.png", "tokens.png"):
        assert str(out / picture) in printed.replace("\n", "")
        with Image.open(out / picture) as image:
            assert len(image.getcolors(1 << 24)) > 10


@pytest.mark.parametrize(
    "quantizer",
    [
        ["--quantizer", "lexel.FiniteScalarQuantizer", "--quantizer.levels", "[8,5,5,5]"],
        ["--quantizer", "lexel.LookupFreeQuantizer", "--quantizer.embedding_dim", "40"],
        ["--quantizer", json.dumps(lexel.ResidualQuantizer([lexel.VectorQuantizer(16, 4) for _ in range(2)]).config)],
        ["--quantizer", json.dumps(lexel.ProductQuantizer([lexel.VectorQuantizer(16, 4)], heads=2).config)],
        ["--quantizer", json.dumps(lexel.presets.var((1, 2, 3, 4), embedding_dim=4).config)],
    ],
    ids=["finite scalar", "lookup-free, 2^40", "residual", "product", "multi-scale"],
)
def test_any_quantizer_trains_evaluates_encodes_and_decodes(
    quantizer: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    squares = tmp_path / "squares.npy"  # the multi-scale quantizer takes maps of one size
    np.save(squares, np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8))
    run, codes, images = tmp_path / "run", tmp_path / "codes.safetensors", tmp_path / "images"
    options = ["--steps", "2", "--batch-size", "2", "--crop", "16", "--model.hidden-channels", "8", *quantizer]
    assert main(["train", str(squares), "--out", str(run), *options]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run), str(squares), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert 1 <= figures["perplexity"] <= figures["used"] <= figures["num_embeddings"]
    assert figures["bits_per_pixel"] > 0
    assert main(["encode", str(run), str(squares), "--out", str(codes)]) == 0
    assert main(["decode", str(run), str(codes), "--out", str(images)]) == 0
    assert len(list(images.rglob("*.png"))) == 4
