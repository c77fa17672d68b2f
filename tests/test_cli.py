"""The command line as its users meet it: one line for every mistake."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

import lexel
from lexel._core import console
from lexel.cli import main
from lexel.cli.common import print_evaluation
from lexel.training.evaluate import Evaluation
from tests import processes
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
        out = tmp_path / "codes.safetensors"
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
            (["train", "DATA", "--devices", "cpu"], "devices: expected int or auto, got cpu"),
            (["train", "DATA", "--precision", "bf16"], "expected 32-true or bf16-mixed or 16-mixed, got bf16"),
            (
                ["train", "DATA", "--quantizer", "lexel.FiniteScalarQuantizer", "--quantizer.levels", "8,5,5"],
                "levels: expected a list, as [8, 5, 5], got 8,5,5",
            ),
            (["train", "DATA", "--model", ""], "model: expected the name of a class, got an empty text"),
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


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--devices", "0", "devices must be auto or at least 1, got 0"),
        ("--seed", str(1 << 64), f"seed must be an integer of 64 bits, got {1 << 64}"),
        ("--batch-size", str(10**12), "batch_size must be above 0 and at most 1,048,576, got 1000000000000"),
        ("--steps", str(1 << 63), "steps must be above 0 and at most 1,099,511,627,776"),
        ("--crop", str(1 << 40), "crop must be from 1 to 32,768, got 1099511627776"),
        ("--device", "meta", "device must be auto, or one of cpu, cuda, mps, xpu"),
        ("--device", "cpu:1", "there is one CPU"),
        ("--validation", "", "validation must be a path"),
        ("--quantizer.num-embeddings", str(10**12), "num_embeddings 1000000000000, embedding_dim 4"),
        ("--model.hidden-channels", str(10**10), "hidden_channels 10000000000"),
        ("--model.downsampling", str(1 << 40), "downsampling must be at most 1024"),
    ],
)
def test_an_option_beyond_its_range_is_named(
    option: str, value: str, said: str, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(["train", photographs, "--out", tmp_path / "run", *TINY, option, value], capsys)
    assert not (tmp_path / "run").exists()


def test_the_first_cpu_is_the_cpu(photographs: Path, tmp_path: Path) -> None:
    assert train(photographs, tmp_path / "run", "--device", "cpu:0", steps=1) == 0


def test_a_place_for_no_result_is_refused_before_a_model_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    nowhere = tmp_path / "nowhere"  # a model that is not there would be the next complaint
    for place in ("file/below", "file/far/below"):
        for command in (["encode", nowhere, "d"], ["decode", nowhere, "t"], ["report", nowhere]):
            said = refused([*command, "--out", tmp_path / place, "--overwrite"], capsys)
            assert "Not a directory" in said
    assert "is a folder" in refused(["report", nowhere, "--out", tmp_path / "folder", "--overwrite"], capsys)
    assert "is a file" in refused(["decode", nowhere, "t", "--out", tmp_path / "file", "--overwrite"], capsys)
    assert (tmp_path / "file").read_text() == "mine"


def test_json_has_null_for_a_figure_that_there_is_not(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "tiny.png")  # SSIM needs more pixels
    assert main(["evaluate", str(run), str(tmp_path), "--json"]) == 0

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    assert json.loads(capsys.readouterr().out, parse_constant=refuse)["ssim"] is None


def test_a_narrow_terminal_cuts_no_figure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.results, "_width", 20)
    figures = {"psnr": 31.25, "ssim": 0.9876, "l1": 0.0123}
    print_evaluation(Evaluation("images", 123456, figures, 1234.5, 1024, 16384, 0.0625, 0.0512, {}))
    printed = "".join(line.split("│")[2].strip() for line in capsys.readouterr().out.splitlines() if "│" in line)
    assert printed == "12345631.25dB0.98760.01231234.51,024of16,384(6.2%)0.06250.0512"


def test_settings_of_a_preset_are_shown_like_those_of_a_class(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["train", "--quantizer.help", "lexel.presets.dac"])
    assert exit_.value.code == 0
    assert "--quantizer.num-quantizers" in capsys.readouterr().out


def test_a_home_that_cannot_be_written_is_not_spoken_of(run: Path, tmp_path: Path) -> None:
    (tmp_path / "home").touch()  # no folder: root could write into any
    environment = {**os.environ, "HOME": str(tmp_path / "home")}
    environment = {name: value for name, value in environment.items() if not name.startswith(("XDG_", "MPL"))}
    command = [sys.executable, "-m", "lexel", "evaluate", str(run), str(tmp_path / "none")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert ran.stderr.count("\n") == 1, ran.stderr


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
        ran = processes.run(["lexel", *words], check=False)
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
    """Importing lexel loads none of the packages that the extras bring, and works where there is no numpy."""
    extras = ("lightning", "jsonargparse", "rich", "huggingface_hub", "safetensors", "datasets", "PIL", "torchmetrics")
    start = "import sys; sys.modules['numpy'] = None; import lexel"
    program = f"{start}; print([name for name in {extras} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert ran.stdout.strip() == "[]"
