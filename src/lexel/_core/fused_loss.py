"""The step that every vector quantizer takes once the codes are chosen, with its gradients written out.

Autograd on the formulas keeps the difference of inputs and codes for each term and walks through it again and again.
Here it is made once, kept once, and read once for each gradient; the codes' gradient is summed by index, without a
one-hot.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["quantization_step"]


def quantization_step(
    z: Tensor, codes: Tensor, indices: Tensor, valid: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Replace inputs by their codes and measure by how much (van den Oord et al. 2017, eq. 2 and 3).

    With e = codes[indices], sums over the rows that count:

        quantized = e                  ∂/∂z = 1 (straight-through), ∂/∂codes = 0
        codebook = Σ ‖sg[z] − e‖²      ∂/∂codes_k = 2 Σ (e − z) over the inputs of code k
        commitment = Σ ‖z − sg[e]‖²    ∂/∂z = 2 (z − e)

    Args:
        z: inputs, `(N, D)`, floating.
        codes: `(K, D)`, the same dtype.
        indices: int64 `(N,)`, in [0, K).
        valid: bool `(N,)`, False for rows that do not count; None when all count.

    Returns:
        `quantized` `(N, D)`, `codebook` and `commitment`, two scalars. They can be differentiated twice.

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
    """The difference e − z is an output too, so that the gradients that are made of it have gradients in their turn.

    It is one twice, in the same memory: in the commitment term it is a function of z alone, in the codebook term of e.
    """

    @staticmethod
    def forward(z: Tensor, codes: Tensor, indices: Tensor, valid: Tensor | None) -> tuple[Tensor, ...]:
        quantized = codes.index_select(0, indices)
        difference = quantized - z
        if valid is not None:
            difference.mul_(valid.unsqueeze(1))
        error = torch.linalg.vector_norm(difference, dim=1).square_().sum()
        return quantized, error, error.clone(), difference, difference.view_as(difference)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        _, codes, indices, valid = inputs
        *_, of_z, of_e = output
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(of_z, of_e, indices, valid)
        ctx.num_embeddings = len(codes)

    @staticmethod
    def backward(
        ctx: Any,
        for_quantized: Tensor | None,
        for_codebook: Tensor | None,
        for_commitment: Tensor | None,
        for_of_z: Tensor | None,
        for_of_e: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        of_z, of_e, indices, valid = ctx.saved_tensors
        for_z, for_codes = for_quantized, None
        if for_commitment is not None and ctx.needs_input_grad[0]:
            scale = -2 * for_commitment
            for_z = of_z * scale if for_z is None else torch.addcmul(for_z, of_z, scale)
        if for_codebook is not None and ctx.needs_input_grad[1]:
            scale = 2 * for_codebook  # of whichever is smaller, the inputs or the codes
            few = ctx.num_embeddings < len(of_e)
            for_codes = _sum_by_code(of_e if few else of_e * scale, indices, ctx.num_embeddings)
            for_codes = for_codes * scale if few else for_codes
        if for_of_z is not None:
            for_of_z = for_of_z if valid is None else for_of_z * valid.unsqueeze(1)
            for_z = -for_of_z if for_z is None else for_z - for_of_z
        if for_of_e is not None:
            for_of_e = for_of_e if valid is None else for_of_e * valid.unsqueeze(1)
            more = _sum_by_code(for_of_e, indices, ctx.num_embeddings)
            for_codes = more if for_codes is None else for_codes + more
        return for_z, for_codes, None, None


def _sum_by_code(rows: Tensor, indices: Tensor, num_embeddings: int) -> Tensor:
    """Sum of the rows of each code, `(K, D)`."""
    return rows.new_zeros(num_embeddings, rows.shape[1]).index_add_(0, indices, rows)
