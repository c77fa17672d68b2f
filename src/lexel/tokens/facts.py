"""What the tokens of a set have in common, as every file of tokens says it about itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lexel._core.checksums import digest
from lexel._core.config import to_config
from lexel.models import Autoencoder

__all__ = [
    "Facts",
    "Grids",
    "check_range",
    "facts_of",
    "fingerprint",
    "levels_as_json",
    "levels_from_json",
    "smallest_dtype",
]

Grids = list[tuple[int, int]]  # (rows, columns) of each level, coarse to fine


@dataclass(frozen=True)
class Facts:
    """What is true of all tokens of a set.

    Attributes:
        kind: the kind of data that was encoded, such as `"images"`.
        num_embeddings: K of the quantizer.
        codebook_sizes: how many values each index of a position takes, in their order.
        model: fingerprint of the model that made the tokens.
        quantizer: its quantizer's configuration, or `{"quantizers": [...]}` with those of its levels, coarse to fine;
            None where the file does not say it.
        label_names: the name of each class, in the order of the labels; None where they have no names.
    """

    kind: str
    num_embeddings: int
    codebook_sizes: tuple[int, ...]
    model: str
    quantizer: Mapping[str, Any] | None = None
    label_names: tuple[str, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the facts as JSON can hold them."""
        return {
            "kind": self.kind,
            "num_embeddings": self.num_embeddings,
            "codebook_sizes": list(self.codebook_sizes),
            "model": self.model,
            "quantizer": self.quantizer,
            "label_names": None if self.label_names is None else list(self.label_names),
        }

    @classmethod
    def from_json(cls, content: Any) -> Facts:
        """Read what `as_json` wrote.

        Raises:
            ValueError: an entry is missing or malformed.
        """
        try:
            names, quantizer = content["label_names"], content["quantizer"]
            facts = cls(
                _text(content["kind"]),
                _count(content["num_embeddings"]),
                tuple(_count(size) for size in content["codebook_sizes"]),
                _text(content["model"]),
                None if quantizer is None else dict(quantizer),
                None if names is None else tuple(_text(name) for name in names),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"its facts are malformed: {error!r}") from error
        if not facts.codebook_sizes:
            raise ValueError("its facts are malformed: codebook_sizes is empty")
        return facts


def facts_of(model: Autoencoder, label_names: Sequence[str] | None = None) -> Facts:
    """Return the facts of the tokens that a model makes."""
    quantizers = [to_config(quantizer) for quantizer in model.quantizers]
    return Facts(
        model.kind,
        model.num_embeddings,
        model.codebook_sizes,
        fingerprint(model),
        quantizers[0] if len(quantizers) == 1 else {"quantizers": quantizers},
        None if label_names is None else tuple(label_names),
    )


def fingerprint(model: Autoencoder) -> str:
    """Return a short digest of a model's weights, which shows whether tokens come from this model."""
    return digest(model.state_dict())[:16]


def smallest_dtype(codebook_sizes: Sequence[int]) -> np.dtype[Any]:
    """Return the smallest type that holds all indices: uint8, uint16, uint32 or int64.

    Example:
        >>> smallest_dtype([256]), smallest_dtype([16, 300])
        (dtype('uint8'), dtype('uint16'))
    """
    bits = math.log2(max(codebook_sizes))
    return np.dtype("uint8" if bits <= 8 else "uint16" if bits <= 16 else "uint32" if bits <= 32 else "int64")


def check_range(
    flat: np.ndarray[Any, Any], counts: np.ndarray[Any, Any], facts: Facts, name: Callable[[int], str]
) -> None:
    """Refuse tokens that are not indices of their codebook.

    Args:
        flat: the indices of examples one after the other; those of a position lie together.
        counts: how many indices each example has.
        facts: of the set.
        name: returns the name of the example of a number.

    Raises:
        ValueError: an index is out of range, or a position does not have one for each codebook.
    """
    books = len(facts.codebook_sizes)
    if (counts % books).any():
        raise ValueError(
            f"the example {name(int((counts % books).argmax()))!r} has no index for each of {books} codebooks"
        )
    for book, size in enumerate(facts.codebook_sizes):
        own = flat[book::books]
        if own.size and not (own.min() >= 0 and own.max() < size):
            place = book + books * int(((own < 0) | (own >= size)).argmax())
            owner = int(np.searchsorted(np.cumsum(counts), place, side="right"))
            raise ValueError(f"the indices of {name(owner)!r} are not all in [0, {size})")


def levels_as_json(levels: Mapping[tuple[int, ...], Grids]) -> dict[str, Any]:
    """Write the grids of each extent under a name like `64x48`."""
    return {"x".join(map(str, extent)): [list(grid) for grid in grids] for extent, grids in sorted(levels.items())}


def levels_from_json(content: Any) -> dict[tuple[int, ...], Grids]:
    """Read what `levels_as_json` wrote."""
    return {
        tuple(int(side) for side in name.split("x") if side): [(int(rows), int(columns)) for rows, columns in grids]
        for name, grids in content.items()
    }


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r} is not a count")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")
    return value
