"""Regularisers: what else is in the loss, in training."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor
from typing_extensions import override

from lexel._core.checks import check_number
from lexel._core.collectives import all_sum, mean_over_ranks
from lexel._core.config import Configurable, Part
from lexel._core.gradients import unit_rows
from lexel._core.soft_assignment import by_rows, logits

__all__ = ["Entropy", "Orthogonality", "Regulariser", "RegulariserModule"]


class Regulariser(Configurable):
    """Settings of a further term of the loss; `build` makes the module from them.

    Attributes:
        name: the name of the term in `Quantized.terms`.
        weight: the weight of the term in the loss; any finite number.
    """

    name: ClassVar[str]
    weight: float

    @property
    def only_codes(self) -> bool:
        """Whether its gradient reaches nothing but the codes."""
        return False

    @abstractmethod
    def build(self, num_embeddings: int, embedding_dim: int) -> RegulariserModule[Regulariser]:
        """Make the module for K codes of D numbers."""


RegulariserT = TypeVar("RegulariserT", bound=Regulariser, covariant=True)


class RegulariserModule(Part[RegulariserT]):
    """Computes the term in `forward`."""

    @abstractmethod
    def forward(self, z: Tensor, codes: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the unweighted term, a scalar, the same on all ranks.

        Args:
            z: inputs, `(N, D)`.
            codes: `(K, D)`.
            valid: bool `(N,)`, False for rows that do not count; None when all count.
        """


@dataclass(frozen=True)
class Entropy(Regulariser):
    """Makes each choice certain and all choices together diverse (LFQ, arXiv 2310.05737, eq. 5).

        p = softmax(−‖z − e_k‖² / τ over k),    term = E[H(p)] − γ H(E[p])

    with means over the inputs of all ranks, in nats; with `metric="dot"`, p = softmax(⟨z, e_k⟩ / τ). The
    probabilities are computed for a few inputs at a time and again in backward: no (N, K) matrix is stored.

    Attributes:
        weight: the weight of the term in the loss.
        diversity: γ.
        temperature: τ, positive.
        metric: `"euclidean"`, or `"dot"` where the dot product chooses codes, as in `IndexBackpropagation`.

    Raises:
        ValueError: the temperature is not positive, or the metric is neither.

    Example:
        >>> z = torch.tensor([[-1.0], [1.0]])
        >>> Entropy(temperature=0.01).build(2, 1)(z, z)  # each choice certain, both codes equally frequent: −log 2
        tensor(-0.6931)
    """

    weight: float = 0.1
    diversity: float = 1.0
    temperature: float = 1.0
    metric: Literal["euclidean", "dot"] = "euclidean"
    name: ClassVar[str] = "entropy"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("Entropy", "temperature", self.temperature, above=0)

    @override
    def build(self, num_embeddings: int, embedding_dim: int) -> RegulariserModule[Regulariser]:
        return _EntropyModule(self)


class _EntropyModule(RegulariserModule[Entropy]):
    @override
    def forward(self, z: Tensor, codes: Tensor, valid: Tensor | None = None) -> Tensor:
        temperature, diversity, metric = self.settings.temperature, self.settings.diversity, self.settings.metric
        counts = z.new_ones(len(z)) if valid is None else valid.to(z.dtype)

        def sums(codes: Tensor, z: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
            log_p = (logits(z, codes, metric) / temperature).log_softmax(1)
            p = log_p.exp()
            return -(p * log_p).sum(1) @ counts, counts @ p

        entropies, usage = (sum(parts, z.new_zeros(())) for parts in zip(*by_rows(sums, codes, z, counts), strict=True))
        number, all_entropies, all_usage = all_sum(counts.sum(), entropies, usage)
        number = number.clamp_min(1)
        mean = mean_over_ranks(usage, all_usage, number)
        each = mean_over_ranks(entropies, all_entropies, number)
        negative_entropy = (mean * mean.clamp_min(torch.finfo(mean.dtype).tiny).log()).sum()
        return each + diversity * negative_entropy


@dataclass(frozen=True)
class Orthogonality(Regulariser):
    """Keeps the directions of different codes at right angles (Shin et al. 2021, arXiv 2112.00384, eq. 2).

        term = ‖Ê Êᵀ − I‖² / K²,    Ê the codes divided by their lengths

    Computed as (‖Êᵀ Ê‖² − K) / K², which is the same and takes a (D, D) matrix instead of a (K, K) one.

    Attributes:
        weight: the weight of the term in the loss.

    Example:
        >>> Orthogonality().build(2, 2)(torch.zeros(1, 2), torch.tensor([[3.0, 0.0], [0.0, 2.0]]))
        tensor(0.)
    """

    weight: float = 10.0
    name: ClassVar[str] = "orthogonality"
    only_codes = True

    @override
    def build(self, num_embeddings: int, embedding_dim: int) -> RegulariserModule[Regulariser]:
        return _OrthogonalityModule(self)


class _OrthogonalityModule(RegulariserModule[Orthogonality]):
    @override
    def forward(self, z: Tensor, codes: Tensor, valid: Tensor | None = None) -> Tensor:
        K, unit = len(codes), unit_rows(codes)
        term: Tensor = ((unit.T @ unit).square().sum() - K) / K**2
        return term
