"""Training runs: what they leave, and that they come to the same end however they are interrupted."""

from __future__ import annotations

import csv
import json
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import lexel
from lexel.cli import main
from lexel.data import examples
from lexel.models import VQVAE
from lexel.runs import RunFolder, load_model
from lexel.training.checkpoint import read_checkpoint, weights
from lexel.training.evaluate import evaluate
from lexel.training.reconstruction import ReconstructionTask
from lexel.training.settings import Settings
from tests import processes
from tests.commands import TINY, refused, train
from tests.training.kills import QUANTIZERS, differences, killed, resumed, words

USAGE = ("usage", "perplexity", "dead_codes", "bits_per_code", "distortion")


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
        assert load_model(tmp_path / "run").quantizer.learning.settings == lexel.EMA(decay=0.5)

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
        config = lexel.presets.default(16, 4).config
        config["init_args"]["quantizer"]["init_args"]["rate"] = 0.0  # which examples are dropped differs by rank
        options = [*TINY[: TINY.index("--quantizer.num-embeddings")], "--quantizer", json.dumps(config)]
        command = ["lexel", "train", photographs, *options, "--steps", "4", "--devices"]
        for devices in (1, 2):
            processes.run([*command, devices, "--out", tmp_path / str(devices)])
        weights = [load_file(tmp_path / name / "model/model.safetensors") for name in ("1", "2")]
        torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)
        metrics = []
        for name in ("1", "2"):
            with (tmp_path / name / "metrics.csv").open() as file:
                metrics.append([[float(row[name]) for name in USAGE] for row in csv.DictReader(file)])
        np.testing.assert_allclose(*metrics, rtol=1e-2)


def stopped(run: Path, data: Path, steps: int, step: int, *options: str) -> None:
    """Train with Ctrl-C in the middle of a step."""
    training_step, calls = ReconstructionTask.training_step, []

    def interrupted(task: ReconstructionTask, images: torch.Tensor, index: int) -> torch.Tensor:
        calls.append(1)
        if len(calls) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return training_step(task, images, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReconstructionTask, "training_step", interrupted)
        code = main(["resume", str(run)]) if run.exists() else train(data, run, *options, steps=steps)
    assert code == 128 + signal.SIGINT


