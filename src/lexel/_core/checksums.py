"""Checksums of tensors, by which a damaged file is known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["digest"]


def digest(tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None) -> str:
    """Return the SHA-256 of tensors with their names, types and shapes, and of the notes beside them.

    Example:
        >>> digest({"a": torch.zeros(2)}) == digest({"a": torch.zeros(2)})
        True
        >>> digest({"a": torch.zeros(2)}) == digest({"a": torch.zeros(1, 2)})
        False
    """
    found = hashlib.sha256()
    for name, note in sorted((notes or {}).items()):
        found.update(f"{len(name)} {name} {len(note)} {note}".encode())
    for name, value in sorted(tensors.items()):
        found.update(f"{len(name)} {name} {value.dtype} {tuple(value.shape)} ".encode())
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        found.update(content.numpy().data)
    return found.hexdigest()
