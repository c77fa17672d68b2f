"""Collective operations over all ranks. With one process they need no communication."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

__all__ = [
    "AllRows",
    "all_min",
    "all_sum",
    "gather_rows",
    "mean_of_rows",
    "mean_over_ranks",
    "rank",
    "require_same",
    "set_process_group",
    "uniform_of_rows",
    "world_size",
]

GOLDEN = 2654435769  # 2³² divided by the golden ratio

_group: dist.ProcessGroup | None = None


def set_process_group(group: dist.ProcessGroup | DeviceMesh | None) -> None:
    """Say which processes hold different inputs of the same quantizers: those of data-parallel training.

    Beside tensor or pipeline parallelism, where several processes hold the same inputs, the default group would count
    these several times. Call it on every process, after `init_process_group` and before training.

    Args:
        group: a process group; a `DeviceMesh` of one dimension, such as ``mesh["data"]``; None for all processes.

    Raises:
        TypeError: it is something else.
        ValueError: the mesh has several dimensions.

    Example:
        >>> set_process_group(None)
    """
    global _group
    if isinstance(group, DeviceMesh):
        if group.ndim != 1:
            raise ValueError(
                "set_process_group: the mesh must have one dimension, that of the data, such as mesh['data']; "
                f"got {group}"
            )
        group = group.get_group()
    elif group is not None and not isinstance(group, dist.ProcessGroup):
        raise TypeError(f"set_process_group: group must be a ProcessGroup, a DeviceMesh or None, got {group!r}")
    _group = group


def world_size() -> int:
    """Return how many processes share the inputs; 1 without `torch.distributed`."""
    return dist.get_world_size(_group) if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process among them, from 0; 0 without `torch.distributed`."""
    return dist.get_rank(_group) if world_size() > 1 else 0


