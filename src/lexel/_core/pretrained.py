"""The two files of a saved model, its settings and its weights, and the checksums by which damage is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from lexel._core.checksums import digest

__all__ = ["CONFIG", "WEIGHTS", "load_weights", "save_model"]

WEIGHTS, CONFIG = "model.safetensors", "config.json"
# The entry of the weights' metadata with checksums. One entry: the format does not keep the order of several, and the
# same model shall make the same file.
CHECKSUMS = "lexel.sha256"


def save_model(folder: Path, model: nn.Module, config: Mapping[str, Any]) -> None:
    """Write the settings and the weights of a model into a folder, with a checksum of each."""
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    (folder / CONFIG).write_text(json.dumps(config, sort_keys=True, indent=2))
    checksums = {"weights": digest(weights), "config": _digest_of(config)}
    save_file(weights, folder / WEIGHTS, {CHECKSUMS: json.dumps(checksums)})


def load_weights(path: Path, model: nn.Module, device: str = "cpu") -> None:
    """Load the weights of a model that was built from the settings beside them, and check both against the checksums.

    Raises:
        ValueError: the file is damaged or holds the weights of another model, or the settings are not those that it
            was written with.
    """
    try:
        with safe_open(path, "pt", device=device) as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        model.load_state_dict(weights)
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold the weights of this model: {error}") from error
    if CHECKSUMS not in metadata:  # files that something else wrote have none
        return
    checksums = json.loads(metadata[CHECKSUMS])
    if checksums["weights"] != digest(weights):
        raise ValueError(f"{path} is damaged: its checksum is not that of its weights")
    config = path.with_name(CONFIG)
    if config.is_file() and checksums["config"] != _digest_of(json.loads(config.read_text(encoding="utf-8"))):
        raise ValueError(f"{config} is damaged or was changed: it is not the one that {path} was written with")


def _digest_of(config: Any) -> str:
    return digest({}, {"config": json.dumps(config, sort_keys=True)})
