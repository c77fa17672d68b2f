"""What is gathered or summed by code: the same to the bit in each run, on every device, and without a one-hot matrix.

On a GPU these are operators that torch.compile does not look into, and Triton kernels behind them (`_triton.py`). Where
Triton cannot run there they are plain torch, which is slower and just as repeatable. Elsewhere, and where torch.export
traces, they are plain torch without an operator.

Vectors are rows `(N, D)` with an index each, `(N,)`, or batches of them, `(B, S, D)` with `(B, S)`: so the operators
read channels-first inputs where they lie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from lexel._core.values import is_exporting

__all__ = ["add_by_code", "code_difference", "count_by_code", "sum_by_code", "takes", "why_no_triton"]

# Types of devices whose tensors the operators take.
DEVICES = {"cuda"}


def takes(tensor: Tensor) -> bool:
    """Whether the operators take the tensors of this one's device, and read batches of rows where they lie.

    Example:
        >>> takes(torch.zeros(1))
        False
    """
    return tensor.device.type in DEVICES and not is_exporting()


def sum_by_code(indices: Tensor, num_embeddings: int, *rows: Tensor) -> tuple[Tensor, ...]:
    """Return for each code the sum of its rows.

    Args:
        indices: int64 `(N,)` or `(B, S)`, in [0, K).
        num_embeddings: K.
        *rows: floating or integer, of the shape of the indices and any further axes: `(N, …)` or `(B, S, …)`.

    Returns:
        For each of `rows` a tensor `(K, …)` of its dtype; zero for a code without rows.

    Example:
        >>> sum_by_code(torch.tensor([2, 0, 2]), 3, torch.tensor([[1.0], [2.0], [3.0]]))
        (tensor([[2.],
                [0.],
                [4.]]),)
    """
    if not takes(indices):
        rank, flat = indices.ndim, indices.flatten()
        return tuple(
            part.new_zeros((num_embeddings, *part.shape[rank:])).index_add_(0, flat, part.flatten(0, rank - 1))
            for part in rows
        )
    if torch.is_grad_enabled() and any(part.requires_grad for part in rows):
        return tuple(_Sum.apply(part, indices, num_embeddings) for part in rows)  # type: ignore[no-untyped-call]
    return tuple(_sum_operator(indices, rows, num_embeddings))


@torch.no_grad()
def add_by_code(totals: Sequence[Tensor], indices: Tensor, rows: Sequence[Tensor]) -> None:
    """Add to each of several totals, in place, what `sum_by_code` returns of the rows at its place.

    Args:
        totals: `(K, …)`.
        indices: int64 `(N,)` or `(B, S)`, in [0, K).
        rows: for each of the totals `(N, …)` or `(B, S, …)`, of the same dtype.

    Example:
        >>> total = torch.tensor([1, 1])
        >>> add_by_code([total], torch.tensor([1, 1]), [torch.tensor([3, 4])])
        >>> total
        tensor([1, 8])
    """
    if takes(indices) and (kernels := _kernels(indices.device)):
        kernels.add_by_code(totals, indices, rows)
        return
    last, flat = indices.ndim - 1, indices.flatten()
    for total, part in zip(totals, rows, strict=True):
        part = part.flatten(0, last)
        if takes(indices):  # it sorts the indices, whereas index_add_ adds in any order on a GPU
            total.index_put_((flat,), part, accumulate=True)
        else:
            total.index_add_(0, flat, part)


def count_by_code(indices: Tensor, num_embeddings: int) -> Tensor:
    """Count how often each code occurs.

    Args:
        indices: int64 `(N,)`, below K; negative ones are not counted.
        num_embeddings: K.

    Returns:
        float32 `(K,)`.

    Example:
        >>> count_by_code(torch.tensor([0, 2, 2, -1]), 3)
        tensor([1., 0., 2.])
    """
    if takes(indices):
        counts: Tensor = _count_operator(indices, num_embeddings)
        return counts
    return _plain_counts(indices, num_embeddings)


def code_difference(z: Tensor, codes: Tensor, indices: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Gather the codes e of inputs and subtract the inputs; nothing has a gradient.

    Args:
        z: inputs, `(N, D)` or `(B, S, D)`, floating, any strides.
        codes: `(K, D)`, the same dtype.
        indices: int64 `(N,)` or `(B, S)`, in [0, K).
        valid: bool of that shape, False for rows that do not count; None when all count.

    Returns:
        e; e − z, zero in rows that do not count; both of the shape of z and, where an operator does it, with its order
        in memory; and the sum of its squares, a scalar.

    Example:
        >>> code_difference(torch.ones(1, 2), torch.tensor([[3.0, 2.0]]), torch.tensor([0]), None)
        (tensor([[3., 2.]]), tensor([[2., 1.]]), tensor(5.))
    """
    run = _difference_operator if takes(z) else _plain_difference
    quantized, difference, error = run(z, codes, indices, valid)
    return quantized, difference, error


