"""Lookup-free quantization: one bit for each channel, and no table."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from lexel._core.checks import check_number
from lexel._core.gradients import straight_through, unit_rows
from lexel.quantizers._radix import from_digits, to_digits
from lexel.quantizers.base import Choice, RowQuantizer

__all__ = ["BinarySphericalQuantizer", "LookupFreeQuantizer"]


class LookupFreeQuantizer(RowQuantizer):
    """Replaces each channel by its sign: LFQ (Yu et al. 2023, arXiv 2310.05737).

    The codes are the 2^d corners {−1, 1}^d; the index is Σ_i 2^i [z_i > 0], the first channel least significant. No
    table of them is made, for d up to 62.

        loss = entropy_weight · (E[H(p)] − diversity_gamma · H(E[p])) + commitment_cost · ‖z − sg[e]‖²

    where p(c|z) ∝ exp(−‖z − c‖²/temperature) over all 2^d codes. It is a product of d independent bits,
    p(c_i = 1|z) = σ(4 z_i/temperature), so that H(p) is exactly the sum of d entropies of one bit: `terms["entropy"]`,
    which makes each choice certain. H(E[p]), which spreads the choices over all codes, has no such form;
    `terms["diversity"]` is the sum of the entropies of the mean bits, an upper bound, which is exact when the bits are
    independent of each other over the batch. `terms["commitment"]` holds the inputs to their codes. Entropies are
    in nats. The task loss reaches the inputs straight through. There is no learned state.

    vector-quantize-pytorch has the first channel most significant, and builds the 2^d table for its entropies.

    Args:
        embedding_dim: d, at most 62; K = 2^d.
        commitment_cost: β, the weight of the commitment term.
        entropy_weight: the weight of the entropy terms.
        diversity_gamma: γ, the weight of H(E[p]) within them.
        temperature: in units of squared distance; how soft p is. Positive.
        channel_dim: which axis of the input holds the channels.

    Raises:
        TypeError: `embedding_dim` is not an integer.
        ValueError: d is not in [1, 62], `temperature` is not positive, or a weight is negative.

    Example:
        >>> import torch, lexel
        >>> lfq = lexel.LookupFreeQuantizer(18)
        >>> lfq.num_embeddings
        262144
        >>> output = lexel.LookupFreeQuantizer(3)(torch.tensor([[0.2, -3.0, 0.7]]))
        >>> output.quantized, output.indices
        (tensor([[ 1., -1.,  1.]]), tensor([5]))
    """

    def __init__(
        self,
        embedding_dim: int,
        commitment_cost: float = 0.25,
        *,
        entropy_weight: float = 0.1,
        diversity_gamma: float = 1.0,
        temperature: float = 0.01,
        channel_dim: int = 1,
    ) -> None:
        name = type(self).__name__
        if not 1 <= embedding_dim <= 62:
            raise ValueError(
                f"{name}: embedding_dim must be in [1, 62] so that an index fits int64, got {embedding_dim}"
            )
        super().__init__(2**embedding_dim, embedding_dim, channel_dim)
        self.commitment_cost = float(check_number(name, "commitment_cost", commitment_cost, least=0))
        self.entropy_weight = float(check_number(name, "entropy_weight", entropy_weight, least=0))
        self.diversity_gamma = float(check_number(name, "diversity_gamma", diversity_gamma, least=0))
        self.temperature = float(check_number(name, "temperature", temperature, above=0))

    @property
    def magnitude(self) -> float:
        """The absolute value of every component of a code."""
        return 1.0

    @override
    def quantize_rows(self, z: Tensor, valid: Tensor | None) -> Choice:
        indices = from_digits((z > 0).long(), self._levels)
        e = self.lookup_rows(indices).to(z.dtype)

        logits = 4 * self.magnitude / self.temperature * z
        entropy, mean_bits, commitment = self.means(
            _entropy_of_bits(logits).sum(1), torch.sigmoid(logits), (z - e).square().mean(1), valid=valid
        )
        undecided = (mean_bits > 0) & (mean_bits < 1)  # elsewhere the entropy is zero and its slope infinite
        mean_bits = torch.where(undecided, mean_bits, 0.5)
        bits = torch.special.entr(mean_bits) + torch.special.entr(1 - mean_bits)
        diversity = torch.where(undecided, bits, 0).sum()
        terms = {"entropy": entropy, "diversity": diversity, "commitment": commitment}
        loss = self.entropy_weight * (entropy - self.diversity_gamma * diversity) + self.commitment_cost * commitment
        return Choice(indices, straight_through(z, e), loss, terms)

    @override
    def lookup_rows(self, indices: Tensor) -> Tensor:
        return (to_digits(indices, self._levels) * 2 - 1).float() * self.magnitude

    @property
    def _levels(self) -> tuple[int, ...]:
        return (2,) * self.embedding_dim

    def extra_repr(self) -> str:
        """Show d and the weights."""
        return (
            f"{self.embedding_dim}, commitment_cost={self.commitment_cost}, entropy_weight={self.entropy_weight}, "
            f"diversity_gamma={self.diversity_gamma}, temperature={self.temperature}"
        )


class BinarySphericalQuantizer(LookupFreeQuantizer):
    """Projects each vector to the unit sphere and takes the signs: BSQ (Zhao et al. 2024, arXiv 2406.07548).

    u = z/‖z‖ is replaced by the nearest of the 2^d codes {−1/√d, 1/√d}^d, which lie on the sphere too. The error is
    bounded, E‖u − e‖ < √(2 − 2/√d). The index is Σ_i 2^i [z_i > 0], the first channel least significant; no table is
    made, for d up to 62.

        loss = entropy_weight · (E[H(p)] − diversity_gamma · H(E[p])) + commitment_cost · ‖u − sg[e]‖²

    with the terms of `LookupFreeQuantizer`, of u: p(c|u) ∝ exp(−‖u − c‖²/temperature) is the paper's soft quantization
    exp(τ·cᵀu) with τ = 2/temperature, and factorises over bits. The sum of the entropies of the mean bits, which stands
    for H(E[p]), is its upper bound. The task loss reaches u straight through, and z through the projection: its
    gradient is orthogonal to z.

    Args:
        embedding_dim: d, at most 62; K = 2^d.
        commitment_cost: β, the weight of the commitment term.
        entropy_weight: the weight of the entropy terms.
        diversity_gamma: γ, the weight of H(E[p]) within them.
        temperature: in units of squared distance on the unit sphere; how soft p is. Positive.
        channel_dim: which axis of the input holds the channels.

    Raises:
        TypeError: `embedding_dim` is not an integer.
        ValueError: d is not in [1, 62], `temperature` is not positive, or a weight is negative.

    Example:
        >>> import torch, lexel
        >>> output = lexel.BinarySphericalQuantizer(4)(torch.tensor([[3.0, -1.0, 2.0, 5.0]]))
        >>> output.quantized, output.indices
        (tensor([[ 0.5000, -0.5000,  0.5000,  0.5000]]), tensor([13]))
    """

    def __init__(
        self,
        embedding_dim: int,
        commitment_cost: float = 0.25,
        *,
        entropy_weight: float = 0.1,
        diversity_gamma: float = 1.0,
        temperature: float = 1.0,
        channel_dim: int = 1,
    ) -> None:
        super().__init__(
            embedding_dim,
            commitment_cost,
            entropy_weight=entropy_weight,
            diversity_gamma=diversity_gamma,
            temperature=temperature,
            channel_dim=channel_dim,
        )

    @property
    def magnitude(self) -> float:
        """The absolute value of every component of a code: 1/√d."""
        return float(self.embedding_dim**-0.5)

    @override
    def quantize_rows(self, z: Tensor, valid: Tensor | None) -> Choice:
        return super().quantize_rows(unit_rows(z), valid)

    @override
    def unquantized_positions(self, z: Tensor) -> Tensor:
        return unit_rows(z)


def _entropy_of_bits(logits: Tensor) -> Tensor:
    """Return the entropy in nats of a bit that is 1 with probability σ(logit); no logit overflows."""
    size = logits.abs()
    return F.softplus(-size) + size * torch.sigmoid(-size)
