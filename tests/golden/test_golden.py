"""Files that earlier versions wrote are read for ever after: the same settings, the same codes.

Run as a program, `python -m tests.golden.test_golden`, it writes the file of each example that has none. A file that is
there is never written again: whoever changes a format adds a reader for the old one.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import lexel
import lexel.tokens
from lexel.cli import main
from lexel.runs import load_model
from tests.quantizers.zoo import ZOO

HERE = Path(__file__).parent
QUANTIZERS = HERE / "quantizers"
FILES = sorted(QUANTIZERS.glob("*.safetensors"))


def file_of(name: str) -> Path:
    return QUANTIZERS / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.safetensors"


def write(name: str) -> None:
    """Train an example for three steps, and keep its settings, its state, and what it makes of a few inputs."""
    torch.manual_seed(0)
    quantizer = ZOO[name].make()
    for _ in range(3):
        quantizer(torch.randn(4, quantizer.embedding_dim, 4, 4))
    inputs = torch.randn(2, quantizer.embedding_dim, 4, 4)
    with torch.no_grad():
        output = quantizer.eval()(inputs)
    tensors = {f"state.{key}": value for key, value in quantizer.state_dict().items()}
    tensors |= {"inputs": inputs, "indices": output.indices, "quantized": output.quantized}
    save_file(
        {key: value.contiguous() for key, value in tensors.items()},
        file_of(name),
        {"name": name, "config": json.dumps(quantizer.config)},
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_quantizer_that_was_saved_gives_the_same_codes(path: Path) -> None:
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    quantizer = lexel.from_config(config)
    quantizer.load_state_dict(
        {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}
    )
    with torch.no_grad():
        output = quantizer.eval()(tensors["inputs"])
    assert torch.equal(output.indices, tensors["indices"])
    torch.testing.assert_close(output.quantized, tensors["quantized"])
    torch.testing.assert_close(quantizer.lookup(tensors["indices"]).detach(), tensors["quantized"])


@pytest.mark.parametrize("name", ZOO)
def test_every_example_has_its_file(name: str) -> None:
    assert file_of(name) in FILES, "python -m tests.golden.test_golden writes it"


class TestTheRun:
    """A run of six steps on two pictures, the codes that its model made of them, and what it made of the codes."""

    @pytest.mark.parametrize("name", ["tokens.safetensors", "tokens"])
    def test_its_model_and_its_codes(self, name: str, tmp_path: Path) -> None:
        model, tokens = load_model(HERE / "run"), lexel.tokens.open(HERE / name)
        assert (model.quantizer.num_embeddings, len(tokens)) == (16, 2)
        lexel.tokens.decode(model, tokens, tmp_path / "images")
        for path in (HERE / "decoded").iterdir():
            with Image.open(path) as expected, Image.open(tmp_path / "images" / path.name) as found:
                difference = np.asarray(found).astype(int) - np.asarray(expected).astype(int)
            assert np.abs(difference).max() <= 1, path.name
        lexel.tokens.encode(model, HERE / "pictures", tmp_path / "again.safetensors")
        again = lexel.tokens.open(tmp_path / "again.safetensors")
        assert again.names == tokens.names
        same = torch.cat([(a["indices"] == b["indices"]).flatten() for a, b in zip(again, tokens, strict=True)])
        assert same.double().mean() > 0.97  # another processor may round a near tie the other way

    def test_it_goes_on(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        shutil.copytree(HERE / "run", run)
        config = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(config.replace("/photographs", str(HERE / "pictures")))
        assert main(["resume", str(run), "--steps", "8"]) == 0
        with (run / "metrics.csv").open() as file:
            assert [int(row["step"]) for row in csv.DictReader(file)] == [1, 3, 5, 7]


if __name__ == "__main__":
    for example in ZOO:
        if not file_of(example).exists():
            write(example)
