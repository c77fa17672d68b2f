"""Forward passes that a backward pass repeats."""

from __future__ import annotations

import gc

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import lexel


def test_a_repetition_that_was_not_recorded_is_refused() -> None:
    vq = lexel.VectorQuantizer(16, 4, learning=lexel.EMA())
    z = torch.randn(5, 4, requires_grad=True)
    quantized = checkpoint(lambda inputs: vq(inputs).quantized, z, use_reentrant=True)
    before = vq.codebook().clone()
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        quantized.sum().backward()
    assert torch.equal(vq.codebook(), before)


def test_what_a_pass_saw_goes_with_its_graph() -> None:
    vq = lexel.VectorQuantizer(16, 4, learning=lexel.EMA())
    output = checkpoint(vq, torch.randn(5, 4, requires_grad=True), use_reentrant=False)
    assert any(record() is not None for record in vq._recorder._records)
    del output
    gc.collect()
    assert all(record() is None for record in vq._recorder._records)
