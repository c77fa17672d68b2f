"""The file from which a run goes on: how it is written whole, and how damage is found."""

from __future__ import annotations

import copy
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor, nn
from typing_extensions import override

from lexel._core.errors import blamed_on, reason_of
from lexel._core.files import require_file, written_beside
from lexel._core.pickles import check_names

__all__ = ["WholeCheckpoints", "read_checkpoint", "weights"]

ARCHIVE = b"PK\x03\x04"  # how a zip archive begins


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint whole before it replaces the one before; checks its checksums, and reads it without code."""

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside the old checkpoint, then rename.

        Raises:
            OSError: it cannot be written.
        """
        # Through a file of Python's, whose errors say that a disk is full, in place or behind one of torch's.
        with written_beside(Path(path)) as temporary, temporary.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                behind = error.__context__
                while behind is not None and not isinstance(behind, OSError):
                    behind = behind.__context__
                raise behind or OSError(f"{path} cannot be written: {reason_of(error)}") from error

    @override
    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Load tensors and plain data; anything else is an error.

        Raises:
            ValueError: the file is damaged or is not a checkpoint.
        """
        require_file(Path(path))
        with blamed_on(path, "is not a checkpoint of a run, or is damaged"):
            # torch.load does not look at the checksums that torch.save writes.
            with Path(path).open("rb") as file:
                if file.read(len(ARCHIVE)) != ARCHIVE:  # zipfile would look further on
                    raise ValueError("it does not begin as one")
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"{damaged} is damaged")
            check_names(path)
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            missing = {"state_dict", "global_step", "config", "window", "loops", "optimizer_states"} - content.keys()
            if missing:
                raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        return content


def read_checkpoint(path: Path, model: nn.Module) -> dict[str, Any]:
    """Read a checkpoint that belongs to a model. Nothing in it can run code.

    Raises:
        ValueError: the file is damaged, is not a checkpoint, or belongs to a model of another architecture.
    """
    content = WholeCheckpoints().load_checkpoint(path)
    state = weights(content)
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if shapes != expected and not _loads(model, state):
        different = sorted(name for name in shapes.keys() | expected.keys() if shapes.get(name) != expected.get(name))
        raise ValueError(f"{path} belongs to a model of another architecture; it differs in {', '.join(different[:5])}")
    return content


def _loads(model: nn.Module, state: dict[str, Tensor]) -> bool:
    """Whether a model takes a state of other names, as its parts wrote it in earlier versions. It stays as it is."""
    try:
        copy.deepcopy(model).load_state_dict(state)
    except RuntimeError:
        return False
    return True


def weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state of the model in a checkpoint."""
    return {name.removeprefix("model."): value for name, value in checkpoint["state_dict"].items()}
