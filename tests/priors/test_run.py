"""Runs of priors: what they leave, that they come to the same end, and what they refuse."""

from __future__ import annotations

import csv
import math
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lexel
from lexel import tokens
from lexel.cli import main
from lexel.models import VQVAE
from lexel.priors.codes import simple_codes
from lexel.priors.painter import Painter
from lexel.runs import RunFolder, load_model
from lexel.training.draws import Draws
from tests.commands import refused
from tests.priors.conftest import TINY, train_prior, write
from tests.training.kills import differences, killed, resumed, whole


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


class TestARun:
    def test_leaves_everything_that_it_promises(self, prior: Path, model: Path) -> None:
        assert {path.name for path in prior.iterdir()} == {
            *("config.yaml", "environment.json", "last.ckpt", "metrics.csv", "model", "samples", "tensorboard"),
        }
        files = {str(path.relative_to(prior / "model")) for path in (prior / "model").rglob("*") if path.is_file()}
        own = {"README.md", "config.json", "model.safetensors"}
        assert files == {*own, "tokens.json", *(f"tokenizer/{name}" for name in own)}
        with Image.open(prior / "samples/step-0000080.png") as picture:
            assert len(picture.getcolors(1 << 24)) > 10
        painter = Painter.load(prior)
        assert (painter.shape, painter.size, painter.label_names) == ((2, 3), (5, 9), ("cat", "dog", "owl"))
        kept = painter.model.state_dict()
        assert all(torch.equal(kept[name], value) for name, value in load_model(model).state_dict().items())

    def test_it_learns_and_tells_how_well(self, prior: Path, held_out: Path) -> None:
        found = rows(prior)
        assert [int(row["step"]) for row in found] == list(range(1, 80, 2))
        assert all(bool(row["validation_bits_per_token"]) == ((int(row["step"]) + 1) % 4 == 0) for row in found)
        last = {name: float(value) for name, value in found[-1].items()}
        assert last["validation_bits_per_token"] < 0.6 * last["unigram_bits_per_token"]
        assert last["uniform_bits_per_token"] == 4
        assert 0 < last["unigram_bits_per_token"] < 4.2
        assert last["validation_bits_per_pixel"] == pytest.approx(last["validation_bits_per_token"] * 6 / 45)
        painter, measured = Painter.load(prior), tokens.open(held_out)
        batch = measured.batch(range(len(measured)))
        bits = float(painter.prior.bits(batch["indices"], batch["label"]).mean()) / 6
        assert last["validation_bits_per_token"] == pytest.approx(bits)

    def test_killed_at_any_time_it_comes_to_the_same_end(
        self, model: Path, learnt: Path, held_out: Path, tmp_path: Path
    ) -> None:
        sizes = [*TINY, "--steps", "60", "--workers", "1", "--validation", str(held_out)]
        words = ["lexel", "train-prior", str(model), str(learnt), *sizes]
        whole([*words, "--out", str(tmp_path / "whole"), "--save-every", "12"])
        run = RunFolder(tmp_path / "killed")
        command = original = [*words, "--out", str(run.path), "--save-every", "12"]
        for number, after in ((signal.SIGKILL, 0.4), (signal.SIGTERM, 0.0)):
            if killed(command, number, after, run, from_first_step=True) is None:
                break
            command = resumed(run, original)
        whole(resumed(run, original))
        assert differences(RunFolder(tmp_path / "whole"), run) == []
        for name in ("tokens.json", "tokenizer/model.safetensors"):
            assert (run.model / name).read_bytes() == (tmp_path / "whole/model" / name).read_bytes()

    def test_more_steps_go_on_from_the_end(self, prior: Path, tmp_path: Path) -> None:
        copy = RunFolder(tmp_path / "run")
        shutil.copytree(prior, copy.path)
        assert main(["resume", str(copy.path), "--steps", "84"]) == 0
        assert torch.load(copy.checkpoint, weights_only=True)["global_step"] == 84

    def test_comes_out_the_same_from_its_config(self, model: Path, learnt: Path, tmp_path: Path) -> None:
        assert train_prior(model, learnt, tmp_path / "one") == 0
        assert main(["train-prior", "--config", str(tmp_path / "one/config.yaml"), "--out", str(tmp_path / "two")]) == 0
        assert differences(RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")) == []

    def test_overwrite_leaves_nothing_of_the_run_before(
        self, prior: Path, model: Path, learnt: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(prior, tmp_path / "run")
        assert train_prior(model, learnt, tmp_path / "run", "--overwrite", steps=2) == 0
        assert {path.name for path in (tmp_path / "run/samples").iterdir()} == {"step-0000002.png"}
        assert "validation_bits_per_token" not in rows(tmp_path / "run")[0]

    def test_tokens_without_labels(self, model: Path, tmp_path: Path) -> None:
        learnt = write(model, tmp_path / "tokens", 9, classes=None)
        assert train_prior(model, learnt, tmp_path / "run", steps=2) == 0
        assert Painter.load(tmp_path / "run").prior.num_classes is None

    def test_several_codebooks(self, tmp_path: Path) -> None:
        quantizer = lexel.ResidualQuantizer([lexel.VectorQuantizer(16, 4), lexel.VectorQuantizer(16, 4)])
        VQVAE(quantizer, image_channels=1, hidden_channels=4).save_pretrained(tmp_path / "model")
        learnt = write(tmp_path / "model", tmp_path / "tokens", 9, shape=(2, 3, 2))
        assert train_prior(tmp_path / "model", learnt, tmp_path / "run", steps=2) == 0
        assert Painter.load(tmp_path / "run").paint(3).shape == (3, 1, 5, 9)


class TestRefusals:
    def test_each_is_named_and_leaves_nothing(
        self, model: Path, learnt: Path, held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        torch.manual_seed(1)
        for name, size in (("other", 16), ("smaller", 8)):
            VQVAE(lexel.VectorQuantizer(size, 4), image_channels=1, hidden_channels=4).save_pretrained(tmp_path / name)
        wide = write(model, tmp_path / "wide", 5, (2, 4))
        unlabelled, more = (
            write(model, tmp_path / "plain", 5, classes=None),
            write(model, tmp_path / "more", 9, classes=4),
        )
        cases = [
            ([model, learnt, "--kind", "oracle"], "no kind of prior named 'oracle'; known: causal"),
            ([tmp_path / "other", learnt], "the tokens come from the model with the fingerprint"),
            ([tmp_path / "smaller", learnt], "the tokens come from a quantizer with 16 codes, this model has 8"),
            ([model, learnt, "--validation", wide], "the prior learns the grids [(2, 3)], but there are [(2, 4)]"),
            ([model, learnt, "--validation", unlabelled], "must have labels"),
            ([model, learnt, "--validation", more], "the prior knows 3 classes, but there are labels from 0 to 3"),
            ([model, tmp_path / "nothing"], "no such file or folder"),
            ([model, learnt, "--heads", 3], "heads must divide the width 8, got 3"),
            ([model], "TOKENS is missing"),
            ([model, learnt, "--layers", 10**12], "layers must be from 1 to 1,000, got 1000000000000"),
            ([model, learnt, "--width", 10**12], "width must be from 1 to 65,536, got 1000000000000"),
            ([model, learnt, "--workers", 10**12], "workers must be from 0 to 1,024, got 1000000000000"),
            ([model, learnt, "--learning-rate", 1e38], "learning_rate must be above 0 and at most 1,000"),
        ]
        for words, message in cases:
            options = ["--out", tmp_path / "run", *TINY, "--steps", 2, *words[2:]]
            assert message in refused(["train-prior", *words[:2], *options], capsys)
            assert not (tmp_path / "run").exists()

    def test_grids_of_several_sizes(self, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        facts = tokens.facts_of(load_model(model))
        size = {"height": 5, "width": 9}
        mixed = [tokens.Row(f"{n}.png", size, torch.zeros(2, 3 + n % 2).long().numpy()) for n in range(4)]
        tokens.write_set(tmp_path / "mixed", mixed, facts)
        words = ["train-prior", model, tmp_path / "mixed", "--out", tmp_path / "run"]
        assert "grids of one size, but the tokens have 2, such as [(2, 3)] and [(2, 4)]" in refused(words, capsys)

    def test_classes_of_another_order(
        self, model: Path, learnt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = [tokens.Row("a.png", {"height": 5, "width": 9}, np.zeros((2, 3), np.int64), 0)]
        tokens.write_set(tmp_path / "held-out", rows, tokens.facts_of(load_model(model), ["dog", "cat", "owl"]))
        words = ["train-prior", model, learnt, "--validation", tmp_path / "held-out", "--out", tmp_path / "run", *TINY]
        assert "the prior knows the class 'cat' where these tokens have 'dog'" in refused(words, capsys)

    def test_tokens_that_the_model_cannot_paint(
        self, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name, shape in (("flat", (6,)), ("wide", (2, 4)), ("two", (2, 3, 2))):
            rows = [tokens.Row("a.png", {"height": 5, "width": 9}, np.zeros(shape, np.int64))]
            tokens.write_set(tmp_path / name, rows, tokens.facts_of(load_model(model)))
            words = ["train-prior", model, tmp_path / name, "--out", tmp_path / "run", *TINY]
            assert "'a.png' is no example of this model: of size (5, 9) it has the grids [(2, 3)]" in refused(
                words, capsys
            )

    def test_labels_that_are_no_classes(self, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        rows = [tokens.Row("a.png", {"height": 5, "width": 9}, np.zeros((2, 3), np.int64), 10**12)]
        tokens.write_set(tmp_path / "t", rows, tokens.facts_of(load_model(model), []))
        words = ["train-prior", model, tmp_path / "t", "--out", tmp_path / "run", *TINY]
        assert "but there is 1,000,000,000,000 among 1 examples" in refused(words, capsys)

    def test_other_tokens_than_it_began_with(
        self, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert train_prior(model, write(model, tmp_path / "t", 9), tmp_path / "run", steps=4) == 0
        shutil.rmtree(tmp_path / "t")
        found = tokens.open(write(model, tmp_path / "other", 9))
        changed = found.batch(range(9))["indices"].numpy()
        changed[0, 0, 0] = (changed[0, 0, 0] + 1) % 16
        size = {"height": 5, "width": 9}
        rows = [tokens.Row(name, size, changed[n], int(found.labels[n])) for n, name in enumerate(found.names)]
        tokens.write_set(tmp_path / "t", rows, found.facts)
        assert "did not begin with this data" in refused(["resume", tmp_path / "run", "--steps", 8], capsys)

    def test_other_settings_than_it_began_with(
        self, prior: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        copy = RunFolder(tmp_path / "run")
        shutil.copytree(prior, copy.path)
        copy.config.write_text(copy.config.read_text().replace("width: 8", "width: 16"))
        assert "another architecture" in refused(["resume", copy.path], capsys)

    def test_a_run_of_no_command(self, prior: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        copy = RunFolder(tmp_path / "run")
        shutil.copytree(prior, copy.path)
        copy.environment.write_text(copy.environment.read_text().replace("train-prior", "evaluate"))
        assert "names 'evaluate', which is no command that trains" in refused(["resume", copy.path], capsys)


class TestDraws:
    def test_each_round_has_every_example_once(self, learnt: Path) -> None:
        found = tokens.open(learnt)
        draws = Draws(found, 200, seed=3)
        order = [draws._number(index) for index in range(200)]
        for start in range(0, 200, 40):
            assert sorted(order[start : start + 40]) == list(range(40))
        assert order[:40] != order[40:80]
        again = Draws(found, 200, seed=3)
        assert [again._number(index) for index in (150, 7, 199, 0)] == [order[index] for index in (150, 7, 199, 0)]
        batch = draws.__getitems__([39, 40])
        assert torch.equal(batch["indices"], torch.stack([found[order[index]]["indices"] for index in (39, 40)]))


def test_simple_codes_of_a_source_that_is_known(model: Path, tmp_path: Path) -> None:
    facts = tokens.facts_of(load_model(model))
    grids = [torch.tensor([[0, 0, 0], [0, 1, 1]]).numpy()] * 50
    size = {"height": 5, "width": 9}
    tokens.write_set(tmp_path / "t", [tokens.Row(f"{n}.png", size, grid) for n, grid in enumerate(grids)], facts)
    found = simple_codes(tokens.open(tmp_path / "t"), tokens.open(tmp_path / "t"))
    entropy = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert found["uniform"] == 4
    assert entropy < found["unigram"] < entropy + 0.1
