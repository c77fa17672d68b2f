"""Comparing vectors with codes, and a module's state with what it was."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "METRICS",
    "SAMPLE",
    "changed_names",
    "copied_state",
    "is_close",
    "is_wrong_choice",
    "rows_are_codes",
    "squared_distances",
    "state_of",
]

METRICS = ("distance", "product", "cosine")
# A choice is wrong when its squared distance exceeds the least one by more than this share of ‖z‖² + ‖e‖²: float32 may
# break near ties either way, and a wrong choice among them costs nothing.
ROUNDING = 4 * torch.finfo(torch.float32).eps
SAMPLE = 256  # how many vectors are enough to recognise a table by


def squared_distances(rows: Tensor, codes: Tensor) -> Tensor:
    """Squared distances `(N, K)`, computed from the differences themselves."""
    return torch.cdist(rows, codes, compute_mode="donot_use_mm_for_euclid_dist").square()


def is_wrong_choice(rows: Tensor, codes: Tensor, chosen: Tensor, metric: str, shift: Tensor | float = 0.0) -> Tensor:
    """Say for each choice `(N,)` whether it is not the best by that metric, by more than float32 rounds away.

    `shift` was added to rows and codes alike; the rounding is that of the vectors before the shift.
    """
    if metric == "cosine":
        rows, codes = F.normalize(rows, dim=1), F.normalize(codes, dim=1)
    costs = squared_distances(rows, codes) if metric == "distance" else -rows @ codes.T
    size = (rows - shift).square().sum(1) + (codes - shift).square().sum(1).amax()
    return costs.gather(1, chosen[:, None])[:, 0] > costs.amin(1) + ROUNDING * size


def is_close(rows: Tensor, others: Tensor, inputs: Tensor) -> bool:
    """Whether both are equal but for the rounding of z + (e − z) with these inputs z."""
    tolerance = 1e-5 * others.abs().max() + 1e-6 * inputs.abs().max()
    return bool((rows - others).abs().max() <= tolerance)


def rows_are_codes(rows: Tensor, table: Tensor, inputs: Tensor) -> bool:
    """Whether each of the first rows is a row of the table."""
    rows, table = rows[:SAMPLE].detach().double(), table.double()
    return is_close(rows, table[squared_distances(rows, table).argmin(1)], inputs)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, also those that are not saved."""
    return {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def copied_state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of `state_of`."""
    return {name: tensor.clone() for name, tensor in state_of(model).items()}


def changed_names(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    """Names of the tensors that are not what they were."""
    return [
        name
        for name, old in before.items()
        if name not in after or not torch.equal(torch.nan_to_num(old), torch.nan_to_num(after[name]))
    ]
