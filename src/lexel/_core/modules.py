"""Module lists that know what they hold, and what else modules of several rooms need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar, cast

from torch import nn

__all__ = ["TypedModuleList", "ZeroLinear", "evaluating"]

Item = TypeVar("Item", bound=nn.Module)


class TypedModuleList(nn.ModuleList, Generic[Item]):
    """A `ModuleList` of modules of one kind."""

    def __init__(self, modules: Iterable[Item] = ()) -> None:
        super().__init__(modules)

    def __iter__(self) -> Iterator[Item]:
        return cast("Iterator[Item]", super().__iter__())

    def __getitem__(self, index: int) -> Item:  # type: ignore[override]
        return cast("Item", super().__getitem__(index))


class ZeroLinear(nn.Linear):
    """A linear layer that starts at zero, also after `reset_parameters`."""

    def reset_parameters(self) -> None:
        """Set weight and bias to zero."""
        super().reset_parameters()  # what is drawn after this layer is the same as after any other
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module and all within it to eval mode, and each back to the mode that it had."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
