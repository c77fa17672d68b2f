"""Reading checkpoints: every kind of file, and nothing that runs."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import safetensors.torch
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lexel import migrate

IDENTITY = {"_embedding.weight": torch.eye(4)}


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("model.safetensors", lambda state, path: safetensors.torch.save_file(state, path)),
        ("MODEL.SAFETENSORS", lambda state, path: safetensors.torch.save_file(state, path)),
        ("model.pt", lambda state, path: torch.save(state, path)),
        ("last.ckpt", lambda state, path: torch.save({"epoch": 3, "state_dict": state}, path)),
        ("vq_ds16.pt", lambda state, path: torch.save({"model": state, "steps": 7}, path)),
    ],
)
def test_each_kind(name: str, save: Callable[[dict[str, Tensor], Path], None], tmp_path: Path) -> None:
    save(IDENTITY, tmp_path / name)
    for path in (tmp_path / name, str(tmp_path / name)):
        assert torch.equal(migrate.load(path, commitment_cost=1.0).codebook.weight, torch.eye(4))


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "trapped",)

    torch.save({"_embedding.weight": Trap()}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="nothing in it was run"):
        migrate.load(tmp_path / "model.pt", commitment_cost=1.0)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights", bytes(range(256)) * 9, b"PK\x03\x04" + b"0" * 99])
def test_damaged(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        migrate.load(tmp_path / name, commitment_cost=1.0)


def test_without_safetensors_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    safetensors.torch.save_file(IDENTITY, tmp_path / "model.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"lexel\[models\]"):
        migrate.load(tmp_path / "model.safetensors", commitment_cost=1.0)


def test_absent(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing.pt"):
        migrate.load(tmp_path / "nothing.pt")


class Callback:
    """Something that a trainer saves beside the state dict."""

    def __init__(self, score: float) -> None:
        self.score = score


def test_a_checkpoint_with_callbacks(tmp_path: Path) -> None:
    """Old trainers used classes as keys; both old and new ones save objects of any kind."""
    checkpoint = {
        "state_dict": IDENTITY,
        "callbacks": {Callback: {"best": Callback(0.5), "path": Path("a/b.ckpt")}, "ModelCheckpoint{}": {"k": 1}},
        "hyper_parameters": {"lr": Callback(0.1), "nested": [Callback(1.0)]},
    }
    torch.save(checkpoint, tmp_path / "last.ckpt")
    ours = migrate.load(tmp_path / "last.ckpt", commitment_cost=1.0)
    assert torch.equal(ours.codebook.weight, torch.eye(4))


def test_what_lightning_saves(tmp_path: Path) -> None:
    class Module(lightning.LightningModule):
        def __init__(self, settings: Callback) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.quantize = torch.nn.Module()
            self.quantize.embedding = torch.nn.Embedding(4, 4)

        def training_step(self, batch: Tensor) -> Tensor:
            return self.quantize.embedding(batch).sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters())

    saving = ModelCheckpoint(tmp_path, filename="last", monitor=None)
    trainer = lightning.Trainer(
        max_steps=2, callbacks=[saving], logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    module = Module(Callback(1.0))
    trainer.fit(module, torch.utils.data.DataLoader(torch.arange(8) % 4, batch_size=4))
    ours = migrate.load(tmp_path / "last.ckpt", metric="euclidean", commitment_cost=1.0)
    assert torch.equal(ours.codebook.weight, module.quantize.embedding.weight)


@pytest.mark.parametrize("function", ["Path.touch", "os.system", "builtins.exec"])
def test_nothing_beside_the_state_dict_is_run(function: str, tmp_path: Path) -> None:
    trapped = tmp_path / "trapped"
    call = {
        "Path.touch": (Path.touch, (trapped,)),
        "os.system": (os.system, (f"touch {trapped}",)),
        "builtins.exec": (exec, (f"open({str(trapped)!r}, 'w')",)),
    }[function]

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return call

    torch.save({"state_dict": IDENTITY, "callbacks": {"trap": Trap()}}, tmp_path / "last.ckpt")
    with contextlib.suppress(ValueError):  # what torch refuses by name is refused here too
        migrate.load(tmp_path / "last.ckpt", commitment_cost=1.0)
    assert not trapped.exists()


@pytest.mark.parametrize("beside", [{}, {"callbacks": {Callback: {"best": Callback(0.5)}}}], ids=["plain", "callbacks"])
def test_a_damaged_checkpoint_gives_the_right_codes_or_an_error(beside: dict[str, Any], tmp_path: Path) -> None:
    """Bits are flipped, bytes overwritten, the end is cut off; what remains readable is what was saved."""
    path, codes, draw = tmp_path / "model.pt", torch.randn(16, 4), random.Random(0)
    torch.save({"state_dict": {"_embedding.weight": codes}, **beside}, path)
    whole, refused = path.read_bytes(), 0
    for case in range(150):
        damaged, place = bytearray(whole), draw.randrange(len(whole))
        if case % 3 == 0:
            damaged[place] ^= 1 << draw.randrange(8)
        elif case % 3 == 1:
            damaged[place : place + 16] = draw.randbytes(16)
        else:
            del damaged[place:]
        path.write_bytes(damaged)
        try:
            found = migrate.load(path, commitment_cost=1.0)
        except ValueError:
            refused += 1
        else:
            assert torch.equal(found.codebook.weight, codes)
    assert refused > 100