class TestWhatARunTells:
    def test_resumes_from_another_folder(
        self, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(photographs, tmp_path / "here/data")
        monkeypatch.chdir(tmp_path / "here")
        assert train(Path("data"), Path("run"), steps=2) == 0
        monkeypatch.chdir(tmp_path)
        assert main(["resume", "here/run", "--steps", "3"]) == 0

    def test_names_stand_for_themselves_in_the_terminal(
        self, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "exp[lr=0.1] [red]\x1b[31m"
        assert train(photographs, out, steps=1) == 0
        printed = capsys.readouterr().out
        assert "exp[lr=0.1] [red]\\x1b[31m" in printed
        assert "\x1b" not in printed
        assert "psnr" in printed

    def test_validation_has_its_curve(self, photographs: Path, tmp_path: Path) -> None:
        out = tmp_path / "run"
        options = ["--validation", str(photographs), "--save-every", "3"]
        assert train(photographs, out, *options, steps=7) == 0
        with (out / "metrics.csv").open() as file:
            rows = {int(row["step"]): row["validation_psnr"] for row in csv.DictReader(file)}
        assert list(rows) == [1, 2, 3, 5, 6]
        assert [step for step, value in rows.items() if value] == [2, 5, 6]
        last = evaluate(load_model(out), photographs)
        assert float(rows[6]) == pytest.approx(last.figures["psnr"], rel=1e-5)
        events = EventAccumulator(str(out / "tensorboard")).Reload()
        assert "validation_psnr" in events.Tags()["scalars"]
        assert events.Tags()["images"] == ["originals above reconstructions"]

    def test_files_are_those_of_any_program(self, run: Path, tmp_path: Path) -> None:
        (tmp_path / "any").touch()
        for path in (path for path in run.rglob("*") if path.is_file()):
            assert path.stat().st_mode == (tmp_path / "any").stat().st_mode, path

    def test_a_run_that_is_taken_for_its_model(self, run: Path) -> None:
        with pytest.raises(ValueError, match="folder of a run: give that of its model"):
            VQVAE.from_pretrained(run)


class TestInterruption:
    @pytest.mark.parametrize("quantizer", QUANTIZERS)
    @pytest.mark.parametrize("workers", ["0", "1"])
    def test_a_run_that_was_stopped_comes_to_the_same_end_to_the_bit(
        self, quantizer: str, workers: str, photographs: Path, tmp_path: Path
    ) -> None:
        options = ["--quantizer", json.dumps(QUANTIZERS[quantizer].config), "--workers", workers]
        whole, interrupted = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "stopped")
        assert train(photographs, whole.path, *options, steps=11) == 0
        for number in (1, 3, 4):
            stopped(interrupted.path, photographs, 11, number, *options)
        assert torch.load(interrupted.checkpoint, weights_only=True)["global_step"] == 8
        assert main(["resume", str(interrupted.path)]) == 0
        assert differences(whole, interrupted) == []

    @pytest.mark.parametrize(("quantizer", "devices", "save_every"), [("gumbel", 1, 1), ("dropout", 2, 5)])
    def test_a_run_that_was_killed_comes_to_the_same_end_to_the_bit(
        self, quantizer: str, devices: int, save_every: int, photographs: Path, tmp_path: Path
    ) -> None:
        """Processes of their own; `python -m tests.training.kills 50` does this many times more."""
        whole, struck = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed")
        options = ["--devices", devices, "--workers", 1]
        processes.run(words(photographs, whole.path, quantizer, 40, *options))
        command = words(photographs, struck.path, quantizer, 40, *options, "--save-every", save_every)
        codes = []
        for number in (signal.SIGKILL, signal.SIGTERM):
            codes.append(killed(command, number, 0.1, struck, from_first_step=True))
            command = resumed(struck, command)
        assert codes[0] == -signal.SIGKILL
        assert codes[1] in (None, 128 + signal.SIGTERM)
        processes.run(command)
        assert differences(whole, struck) == []

    def test_sigterm_stops_with_everything_written_and_says_how_to_go_on(
        self, photographs: Path, tmp_path: Path
    ) -> None:
        run = RunFolder(tmp_path / "a run")
        process = processes.Started(words(photographs, run.path, "default", 100_000))
        deadline = time.monotonic() + 120
        while not run.metrics.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.terminate()
        try:
            printed, _ = process.communicate(timeout=120)
        finally:
            process.kill()
        assert process.returncode == 128 + signal.SIGTERM
        assert f"lexel resume '{run.path}'" in printed
        assert load_model(run.path).encode(torch.rand(1, 3, 16, 16)).shape == (1, 4, 4)
        assert torch.load(run.checkpoint, weights_only=True)["global_step"] > 0

    def test_killed_between_the_checkpoint_and_the_model_a_run_gets_its_model(self, run: Path, tmp_path: Path) -> None:
        copy = RunFolder(tmp_path / "run")
        shutil.copytree(run, copy.path)
        shutil.rmtree(copy.model)
        assert main(["resume", str(copy.path)]) == 0
        assert differences(RunFolder(run), copy) == []

    def test_killed_before_the_first_checkpoint_a_run_starts_again(self, run: Path, tmp_path: Path) -> None:
        copy = RunFolder(tmp_path / "run")
        shutil.copytree(run, copy.path)
        shutil.rmtree(copy.model)
        copy.checkpoint.unlink()
        assert main(["resume", str(copy.path)]) == 0
        assert differences(RunFolder(run), copy) == []

    def test_more_steps_go_on_from_the_end(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        copy = RunFolder(tmp_path / "run")
        shutil.copytree(run, copy.path)
        assert main(["resume", str(copy.path), "--steps", "8"]) == 0
        assert torch.load(copy.checkpoint, weights_only=True)["global_step"] == 8
        assert "steps: 8" in copy.config.read_text()
        assert "at step 8 already" in refused(["resume", copy.path, "--steps", 7], capsys)

    def test_other_settings_than_it_began_with_are_refused(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        copy = RunFolder(tmp_path / "run")
        shutil.copytree(run, copy.path)
        config = copy.config.read_text()
        for before, now in (("learning_rate: 0.001", "learning_rate: 0.003"), ("steps: 6", "steps: 7")):
            copy.config.write_text(config.replace(before, now))
            assert f"{now}, but the run began with" in refused(["resume", copy.path], capsys)


class TestFolder:
    def test_what_no_run_wrote_is_never_removed(
        self, photographs: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        own = {"config.yaml": "mine", "report.html": "mine", "model/thesis.txt": "mine", "samples/a.png": "mine"}
        folder = tmp_path / "thesis"
        for name, text in own.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        message = refused(["train", photographs, "--out", folder, "--steps", 1, *TINY, "--overwrite"], capsys)
        assert "config.yaml, model, samples, which no run wrote" in message

        shutil.copytree(run, tmp_path / "run")
        del own["config.yaml"]
        for name, text in own.items():
            (tmp_path / "run" / name).write_text(text)
        assert train(photographs, tmp_path / "run", "--overwrite", steps=1) == 0
        for folder in (tmp_path / "thesis", tmp_path / "run"):
            assert all((folder / name).read_text() == text for name, text in own.items())
        assert not (tmp_path / "run/samples/step-0000006.png").exists()

    @pytest.mark.parametrize(
        "options",
        [
            ["--workers", "-1"],
            ["--device", "abacus"],
            [
                "--quantizer",
                json.dumps(lexel.presets.var((1, 2, 3, 5), embedding_dim=4).config),
            ],  # refuses maps of 4 × 4
        ],
        ids=["setting", "device", "first step"],
    )
    def test_a_start_that_fails_removes_nothing_and_leaves_nothing(
        self, options: list[str], photographs: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shutil.copytree(run, tmp_path / "run")
        before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
        command = ["train", photographs, "--steps", 2, *TINY, *options]
        refused([*command, "--out", tmp_path / "run", "--overwrite"], capsys)
        assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
        refused([*command, "--out", tmp_path / "new"], capsys)
        assert not (tmp_path / "new").exists()

    def test_two_runs_cannot_write_into_one_folder(
        self, photographs: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        copy = tmp_path / "run"
        shutil.copytree(run, copy)
        with RunFolder(copy).locked():
            for command in (["resume", copy], ["train", photographs, "--out", copy, *TINY, "--overwrite"]):
                assert f"{copy} is in use" in refused(command, capsys)
        assert main(["resume", str(copy)]) == 0
        assert not (copy / ".lock").exists()


class TestCheckpoint:
    @pytest.mark.parametrize("place", range(0, 100, 3))
    def test_a_flipped_byte_is_an_error_or_changes_nothing(self, place: int, run: Path, tmp_path: Path) -> None:
        content = bytearray((run / "last.ckpt").read_bytes())
        content[len(content) * place // 100] ^= 1 << place % 8
        (tmp_path / "last.ckpt").write_bytes(content)
        model = load_model(run)
        good = read_checkpoint(run / "last.ckpt", model)
        try:
            found = read_checkpoint(tmp_path / "last.ckpt", model)
        except ValueError as error:
            assert "damaged" in str(error)  # noqa: PT017
        else:
            for name, value in weights(good).items():
                assert torch.equal(weights(found)[name], value)

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


class TestFullDisk:
    """The error names a file, what was whole is whole, and the run goes on to the same end when there is room again."""

    @pytest.mark.parametrize("room", [0, 1_000, 5_000, 20_000])
    def test_no_file_may_grow_beyond_a_size(
        self, room: int, run: Path, further: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        copy = RunFolder(tmp_path / "run")
        shutil.copytree(run, copy.path)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        try:
            assert main(["resume", str(copy.path), "--steps", "8"]) == 2
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        printed = capsys.readouterr().err
        assert printed.splitlines()[-1].startswith(f"lexel: {copy.path}"), printed
        assert "Traceback" not in printed
        assert load_model(copy.path)
        assert main(["resume", str(copy.path), "--steps", "8"]) == 0
        assert differences(further, copy) == []

    def test_a_file_system_that_is_full(self, run: Path, further: RunFolder, tmp_path: Path) -> None:
        (tmp_path / "disk").mkdir()
        program = f"""
            mount -t tmpfs -o size=$(($(du -sk {run} | cut -f 1) + 24))k none {tmp_path}/disk || exit 77
            cp -r {run} {tmp_path}/disk/run
            {sys.executable} -m lexel resume {tmp_path}/disk/run --steps 8; echo code $?
            cmp {run}/last.ckpt {tmp_path}/disk/run/last.ckpt && echo whole
            mount -o remount,size=64m {tmp_path}/disk
            {sys.executable} -m lexel resume {tmp_path}/disk/run --steps 8; echo code $?
            cp -r {tmp_path}/disk/run {tmp_path}/run
        """
        ran = subprocess.run(
            ["unshare", "--map-root-user", "--mount", "sh", "-c", program],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        if ran.returncode in (1, 77) and "code" not in ran.stdout:
            pytest.skip("this machine lets nobody mount a small disk")
        assert "code 2\nwhole\n" in ran.stdout, ran.stderr
        assert ran.stdout.endswith("code 0\n"), ran.stderr
        assert "Traceback" not in ran.stderr
        assert "No space left on device" in ran.stderr
        assert differences(further, RunFolder(tmp_path / "run")) == []


@pytest.fixture(scope="module")
def further(run: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The same run, two steps further, on a disk with room."""
    found = RunFolder(tmp_path_factory.mktemp("further") / "run")
    shutil.copytree(run, found.path)
    assert main(["resume", str(found.path), "--steps", "8"]) == 0
    return found


class _Harmful:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


class TestData:
    def test_a_run_in_its_data_comes_to_the_same_end(
        self, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ends = []
        for name in ("whole", "stopped"):
            shutil.copytree(photographs, tmp_path / name)
            monkeypatch.chdir(tmp_path / name)
            ends.append(RunFolder(tmp_path / name / "run"))
            options = ["--save-every", "2"]
            if name == "whole":
                assert train(Path(), Path("run"), *options, steps=7) == 0
            else:
                stopped(Path("run"), Path(), 7, 3, *options)
                assert main(["resume", "run"]) == 0
        assert differences(*ends) == []

    def test_a_run_cannot_be_its_own_data(
        self, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shutil.copytree(photographs, tmp_path / "data")
        command = ["train", tmp_path / "data", "--out", tmp_path / "data", *TINY, "--overwrite"]
        assert "is the folder of data" in refused(command, capsys)

    def test_resume_notices_other_data(
        self, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        data, run = tmp_path / "data", RunFolder(tmp_path / "run")
        shutil.copytree(photographs, data)
        assert train(data, run.path, steps=2) == 0
        before = run.checkpoint.read_bytes()
        (data / "coffee.webp").rename(data / "tea.webp")
        assert "had 4 examples, now 4 of other names" in refused(["resume", run.path, "--steps", 3], capsys)
        shutil.copy(data / "tea.webp", data / "coffee.webp")
        assert "had 4 examples, now 5" in refused(["resume", run.path, "--steps", 3], capsys)
        assert run.checkpoint.read_bytes() == before
        content = torch.load(run.checkpoint, weights_only=True)
        del content["data"]  # as earlier versions wrote it
        torch.save(content, run.checkpoint)
        assert main(["resume", str(run.path), "--steps", "3"]) == 0

    def test_validation_that_is_gone_does_not_end_the_run(
        self, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        held_out, run = tmp_path / "held-out", RunFolder(tmp_path / "run")
        shutil.copytree(photographs, held_out)
        monkeypatch.setattr(examples, "CACHE_BYTES", 0)
        training_step = ReconstructionTask.training_step

        def vanishing(task: ReconstructionTask, images: torch.Tensor, index: int) -> torch.Tensor:
            if task.global_step == 3:
                shutil.rmtree(held_out)
            return training_step(task, images, index)

        monkeypatch.setattr(ReconstructionTask, "training_step", vanishing)
        assert train(photographs, run.path, "--validation", str(held_out), "--save-every", "2", steps=6) == 0
        with run.metrics.open() as file:
            known = {int(row["step"]): bool(row["validation_psnr"]) for row in csv.DictReader(file)}
        assert known == {1: True, 3: False, 5: False}
        assert f"--validation {held_out}: no readable image" in capsys.readouterr().err.replace("\n", "")
        assert torch.load(run.checkpoint, weights_only=True)["global_step"] == 6


@pytest.mark.parametrize("precision", get_args(get_type_hints(Settings)["precision"]))
def test_every_precision_trains_or_says_what_it_needs(
    precision: str, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--precision", precision, "--device", "cpu"]
    if precision == "16-mixed":
        command = ["train", photographs, "--out", tmp_path / "run", *TINY, *options]
        assert "needs an accelerator" in refused(command, capsys)
    else:
        assert train(photographs, tmp_path / "run", *options, steps=2) == 0
        assert load_model(tmp_path / "run").encode(torch.rand(1, 3, 16, 16)).shape == (1, 4, 4)


def test_training_that_diverges_says_so(photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "train",
        photographs,
        "--out",
        tmp_path / "run",
        "--steps",
        5,
        *TINY,
        "--learning-rate",
        "1000",
        "--log-every",
        9,
    ]
    assert re.search(r"diverged at step \d+: lower --learning-rate, which is 1000", refused(command, capsys))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_terminal_that_closes_or_a_scheduler_stops_a_run_with_everything_written(
    number: int, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training_step = ReconstructionTask.training_step

    def interrupted(task: ReconstructionTask, images: torch.Tensor, index: int) -> torch.Tensor:
        os.kill(os.getpid(), number)
        return training_step(task, images, index)

    monkeypatch.setattr(ReconstructionTask, "training_step", interrupted)
    before = signal.signal(number, signal.SIG_DFL)  # the tests may themselves run under nohup
    try:
        assert train(photographs, tmp_path / "run", steps=3) == 128 + number
    finally:
        signal.signal(number, before)
    assert torch.load(tmp_path / "run/last.ckpt", weights_only=True)["global_step"] == 1
    monkeypatch.undo()
    assert main(["resume", str(tmp_path / "run")]) == 0


def test_nohup_is_meant(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        training_step = ReconstructionTask.training_step

        def hung_up(task: ReconstructionTask, images: torch.Tensor, index: int) -> torch.Tensor:
            os.kill(os.getpid(), signal.SIGHUP)
            return training_step(task, images, index)

        monkeypatch.setattr(ReconstructionTask, "training_step", hung_up)
        assert train(photographs, tmp_path / "run", steps=2) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


class TestWhatIsMissingOrDamaged:
    @pytest.fixture
    def copy(self, run: Path, tmp_path: Path) -> RunFolder:
        shutil.copytree(run, tmp_path / "copy")
        return RunFolder(tmp_path / "copy")

    def test_a_checkpoint_that_is_missing_does_not_cost_the_model(
        self, copy: RunFolder, capsys: pytest.CaptureFixture[str]
    ) -> None:
        copy.checkpoint.unlink()
        before = {path: path.read_bytes() for path in copy.path.rglob("*") if path.is_file()}
        assert f"{copy.checkpoint} is missing" in refused(["resume", copy.path], capsys)
        shutil.rmtree(copy.model)
        config = copy.config.read_text().replace("save_every: 1000", "save_every: 2")
        copy.config.write_text(config)
        assert f"{copy.checkpoint} is missing" in refused(["resume", copy.path], capsys)
        after = {path: path.read_bytes() for path in copy.path.rglob("*") if path.is_file()}
        assert after == {path: before[path] for path in after} | {copy.config: config.encode()}

    @pytest.mark.parametrize("name", ["last.ckpt", "metrics.csv", "config.yaml"])
    @pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
    def test_where_a_file_should_be_there_is_something_else(
        self, name: str, kind: str, copy: RunFolder, photographs: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        place = copy.path / name
        place.unlink()
        {"folder": place.mkdir, "pipe": lambda: os.mkfifo(place), "link": lambda: place.symlink_to("nowhere")}[kind]()
        commands = (["resume", copy.path], ["train", photographs, "--out", copy.path, *TINY, "--overwrite"])
        for command in commands if name != "config.yaml" else commands[1:]:
            assert str(place) in refused(command, capsys)
        assert load_model(copy.path)

    def test_bytes_before_a_checkpoint(self, copy: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
        copy.checkpoint.write_bytes(b"x" * 10 + copy.checkpoint.read_bytes())
        said = refused(["resume", copy.path], capsys)
        assert "damaged" in said
        assert "weights_only" not in said

    @pytest.mark.parametrize(
        "damage",
        [
            lambda text: text.replace("step,", "stop,", 1),
            lambda text: text.replace("\n3,", "\nx,", 1),
            lambda text: text.replace("\n3,", "\n" + "3" * 140_000 + ",", 1),
            lambda text: "\x00\x01" * 100,
        ],
        ids=["no step", "a row", "a cell beyond all measure", "no text"],
    )
    def test_damaged_curves_are_kept_aside_with_a_word(
        self, damage: Callable[[str], str], copy: RunFolder, capsys: pytest.CaptureFixture[str]
    ) -> None:
        damaged = damage(copy.metrics.read_text())
        copy.metrics.write_text(damaged)
        assert main(["resume", str(copy.path), "--steps", "8"]) == 0
        assert "metrics.csv is damaged" in capsys.readouterr().err.replace("\n", "")
        assert (copy.path / "metrics.damaged-1.csv").read_text() == damaged
        with copy.metrics.open() as file:
            assert int([*csv.DictReader(file)][-1]["step"]) == 7

    def test_a_spreadsheet_s_mark_is_no_damage(self, copy: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
        copy.metrics.write_bytes(b"\xef\xbb\xbf" + copy.metrics.read_bytes())
        assert main(["resume", str(copy.path), "--steps", "8"]) == 0
        assert "damaged" not in capsys.readouterr().err
        with copy.metrics.open() as file:
            assert [int(row["step"]) for row in csv.DictReader(file)] == [1, 3, 5, 7]
