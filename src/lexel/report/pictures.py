"""Pictures as the page holds them: inside the file, without loss."""

from __future__ import annotations

import base64
import io

import torch
from torch import Tensor

from lexel.data.pictures import coloured

try:
    from PIL import Image
except ImportError as error:
    raise ImportError("lexel.report needs Pillow: pip install 'lexel[train]'") from error

__all__ = ["data_uri", "tiled"]


def data_uri(pixels: Tensor) -> str:
    """Return uint8 `(C, H, W)` as an address that holds the whole picture."""
    file = io.BytesIO()
    Image.fromarray(coloured(pixels).movedim(0, -1).numpy()).save(file, "WEBP", lossless=True, method=3)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def tiled(pictures: Tensor, columns: int) -> Tensor:
    """Put pictures `(n, C, h, w)` side by side, row by row, as one; black where the last row is not full.

    Example:
        >>> tiled(torch.ones(5, 3, 4, 6), columns=2).shape
        torch.Size([3, 12, 12])
    """
    n, c, h, w = pictures.shape
    filled = torch.cat([pictures, pictures.new_zeros(-n % columns, c, h, w)])
    return filled.reshape(-1, columns, c, h, w).permute(2, 0, 3, 1, 4).reshape(c, -1, columns * w)
