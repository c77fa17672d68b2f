"""State dicts from files. No file can run code."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lexel._core.errors import blamed_on
from lexel._core.pickles import check_names
from lexel.migrate._formats import listed

__all__ = ["read", "tensors_in"]


def read(path: str | PathLike[str]) -> Mapping[str, Any]:
    """Return what a file holds.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: it is a safetensors file, and safetensors is not installed.
        ValueError: it is damaged, as far as its checksums tell (a safetensors file has none), or holds something else
            than a dictionary.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    _check_sums(path)
    with blamed_on(
        path,
        "cannot be read as a checkpoint, and nothing in it was run. Save its state dict alone, where you trust it. "
        "torch says",
    ):
        content = _read_torch(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a state dict")
    return content


def _check_sums(path: Path) -> None:
    """Refuse an archive whose checksums do not fit, which torch would read all the same.

    Raises:
        ValueError: a record is not what it was when it was written.
    """
    with blamed_on(path, "is a damaged archive"):
        if not zipfile.is_zipfile(path):
            return  # a file of a time before archives, or none that torch can read
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(
            f"{path} is damaged: the checksum of {damaged} does not fit (nor would it if the file was saved with "
            "torch.serialization.set_crc32_options(False))"
        )


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError("migrate.load reads safetensors with: pip install 'lexel[models]'") from error
    with blamed_on(path, "is not a sound safetensors file"):
        return safetensors.torch.load_file(path)


class Placeholder:
    """Stands where a checkpoint names a class or function that is no tensor's: it takes anything and does nothing."""

    name = ""

    def __new__(cls, *args: object, **kwargs: object) -> Placeholder:
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _placeholder_for(name: str) -> type[Placeholder]:
    """A class of that full name, under which torch finds it in place of what the checkpoint means."""
    module, _, short = name.rpartition(".")
    return type(short, (Placeholder,), {"__module__": module, "name": name})


def _read_torch(path: Path) -> Any:
    """Read a checkpoint with callbacks, hyperparameters and the like, each thing that is no tensor as a placeholder."""
    check_names(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        if not names:
            raise
        with torch.serialization.safe_globals([_placeholder_for(name) for name in names]):
            return torch.load(path, map_location="cpu", weights_only=True)


def tensors_in(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state dict in a checkpoint.

    Raises:
        ValueError: it holds something else than tensors.
    """
    for name in ("state_dict", "model"):
        if isinstance(content.get(name), Mapping):
            content = content[name]
            break
    for key, value in content.items():
        if isinstance(value, Placeholder):
            raise ValueError(f"migrate.load: {key} is a {value.name} and no tensor; nothing in it was run")
    others = [str(key) for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if others:
        raise ValueError(f"migrate.load: not a state dict, for these are no tensors: {listed(others)}")
    return dict(content)
