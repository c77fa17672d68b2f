"""What ranks tell each other. Every function is the identity when there is one process."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["all_sum", "mean_over_ranks", "world_size"]


def world_size() -> int:
    """Return how many processes train together; 1 without `torch.distributed`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_sum(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Sum each tensor over all ranks, in one collective for all of them. Carries no gradient.

    Every rank must call it, with tensors of the same shapes, however many inputs the rank itself has.

    Args:
        *tensors: floating tensors of any shapes on one device.

    Returns:
        The sums, with the shapes and dtypes of the arguments.

    Example:
        >>> all_sum(torch.tensor([1.0, 2.0]), torch.tensor(3.0))
        (tensor([1., 2.]), tensor(3.))
    """
    if world_size() == 1:
        return tuple(tensor.detach() for tensor in tensors)
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    message = torch.cat([tensor.detach().reshape(-1).to(dtype) for tensor in tensors])
    dist.all_reduce(message)
    parts = torch.split(message, [tensor.numel() for tensor in tensors])
    return tuple(part.reshape(tensor.shape).to(tensor.dtype) for part, tensor in zip(parts, tensors, strict=True))


def mean_over_ranks(local_sum: Tensor, global_sum: Tensor, count: Tensor) -> Tensor:
    """Return the mean over all ranks, with the gradient that makes data-parallel training equal to one large batch.

    Data-parallel training averages gradients over ranks, which is the gradient of the global mean only when every rank
    holds the same share. Scaling each rank's own sum by world size / global count makes it so for any shares.

    Args:
        local_sum: this rank's sum, with its gradient.
        global_sum: the sum over all ranks, from `all_sum`.
        count: how many elements all ranks hold together.

    Returns:
        A scalar of value ``global_sum / count``.

    Example:
        >>> mean_over_ranks(torch.tensor(6.0), torch.tensor(6.0), torch.tensor(3.0))
        tensor(2.)
    """
    local = local_sum * (world_size() / count)
    return local + (global_sum / count - local).detach()
