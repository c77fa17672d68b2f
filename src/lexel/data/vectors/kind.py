"""Vectors as a kind of data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from lexel._core.files import refuse_existing
from lexel.data.kind import Figure, Kind
from lexel.data.pictures import columns as drawn, heat_map
from lexel.data.tables import USUAL, Columns
from lexel.data.vectors.open import Vectors, open_vectors
from lexel.data.vectors.write import WRITERS

__all__ = ["KIND"]

STRIP = 12  # pixels, the height of the strip that shows a vector
WIDTH = 256  # pixels, the least width


class VectorKind(Kind):
    """Vectors: float32 `(D,)` each."""

    name = "vectors"
    noun = "vector"
    unit = "vector"
    suffix = ".npy"
    extents = ()
    endings = tuple(WRITERS)
    batch_size = 256
    has_ids = True
    figures = MappingProxyType(
        {
            "squared_error": Figure("squared error", "{:.5g}"),
            "relative_error": Figure("squared error ÷ squared length", "{:.4f}"),
            "cosine": Figure("cosine", "{:.4f}"),
        }
    )

    @override
    def open(self, data: str | Path, model: Any, columns: Columns = USUAL) -> Vectors:
        return open_vectors(data, model.dim, columns=columns, unit=model.unit)

    @override
    def decode(self, content: Any, model: Any) -> Tensor:
        numbers = np.asarray(content)
        if numbers.dtype.kind not in "fiu" or numbers.shape != (model.dim,):
            raise ValueError(
                f"a vector must be {model.dim} numbers, got {type(content).__name__} of {numbers.dtype} and shape "
                f"{numbers.shape}"
            )
        vector = torch.from_numpy(numbers.astype(np.float32))
        if not vector.isfinite().all():
            raise ValueError(f"a vector must be finite, the number {int((~vector.isfinite()).int().argmax())} is not")
        return vector

    @override
    def extent(self, example: Tensor) -> dict[str, int]:
        return {}

    @override
    def inputs(self, examples: Tensor) -> Tensor:
        return examples

    @override
    def examples(self, outputs: Tensor) -> Tensor:
        return outputs.float()

    @override
    @contextmanager
    def writer(
        self, out: Path, names: Sequence[str], numbers: Sequence[int], *, overwrite: bool = False
    ) -> Iterator[Callable[[int, Tensor], None]]:
        if out.suffix not in self.endings:
            refuse_existing(out, overwrite=overwrite, folder=True)
            out = out / f"{self.name}{self.suffix}"
        refuse_existing(out, overwrite=overwrite, folder=False)
        with WRITERS[out.suffix](out, [names[number] for number in numbers]) as write:
            yield lambda number, vector: write(vector)

    @override
    def measure(self, original: Tensor, copy: Tensor) -> dict[str, float]:
        """Return the squared distance, the same relative to the squared length, and the cosine, where it has one."""
        one, other = original.double(), copy.double()
        error, length = float((one - other).square().sum()), float(one.square().sum())
        figures = {"squared_error": error}
        if length:
            figures["relative_error"] = error / length
        if length and other.any():
            figures["cosine"] = float(F.cosine_similarity(one, other, dim=0))
        return figures

    @override
    def show(self, columns: Sequence[Sequence[Tensor]]) -> Tensor:
        """Draw each vector as a strip, its least number dark and its largest bright, on one scale for all."""
        every = torch.cat([vector.float() for column in columns for vector in column])
        low, span = every.min(), (every.max() - every.min()).clamp_min(1e-12)

        def strip(vector: Tensor) -> Tensor:
            wide = -(-WIDTH // len(vector))
            level = ((vector.float() - low) / span).repeat_interleave(wide).expand(STRIP, -1)
            return heat_map(level, 1).float() / 255

        return (drawn([[strip(vector) for vector in column] for column in columns]) * 255).round().byte()


KIND = VectorKind()
