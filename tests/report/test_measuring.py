"""Figures are those of all images, and no more than a few images are held at a time."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor

import lexel
from lexel.data.images import Images, psnr, to_pixels
from lexel.models import VQVAE
from lexel.report import measuring
from lexel.report.measuring import measure
from tests.report.models import tiny_model


def images(*sizes: tuple[int, int]) -> Images:
    """Pictures of noise."""

    def read(index: int) -> Tensor:
        generator = torch.Generator().manual_seed(index)
        return torch.randint(256, (3, *sizes[index]), generator=generator, dtype=torch.uint8)

    return Images([f"{index}.png" for index in range(len(sizes))], 3, read)


def by_hand(model: VQVAE, shown: list[Tensor]) -> tuple[float, Tensor]:
    """The mean PSNR, and the codes of all positions."""
    ratios, codes = [], []
    for image in shown:
        indices = model.encode(image[None] / 255)
        decoded = model.decode(indices, tuple(image.shape[1:]))[0]
        ratios.append(psnr(image / 255, to_pixels(decoded) / 255))
        codes.append(indices.flatten())
    return sum(ratios) / len(ratios), torch.cat(codes)


@torch.no_grad()
def test_figures_are_those_of_all_images_and_examples_are_the_first() -> None:
    model, shown = tiny_model(), images(*[(20, 30)] * 15)
    found = measure(model, shown)
    mean, codes = by_hand(model, [shown.read(index) for index in range(15)])
    assert found.images == 15
    assert found.psnr == pytest.approx(mean)
    used, counts = codes.unique(return_counts=True)
    assert [each.tolist() for each in found.usages[0].counts()] == [used.tolist(), counts.tolist()]
    assert found.positions == len(codes) == 15 * 5 * 8
    assert found.pixels == 15 * 20 * 30
    assert len(found.examples) == measuring.SMALL_EXAMPLES
    for index, example in enumerate(found.examples):
        assert torch.equal(to_pixels(example.original), shown.read(index))
        assert torch.equal(example.indices, model.encode(example.original[None])[0])
    errors = torch.cat([example.error.flatten() for example in found.examples])
    assert 0.001 < float((errors > found.highest_error).float().mean()) <= 0.002


def test_of_large_images_the_centres_are_measured_and_two_are_held_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "MAX_SIDE", 40)
    monkeypatch.setattr("lexel.data.examples.CACHE_BYTES", 0)  # small images would be kept for another pass
    model, shown = tiny_model(), images(*[(300, 500)] * 9)
    held: list[weakref.ref[Tensor]] = []
    most_held = most_encoded = 0

    def read(index: int) -> Tensor:
        nonlocal most_held
        pixels = shown.read(index)
        held.append(weakref.ref(pixels))
        most_held = max(most_held, sum(each() is not None for each in held))
        return pixels

    def watch(module: torch.nn.Module, inputs: tuple[Tensor]) -> None:
        nonlocal most_encoded
        most_encoded = max(most_encoded, inputs[0].numel())

    model.encoder.register_forward_pre_hook(watch)
    found = measure(model, Images(shown.names, 3, read))
    assert found.images == 9
    assert most_held <= 2
    assert most_encoded == 3 * 40 * 40
    assert found.pixels == 9 * 40 * 40
    assert all(example.original.untyped_storage().nbytes() == 4 * 3 * 40 * 40 for example in found.examples)
    assert torch.equal(to_pixels(found.examples[0].original), shown.read(0)[:, 130:170, 230:270])


def test_images_are_spread_over_all_and_end_with_positions_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "ENOUGH_POSITIONS", 100)
    for sizes, expected in (([(20, 20)] * 40, [0, 10, 20, 30]), ([(8, 8), *[(40, 40)] * 39], [0, 1, 3])):
        shown, read = images(*sizes), []

        def note(index: int, shown: Images = shown, read: list[int] = read) -> Tensor:
            read.append(index)
            return shown.read(index)

        found = measure(tiny_model(), Images(shown.names, 3, note))
        assert read[1:] == expected  # the first one is looked at once before, for its size
        assert found.positions >= 100


def test_a_quantizer_of_one_size_gets_images_of_that_size() -> None:
    model = tiny_model(lexel.presets.var((1, 2, 3, 4), embedding_dim=4))
    assert model.quantizer.map_size == (4, 4)
    found = measure(model, images((16, 16), (50, 40)))
    assert [tuple(example.original.shape) for example in found.examples] == [(3, 16, 16)] * 2
