"""Samples of a prior as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lexel._core.files import written_beside
from lexel.data.images import save_image
from lexel.priors.painter import Painter

__all__ = ["SHEET", "write_samples"]

SHEET = "contact-sheet.png"
ON_SHEET = 256  # more are not shown on it


def write_samples(
    painter: Painter,
    out: Path,
    count: int,
    *,
    labels: Sequence[str] | None = None,
    seed: int = 0,
    complete: Path | None = None,
    keep: str = "top",
    **how: Any,
) -> Path:
    """Draw examples, and write each into a file, and a contact sheet beside them.

    Args:
        painter: draws them.
        out: the folder to write into; created if it is missing.
        count: how many.
        labels: classes, as `Painter.labels` takes them. Completions have no class unless it is given.
        seed: the same one gives the same files on the same machine.
        complete: a file with one example, of which a part is kept. The sheet then begins with it.
        keep: which part, as `Painter.kept` takes it.
        how: further arguments of `Painter.paint`.

    Returns:
        The path of the contact sheet.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a setting or a label is out of range, or the example has another size.
    """
    first = []
    if not 0 <= seed < 1 << 63:
        raise ValueError(f"seed must be from 0 to 2^63 - 1, got {seed}")
    if complete is not None:
        opened = painter.kind.open(complete, painter.model)
        if len(opened) != 1:
            raise ValueError(f"{complete} holds {len(opened)} {painter.kind.noun}s: give one to complete")
        original = opened.first_readable(range(1))
        how["given"] = painter.kept(original, keep)
        first = [original]
    classes = None if complete is not None and not labels else painter.labels(labels, count)
    examples = painter.paint(count, classes, generator=torch.Generator().manual_seed(seed), **how)
    if (out / SHEET).is_file():  # samples of before are not left between the new ones
        for path in out.glob(f"*{painter.kind.suffix}"):
            if path.stem.isdecimal():
                path.unlink()
    names = [f"{number:0{len(str(count - 1))}d}{painter.kind.suffix}" for number in range(count)]
    with painter.kind.writer(out, names, range(count), overwrite=True) as write:
        for number, example in enumerate(examples):
            write(number, example)
    shown = [*first, *examples[:ON_SHEET]]
    across = int(len(shown) ** 0.5 + 0.999)
    with written_beside(out / SHEET) as temporary:
        save_image(painter.kind.show([shown[column::across] for column in range(across)]), temporary)
    return out / SHEET
