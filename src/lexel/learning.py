"""Learning rules: how the codes move."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lexel._core.config import Configurable

__all__ = ["EMA", "Gradient", "Learning"]


class Learning(Configurable, abstract=True):
    """How the codes of a codebook move."""


@dataclass(frozen=True)
class Gradient(Learning):
    """By gradient descent on the codebook loss ‖sg[z] − e‖² (van den Oord et al. 2017, eq. 3, second term).

    Attributes:
        weight: of the codebook loss, not negative; 1 in the paper. Implementations that put β on this term instead of
            the commitment (taming-transformers' "legacy" loss, Chameleon, Janus) have `weight=β` and
            `commitment_cost=1`.

    Raises:
        ValueError: the weight is negative or not finite.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise ValueError(f"Gradient: weight must be finite and not negative, got {self.weight}")


@dataclass(frozen=True)
class EMA(Learning):
    """As exponential moving averages of the inputs that chose them, with no gradient (same paper, appendix A.1).

    With n_i inputs assigned to code i in this step and their sum Σz:

        N_i ← γ N_i + (1 − γ) n_i
        m_i ← γ m_i + (1 − γ) Σz
        e_i ← m_i / N̂_i,  where N̂_i = (N_i + ε) / (ΣN + K ε) · ΣN

    The averages start as if each code had already been chosen once, by an input equal to itself (N_i = 1, m_i = e_i),
    so that a code which nothing chooses stays where it is. Implementations that start from N_i = 0 with m_i = e_i throw
    such a code far away in the first step, from where no input ever chooses it again; Sonnet's zero-debiased averages
    send it to the origin.

    An average that reaches back a hundred steps is slow to leave where it started. With a warm-up of w it reaches back
    over the last w-th of the steps t_i in which something chose code i, until that is as far as γ reaches:

        1 − γ_i = max(1 − γ, w / (t_i + w)) for codes with n_i > 0

    A code that upkeep replaces warms up again. So k-means learns from a stream (MacQueen 1967, with w = 1 the mean of
    all inputs; a larger w forgets those that came when the codes lay elsewhere).

    Attributes:
        decay: γ, in [0, 1).
        epsilon: ε, the Laplace smoothing of the counts, positive.
        warmup: w, not negative; 0 for none. A code has warmed up after w γ / (1 − γ) steps.

    Raises:
        ValueError: a value is out of its range.
    """

    decay: float = 0.99
    epsilon: float = 1e-5
    warmup: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"EMA: decay must be in [0, 1), got {self.decay}")
        if not self.epsilon > 0:
            raise ValueError(f"EMA: epsilon must be positive, got {self.epsilon}")
        if not 0 <= self.warmup < float("inf"):
            raise ValueError(f"EMA: warmup must be finite and not negative, got {self.warmup}")

    @torch.no_grad()
    def update(
        self,
        codes: Tensor,
        ema_count: Tensor,
        ema_sum: Tensor,
        counts: Tensor,
        sums: Tensor,
        age: Tensor | None = None,
    ) -> None:
        """Move `codes`, `ema_count` and `ema_sum` in place by one step; no input at all (Σn = 0) moves nothing.

        Args:
            codes: e, `(K, D)`.
            ema_count: N, `(K,)`.
            ema_sum: m, `(K, D)`.
            counts: n, `(K,)`: how many inputs of all ranks chose each code.
            sums: Σz, `(K, D)`: the sum of those inputs.
            age: t, `(K,)`, moved too: in how many steps each code was chosen. Needed for a warm-up.
        """
        counts, sums = counts.to(ema_count.dtype), sums.to(ema_sum.dtype)
        step = torch.full_like(counts, 1 - self.decay)
        if age is not None:
            age += counts > 0
            step = torch.where(counts > 0, (self.warmup / (age + self.warmup)).clamp_min(1 - self.decay), step)
        moves = counts.sum() > 0
        step = step * moves  # a product: an empty batch needs no branch
        ema_count.lerp_(counts, step)
        ema_sum.lerp_(sums, step.unsqueeze(1))
        total = ema_count.sum()
        smoothed = (ema_count + self.epsilon) / (total + len(ema_count) * self.epsilon) * total
        # e = m / smoothed, or e as it is: in place, since these are the largest tensors of a step.
        codes.mul_(~moves).addcdiv_(ema_sum, smoothed.where(moves, torch.inf).unsqueeze(1))