def all_sum(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Sum each tensor over all ranks, in one collective for all of them. Carries no gradient.

    Every rank must call it, with tensors of the same shapes, however many inputs the rank itself has.

    Args:
        *tensors: tensors of numbers, of any shapes, on one device.

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
    dist.all_reduce(message, group=_group)
    parts = torch.split(message, [tensor.numel() for tensor in tensors])
    return tuple(part.reshape(tensor.shape).to(tensor.dtype) for part, tensor in zip(parts, tensors, strict=True))


def all_min(tensor: Tensor) -> Tensor:
    """Return the least value over all ranks, element by element. Every rank must call it. Carries no gradient.

    Example:
        >>> all_min(torch.tensor([1.0, 2.0]))
        tensor([1., 2.])
    """
    least = tensor.detach().clone()
    if world_size() > 1:
        dist.all_reduce(least, op=dist.ReduceOp.MIN, group=_group)
    return least


def require_same(owner: str, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that should be the same on all ranks and are not, on every rank. Every rank must call it.

    Args:
        owner: whose tensors they are, for the message.
        tensors: floating tensors, by name; of each a checksum is compared.

    Raises:
        RuntimeError: one differs between ranks.

    Example:
        >>> require_same("vq", {"codes": torch.ones(3)})
    """
    if world_size() == 1 or not tensors:
        return
    with torch.no_grad():
        sums = torch.stack([_checksum(value) for value in tensors.values()])
        lengths = torch.stack([value.float().norm() for value in tensors.values()])
        # What is not finite on all ranks is somebody else's to refuse.
        sums, lengths = (value.nan_to_num(0, 0, 0) for value in (sums, lengths))
        low, negative_high, negative_length = all_min(torch.stack([sums, -sums, -lengths]))
        # Equal tensors have equal sums, up to the rounding of different processors.
        same = (-negative_high - low <= -1e-5 * negative_length).tolist()
    differ = [name for name, equal in zip(tensors, same, strict=True) if not equal]
    if differ:
        raise RuntimeError(
            f"{owner}: {', '.join(differ)} should be the same on all ranks, and differs. Build the model from one seed "
            "on all of them, and let each parameter's gradient be averaged: DistributedDataParallel does so, and so "
            "does fully_shard for what it shards, but not for its ignored_params: shard the quantizer with the rest. "
            "Ranks that train models of their own say so with lexel.set_process_group"
        )


def _checksum(value: Tensor) -> Tensor:
    """Sum of all elements with signs that hardly cancel a difference, float32."""
    value = value.detach().reshape(-1).float()
    number = torch.arange(len(value), device=value.device)
    return (value * (1 - 2 * (number * 40503 // 128 % 2))).sum()


def mean_over_ranks(local_sum: Tensor, global_sum: Tensor, count: Tensor) -> Tensor:
    """Return the mean over all ranks, with the gradient that makes data-parallel training equal to one large batch.

    Data-parallel training averages gradients over ranks, which is the gradient of the global mean only when every rank
    holds as many elements as every other. Scaling each rank's own sum by world size / global count corrects for that.

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
    if world_size() == 1:
        return local_sum / count
    local = local_sum * (world_size() / count)
    # A zero carries the gradient of the local sum, so that the value is the same on all ranks.
    return global_sum.detach() / count + (local - local.detach())


class AllRows:
    """The inputs of all ranks, rank after rank, numbered as a single process that holds them all would number them.

    Every rank must construct it and call its methods, whether or not it has inputs of its own.

    Args:
        rows: this rank's inputs, `(N, D)`, or `(B, S, D)` for B batches of S rows.
        valid: bool `(N,)` or `(B, S)`, False for rows that do not count; None when all count.

    Attributes:
        total: int64 scalar, how many rows there are on all ranks.

    Example:
        >>> AllRows(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([True, False, True])).take(torch.tensor([1, 0]))
        tensor([[3.],
                [1.]])
    """

    def __init__(self, rows: Tensor, valid: Tensor | None = None) -> None:
        rows = rows.detach()
        if rows.shape[:-1].numel() == 0:  # one row that does not count, so that every rank can index
            rows, valid = rows.new_zeros(1, rows.shape[-1]), torch.zeros(1, dtype=torch.bool, device=rows.device)
        self._all_count = valid is None
        self._order: Tensor | None = None
        if valid is None:
            valid = torch.ones(rows.shape[:-1], dtype=torch.bool, device=rows.device)
        valid = valid.flatten()
        self._rows, self._valid = rows, valid
        self._count = valid.sum()
        held = torch.zeros(world_size(), dtype=torch.int64, device=rows.device)
        held[rank()] = self._count
        (held,) = all_sum(held)
        self._offset = held[: rank()].sum()
        self.total = held.sum()

    @property
    def own(self) -> tuple[Tensor, Tensor]:
        """This rank's rows, `(N, D)`, and which of them count. A rank without inputs holds one that does not count."""
        return self._rows.flatten(0, -2), self._valid

    def _in_order(self) -> Tensor | None:
        """The rows that count, and then the others; None where all count. It is made when it is first needed."""
        if self._order is None and not self._all_count:
            self._order = torch.argsort(~self._valid, stable=True)
        return self._order

    def take(self, positions: Tensor) -> Tensor:
        """Return the rows at `positions` (int64 `(n,)`, the same on all ranks, in [0, total)), `(n, D)`, to all."""
        local = positions - self._offset
        held = (local >= 0) & (local < self._count)
        local = local.clamp(0, len(self._valid) - 1)
        order = self._in_order()
        number = local if order is None else order[local]
        own = self._rows
        rows = own[number] if own.ndim == 2 else own[number // own.shape[1], number % own.shape[1]]
        return all_sum(torch.where(held.unsqueeze(1), rows, 0))[0]

    def draw(self, weights: Tensor, count: Tensor, most: int, start: Tensor) -> Tensor:
        """Draw rows in proportion to their weights, by systematic sampling (Madow 1949).

        The rows lie one after another on a line, each as long as its weight, and `count` points divide the line evenly:
        the rows on which they fall are drawn. Row i is drawn count · w_i / Σw times on average, and in each draw as
        often as that, rounded up or down. Lengths are integers, in 2⁻³⁰ of the largest, whose sums are exact in any
        order: every rank, and a single process with all rows, draws the same. A weight that is rounded otherwise moves
        the points by as little.

        Args:
            weights: this rank's, `(N,)`, floating, not negative, zero for rows that do not count.
            count: int64 scalar, how many points there are, in [0, most]; the same on all ranks, as `start` is.
            most: how many positions are returned.
            start: int64 scalar in [0, 2³¹): from 0 to 2³¹ each point moves to where the next one was.

        Returns:
            Positions for `take`, int64 `(most,)`, ascending; −1 in place of those beyond `count`, and of all of them if
            no weight is positive, or one is not finite.

        Example:
            >>> rows, two, half = AllRows(torch.zeros(3, 1)), torch.tensor(2), torch.tensor(2**30)
            >>> rows.draw(torch.tensor([2.0, 0.0, 3.0]), two, 3, half)
            tensor([ 0,  2, -1])
        """
        rows, valid = self._rows, self._valid
        weights = weights.detach() if len(weights) else rows.new_zeros(1)
        lengths = ((weights / -all_min(-weights.max())).nan_to_num(0, 0, 0) * 2**30).long()
        ends = lengths.cumsum(0)
        held = torch.zeros(world_size(), dtype=torch.int64, device=rows.device)
        held[rank()] = ends[-1]
        (held,) = all_sum(held)
        whole, points = held.sum().clamp_min(1), count.clamp_min(1)
        number = torch.arange(most, device=rows.device).minimum(count)
        # (number + start / 2³¹) · whole / points, without products that may not fit.
        first = (whole >> 31) * start + ((whole % 2**31) * start >> 31)
        place = number * (whole // points) + (number * (whole % points) + first) // points
        place = place - held[: rank()].sum()
        mine = (place >= 0) & (place < ends[-1]) & (number < count)
        row = torch.searchsorted(ends, place, right=True).clamp_max(len(ends) - 1)
        position = self._offset + (row if self._all_count else valid.cumsum(0)[row] - 1)
        return all_sum(torch.where(mine, position + 1, 0))[0] - 1

    def nearest(self, points: Tensor, search: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return the row nearest to each of `points` `(n, D)`, `(n, D)`; zeros if there is no row at all.

        Args:
            points: the same on all ranks.
            search: returns the indices of the rows, its second argument, that are nearest to its first.
        """
        (rows, valid), order = self.own, self._in_order()
        if order is not None:
            filler = rows[order[:1]]  # copies of a row that counts replace those that do not
            rows = torch.where(valid.unsqueeze(1), rows, filler)
        own = rows[search(points, rows)]
        distance = torch.where(self._count > 0, (own - points).square().sum(1), torch.inf)
        holder = torch.where(distance == all_min(distance), rank(), world_size())
        mine = (all_min(holder) == rank()) & (self._count > 0)
        return all_sum(torch.where(mine.unsqueeze(1), own, 0))[0]


def mean_of_rows(*values: Tensor, valid: Tensor | None = None, over_ranks: bool = True) -> tuple[Tensor, ...]:
    """Return the mean of each tensor over the rows of all ranks, in one collective, with `mean_over_ranks`'s gradient.

    Args:
        *values: floating, `(N, …)`, all with the same N.
        valid: bool `(N,)`, False for rows that do not count; None when all count.
        over_ranks: False for the rows of this rank alone, without a collective.

    Returns:
        For each tensor its mean over the first axis, `(…)`; zero when no rank has a row.

    Example:
        >>> mean_of_rows(torch.tensor([1.0, 3.0, 9.0]), valid=torch.tensor([True, True, False]))
        (tensor(2.),)
    """
    if valid is not None:
        values = tuple(torch.where(valid.reshape(-1, *[1] * (value.ndim - 1)), value, 0) for value in values)
    rows = values[0].new_full((), values[0].shape[0]) if valid is None else valid.sum().to(values[0].dtype)
    local = [value.sum(0) for value in values]
    if not over_ranks:
        return tuple(part / rows.clamp_min(1) for part in local)
    count, *total = all_sum(rows, *local)
    count = count.clamp_min(1)
    return tuple(mean_over_ranks(part, whole, count) for part, whole in zip(local, total, strict=True))


def gather_rows(rows: Tensor, *, absent: float) -> Tensor:
    """Concatenate the rows of all ranks, in the order of the ranks. Carries no gradient.

    Every rank must call it, even without any rows.

    Args:
        rows: `(N, …)`; N may differ from rank to rank.
        absent: value of the padding rows of ranks that hold fewer rows than the one with most.

    Returns:
        `(world size · largest N, …)`.

    Example:
        >>> gather_rows(torch.tensor([3, 4]), absent=-1)
        tensor([3, 4])
    """
    if world_size() == 1:
        return rows.detach()
    largest = torch.tensor(len(rows), device=rows.device)
    dist.all_reduce(largest, dist.ReduceOp.MAX, group=_group)
    padded = rows.new_full((int(largest), *rows.shape[1:]), absent)
    padded[: len(rows)] = rows.detach()
    gathered = [torch.empty_like(padded) for _ in range(world_size())]
    dist.all_gather(gathered, padded, group=_group)
    return torch.cat(gathered)


def uniform_of_rows(rows: Tensor) -> Tensor:
    """Draw a number in [0, 1) for each row of this rank, as a single process with the rows of all ranks would.

    Rank 0 draws one number; the others follow from it by adding multiples of the golden ratio, modulo 1. Each is
    uniform, and together they cover the interval more evenly than independent draws.

    Args:
        rows: `(N, …)`; only N and the device are used.

    Returns:
        float32 `(N,)`.

    Example:
        >>> uniform_of_rows(torch.zeros(5, 2)).shape
        torch.Size([5])
    """
    start = (torch.rand((), device=rows.device) * (1 << 32)).long()
    number = torch.arange(len(rows), device=rows.device)
    if world_size() > 1:
        counts = torch.zeros(world_size(), device=rows.device, dtype=torch.int64)
        counts[rank()] = len(rows)
        counts, start = all_sum(counts, start if rank() == 0 else torch.zeros_like(start))
        number = number + counts[: rank()].sum()
    # In integers, as multiples in float32 would be rounded away; of their 32 bits float32 has room for 24.
    draws = start + number * GOLDEN
    return ((draws & 0xFFFFFFFF) >> 8).float() / (1 << 24)
