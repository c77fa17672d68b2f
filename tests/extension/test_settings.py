"""Settings of parts written outside of Lexel come back from a configuration as they were."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Optional

import lexel

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass(frozen=True)
class Widths(lexel.Upkeep):
    """Settings with sequences of all kinds."""

    plain: tuple = (1, 2)
    many: tuple[int, ...] = (1, 2, 3)
    pair: tuple[int, str] = (1, "a")
    none: tuple[int, ...] = ()
    nested: tuple[tuple[float, float], ...] = ((0.0, 1.0), (1.0, 2.0))
    maybe: tuple[int, ...] | None = (4,)
    absent: Optional[tuple[int, int]] = None  # noqa: UP045, as older code has it
    one_or_several: int | tuple[int, ...] = (2, 4)
    listed: list[tuple[int, int]] = field(default_factory=lambda: [(1, 2)])
    named: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: {"a": (1, 2)})
    parts: tuple[lexel.Upkeep, ...] = (lexel.KMeansStart(), lexel.Revival())
    kept: list[int] = field(default_factory=lambda: [1, 2])
    open: Sequence[int] = field(default_factory=lambda: [1, 2])

    def build(self, num_embeddings, embedding_dim):
        raise NotImplementedError


class Sized(lexel.RowQuantizer):
    """A quantizer, which is no dataclass, with a tuple."""

    def __init__(self, num_embeddings: int, widths: tuple[int, ...], channel_dim: int = 1) -> None:
        super().__init__(num_embeddings, 1, channel_dim)
        self.widths = widths

    def quantize_rows(self, z, valid):
        raise NotImplementedError

    def lookup_rows(self, indices):
        raise NotImplementedError


@dataclass(frozen=True)
class Unknown(lexel.Upkeep):
    """One annotation means something to type checkers alone."""

    exact: Decimal | None = None
    size: int = 3

    def build(self, num_embeddings, embedding_dim):
        raise NotImplementedError


def through_a_file(value):
    return lexel.from_config(json.loads(json.dumps(lexel.to_config(value))))


def test_tuples_come_back_as_tuples() -> None:
    assert through_a_file(Widths()) == Widths()
    assert through_a_file(Sized(4, (1, 2))).widths == (1, 2)


def test_annotations_that_cannot_be_read_change_nothing() -> None:
    assert through_a_file(Unknown(size=5)) == Unknown(size=5)
