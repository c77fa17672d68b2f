"""Buffers that stay float32 in modules that are cast and moved."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import lexel


def averages() -> lexel.NormalisedQuantizer:
    """A quantizer with wide buffers of its own and of its parts, after a step."""
    vq = lexel.VectorQuantizer(16, 4, learning=lexel.EMA(), upkeep=lexel.Revival())
    quantizer = lexel.NormalisedQuantizer(vq)
    quantizer(torch.randn(64, 4))
    return quantizer


WIDE = ("shift", "scale", "quantizer.learning.count", "quantizer.learning.sum", "quantizer.upkeep.0.usage")


def test_a_move_that_fails_leaves_the_module_as_it_was() -> None:
    quantizer, reached = averages(), []

    def fails_at(place: int) -> Callable[[Tensor], Tensor]:
        def fn(value: Tensor) -> Tensor:
            reached.append(value)
            if len(reached) > place:
                raise RuntimeError("no such device")
            return value.clone()

        return fn

    before, places = {name: value.clone() for name, value in quantizer.state_dict().items()}, 0
    while True:
        reached.clear()
        try:
            quantizer._apply(fails_at(places))
        except RuntimeError:
            places += 1
            after = quantizer.state_dict()
            assert [*after] == [*before]
            assert all(torch.equal(after[name], before[name]) for name in before)
        else:
            break
    assert places >= len(before)
    assert quantizer(torch.randn(8, 4)).loss.isfinite()


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(
    "cast",
    [
        nn.Module.half,
        nn.Module.bfloat16,
        lambda module: module.double().half(),
        lambda module: nn.ModuleList([module]).half(),
        lambda module: module.to("meta").half().to_empty(device="cpu"),
    ],
    ids=["half", "bfloat16", "double, half", "within another", "meta"],
)
def test_narrow_modules_keep_wide_buffers(cast: Callable[[nn.Module], nn.Module], swap: bool) -> None:
    quantizer = averages()
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    torch.__future__.set_swap_module_params_on_conversion(swap)
    try:
        cast(quantizer)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    after = quantizer.state_dict()
    assert [*after] == [*before]
    assert quantizer.quantizer.codebook.weight.dtype.itemsize == 2
    for name in WIDE:
        assert after[name].dtype == torch.float32
        assert after[name].shape == before[name].shape
    if cast is nn.Module.half:
        assert all(torch.equal(after[name], before[name]) for name in WIDE)
