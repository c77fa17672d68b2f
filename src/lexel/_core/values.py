"""Values of tensors in the program, without a wait for the device that computes them.

A program that asks an accelerator for a value waits until the device has done all that it was told before; then the
device waits in turn, until the program has told it more. On the way to the program a value takes part in the queue like
any other work, so a step that asks only for what an earlier step has sent for never holds the device up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor

__all__ = [
    "HostValue",
    "Reading",
    "Refusal",
    "Transient",
    "at_hand",
    "constant",
    "double",
    "is_exporting",
    "is_recorded",
    "widest",
]

HOST = ("cpu",)  # the devices whose memory is the program's


def is_recorded(tensor: Tensor) -> bool:
    """Whether what runs now is recorded, to run again with other values: by torch.compile, or in a CUDA graph.

    Example:
        >>> is_recorded(torch.zeros(1))
        False
    """
    return torch.compiler.is_compiling() or (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def is_exporting() -> bool:
    """Whether torch.export or an ONNX export traces this: the graph may then hold plain torch only.

    Example:
        >>> is_exporting()
        False
    """
    if torch.compiler.is_compiling():
        # The flag itself: within torch.compile, torch 2.7 to 2.12 take is_exporting() for true.
        return bool(getattr(torch.compiler, "_is_exporting_flag", False))
    return torch._C._get_tracing_state() is not None or torch.onnx.is_in_onnx_export()


def at_hand(tensor: Tensor) -> bool:
    """Whether the program may look at a tensor's values, and branch on them, without waiting for a device.

    Example:
        >>> at_hand(torch.zeros(1))
        True
    """
    return not torch.compiler.is_compiling() and tensor.device.type in HOST


def widest(tensor: Tensor) -> torch.dtype:
    """Return the widest floating dtype of a tensor's device: float64, or float32 on MPS, which lacks it.

    Example:
        >>> widest(torch.ones(2))
        torch.float64
    """
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def double(tensor: Tensor) -> Tensor:
    """Return a tensor in the widest floating dtype of its device.

    Example:
        >>> double(torch.ones(2)).dtype
        torch.float64
    """
    return tensor.to(widest(tensor))


class HostValue:
    """An integer on its way from a tensor to the program.

    Args:
        value: scalar of integers or bool, on any device.

    Example:
        >>> HostValue(torch.tensor(3)).wait()
        3
    """

    def __init__(self, value: Tensor) -> None:
        self._value, self._event = value.detach(), None
        if value.device.type in ("cuda", "xpu"):
            module = torch.get_device_module(value.device)
            self._value = torch.empty_like(self._value, device="cpu", pin_memory=True).copy_(value, non_blocking=True)
            self._event = module.Event()
            self._event.record(module.current_stream(value.device))

    def has_arrived(self) -> bool:
        """Whether `wait` would return at once."""
        return self._event is None or bool(self._event.query())

    def wait(self) -> int:
        """Return the value, as soon as it has arrived."""
        if self._event is not None:
            self._event.synchronize()
            self._event = None  # to ask again would break the recording of a CUDA graph
        return cast("int", self._value.tolist())


class Transient:
    """What belongs to one module and the steps that it has made: a copy begins without it, and no file holds it."""

    def __deepcopy__(self, memo: object) -> Transient:
        return type(self)()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()


class Reading(Transient):
    """What the program knows of a tensor, for as long as nobody changes the tensor.

    Example:
        >>> reading, counter = Reading(), torch.zeros(())
        >>> reading.of(counter, lambda: counter > 0)
        False
        >>> reading.of(counter.add_(1), lambda: counter > 0)
        True
    """

    def __init__(self) -> None:
        self._known: tuple[Tensor, int, HostValue] | None = None

    def send_for(self, tensor: Tensor, value: Tensor) -> None:
        """Send for a value that was computed from the tensor, a bool scalar, which `of` will be asked for."""
        self._known = None if tensor.is_inference() else (tensor, tensor._version, HostValue(value))

    def of(self, tensor: Tensor, compute: Callable[[], Tensor]) -> bool:
        """Return the value that was sent for, unless the tensor has changed since: then compute it, and wait for it."""
        if self._known is None or self._known[0] is not tensor or self._known[1] != tensor._version:
            value = compute()
            self.send_for(tensor, value)
            if self._known is None:
                return bool(value)
        return bool(self._known[2].wait())


class Refusal(Transient):
    """Raises an error where a condition does not hold: at once, or where that would mean to wait, the next time.

    Who uses it sees to it that nothing changes where the condition does not hold.

    Example:
        >>> Refusal().unless(torch.tensor(False), "it is wrong")
        Traceback (most recent call last):
        ValueError: it is wrong
    """

    def __init__(self) -> None:
        self._waiting: tuple[HostValue, str] | None = None

    def unless(self, condition: Tensor, message: str) -> None:
        """Refuse what makes the condition, a bool scalar, false.

        Raises:
            ValueError: the condition does not hold, or an earlier one did not.
        """
        if is_recorded(condition) or condition.is_meta:
            return
        self.settle()
        self._waiting = HostValue(condition), message
        if at_hand(condition):
            self.settle()

    def settle(self) -> None:
        """Raise the error of an earlier condition that did not hold.

        Raises:
            ValueError: one did not.
        """
        if self._waiting is None:
            return
        (value, message), self._waiting = self._waiting, None
        if not value.wait():
            raise ValueError(message)


def constant(values: Iterable[float], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor of numbers on the device of another one, and of its dtype. Nobody may change it: it is made once.

    To make a tensor of Python's numbers is to wait for the device; and a module that is built on the meta device would
    lose a buffer of them.

    Example:
        >>> constant([1, 2], torch.zeros(1))
        tensor([1., 2.])
    """
    numbers, dtype = tuple(values), dtype or like.dtype
    if torch.compiler.is_dynamo_compiling():  # a tensor in memory would keep the graph from being a CUDA graph
        return torch.stack([torch.full((), number, dtype=dtype, device=like.device) for number in numbers])
    # An exported graph makes its own; and what a subclass stands for, as a fake tensor does, is no tensor of numbers.
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None or type(like) is not Tensor:
        return torch.tensor(numbers, dtype=dtype, device=like.device)
    return _constant(numbers, dtype, like.device)


@lru_cache(maxsize=1024)
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)
