"""Module lists that know what they hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar, cast

from torch import nn

__all__ = ["TypedModuleList"]

Item = TypeVar("Item", bound=nn.Module)


class TypedModuleList(nn.ModuleList, Generic[Item]):
    """A `ModuleList` of modules of one kind."""

    def __init__(self, modules: Iterable[Item] = ()) -> None:
        super().__init__(modules)

    def __iter__(self) -> Iterator[Item]:
        return cast("Iterator[Item]", super().__iter__())

    def __getitem__(self, index: int) -> Item:  # type: ignore[override]
        return cast("Item", super().__getitem__(index))
