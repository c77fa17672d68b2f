"""Results appear whole or not at all, and names stay in their folder."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from lexel._core.files import inside, refuse_existing, remove_halves, require_file, written_beside


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "answer"
    target.write_text("before")
    disk_full = OSError("no space left")

    def write() -> None:
        with written_beside(target) as temporary:
            temporary.write_text("half of")
            raise disk_full

    with pytest.raises(OSError, match="no space left"):
        write()
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_result_replaces_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "answer"
    for text in ("first", "second"):
        with written_beside(target) as temporary:
            temporary.write_text(text)
        assert target.read_text() == text
    assert list(target.parent.iterdir()) == [target]


BAD_NAMES = [
    *("../a.png", "a/../../b.png", "a/../b", "/etc/a.png", "//host/a", "", ".", "..", "a\0b", "a/.."),
    *("./", "./x", ".//x", "a/./b", "a//b", "a/", "a/.", "/"),
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no plain path below the output folder"):
        inside(Path("out"), name)


@pytest.mark.parametrize(
    "name",
    ["...", ".hidden/..a", "a/\n", "猫/a b..c.png", "12:30.png", "a\\b", "a\n.png", "-rf", "~", "*?.png", "x" * 255],
)
def test_other_names_are_kept(tmp_path: Path, name: str) -> None:
    target = inside(tmp_path, name)
    assert target == tmp_path / name
    with written_beside(target) as temporary:
        temporary.write_text("42")
    assert target.read_text() == "42"


@pytest.mark.parametrize("name", ["..\\..\\a", "C:/a", "C:a", "a:stream", "\\\\host\\share"])
def test_on_windows_a_name_cannot_say_more_than_on_other_systems(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = PureWindowsPath("C:\\out")
    monkeypatch.setattr("os.name", "nt")
    target = inside(folder, name)  # type: ignore[arg-type]
    monkeypatch.undo()
    assert target.parts[:2] == folder.parts
    assert len(target.parts) == 2 + len(PurePosixPath(name).parts)
    assert ":" not in "".join(target.parts[1:])


def test_a_result_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    target, other = tmp_path / "target", tmp_path / "other"
    other.touch()
    with written_beside(target) as temporary:
        temporary.write_text("whole")
        temporary.chmod(0o600)
    assert target.stat().st_mode == other.stat().st_mode


def test_a_kill_in_the_middle_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "answer"
    target.write_text("before")
    program = (
        "import os, signal, sys; from pathlib import Path; from lexel._core.files import written_beside\n"
        "with written_beside(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half of'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ran = subprocess.run([sys.executable, "-c", program, str(target)], check=False, timeout=60)
    assert ran.returncode == -signal.SIGKILL
    assert target.read_text() == "before"
    with written_beside(tmp_path / "another") as temporary:  # another process writes another file
        remove_halves(tmp_path, {"answer", "question"})
        assert temporary.exists()
        temporary.write_text("42")
    assert {path.name for path in tmp_path.iterdir()} == {"answer", "another"}


def test_an_error_names_the_result_and_no_temporary_path(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()

    def write(target: Path, error: OSError | None = None) -> None:
        with written_beside(target) as temporary:
            temporary.touch()
            if error is not None:
                raise error

    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as `write` raises it: without a name
    for target, error in ((tmp_path / "folder", None), (tmp_path / "file/below", None), (tmp_path / "new", full)):
        with pytest.raises(OSError) as raised:  # noqa: PT011
            write(target, error)
        assert str(target).startswith(str(raised.value.filename))
        assert raised.value.errno is not None
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "file"}


@pytest.mark.parametrize(
    ("place", "folder", "said"),
    [
        ("folder", False, "is a folder"),
        ("file", True, "is a file"),
        ("pipe", False, "pipe or a device"),
        ("file/below", None, "Not a directory"),
        ("file/far/below", None, "Not a directory"),
    ],
)
def test_a_place_where_no_result_can_be_is_known_before_the_work(
    place: str, folder: bool | None, said: str, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=said):
        refuse_existing(tmp_path / place, overwrite=True, folder=folder)
    for fine in ("file", "new", "new/deep/below"):
        refuse_existing(tmp_path / fine, overwrite=True, folder=False)
    for fine in ("folder", "new", "new/deep/below"):
        refuse_existing(tmp_path / fine, overwrite=True, folder=True)


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    for place in ("pipe", "link", "none", "."):
        with pytest.raises((ValueError, FileNotFoundError), match=str(tmp_path)):
            require_file(tmp_path / place)
