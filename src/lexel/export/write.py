"""The folder that an export writes: two graphs, and a JSON file that says what they take and return."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lexel._core.files import refuse_existing, remove_halves, written_beside
from lexel._core.locks import locked
from lexel.export.convert import Verdict, convert
from lexel.models import Autoencoder

__all__ = ["Exported", "export", "write_files"]

FACTS = "export.json"


@dataclass(frozen=True)
class Exported:
    """What an export has written.

    Attributes:
        files: their sizes in bytes, by name.
        verdicts: of each model; None where onnxruntime is not installed.
    """

    files: Mapping[str, int]
    verdicts: Sequence[Verdict | None]


def export(model: Autoencoder, out: Path, *, overwrite: bool = False) -> Exported:
    """Write a model as `encoder.onnx`, `decoder.onnx` and `export.json`, which `lexel.export.convert` returns.

    All or nothing is written, and `export.json` last.

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
    graphs = convert(model)
    files = {f"{name}.onnx": content for name, content in graphs.content.items()}
    files[FACTS] = (json.dumps(graphs.facts, indent=2, ensure_ascii=False) + "\n").encode()
    return Exported(write_files(files, out, overwrite=overwrite), [graphs.verdict])


def write_files(files: Mapping[str, bytes], out: Path, *, overwrite: bool, stale: Iterable[str] = ()) -> dict[str, int]:
    """Write files into a folder, all or none, the last of them last; return their sizes.

    Args:
        files: what they hold, by name.
        out: the folder.
        overwrite: replace what exists.
        stale: names of files that an earlier export may have left, which go, up to the first that does not exist.

    Raises:
        FileExistsError: one of them exists, and `overwrite` is not set.
        BlockingIOError: another process exports into the folder.
        OSError: the folder cannot be written.
    """
    with locked(out, "exports"):
        remove_halves(out, files)
        with ExitStack() as stack:
            for name in files:
                refuse_existing(out / name, overwrite=overwrite, folder=False)
            for name, content in reversed(list(files.items())):  # what is opened first is moved to its place last
                stack.enter_context(written_beside(out / name)).write_bytes(content)
        for name in stale:  # while it is locked: another export may write such a file next
            if not (out / name).exists():
                break
            (out / name).unlink()
    return {name: len(content) for name, content in files.items()}
