"""The step that every vector quantizer takes once the codes are chosen, with its gradients written out.

Autograd on the formulas would store the difference of inputs and codes once for each term and read it many times. Here
it is computed once, stored once, and read once for each gradient; the codes' gradient is summed by index.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lexel._core.by_code import code_difference, sum_by_code

__all__ = ["quantization_step"]


def quantization_step(
    z: Tensor, codes: Tensor, indices: Tensor, valid: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Replace inputs by their codes and sum the squared errors (van den Oord et al. 2017, eq. 2 and 3).

    With e = codes[indices], sums over the rows that count:

        quantized = e                  ∂/∂z = 1 (straight-through), ∂/∂codes = 0
        codebook = Σ ‖sg[z] − e‖²      ∂/∂codes_k = 2 Σ (e − z) over the inputs of code k
        commitment = Σ ‖z − sg[e]‖²    ∂/∂z = 2 (z − e)

    Args:
        z: inputs, `(N, D)` or `(B, S, D)`, floating.
        codes: `(K, D)`, the same dtype.
        indices: int64 `(N,)` or `(B, S)`, in [0, K).
        valid: bool of that shape, False for rows that do not count; None when all count.

    Returns:
        `quantized`, of the shape of z, and `codebook` and `commitment`, two scalars. They can be differentiated twice.

    Example:
        >>> z, codes = torch.tensor([[3.0, 2.0]], requires_grad=True), torch.tensor([[0.0, 0.0], [2.0, 1.0]])
        >>> quantized, codebook, commitment = quantization_step(z, codes, torch.tensor([1]))
        >>> commitment.backward()
        >>> quantized.detach(), z.grad
        (tensor([[2., 1.]]), tensor([[2., 2.]]))
    """
    quantized, codebook, commitment, _, _ = _Step.apply(z, codes, indices, valid)  # type: ignore[no-untyped-call]
    return quantized, codebook, commitment


class _Step(torch.autograd.Function):
    """Computes the step. The difference e − z is an output too, so that the gradients can be differentiated again.

    It is returned twice, in the same memory: the commitment term needs it as a function of z alone, the codebook term
    as a function of e alone.
    """

    @staticmethod
    def forward(z: Tensor, codes: Tensor, indices: Tensor, valid: Tensor | None) -> tuple[Tensor, ...]:
        quantized, difference, error = code_difference(z, codes, indices, valid)
        return quantized, error, error.clone(), difference, difference.view_as(difference)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        _, codes, indices, valid = inputs
        *_, difference_z, difference_e = output
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(difference_z, difference_e, indices, valid)
        ctx.num_embeddings = len(codes)

    @staticmethod
    def backward(
        ctx: Any,
        grad_quantized: Tensor | None,
        grad_codebook: Tensor | None,
        grad_commitment: Tensor | None,
        grad_difference_z: Tensor | None,
        grad_difference_e: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        difference_z, difference_e, indices, valid = ctx.saved_tensors
        grad_z, grad_codes = grad_quantized, None
        if grad_commitment is not None and ctx.needs_input_grad[0]:
            if grad_z is None:
                grad_z = difference_z * (-2 * grad_commitment)
            else:
                grad_z = torch.addcmul(grad_z, difference_z, grad_commitment, value=-2)
        if grad_codebook is not None and ctx.needs_input_grad[1]:
            scale = 2 * grad_codebook  # multiplied into the inputs or the codes, whichever are fewer
            few_codes = ctx.num_embeddings < indices.numel()
            rows = difference_e if few_codes else difference_e * scale
            (grad_codes,) = sum_by_code(indices, ctx.num_embeddings, rows)
            grad_codes = grad_codes * scale if few_codes else grad_codes
        if grad_difference_z is not None:
            grad_difference_z = grad_difference_z if valid is None else grad_difference_z * valid.unsqueeze(-1)
            grad_z = -grad_difference_z if grad_z is None else grad_z - grad_difference_z
        if grad_difference_e is not None:
            grad_difference_e = grad_difference_e if valid is None else grad_difference_e * valid.unsqueeze(-1)
            (more,) = sum_by_code(indices, ctx.num_embeddings, grad_difference_e)
            grad_codes = more if grad_codes is None else grad_codes + more
        return grad_z, grad_codes, None, None
