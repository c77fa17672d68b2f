"""Random crops of images: what a training step sees."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from lexel.data.images import Images

__all__ = ["RandomCrops"]


class RandomCrops(Dataset[Tensor]):
    """The i-th crop of a training run: float32 `(C, crop, crop)` in [0, 1], a function of the seed and i alone.

    So a run sees the same crops whatever the number of workers or ranks, and a resumed run goes on where it stopped.
    Images smaller than the crop are padded by their edge. If an image turns out to be unreadable, another is drawn
    instead, and no other crop changes.

    Args:
        images: where the crops come from.
        crop: side of the crops in pixels.
        length: number of crops.
        seed: seed of the choice of images and places.
    """

    def __init__(self, images: Images, crop: int, length: int, seed: int) -> None:
        self.images, self.crop, self.length, self.seed = images, crop, length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        choice = random.Random(f"{self.seed}/{index}")  # a torch.Generator would use only 32 bits of a seed
        pixels = self.images.first_readable(self._draws(choice))
        height, width = pixels.shape[-2:]
        top = choice.randrange(max(height - self.crop, 0) + 1)
        left = choice.randrange(max(width - self.crop, 0) + 1)
        patch = pixels[:, top : top + self.crop, left : left + self.crop].float() / 255
        return F.pad(patch, (0, self.crop - patch.shape[2], 0, self.crop - patch.shape[1]), mode="replicate")

    def _draws(self, choice: random.Random) -> Iterator[int]:
        """Yield images at random, then, after a hundred unreadable ones, all in turn, so that the search ends."""
        count = len(self.images)
        yield from (choice.randrange(count) for _ in range(100))
        start = choice.randrange(count)
        yield from ((start + step) % count for step in range(count))
