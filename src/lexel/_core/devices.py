"""Devices by their names."""

from __future__ import annotations

import torch

__all__ = ["pick_device"]


def pick_device(name: str = "auto") -> torch.device:
    """Return a device by its name: the accelerator, if there is one, for `"auto"`.

    Raises:
        ValueError: no device has this name, or the device is not available.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    try:
        device = torch.device(name) if name != "auto" else accelerator or torch.device("cpu")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device {name!r} cannot be used: {reason}") from error
    return device