@cache
def why_no_triton(device: torch.device) -> str:
    """Return why no Triton kernel can run on a device; an empty string if they can.

    Example:
        >>> import os
        >>> bool(why_no_triton(torch.device("cpu"))) or bool(os.environ.get("TRITON_INTERPRET"))
        True
    """
    try:
        from lexel._core import _triton

        _triton.count_by_code(torch.zeros(1, dtype=torch.int64, device=device), 1)
    # No Triton, an old one, no C compiler, an old GPU: each raises something else.
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _kernels(device: torch.device) -> ModuleType | None:
    """Return the module of Triton kernels if they run on a device."""
    if why_no_triton(device):
        return None
    from lexel._core import _triton

    return _triton


class _Sum(torch.autograd.Function):
    """The sum, with a gradient: only gradients of gradients need it."""

    @staticmethod
    def forward(rows: Tensor, indices: Tensor, num_embeddings: int) -> Tensor:
        return sum_by_code(indices, num_embeddings, rows)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (indices,) = ctx.saved_tensors
        return grad[indices], None, None


def _sums(indices: Tensor, rows: list[Tensor], num_embeddings: int) -> list[Tensor]:
    totals = [part.new_zeros((num_embeddings, *part.shape[indices.ndim :])) for part in rows]
    add_by_code(totals, indices, rows)
    return totals


def _counts(indices: Tensor, num_embeddings: int) -> Tensor:
    run = kernels.count_by_code if (kernels := _kernels(indices.device)) else _plain_counts
    counts: Tensor = run(indices, num_embeddings)
    return counts


def _plain_counts(indices: Tensor, num_embeddings: int) -> Tensor:
    # index_add_ rather than bincount: its output has a static shape, which torch.compile needs.
    counts = torch.zeros(num_embeddings, dtype=torch.float32, device=indices.device)
    return counts.index_add_(0, indices.clamp_min(0), (indices >= 0).to(counts.dtype))


def _difference(z: Tensor, codes: Tensor, indices: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    if kernels := _kernels(z.device):
        quantized, difference, error = kernels.code_difference(z, codes, indices, valid)
        return quantized, difference, error
    quantized, difference, error = _plain_difference(z, codes, indices, valid)
    return torch.empty_like(z).copy_(quantized), torch.empty_like(z).copy_(difference), error


def _plain_difference(z: Tensor, codes: Tensor, indices: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    quantized = codes.index_select(0, indices.flatten()).view(z.shape)
    difference = quantized - z
    if valid is not None:
        difference.mul_(valid.unsqueeze(-1))
    return quantized, difference, torch.linalg.vector_norm(difference, dim=-1).square_().sum()


# What an operator returns has the strides that it was described with, so its arguments must, too.
_STRIDES = getattr(torch.Tag, "needs_exact_strides", torch.Tag.needs_fixed_stride_order)


def _operator(name: str, schema: str, run: Callable[..., Any], describe: Callable[..., Any]) -> Any:
    """Register an operator. One of torch.library.custom_op takes several times as long a call."""
    torch.library.define(f"lexel::{name}", schema, tags=(torch.Tag.pt2_compliant_tag, _STRIDES))
    torch.library.impl(f"lexel::{name}", ("cpu", "cuda"), run)
    torch.library.register_fake(f"lexel::{name}", describe)
    return getattr(torch.ops.lexel, name).default


_sum_operator = _operator(
    "sum_by_code",
    "(Tensor indices, Tensor[] rows, int num_embeddings) -> Tensor[]",
    _sums,
    lambda indices, rows, num_embeddings: [
        part.new_empty((num_embeddings, *part.shape[indices.ndim :])) for part in rows
    ],
)
_count_operator = _operator(
    "count_by_code",
    "(Tensor indices, int num_embeddings) -> Tensor",
    _counts,
    lambda indices, num_embeddings: indices.new_empty(num_embeddings, dtype=torch.float32),
)
_difference_operator = _operator(
    "code_difference",
    "(Tensor z, Tensor codes, Tensor indices, Tensor? valid) -> (Tensor, Tensor, Tensor)",
    _difference,
    lambda z, codes, indices, valid: (torch.empty_like(z), torch.empty_like(z), z.new_empty(())),
)
