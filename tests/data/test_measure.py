"""Figures worked out in pieces are those of the whole."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from lexel.data.images import constant_error, ssim


@pytest.mark.parametrize("size", [(11, 11), (11, 90), (40, 12), (61, 47)])
@pytest.mark.parametrize("tile", [3, 7, 32, 512])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiles_give_the_similarity_of_the_whole(size: tuple[int, int], tile: int, channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(channels, *size, generator=generator)
    copy = (image + 0.2 * torch.rand(channels, *size, generator=generator)).clamp(0, 1)
    whole = float(structural_similarity_index_measure(copy[None], image[None], data_range=1.0))
    assert ssim(image, copy, tile) == pytest.approx(whole, abs=1e-6)
    assert 0 < whole < 1


@pytest.mark.parametrize("loss", ["mse", "l1"])
def test_the_error_of_a_constant_image_is_that_of_the_mean(loss: str) -> None:
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 100 * n, (3, 20 * n, 17), generator=generator, dtype=torch.uint8) for n in (1, 2)]
    pixels = torch.cat([image.flatten(1) for image in images], dim=1).double() / 255
    deviation = pixels - pixels.mean(1, keepdim=True)
    expected = deviation.square().mean() if loss == "mse" else deviation.abs().mean()
    assert constant_error(iter(images), loss) == pytest.approx(float(expected), rel=1e-12)


def test_images_of_one_colour_have_none() -> None:
    assert constant_error([torch.full((3, 4, 4), 77, dtype=torch.uint8)], "mse") == pytest.approx(0, abs=1e-12)
