"""Learning rules: how the codes move."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lexel.parts import Configurable

__all__ = ["EMA", "Gradient", "Learning"]


class Learning(Configurable, abstract=True):
    """How the codes of a codebook move."""


@dataclass(frozen=True)
class Gradient(Learning):
    """By gradient descent on the codebook loss ‖sg[z] − e‖² (van den Oord et al. 2017, eq. 3, second term)."""


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

    Attributes:
        decay: γ, in [0, 1).
        epsilon: ε, the Laplace smoothing of the counts, positive.

    Raises:
        ValueError: a value is out of its range.
    """

    decay: float = 0.99
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"EMA: decay must be in [0, 1), got {self.decay}")
        if not self.epsilon > 0:
            raise ValueError(f"EMA: epsilon must be positive, got {self.epsilon}")

    @torch.no_grad()
    def update(self, codes: Tensor, ema_count: Tensor, ema_sum: Tensor, counts: Tensor, sums: Tensor) -> None:
        """Move `codes`, `ema_count` and `ema_sum` in place by one step; no input at all (Σn = 0) moves nothing.

        Args:
            codes: e, `(K, D)`.
            ema_count: N, `(K,)`.
            ema_sum: m, `(K, D)`.
            counts: n, `(K,)`: how many inputs of all ranks chose each code.
            sums: Σz, `(K, D)`: the sum of those inputs.
        """
        counts, sums = counts.to(ema_count.dtype), sums.to(ema_sum.dtype)
        step = (1 - self.decay) * (counts.sum() > 0).to(counts.dtype)  # a tensor: an empty batch needs no branch
        ema_count.lerp_(counts, step)
        ema_sum.lerp_(sums, step)
        total = ema_count.sum()
        smoothed = (ema_count + self.epsilon) / (total + len(ema_count) * self.epsilon) * total
        codes.copy_(torch.where(step > 0, ema_sum / smoothed.unsqueeze(1), codes))
