"""A model as two graphs of ONNX that do what it does, and what there is to say about them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

import lexel
from lexel.export.graphs import OPSET, Way, ways
from lexel.models import Autoencoder
from lexel.tokens.facts import facts_of

__all__ = ["DECODER", "ENCODER", "Graphs", "Verdict", "convert"]

ENCODER, DECODER = "encoder", "decoder"
MOST_BYTES = (1 << 31) - 1  # of one message of protobuf
LEAST_EQUAL = 0.99  # of the indices; rounding moves some latents across a border, a wrong graph moves most
LARGEST_DIFFERENCE = 1e-3  # of what is decoded, relative to its largest number


@dataclass(frozen=True)
class Verdict:
    """How the two graphs, run by onnxruntime, compare with the model.

    Attributes:
        examples: how many were encoded and decoded.
        indices: how many indices they have.
        equal: how many of these are the model's.
        largest_difference: of a number that both decode from the model's indices, relative to the largest of all.
    """

    examples: int
    indices: int
    equal: int
    largest_difference: float


@dataclass(frozen=True)
class Graphs:
    """A model in ONNX.

    Attributes:
        content: the bytes of its `"encoder"` and its `"decoder"`.
        facts: what is known of both, as JSON can hold it.
        verdict: None where onnxruntime is not installed.
    """

    content: Mapping[str, bytes]
    facts: Mapping[str, Any]
    verdict: Verdict | None


def convert(model: Autoencoder) -> Graphs:
    """Return a model as two graphs, which have been compared with it.

    The encoder computes what `model.encode` does. Given the same latents it chooses the same codes, near ties included;
    the latents themselves are those of another implementation of convolutions, equal to float32 rounding. The decoder
    computes what `model.decode` does.

    Args:
        model: in eval mode, on the CPU.

    Raises:
        ValueError: the model cannot be exported, or onnxruntime computes something else than the model.
    """
    both = dict(zip((ENCODER, DECODER), ways(model), strict=True))
    content = {name: _bytes(model, way) for name, way in both.items()}
    verdict = _verify(model, both[ENCODER], content)
    facts = {
        "lexel": lexel.__version__,
        "opset": OPSET,
        "class_path": model.config["class_path"],
        **facts_of(model).as_json(),
        **{name: _facts_of(way, content[name], name) for name, way in both.items()},
        "verdict": None if verdict is None else asdict(verdict),
    }
    return Graphs(content, facts, verdict)


def _bytes(model: Autoencoder, way: Way) -> bytes:
    name = f"{type(model).__name__} with {type(model.quantizers[0]).__name__}"
    try:
        graph = way.to_onnx()
    except ValueError as error:
        raise ValueError(f"{name} {error}") from error
    if graph.ByteSize() > MOST_BYTES:
        raise ValueError(f"{name} cannot be exported to ONNX: its {graph.ByteSize():,} bytes do not fit into one file")
    content: bytes = graph.SerializeToString()
    return content


def _facts_of(way: Way, content: bytes, name: str) -> dict[str, Any]:
    return {
        "file": f"{name}.onnx",
        "sha256": hashlib.sha256(content).hexdigest(),
        "inputs": [asdict(port) for port in way.inputs],
        "outputs": [asdict(way.output)],
    }


@torch.no_grad()
def _verify(model: Autoencoder, encoder: Way, content: Mapping[str, bytes]) -> Verdict | None:
    """Compare the graphs with the model on noise of several sizes, smooth and rough.

    Raises:
        ValueError: they compute something else.
    """
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    runs = {
        name: onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        for name, graph in content.items()
    }

    def run(name: str, *inputs: Tensor) -> Tensor:
        names = [node.name for node in runs[name].get_inputs()]
        found = runs[name].run(None, {key: value.numpy() for key, value in zip(names, inputs, strict=False)})
        return torch.from_numpy(found[0])

    examples = count = equal = 0
    difference = 0.0
    for batch in encoder.trials():
        size = tuple(batch.shape[2:])
        expected, found = model.encode(batch), run(ENCODER, batch)
        decoded = model.decode(expected, size) if size else model.decode(expected)
        again = run(DECODER, expected, *(torch.tensor(side) for side in size))
        if found.shape != expected.shape or again.shape != decoded.shape:
            raise ValueError(
                f"the exported graphs return {tuple(found.shape)} and {tuple(again.shape)} for {tuple(batch.shape)}, "
                f"the model {tuple(expected.shape)} and {tuple(decoded.shape)}"
            )
        examples, count = examples + len(batch), count + expected.numel()
        equal += int((found == expected).sum())
        largest = max(float(decoded.abs().max()), 1e-30)
        difference = max(difference, float((again - decoded).abs().max()) / largest)
    verdict = Verdict(examples, count, equal, difference)
    if equal < LEAST_EQUAL * count or not difference <= LARGEST_DIFFERENCE:
        raise ValueError(
            f"the exported graphs compute something else than the model: {equal:,} of {count:,} indices are equal, "
            f"and decoded numbers differ by up to {difference:.1e}"
        )
    return verdict
