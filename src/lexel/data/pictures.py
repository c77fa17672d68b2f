"""Pictures that show what a model does: images in columns, grids of tokens in colour, maps of errors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["centre", "coloured", "columns", "heat_map", "token_colours", "token_picture"]

# Black, violet, red, orange, pale yellow: lightness rises evenly, so that the map reads the same without colours.
HEAT = ((4, 4, 12), (76, 20, 104), (178, 44, 88), (244, 126, 50), (252, 250, 190))


def centre(image: Tensor, height: int, width: int) -> Tensor:
    """Crop the centre of `(C, H, W)` to at most `height` × `width`."""
    top, left = max(image.shape[1] - height, 0) // 2, max(image.shape[2] - width, 0) // 2
    return image[:, top : top + height, left : left + width]


def columns(pictures: Sequence[Sequence[Tensor]], gap: int = 6) -> Tensor:
    """Arrange pictures in columns on white: each inner sequence from top to bottom, the columns from left to right.

    Args:
        pictures: floating `(1, H, W)` (grey) or `(3 or more, H, W)` (colour; channels after the third are not shown).
        gap: pixels between two pictures.

    Returns:
        `(3, H, W)`.
    """
    return _row([_row([coloured(picture).mT for picture in column], gap).mT for column in pictures], gap)


def token_colours(vectors: Tensor) -> Tensor:
    """Give every quantized vector a colour, so that similar codes have similar colours.

    The three directions in which the vectors differ most become red, green and blue.

    Args:
        vectors: quantized vectors, `(N, D)`.

    Returns:
        `(N, 3)` in [0, 1].
    """
    centred = vectors.float() - vectors.float().mean(0)
    _, _, directions = torch.linalg.svd(centred.T @ centred)
    scores = centred @ directions[:3].T
    # By rank rather than value: a few distant codes would leave all others the same grey.
    ranks = scores.argsort(0).argsort(0).float() / max(len(scores) - 1, 1)
    return F.pad(ranks, (0, 3 - ranks.shape[1]), value=0.5)


def token_picture(colours: Tensor, side: int) -> Tensor:
    """Draw a grid of coloured squares with a thin gap between them.

    Args:
        colours: `(h, w, 3)` in [0, 1].
        side: side of one square in pixels, including its gap of one pixel.

    Returns:
        `(3, h·side, w·side)`.
    """
    picture = colours.movedim(-1, 0).repeat_interleave(side, 1).repeat_interleave(side, 2)
    picture[:, side - 1 :: side] = 1
    picture[:, :, side - 1 :: side] = 1
    return picture


def heat_map(errors: Tensor, highest: float) -> Tensor:
    """Draw errors as a heat map, from black for 0 to pale yellow for `highest` and above.

    Args:
        errors: `(H, W)`, not negative.
        highest: the error drawn in the brightest colour, above 0.

    Returns:
        uint8 `(3, H, W)`.
    """
    stops = torch.tensor(HEAT, dtype=torch.float32)
    level = (errors / highest).clamp(0, 1) * (len(stops) - 1)
    below = level.long().clamp_max(len(stops) - 2)
    return torch.lerp(stops[below], stops[below + 1], (level - below).unsqueeze(-1)).round().byte().movedim(-1, 0)


def _row(pictures: Sequence[Tensor], gap: int) -> Tensor:
    height = max(picture.shape[1] for picture in pictures)
    padded = [F.pad(picture, (0, gap, 0, height - picture.shape[1]), value=1.0) for picture in pictures]
    row = torch.cat(padded, dim=2)
    return row[..., : row.shape[2] - gap]


def coloured(image: Tensor) -> Tensor:
    """Return `(C, H, W)` with three channels: its first three, or its first one three times."""
    return image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
