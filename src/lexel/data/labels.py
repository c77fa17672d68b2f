"""Classes of examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Labels", "folder_labels"]


class Labels(NamedTuple):
    """The class of each example.

    Attributes:
        values: int64 `(N,)`.
        names: the name of each class, in the order of the labels; None where they have no names.
    """

    values: Tensor
    names: tuple[str, ...] | None = None


def folder_labels(names: Sequence[str]) -> Labels:
    """Take the first folder of each name for the name of its class; classes are numbered in the order of their names.

    Raises:
        ValueError: an example lies in no folder.

    Example:
        >>> folder_labels(["dogs/1.png", "cats/1.png", "cats/old/2.png"])
        Labels(values=tensor([1, 0, 0]), names=('cats', 'dogs'))
    """
    folders = []
    for name in names:
        folder, slash, _ = name.partition("/")
        if not slash:
            raise ValueError(f"labels: {name!r} lies in no folder, whose name could be its class")
        folders.append(folder)
    return named_labels(folders)


def named_labels(names: Sequence[str]) -> Labels:
    """Number the classes of examples in the order of their names."""
    classes = tuple(sorted(set(names)))
    numbers = {name: number for number, name in enumerate(classes)}
    return Labels(torch.tensor([numbers[name] for name in names], dtype=torch.int64), classes)
