"""The folder that an export writes: two graphs, and a JSON file that says what they take and return."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import lexel
from lexel._core.files import refuse_existing, written_beside
from lexel._core.locks import locked
from lexel.export.graphs import OPSET, Way, ways
from lexel.models import Autoencoder
from lexel.tokens.facts import facts_of

__all__ = ["DECODER", "ENCODER", "FACTS", "Exported", "Verdict", "export"]

ENCODER, DECODER, FACTS = "encoder.onnx", "decoder.onnx", "export.json"
MOST_BYTES = (1 << 31) - 1  # of one message of protobuf
LEAST_EQUAL = 0.99  # of the indices; rounding moves some latents across a border, a wrong graph moves most
LARGEST_DIFFERENCE = 1e-3  # of what is decoded, relative to its largest number


@dataclass(frozen=True)
class Verdict:
    """How the two files, run by onnxruntime, compare with the model.

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
class Exported:
    """What an export has written.

    Attributes:
        files: their sizes in bytes, by name.
        verdict: None where onnxruntime is not installed.
    """

    files: Mapping[str, int]
    verdict: Verdict | None


def export(model: Autoencoder, out: Path, *, overwrite: bool = False) -> Exported:
    """Write a model as `encoder.onnx`, `decoder.onnx` and `export.json`, and compare the graphs with the model.

    The encoder computes what `model.encode` does. Given the same latents it chooses the same codes, near ties included;
    the latents themselves are those of another implementation of convolutions, equal to float32 rounding. The decoder
    computes what `model.decode` does. All or nothing is written, and `export.json` last.

    Args:
        model: in eval mode, on the CPU.
        out: the folder; created if it is missing.
        overwrite: replace what exists.

    Raises:
        FileExistsError: `out` exists, and `overwrite` is not set.
        ValueError: the model cannot be exported, or onnxruntime computes something else than the model.
        OSError: the folder cannot be written.
    """
    refuse_existing(out, overwrite=overwrite, folder=True)
    both = dict(zip((ENCODER, DECODER), ways(model), strict=True))
    with locked(out, "exports"):
        for name in (ENCODER, DECODER, FACTS):
            refuse_existing(out / name, overwrite=overwrite, folder=False)
        # What is opened first is moved to its place last.
        with (
            written_beside(out / FACTS) as facts,
            written_beside(out / DECODER) as decoder,
            written_beside(out / ENCODER) as encoder,
        ):
            paths = {ENCODER: encoder, DECODER: decoder}
            for name, way in both.items():
                _write(model, way, paths[name])
            verdict = _verify(model, both[ENCODER], paths)
            content = {
                "lexel": lexel.__version__,
                "opset": OPSET,
                "class_path": model.config["class_path"],
                **facts_of(model).as_json(),
                **{Path(name).stem: _facts_of(way, paths[name], name) for name, way in both.items()},
                "verdict": None if verdict is None else asdict(verdict),
            }
            facts.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            sizes = {name: path.stat().st_size for name, path in (*paths.items(), (FACTS, facts))}
    return Exported(sizes, verdict)


def _write(model: Autoencoder, way: Way, path: Path) -> None:
    name = f"{type(model).__name__} with {type(model.quantizers[0]).__name__}"
    try:
        graph = way.to_onnx()
    except ValueError as error:
        raise ValueError(f"{name} {error}") from error
    if graph.ByteSize() > MOST_BYTES:
        raise ValueError(f"{name} cannot be exported to ONNX: its {graph.ByteSize():,} bytes do not fit into one file")
    path.write_bytes(graph.SerializeToString())


def _facts_of(way: Way, path: Path, name: str) -> dict[str, Any]:
    return {
        "file": name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "inputs": [asdict(port) for port in way.inputs],
        "outputs": [asdict(way.output)],
    }


@torch.no_grad()
def _verify(model: Autoencoder, encoder: Way, paths: Mapping[str, Path]) -> Verdict | None:
    """Compare the files with the model on noise of several sizes, smooth and rough.

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
        name: onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        for name, path in paths.items()
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
