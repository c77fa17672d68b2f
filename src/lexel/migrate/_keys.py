"""The keys of a quantizer in a state dict, and which of them have been used."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Keys"]


class Keys:
    """The tensors of a quantizer that have not been used yet, seen from a prefix.

    Attributes:
        tensors: by their full names; all views of one state dict share them.
        prefix: what stands before the names that the methods take.
    """

    def __init__(self, tensors: dict[str, Tensor], prefix: str) -> None:
        self.tensors = tensors
        self.prefix = prefix

    def under(self, name: str) -> Keys:
        """The same tensors, seen from a longer prefix."""
        return Keys(self.tensors, self.prefix + name)

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.tensors

    def size(self, name: str, axis: int) -> int:
        """The size of a tensor that is still to be taken."""
        return self.tensors[self.prefix + name].shape[axis]

    def dimensions(self, name: str) -> int:
        """How many axes a tensor has; 0 if it is missing, which `take` complains of."""
        return self.tensors[self.prefix + name].ndim if name in self else 0

    def take(self, name: str, *shape: int | None) -> Tensor:
        """Return a tensor, float32 at least, and count it as used.

        Args:
            name: of the tensor, after the prefix.
            *shape: what it must be; None for any size.

        Raises:
            ValueError: it is missing, has another shape, or holds NaN or Inf.
        """
        key = self.prefix + name
        if key not in self.tensors:
            raise ValueError(f"migrate.load: {key} is missing")
        value = self.tensors.pop(key)
        if len(shape) != value.ndim or any(
            want not in (None, got) for want, got in zip(shape, value.shape, strict=True)
        ):
            expected = ", ".join("any" if size is None else str(size) for size in shape)
            raise ValueError(f"migrate.load: {key} must have shape ({expected}), got {tuple(value.shape)}")
        if not value.isfinite().all():
            raise ValueError(f"migrate.load: {key} holds NaN or Inf: the training diverged, or the file is damaged")
        return value.detach().to(torch.promote_types(value.dtype, torch.float32))

    def stages(self, name: str, marker: str) -> list[Keys]:
        """Views of `name.0.`, `name.1.` and so on, as long as they have the marker.

        Raises:
            ValueError: there is none.
        """
        views: list[Keys] = []
        while marker in (view := self.under(f"{name}.{len(views)}.")):
            views.append(view)
        if not views:
            raise ValueError(f"migrate.load: {self.prefix}{name}.0.{marker} is missing")
        return views
