"""The two files of a saved model, its settings and its weights, and the checksums by which damage is known."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from typing_extensions import Self, override

from lexel._core.checksums import digest
from lexel._core.errors import blamed_on
from lexel._core.files import require_file

__all__ = ["CONFIG", "WEIGHTS", "Pretrained", "check_config", "load_weights", "save_model"]

WEIGHTS, CONFIG = "model.safetensors", "config.json"
# The entry of the weights' metadata with checksums. One entry: the format does not keep the order of several, and the
# same model shall make the same file.
CHECKSUMS = "lexel.sha256"
DIGEST = re.compile("[0-9a-f]{64}")


class Pretrained(ModelHubMixin):
    """What `save_pretrained` wrote is checked before anything is built from it."""

    @classmethod
    @override
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **settings: Any) -> Self:
        """Load what `save_pretrained` wrote, from a folder or from the hub, in eval mode. No file can run code.

        Args:
            pretrained_model_name_or_path: the folder, or the name on the hub.
            **settings: as for `huggingface_hub.ModelHubMixin.from_pretrained`.

        Raises:
            ValueError: a file is malformed or damaged, or they do not belong together.
        """
        folder = Path(pretrained_model_name_or_path)
        if (folder / CONFIG).is_file():
            check_config(folder)
        model: Self = super().from_pretrained(pretrained_model_name_or_path, **settings)
        return model


def save_model(folder: Path, model: nn.Module, config: Mapping[str, Any]) -> None:
    """Write the settings and the weights of a model into a folder, with a checksum of each."""
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    (folder / CONFIG).write_text(json.dumps(config, sort_keys=True, indent=2))
    checksums = {"weights": digest(weights), "config": _digest_of(config)}
    try:
        save_file(weights, folder / WEIGHTS, {CHECKSUMS: json.dumps(checksums)})
    except SafetensorError as error:
        raise OSError(f"{folder / WEIGHTS} cannot be written: {error}") from error


def check_config(folder: Path) -> None:
    """Check the settings of a model before anything is built from them.

    Raises:
        FileNotFoundError: a file of the model is missing.
        ValueError: a file is damaged, or the settings are not those that the weights were written with.
    """
    config, weights = folder / CONFIG, folder / WEIGHTS
    for path in (config, weights):
        require_file(path)
    with blamed_on(config, "cannot be read"):
        own = _digest_of(json.loads(config.read_text(encoding="utf-8")))
    with blamed_on(weights, "does not hold the weights of this model"), safe_open(weights, "pt") as file:
        checksum = _checksums(file.metadata()).get("config")
    if checksum not in (None, own):
        raise ValueError(f"{config} is damaged or was changed: it is not the one that {weights} was written with")


def load_weights(path: Path, model: nn.Module, device: str = "cpu") -> None:
    """Load the weights of a model that was built from the settings beside them, and check them against the checksum.

    Raises:
        ValueError: the file is damaged or holds the weights of another model.
    """
    require_file(path)
    with blamed_on(path, "does not hold the weights of this model"):
        with safe_open(path, "pt", device=device) as file:
            checksums = _checksums(file.metadata())
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if checksums.get("weights") not in (None, digest(weights)):
            raise ValueError("it is damaged, its checksum is not that of its weights")
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:  # of many lines, the first of which says nothing
            raise ValueError(" ".join(str(error).split())) from error


def _checksums(metadata: dict[str, str] | None) -> dict[str, str]:
    """Return the checksums among the metadata of weights; files that something else wrote have none."""
    metadata = metadata or {}
    if CHECKSUMS in metadata:
        found: dict[str, str] = json.loads(metadata[CHECKSUMS])
        if found.keys() != {"weights", "config"}:
            raise ValueError("it is damaged, it has no checksums of weights and config")
        return found
    if any(DIGEST.search(value) for value in metadata.values()):  # or damage to a name would hide all other damage
        raise ValueError(f"it is damaged, its checksums are not called {CHECKSUMS}")
    return {}


def _digest_of(config: Any) -> str:
    return digest({}, {"config": json.dumps(config, sort_keys=True)})
