"""Devices by their names."""

from __future__ import annotations

import torch

__all__ = ["pick_device"]

KINDS = ("cpu", "cuda", "mps", "xpu")  # torch knows more names, of devices that compute nothing here


def pick_device(name: str = "auto") -> torch.device:
    """Return a device by its name: the accelerator, if there is one, for `"auto"`.

    Raises:
        ValueError: Lexel computes on no device of this name, or the device is not available.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    kind, _, index = name.partition(":")
    if name != "auto" and (kind not in KINDS or (":" in name and not index.isdecimal())):
        raise ValueError(f"device must be auto, or one of {', '.join(KINDS)}, as in cuda:0 with a number, got {name!r}")
    if kind == "cpu":
        if index not in ("", "0"):
            raise ValueError(f"device {name!r} cannot be used: there is one CPU, cpu")
        return torch.device("cpu")
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    try:
        device = torch.device(name) if name != "auto" else accelerator or torch.device("cpu")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device {name!r} cannot be used: {reason}") from error
    return device
