"""Random crops: a function of the seed and the number of the crop alone."""

from __future__ import annotations

import torch

from lexel.data.images import Images
from lexel.training.batches import Batches
from lexel.training.crops import RandomCrops


def pictures(*sizes: tuple[int, int]) -> Images:
    """Images whose pixels say where they are: image, row, column."""
    drawn = [
        torch.stack(torch.meshgrid(torch.tensor(n), torch.arange(h), torch.arange(w), indexing="ij"))[:, 0]
        for n, (h, w) in enumerate(sizes)
    ]
    return Images([str(n) for n in range(len(sizes))], 3, lambda index: drawn[index].to(torch.uint8))


def test_a_crop_is_a_window_of_an_image() -> None:
    crops = RandomCrops(pictures((20, 30), (9, 8)), 8, 200, seed=1)
    for crop in (crops[index] for index in range(200)):
        image, rows, columns = (crop * 255).round().long()
        assert (image == image[0, 0]).all()
        assert torch.equal(rows, rows[:1, :1] + torch.arange(8)[:, None].expand(8, 8))
        assert torch.equal(columns, columns[:1, :1] + torch.arange(8).expand(8, 8))


def test_every_image_and_every_place_has_its_turn() -> None:
    crops = RandomCrops(pictures((10, 9), (8, 8)), 8, 400, seed=1)
    corners = {tuple((crops[index][:, 0, 0] * 255).round().int().tolist()) for index in range(400)}
    assert corners == {(0, top, left) for top in range(3) for left in range(2)} | {(1, 0, 0)}


def test_the_same_number_and_seed_give_the_same_crop() -> None:
    images = pictures((40, 40), (50, 50))
    one, two, other = (RandomCrops(images, 8, 100, seed) for seed in (1, 1, 2))
    assert all(torch.equal(one[index], two[index]) for index in reversed(range(100)))
    assert any(not torch.equal(one[index], other[index]) for index in range(100))


def test_small_images_are_padded_by_their_edge() -> None:
    crop = RandomCrops(pictures((3, 5)), 8, 1, seed=0)[0]
    assert crop.shape == (3, 8, 8)
    assert torch.equal(crop[:, 2:, :5], crop[:, 2:3, :5].expand(3, 6, 5))


def test_ranks_share_what_remains() -> None:
    shares = [list(Batches(3, 5, 4, rank, 2)) for rank in range(2)]
    assert shares == [[[12, 13], [16, 17]], [[14, 15], [18, 19]]]
    assert not hasattr(Batches(3, 5, 4, 0, 2), "__len__")
