"""What `lexel export` writes, run by onnxruntime alone, does what the model does."""

from __future__ import annotations

import builtins
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

import lexel
from lexel.cli import main
from lexel.export import export
from lexel.models import VQVAE, VQVAE2, Autoencoder, VectorAutoencoder

pytestmark = pytest.mark.usefixtures("_traced_once")

SMALL = {"hidden_channels": 8, "residual_channels": 4, "residual_layers": 1}


def vq() -> lexel.VectorQuantizer:
    return lexel.VectorQuantizer(16, 4)


MODELS: dict[str, Callable[[], Autoencoder]] = {
    "the default": lambda: VQVAE(lexel.presets.default(64, 4), **SMALL),
    "2^62 codes, resized": lambda: VQVAE(lexel.FiniteScalarQuantizer([4] * 31), upsampling="resize", **SMALL),
    "VQ-VAE-2, transparent": lambda: VQVAE2([vq(), vq()], image_channels=4, **SMALL),
    "several scales": lambda: VQVAE(lexel.MultiScaleResidualQuantizer(vq(), [1, 2, 4], convolutions=1), **SMALL),
    "residual, grey": lambda: VQVAE(lexel.ResidualQuantizer([vq(), vq()]), image_channels=1, **SMALL),
    "RQ-VAE of directions": lambda: VectorAutoencoder(
        lexel.ResidualQuantizer([vq(), vq()]), dim=12, hidden_channels=[8], unit=True
    ),
    "a beam": lambda: VectorAutoencoder(lexel.ResidualQuantizer([vq(), vq()]), beam_size=3),
}


def trained(name: str) -> Autoencoder:
    """A model whose codes lie where its latents lie, so that its indices differ."""
    torch.manual_seed(0)
    model = MODELS[name]()
    if model.kind == "vectors":
        examples = torch.randn(64, model.dim)
    else:
        channels, size = model.image_channels, model.image_size
        examples = photographs(channels)[0][None] if size is None else torch.rand(8, channels, *size)
    for level in model.train().quantize(examples):
        for part in (module for module in model.modules() if isinstance(module, lexel.VectorQuantizer)):
            if part.embedding_dim == level.latents.shape[1]:
                rows = level.latents.detach().movedim(1, -1).flatten(0, -2)
                part.load_codes(rows[torch.randperm(len(rows))[: part.num_embeddings]] * 0.95)
    return model.eval()


def photographs(channels: int = 3) -> list[Tensor]:
    """Photographs of several sizes, most of which the models must pad."""
    from skimage import data

    found = [torch.from_numpy(np.asarray(image)).movedim(-1, 0) / 255 for image in (data.astronaut(), data.coffee())]
    sizes = ((256, 256), (400, 599), (37, 250), (64, 64), (5, 9), (1, 1))
    which = torch.arange(channels) % 3
    return [found[place % 2][which, :height, :width] for place, (height, width) in enumerate(sizes)]


class Runtime:
    """What somebody has who has the folder alone."""

    def __init__(self, folder: Path) -> None:
        self.facts = json.loads((folder / "export.json").read_text())
        for way in ("encoder", "decoder"):
            content = (folder / self.facts[way]["file"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == self.facts[way]["sha256"]
            setattr(self, way, onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]))

    def run(self, way: str, *inputs: Tensor) -> Tensor:
        names = [port["name"] for port in self.facts[way]["inputs"]]
        feed = {name: value.numpy() for name, value in zip(names, inputs, strict=False)}
        (output,) = self.facts[way]["outputs"]
        return torch.from_numpy(getattr(self, way).run([output["name"]], feed)[0])


@pytest.mark.parametrize("name", MODELS)
def test_examples_become_the_models_indices_and_examples_again(name: str, tmp_path: Path) -> None:
    model = trained(name)
    written = export(model, tmp_path / "onnx")
    (verdict,) = written.verdicts
    assert verdict is not None
    assert verdict.equal == verdict.indices
    runtime = Runtime(tmp_path / "onnx")
    assert runtime.facts["codebook_sizes"] == list(model.codebook_sizes)
    if model.kind == "images":
        size = model.image_size
        channels = model.image_channels
        batches = [image[None] for image in photographs(channels)] if size is None else [torch.rand(3, channels, *size)]
    else:
        batches = [torch.randn(count, model.dim) for count in (300, 1)]
    used = set()
    for batch in batches:
        indices, size = model.encode(batch), tuple(batch.shape[2:])
        used |= set(indices.flatten().tolist())
        assert torch.equal(runtime.run("encoder", batch), indices)
        decoded = runtime.run("decoder", indices, *map(torch.tensor, size))
        with torch.no_grad():
            torch.testing.assert_close(decoded, model.decode(indices, size or None), rtol=1e-4, atol=1e-5)
    assert len(used) > 3


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run, out = tmp_path / "run", tmp_path / "run" / "onnx"
    VectorAutoencoder(vq()).eval().save_pretrained(run / "model")
    assert main(["export", str(run)]) == 0
    printed = capsys.readouterr()
    assert "4 of 4 indices are the model's" in printed.out
    assert not printed.err
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(before) == {"encoder.onnx", "decoder.onnx", "export.json"}

    (out / ".lexel.killed").mkdir()
    (out / ".lexel.killed/encoder.onnx").touch()
    assert main(["export", str(run)]) == 2
    assert "exists; give --overwrite" in capsys.readouterr().err
    assert main(["export", str(run / "model"), "--out", str(tmp_path / "other")]) == 0
    assert {path.name for path in (tmp_path / "other").iterdir()} == set(before)

    real = builtins.__import__

    def without(name: str, *args: object, **kwargs: object) -> object:
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["export", str(run), "--overwrite"]) == 0
    assert "onnxruntime is not installed" in capsys.readouterr().err
    assert not (out / ".lexel.killed").exists()
    monkeypatch.undo()

    before = {path.name: path.read_bytes() for path in out.iterdir()}
    weights = run / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-3])
    assert main(["export", str(run), "--overwrite"]) == 2
    assert str(run) in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_what_cannot_be_exported_leaves_nothing(tmp_path: Path) -> None:
    class Branching(lexel.RowQuantizer):
        def quantize_rows(self, z: Tensor, valid: Tensor | None) -> lexel.Choice:
            if z.sum() > 0:
                z = -z
            return lexel.Choice(torch.zeros_like(z[:, 0], dtype=torch.int64), z)

        def lookup_rows(self, indices: Tensor) -> Tensor:
            return indices.unsqueeze(1).float()

    with pytest.raises(ValueError, match="VectorAutoencoder with Branching cannot be exported to ONNX"):
        export(VectorAutoencoder(Branching(2, 1)).eval(), tmp_path / "onnx")
    assert not any(tmp_path.iterdir())


def test_graphs_that_compute_something_else_are_refused(tmp_path: Path) -> None:
    class Forgetful(VectorAutoencoder):
        """Computes something else once it is exported."""

        def latents(self, vectors: Tensor) -> Tensor:
            return -vectors if torch.compiler.is_compiling() else vectors

    with pytest.raises(ValueError, match=r"compute something else than the model: [\d,]+ of [\d,]+ indices"):
        export(Forgetful(vq()).eval(), tmp_path / "onnx")
    assert not any(tmp_path.iterdir())
