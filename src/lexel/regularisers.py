"""Regularisers: what else is in the loss, in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lexel._core.collectives import all_sum, mean_over_ranks
from lexel._core.config import Configurable
from lexel._core.soft_assignment import by_rows, logits

__all__ = ["Entropy", "Orthogonality", "Regulariser"]


class Regulariser(Configurable, abstract=True):
    """A term of the loss besides the codebook and commitment terms, called with the inputs and all codes.

    Attributes:
        name: of the term in `Quantized.terms`.
        only_codes: its gradient reaches nothing but the codes.
        weight: by which it enters the loss; any finite number.
    """

    name: ClassVar[str]
    only_codes: ClassVar[bool] = False
    weight: float

    def __call__(self, z: Tensor, codes: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the unweighted term, a scalar, the same on all ranks.

        Args:
            z: inputs, `(N, D)`.
            codes: `(K, D)`.
            valid: bool `(N,)`, False for rows that do not count; None when all count.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Entropy(Regulariser):
    """Makes each choice certain and all choices together diverse (LFQ, arXiv 2310.05737, eq. 5).

        p = softmax(−‖z − e_k‖² / τ over k),    term = E[H(p)] − γ H(E[p])

    with means over the inputs of all ranks, in nats. The probabilities are made for a few inputs at a time and again in
    backward: no (N, K) matrix is kept.

    Attributes:
        weight: of the term.
        diversity: γ.
        temperature: τ, positive.

    Raises:
        ValueError: the temperature is not positive.

    Example:
        >>> z = torch.tensor([[-1.0], [1.0]])
        >>> Entropy(temperature=0.01)(z, z)  # each choice certain, both codes used alike: −log 2
        tensor(-0.6931)
    """

    weight: float = 0.1
    diversity: float = 1.0
    temperature: float = 1.0
    name: ClassVar[str] = "entropy"

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"Entropy: temperature must be positive, got {self.temperature}")

    def __call__(self, z: Tensor, codes: Tensor, valid: Tensor | None = None) -> Tensor:  # noqa: D102
        counts = z.new_ones(len(z)) if valid is None else valid.to(z.dtype)

        def sums(codes: Tensor, z: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
            log_p = (logits(z, codes) / self.temperature).log_softmax(1)
            p = log_p.exp()
            return -(p * log_p).sum(1) @ counts, counts @ p

        entropies, usage = (sum(parts, z.new_zeros(())) for parts in zip(*by_rows(sums, codes, z, counts), strict=True))
        number, all_entropies, all_usage = all_sum(counts.sum(), entropies, usage)
        number = number.clamp_min(1)
        mean = mean_over_ranks(usage, all_usage, number)
        each = mean_over_ranks(entropies, all_entropies, number)
        negative_entropy = (mean * mean.clamp_min(torch.finfo(mean.dtype).tiny).log()).sum()
        return each + self.diversity * negative_entropy


@dataclass(frozen=True)
class Orthogonality(Regulariser):
    """Keeps the directions of different codes at right angles (Shin et al. 2021, arXiv 2112.00384, eq. 2).

        term = ‖Ê Êᵀ − I‖² / K²,    Ê the codes divided by their lengths

    Computed as (‖Êᵀ Ê‖² − K) / K², which is the same and takes a (D, D) matrix instead of a (K, K) one.

    Attributes:
        weight: of the term.

    Example:
        >>> Orthogonality()(torch.zeros(1, 2), torch.tensor([[3.0, 0.0], [0.0, 2.0]]))
        tensor(0.)
    """

    weight: float = 10.0
    name: ClassVar[str] = "orthogonality"
    only_codes: ClassVar[bool] = True

    def __call__(self, z: Tensor, codes: Tensor, valid: Tensor | None = None) -> Tensor:  # noqa: D102
        K, unit = len(codes), F.normalize(codes, dim=1)
        term: Tensor = ((unit.T @ unit).square().sum() - K) / K**2
        return term
