"""What is in a folder, whatever it is called and wherever it leads."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest
import torch

from lexel.data.images import open_images
from lexel.data.images.files import walk


@pytest.fixture
def folder(photographs: Path, tmp_path: Path) -> Path:
    shutil.copytree(photographs, tmp_path / "data")
    return tmp_path / "data"


def names(folder: Path) -> list[str]:
    images = open_images(folder)
    return [images.names[index] for index, _ in images.readable(range(len(images)))]


def test_a_linked_folder_is_read(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "animals", tmp_path / "elsewhere")
    (folder / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (folder / "one.png").symlink_to(folder / "people/astronaut.png")
    expected = ["coffee.webp", "link/cats/chelsea.jpg", "one.png", "people/astronaut.png", "people/camera.bmp"]
    assert names(folder) == expected


@pytest.mark.parametrize("target", [".", "..", "people", "animals/cats", "again"])
def test_a_link_to_what_is_read_already_changes_nothing(
    folder: Path, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = names(folder)
    (folder / "0link").symlink_to(target, target_is_directory=True)
    (folder / "again").symlink_to("0link", target_is_directory=True)
    (folder / "animals/up").symlink_to("../..", target_is_directory=True)
    found = names(folder)
    if target == "..":  # the folder above is one more, and holds this one again
        found = [name for name in found if not name.startswith("0link")]
    assert found == before
    if target not in ("..", "again"):
        assert "0link (leads to a folder that is read already)" in capsys.readouterr().err


def test_links_that_lead_nowhere_and_what_is_no_file_are_named(folder: Path) -> None:
    expected = names(folder)
    (folder / "gone.png").symlink_to("nothing")
    (folder / "self.png").symlink_to("self.png")
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(folder / "socket.png"))
    images = open_images(folder)
    assert images.names == expected
    assert images.skipped.keys() == {"gone.png", "self.png", "pipe.png", "socket.png"}
    with pytest.raises(ValueError, match="cannot be read: "):
        images.check(range(len(images)), strict=True)
    with pytest.raises(ValueError, match="neither a file nor a folder"):
        open_images(folder / "pipe.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_named(folder: Path) -> None:
    (folder / "people").chmod(0)
    try:
        assert open_images(folder).skipped == {"people": "Permission denied"}
    finally:
        (folder / "people").chmod(0o700)


def test_a_folder_that_cannot_be_listed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "people":
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", refuse)
    images = open_images(folder)
    assert images.skipped == {"people": "Permission denied"}
    assert images.names == ["animals/cats/chelsea.jpg", "coffee.webp"]


def test_names_do_not_have_to_say_what_a_file_is(folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for number, file in enumerate(sorted(folder.rglob("*.*"))):
        shutil.copy(file, bare / str(number))
    (bare / "notes").write_text("not an image")
    assert names(bare) == ["0", "1", "2", "3"]
    assert torch.equal(open_images(bare / "0").read(0), open_images(folder).read(0))


def test_hidden_files_and_folders_are_left_out(folder: Path) -> None:
    expected = names(folder)
    shutil.copytree(folder / "people", folder / ".hidden")
    shutil.copy(folder / "coffee.webp", folder / ".coffee.webp")
    assert names(folder) == expected
    assert open_images(folder).names == expected


def test_bytes_that_are_not_unicode_have_a_name(tmp_path: Path, photographs: Path) -> None:
    for name in (b"caf\xe9.webp", b"caf\\xe9.webp", b"caf\xff.webp"):
        shutil.copy(photographs / "coffee.webp", os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    found = names(tmp_path)
    assert len(set(found)) == 3
    assert all(name.encode() for name in found)


def test_a_long_way_down(tmp_path: Path) -> None:
    deep = tmp_path / Path(*["d"] * 500)
    deep.mkdir(parents=True)
    (deep / "a").touch()
    assert len(walk(tmp_path).files) == 1


def test_the_folders_of_runs_and_tokens_are_left_out(folder: Path, run: Path) -> None:
    before = names(folder)
    for tokens, name in (("deep/tokens", "_tokens.json"), ("deep/unfinished", "_progress.jsonl")):
        (folder / tokens).mkdir(parents=True)
        (folder / tokens / name).touch()
    shutil.copytree(run, folder / "deep/run")
    (folder / "people/environment.json").write_text('{"PATH": "/bin"}')  # of something else
    (folder / "people/environment.json").rename(folder / "environment.json")
    found = open_images(folder)
    assert [name for name in found.names if name.endswith((".png", ".jpg", ".bmp", ".webp"))] == before
    assert not any("deep" in name for name in found.names)
    assert walk(folder).remarks == {
        "deep/run": "the folder of a run",
        "deep/tokens": "a set of tokens",
        "deep/unfinished": "a set of tokens",
    }
    assert len(open_images(folder / "deep/run/samples")) > 0
