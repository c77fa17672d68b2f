"""Images of one size together, for models that compute many at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from lexel._core.errors import require_within

__all__ = ["MOST_BATCH", "batches"]

MOST_BATCH = 1 << 20

# Images of sizes that are rare wait for others no longer than until so many pixels wait.
WAITING_PIXELS = 1 << 26


def batches(images: Iterable[tuple[int, Tensor]], batch_size: int) -> Iterator[tuple[list[int], Tensor]]:
    """Put images of the same size together.

    Args:
        images: with their numbers, `(C, H, W)` each.
        batch_size: the most that come together.

    Yields:
        The numbers of up to `batch_size` images, and the images, `(B, C, H, W)`. Every image comes once.

    Raises:
        ValueError: `batch_size` is out of range.

    Example:
        >>> images = [torch.zeros(3, 4, width) for width in (4, 5, 4, 4)]
        >>> [numbers for numbers, _ in batches(enumerate(images), 2)]
        [[0, 2], [1], [3]]
    """
    require_within("batch_size", batch_size, 1, MOST_BATCH)
    waiting: dict[torch.Size, list[tuple[int, Tensor]]] = {}
    pixels = 0
    for number, image in images:
        waiting.setdefault(image.shape, []).append((number, image))
        pixels += image[0].numel()
        full = len(waiting[image.shape]) == batch_size
        for shape in [image.shape] if full else list(waiting) if pixels > WAITING_PIXELS else []:
            group = waiting.pop(shape)
            pixels -= sum(each[0].numel() for _, each in group)
            yield _together(group)
    for group in waiting.values():
        yield _together(group)


def _together(group: list[tuple[int, Tensor]]) -> tuple[list[int], Tensor]:
    return [number for number, _ in group], torch.stack([image for _, image in group])
