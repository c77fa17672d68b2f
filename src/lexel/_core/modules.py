"""Module lists that know what they hold, and what else modules of several rooms need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import ClassVar, Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from typing_extensions import Self, override

__all__ = ["TypedModuleList", "WideBuffers", "ZeroLinear", "evaluating", "without_autocast"]

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


class WideBuffers(nn.Module):
    """A module some of whose buffers are not narrowed with the rest.

    Attributes:
        wide_buffers: names of buffers that stay float32, whatever the module is cast to: sums would overflow.
    """

    wide_buffers: ClassVar[tuple[str, ...]] = ()

    @override
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        own = [self._buffers.get(name) for name in self.wide_buffers]

        def apply(value: Tensor) -> Tensor:
            return _apply_wide(fn, value) if any(value is each for each in own) else fn(value)

        super()._apply(apply, recurse)  # type: ignore[no-untyped-call]
        return self

    def widen(self) -> None:
        """Bring `wide_buffers` back to float32 where somebody has cast them behind this module's back."""
        if torch.compiler.is_compiling():
            return
        for name in self.wide_buffers:
            value = self._buffers.get(name)
            if value is not None and value.dtype.itemsize < 4:
                self._buffers[name] = value.float()


def _apply_wide(fn: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    """Apply what moves or casts a module to a tensor, unless it would narrow it below float32: then move alone."""
    result = fn(value)
    if result.dtype.itemsize >= 4:
        return result
    value = value.float()
    moved = fn(value.view(torch.int32))  # integers are moved and not cast
    return moved.view(torch.float32) if moved.dtype == torch.int32 else value.to(result.device)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Turn autocast off for tensors of a device, if it has any: shapes on the meta device have none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


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
