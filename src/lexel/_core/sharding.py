"""Parameters that FSDP's `fully_shard` has split over the ranks: whole within a forward pass, a shard outside."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from typing_extensions import TypeIs

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

__all__ = ["is_sharded", "require_whole", "write_rows"]


def is_sharded(value: object) -> TypeIs[DTensor]:
    """Whether a tensor is spread over ranks, as `DTensor`.

    Example:
        >>> is_sharded(torch.zeros(2))
        False
    """
    loaded = sys.modules.get("torch.distributed.tensor")  # nothing is a DTensor before somebody has imported it
    return loaded is not None and isinstance(value, loaded.DTensor)


def require_whole(module: nn.Module, method: str) -> None:
    """Refuse to compute with parameters that are sharded at the moment.

    Raises:
        RuntimeError: one of them is.
    """
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return
    if torch.compiler.is_compiling() or not any(map(is_sharded, module.parameters())):
        return
    name = type(module).__name__.removeprefix("FSDP")
    raise RuntimeError(
        f"{name}.{method}: fully_shard has sharded its parameters over the ranks, and they are gathered only while the "
        "forward pass of the sharded model runs. Before you call another method of the model, such as encode, register "
        "it once: torch.distributed.fsdp.register_fsdp_forward_method(model, 'encode'). To use the quantizer alone, "
        "call model.unshard() first"
    )


@torch.no_grad()
def write_rows(target: Tensor, rows: Tensor, which: Tensor) -> None:
    """Write some rows of a table in place; of a sharded one, those that this rank holds.

    Args:
        target: `(K, …)`.
        rows: the table after the write, `(K, …)`, the same on all ranks.
        which: bool `(K, 1)`, True for the rows to write.
    """
    if is_sharded(target):
        from torch.distributed.tensor import DTensor, Replicate

        mesh, placements = target.device_mesh, target.placements
        rows, which = (
            DTensor.from_local(value.contiguous(), mesh, [Replicate()] * mesh.ndim, run_check=False)
            .redistribute(placements=placements)
            .to_local()
            .to(target.to_local().device)
            for value in (rows, which.expand_as(rows))
        )
        target = target.to_local()
    target.copy_(torch.where(which, rows.to(target.dtype), target))
