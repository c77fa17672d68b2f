"""Files that earlier versions wrote are read for ever after: the same settings, the same codes.

Run as a program, `python -m tests.golden.test_golden`, it writes the file of each example that has none. A file that is
there is never written again: whoever changes a format adds a reader for the old one.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import lexel
from tests.quantizers.zoo import ZOO

QUANTIZERS = Path(__file__).parent / "quantizers"
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


if __name__ == "__main__":
    for example in ZOO:
        if not file_of(example).exists():
            write(example)
