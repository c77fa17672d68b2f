"""Comparing a quantizer that was loaded with the one that it was loaded from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import lexel

__all__ = ["Theirs", "agree", "gradients_agree"]

# From inputs to quantized vectors and indices, and the loss if it has one.
Theirs = Callable[[Tensor], tuple[Tensor, ...]]


def agree(ours: lexel.Quantizer, theirs: Theirs, z: Tensor) -> None:
    """Equal indices and values, which also come back from the indices, and from settings and state alone."""
    with torch.no_grad():
        quantized, indices, *_ = theirs(z)
        output = ours.eval()(z)
    assert torch.equal(output.indices, indices.long())
    assert output.indices.unique().numel() > 1
    torch.testing.assert_close(output.quantized, quantized, rtol=1e-5, atol=1e-5)
    assert torch.equal(ours.lookup(output.indices), output.quantized)
    again = lexel.from_config(ours.config).eval()
    again.load_state_dict(ours.state_dict())
    assert torch.equal(again(z).quantized, output.quantized)


def gradients_agree(ours: lexel.Quantizer, theirs: Theirs, z: Tensor) -> None:
    """Equal gradients at the inputs in training, of the task and of the loss if they have one, which is equal too."""
    their_inputs, our_inputs = (z.clone().requires_grad_() for _ in range(2))
    quantized, _, *losses = theirs(their_inputs)
    output = ours.train()(our_inputs)
    direction = torch.randn_like(quantized)
    (expected,) = torch.autograd.grad((quantized * direction).sum() + sum(losses), their_inputs)
    loss = output.loss * len(losses)
    (found,) = torch.autograd.grad((output.quantized * direction).sum() + loss, our_inputs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close([output.loss] * len(losses), losses)
