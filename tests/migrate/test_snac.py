"""SNAC, against its package."""

from __future__ import annotations

import pytest
import torch
from snac.vq import ResidualVectorQuantize
from torch import Tensor

from lexel import migrate
from tests.migrate.agreement import agree, gradients_agree


@pytest.mark.parametrize("strides", [[4, 2, 1], [8, 4, 2, 1], [3, 2], [1]])
def test_snac(strides: list[int]) -> None:
    torch.manual_seed(0)
    theirs, z = ResidualVectorQuantize(12, 32, 4, strides), torch.randn(2, 12, 48)
    state = {f"quantizer.{key}": value for key, value in theirs.state_dict().items()}
    ours = migrate.load(state, strides=strides)

    def forward(z: Tensor) -> tuple[Tensor, Tensor]:
        quantized, codes = theirs(z)
        return quantized, torch.cat(codes, 1)

    agree(ours, forward, z)
    gradients_agree(ours, forward, z)
    assert [own.shape[1] for own in ours.by_stage(ours(z).indices)] == [48 // stride for stride in strides]
    with pytest.raises(ValueError, match=r"fit several formats. Give format='dac' .* or format='snac' .* strides="):
        migrate.load(state)
    with pytest.raises(ValueError, match=f"strides must be a list, with a value for each of {len(strides)} stages"):
        migrate.load(state, strides=[*strides, 1])
