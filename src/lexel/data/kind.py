"""A kind of data: everything that depends on whether examples are images or something else, in one object."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from lexel.data.examples import Examples
from lexel.data.tables import USUAL, Columns

__all__ = ["Figure", "Kind", "kind_of"]

KINDS = {
    "images": "lexel.data.images.kind",
    "vectors": "lexel.data.vectors.kind",
}  # the module of each kind, which holds it as KIND


class Figure(NamedTuple):
    """A figure that tells how far a copy is from its original.

    Attributes:
        title: its name in a table.
        form: how its value is written.
    """

    title: str
    form: str


class Kind(ABC):
    """What a kind of data says for itself.

    Attributes:
        name: of the kind, by which models and token sets name it.
        noun: the word for one example.
        unit: what an example's size counts, in which rates are given: bits per pixel.
        suffix: of the file that holds an example.
        extents: the names of an example's sizes, as in `extent`.
        endings: of the one file into which `writer` can write many examples; it writes a folder otherwise.
        batch_size: how many examples of one size are computed at once where nobody says it.
        has_ids: whether the tokens of an example are its ID: those of one position.
        figures: those that `measure` returns, by name.
    """

    name: ClassVar[str]
    noun: ClassVar[str]
    unit: ClassVar[str]
    suffix: ClassVar[str]
    extents: ClassVar[tuple[str, ...]]
    endings: ClassVar[tuple[str, ...]] = ()
    batch_size: ClassVar[int]
    has_ids: ClassVar[bool] = False
    figures: ClassVar[Mapping[str, Figure]]

    @abstractmethod
    def open(self, data: str | Path, model: Any, columns: Columns = USUAL) -> Examples:
        """Open the examples at a path, as a model takes them.

        Args:
            data: the path.
            model: that takes them.
            columns: of a table, which hold and which name them.

        Raises:
            FileNotFoundError: nothing stands there.
            ValueError: it holds no examples of this kind.
        """

    @abstractmethod
    def decode(self, content: Any, model: Any) -> Tensor:
        """Turn a cell of somebody's table into an example, as a model takes it: the bytes of a file or an array.

        Raises:
            ValueError: it is no example of this kind.
        """

    @abstractmethod
    def extent(self, example: Tensor) -> dict[str, int]:
        """Return the sizes of an example by name, which are columns in a table of tokens."""

    @abstractmethod
    def inputs(self, examples: Tensor) -> Tensor:
        """Turn a batch of examples into a model's floating inputs."""

    @abstractmethod
    def examples(self, outputs: Tensor) -> Tensor:
        """Turn a batch of a model's outputs into examples, as their file would hold them."""

    @abstractmethod
    def writer(
        self, out: Path, names: Sequence[str], numbers: Sequence[int], *, overwrite: bool = False
    ) -> AbstractContextManager[Callable[[int, Tensor], None]]:
        """Open a folder or a file for examples; each is written by a call with its number and itself.

        Args:
            out: the folder or the file.
            names: of all examples of a set.
            numbers: which of them are written, in the order of the calls.
            overwrite: replace what exists.

        Raises:
            FileExistsError: something stands there, and `overwrite` is not set.
            ValueError: such a file cannot hold them, or a name leads out of the folder.
        """

    @abstractmethod
    def measure(self, original: Tensor, copy: Tensor) -> dict[str, float]:
        """Return how far a copy is from its original; a figure that is not defined for this example is left out."""

    @abstractmethod
    def show(self, columns: Sequence[Sequence[Tensor]]) -> Tensor:
        """Draw examples in columns, from top to bottom and left to right, as uint8 `(3, H, W)`."""


def kind_of(subject: Any) -> Kind:
    """Return the kind of data of a model or a set of tokens, which name it in `kind`.

    Raises:
        ValueError: there is no such kind.

    Example:
        >>> from lexel.models import VQVAE
        >>> kind_of(VQVAE).noun
        'image'
    """
    if subject.kind not in KINDS:
        raise ValueError(f"there is no kind of data named {subject.kind!r}; known: {', '.join(KINDS)}")
    kind: Kind = import_module(KINDS[subject.kind]).KIND
    return kind
