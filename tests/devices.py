"""The device on which the tensors of a test lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch


@contextmanager
def tensors_on(name: str) -> Iterator[None]:
    """Let new tensors lie on a device, also those that are made of an array, or drawn by a generator of the CPU."""
    if name == "cpu":
        yield
        return
    torch.set_default_device(name)
    torch.empty(0)  # now torch knows by itself which functions make a tensor
    with pytest.MonkeyPatch.context() as patch:
        for function in ("rand", "randint", "randn", "randperm", "from_numpy"):
            patch.setattr(torch, function, _moved(getattr(torch, function), name))
        yield
    torch.set_default_device(None)


def _moved(make: Callable[..., torch.Tensor], name: str) -> Callable[..., torch.Tensor]:
    def made(*args: object, **settings: object) -> torch.Tensor:
        drawn = getattr(settings.get("generator"), "device", None) == torch.device("cpu")
        if "device" in settings or not (drawn or make.__name__ == "from_numpy"):
            return make(*args, **settings)
        return make(*args, **settings, **({"device": "cpu"} if drawn else {})).to(name)

    return made
