"""A check-up for any module that quantizes, Lexel's or not: what is sound, what is wrong, and how one can see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lexel.audit._checks import CHECKS
from lexel.audit._findings import Audit, Finding
from lexel.audit._subject import Readers, Subject

__all__ = ["Audit", "Finding", "audit"]


def audit(
    module: nn.Module,
    inputs: Tensor,
    *,
    codebook: Callable[[Any], Tensor] | None = None,
    quantized: Callable[[Any], Tensor] | None = None,
    indices: Callable[[Any], Tensor] | None = None,
    loss: Callable[[Any], Tensor] | None = None,
) -> Audit:
    """Examine a module that quantizes: is it what it should be, in training and evaluation, on this data?

    The checks run on copies: neither the module nor the global random numbers change. In the module's output the
    quantized vectors are the tensor of the inputs' shape, the indices integers or one-hot rows, and the loss the first
    scalar with a gradient. The codebook is the parameter or buffer `(K, D)` whose rows the quantized vectors are, and
    still are when it is changed. Where this finds nothing, or the wrong thing, give a function.

    The checks:

    - *codebook learns*: a training step moves the codes, or gives them a gradient (it does not when the codebook loss
      is computed from the straight-through values).
    - *encoder's gradient*: what the gradient at the output becomes at the input.
    - *nearest codes*, *nearest codes under bfloat16 autocast*, *nearest codes under a shift* of inputs and codes by
      1,000 standard deviations: compared with a float64 brute force on 64 to 2,048 inputs. Nearest may also mean the
      largest product or cosine, when all of them are.
    - *revived codes stay*: a dead code that training puts among the inputs is still there a step later.
    - *eval changes nothing*: two passes in eval mode leave parameters and buffers as they were.
    - *NaN does not spread*: one NaN in a training batch leaves no NaN in parameters and buffers.
    - *memory*: whether a training step makes anything of N × K numbers.
    - *usage*: perplexity over `inputs` in eval mode, collapsed when below a tenth of min(K, N).
    - *ranks agree*: with `torch.distributed`, whether all ranks have the same codes, now and after a training step.

    Args:
        module: takes a tensor. Not changed.
        inputs: floating, finite, as the module takes them; at least one vector, better a thousand. Other ranks may have
            others; every rank must call this.
        codebook: from the module to its codes `(K, D)`: the tensor that it works with, not a copy.
        quantized: from the module's output to the quantized vectors.
        indices: from the module's output to the indices.
        loss: from the module's output to the loss.

    Raises:
        TypeError: `inputs` is not a floating tensor.
        ValueError: `inputs` is empty or not finite, or nothing in the output has its shape.

    Example:
        >>> import lexel
        >>> found = audit(lexel.VectorQuantizer(64, 16), torch.randn(8, 16, 8, 8))
        >>> found.ok, found["codebook learns"].verdict
        (True, 'ok')
    """
    if not isinstance(inputs, Tensor) or not inputs.dtype.is_floating_point:
        kind = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
        raise TypeError(f"audit: inputs must be a floating tensor, got {kind}")
    if inputs.ndim < 2 or not inputs.numel() or not bool(inputs.isfinite().all()):
        raise ValueError(f"audit: inputs must be finite, with a batch and channels, got shape {tuple(inputs.shape)}")
    devices = [inputs.device] if inputs.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        torch.manual_seed(0)
        subject = Subject(module, inputs.detach(), Readers(codebook, quantized, indices, loss))
        return Audit(tuple(check(subject) for check in CHECKS))
