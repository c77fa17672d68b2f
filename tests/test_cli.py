"""The command line as its users meet it: one line for every mistake."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import lexel
from lexel.cli import main
from tests.commands import TINY, refused, train


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

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["train", "DATA", "--batch-sise", "3"], "--batch-sise 3; did you mean --batch-size?"),
            (["train", "DATA", "--quantizer", "lexel.VectorQuantiser"], "did you mean lexel.VectorQuantizer?"),
            (["train", "DATA", "--quantizer.num-embedings", "3"], "did you mean num-embeddings?"),
            (["train", "DATA", "--steps", "many"], "steps: expected int, got many"),
        ],
    )
    def test_a_typo_gets_one_line_and_a_hint(
        self, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            main(arguments)
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("lexel: ")
        assert said in line

    @pytest.mark.parametrize("content", [b"\xff\xfe", b"[1, 2", b"steps: many", b"stepz: 3", b"a: " * 3000, None])
    def test_a_file_of_settings_that_cannot_be_read_is_named(
        self, content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = tmp_path / "my.yaml"
        if content is not None:
            config.write_bytes(content)
        with pytest.raises(SystemExit) as exit_:
            main(["train", "DATA", "--config", str(config)])
        assert exit_.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "my.yaml" in line or "step" in line


def test_help_shows_the_size_of_the_default_codebook_and_every_preset(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    printed = capsys.readouterr().out
    assert "'num_embeddings': 512" in " ".join(printed.split())
    assert "--batch-size" in printed
    assert not re.search(r"--\w+_", printed)
    for name in lexel.presets.__all__:
        assert f"lexel.presets.{name}" in printed


PARTS = """
import dataclasses

import lexel


@dataclasses.dataclass(frozen=True)
class MyEstimator(lexel.StraightThrough):
    strength: float = 1.0


class MyQuantizer(lexel.VectorQuantizer):
    pass
"""


class TestPlugin:
    """Parts of a stranger's own, in processes of their own: what is imported once stays known."""

    @pytest.fixture
    def parts(self, tmp_path: Path) -> Path:
        path = tmp_path / "my_parts.py"
        path.write_text(PARTS)
        return path

    def lexel(self, *words: object) -> tuple[int, str]:
        command = [sys.executable, "-m", "lexel", *map(str, words)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert "Traceback" not in ran.stderr
        return ran.returncode, ran.stdout + ran.stderr

    def test_trains_and_evaluates_with_parts_of_its_own(self, parts: Path, photographs: Path, tmp_path: Path) -> None:
        run = tmp_path / "run"
        quantizer = ["--quantizer", "my_parts.MyQuantizer", "--quantizer.estimator", "my_parts.MyEstimator"]
        words = ["train", photographs, "--out", run, "--steps", 1, *TINY[:-4], *quantizer]
        sizes = ["--quantizer.num-embeddings", 16, "--quantizer.embedding-dim", 4]
        code, printed = self.lexel(*words, *sizes)
        assert (code, "--plugin" in printed) == (2, True), printed
        code, printed = self.lexel(*words, *sizes, "--quantizer.estimator.strength", 0.5, "--plugin", parts)
        assert code == 0, printed
        assert "strength: 0.5" in (run / "config.yaml").read_text()
        assert "plugin" not in (run / "config.yaml").read_text()

        code, printed = self.lexel("evaluate", run, photographs)
        assert (code, "--plugin" in printed) == (2, True), printed
        code, printed = self.lexel("evaluate", run, photographs, "--plugin", parts)
        assert code == 0, printed
        code, printed = self.lexel("resume", run)
        assert (code, "--plugin" in printed) == (2, True), printed

    def test_no_file_of_settings_can_name_one(
        self, parts: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = tmp_path / "config.yaml"
        config.write_text(f"plugin: {parts}\ndata: {photographs}\nout: {tmp_path / 'run'}\n")
        assert "only the command line can name a plugin" in refused(["train", "--config", config], capsys)
        assert "my_parts" not in sys.modules

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("json.py", "", "name of another module"),
            ("my-parts.py", "", "must have a name"),
            ("parts.txt", "", "must have a name"),
            ("broken.py", "1 +", "SyntaxError"),
            ("raises.py", "raise RuntimeError('no such sensor')", "no such sensor"),
        ],
    )
    def test_what_is_no_plugin_is_refused(
        self, name: str, content: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / name).write_text(content)
        assert said in refused(["evaluate", "run", "data", "--plugin", tmp_path / name], capsys)
        assert "no such plugin" in refused(["evaluate", "run", "data", "--plugin", tmp_path / "none.py"], capsys)


def test_help_is_quick_to_reach_and_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    printed = capsys.readouterr().out
    for command in (
        "train",
        "resume",
        "evaluate",
        "audit",
        "report",
        "encode",
        "decode",
        "compress",
        "decompress",
        "bench",
        "demo",
    ):
        assert command in printed


def test_library_needs_torch_alone() -> None:
    """Importing lexel loads none of the packages that the extras bring."""
    extras = ("lightning", "jsonargparse", "rich", "huggingface_hub", "safetensors", "datasets", "PIL", "torchmetrics")
    program = f"import sys, lexel; print([name for name in {extras} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert ran.stdout.strip() == "[]"
