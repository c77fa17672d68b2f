"""Encoding for somebody else's engine: a class whose object is called with a batch of a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lexel._core.devices import pick_device
from lexel._core.errors import reason_of, require_within
from lexel.data.batches import MOST_BATCH, batches
from lexel.data.kind import kind_of
from lexel.models import Autoencoder
from lexel.runs import load_model
from lexel.tokens.encode import encode_examples
from lexel.tokens.facts import Facts, facts_of

__all__ = ["Encoder"]


class Encoder:
    """Encodes the examples in a column of a batch, for Ray Data, Spark, `datasets.map` and the like.

    A batch is anything that maps the names of columns to their values: a dictionary of lists or arrays, a DataFrame of
    pandas, a table of Arrow. An example is the bytes of a file, a path, an array, or whatever else the model's kind of
    data decodes. The object is small when it is pickled: each process loads the model when it first encodes.

    Args:
        run: folder of a run, or of a saved model, which every process must see.
        column: which column holds the examples.
        device: where to compute; `"auto"` takes an accelerator.
        batch_size: how many examples of one size are encoded at once, as for `lexel.tokens.encode`.

    Raises:
        FileNotFoundError: there is no model in `run`.
        ValueError: `batch_size` is out of range, or the model's files are malformed.
    """

    def __init__(
        self, run: str | os.PathLike[str], column: str = "image", *, device: str = "auto", batch_size: int = 1
    ) -> None:
        require_within("batch_size", batch_size, 1, MOST_BATCH)
        self.run, self.column, self.device, self.batch_size = Path(run).absolute(), column, device, batch_size
        self._model: Autoencoder | None = load_model(self.run).to(pick_device(device))

    @property
    def model(self) -> Autoencoder:
        """The model, in eval mode."""
        if self._model is None:
            self._model = load_model(self.run).to(pick_device(self.device))
        return self._model

    @property
    def facts(self) -> Facts:
        """What is true of all tokens that it makes."""
        return facts_of(self.model)

    def __call__(self, batch: Any) -> dict[str, Any]:
        """Return the columns of a batch with the tokens in place of the examples.

        Returns:
            The other columns as they are, the size of each example (`height` and `width` for images), and `shape` and
            `indices`, flattened, of its tokens.

        Raises:
            ValueError: there is no such column, or an example cannot be read.
        """
        names = list(batch.keys() if hasattr(batch, "keys") else batch.column_names)
        if self.column not in names:
            raise ValueError(f"the batch has no column {self.column!r}, only {', '.join(map(repr, names))}")
        kind = kind_of(self.model)
        found: dict[int, tuple[dict[str, int], np.ndarray[Any, Any]]] = {}
        for numbers, examples in batches(enumerate(self._examples(batch)), self.batch_size):
            found.update(zip(numbers, encode_examples(self.model, examples), strict=True))
        rows = [found[number] for number in range(len(found))]
        return {
            **{name: batch[name] for name in names if name != self.column},
            **{extent: [sizes[extent] for sizes, _ in rows] for extent in kind.extents},
            "shape": [list(grid.shape) for _, grid in rows],
            "indices": [grid.reshape(-1) for _, grid in rows],
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}

    def _examples(self, batch: Any) -> Any:
        values: Sequence[Any] = batch[self.column]
        kind, model = kind_of(self.model), self.model
        for number, value in enumerate(values.to_pylist() if hasattr(values, "to_pylist") else values):
            try:
                yield kind.decode(value, model)
            except Exception as error:  # a damaged file fails in many ways
                raise ValueError(f"row {number} of the batch: {reason_of(error)}") from error
