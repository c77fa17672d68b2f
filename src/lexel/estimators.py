"""Estimators: what gradient the encoder gets through the choice of a code, which has none of its own.

Estimators act in training only; in eval mode the quantizer returns the code itself, with the gradient of the identity.
Noise that they draw for each input comes from torch's global generator, like that of dropout, and differs by rank.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from lexel._core.checks import check_number
from lexel._core.collectives import all_sum, rank
from lexel._core.config import Configurable, Part
from lexel._core.gradients import LEAST_LENGTH, carry, straight_through
from lexel._core.soft_assignment import by_rows, logits
from lexel.nearest import Metric, nearest_code

__all__ = [
    "NSVQ",
    "DiVeQ",
    "Estimator",
    "EstimatorModule",
    "GumbelSoftmax",
    "IndexBackpropagation",
    "NearestCode",
    "Prices",
    "RotationTrick",
    "SpaceFillingDiVeQ",
    "StraightThrough",
    "Synchronised",
]


class Estimator(Configurable):
    """Settings that say which gradient the encoder gets; `build` makes the module from them."""

    @property
    def metric(self) -> Metric:
        """The metric by which the nearest code is chosen, in eval mode too."""
        return "euclidean"

    @property
    def moves_codes(self) -> bool:
        """Whether the gradient of the task loss reaches the codes, so that they cannot be averages (EMA)."""
        return False

    @property
    def replaces_codebook_loss(self) -> bool:
        """Whether the gradient of the task loss alone moves the codes, so that there is no codebook loss."""
        return False

    @property
    def has_double_loss(self) -> bool:
        """Whether the loss contains ‖z − quantized‖² as well, with the estimator's own gradient on both sides."""
        return False

    @property
    def accepts_positions(self) -> bool:
        """Whether the module takes inputs `(B, S, D)`, B batches of S rows, as well as rows `(N, D)`."""
        return False

    @abstractmethod
    def build(self, num_embeddings: int, embedding_dim: int) -> EstimatorModule[Estimator]:
        """Make the module for K codes of D numbers."""


EstimatorT = TypeVar("EstimatorT", bound=Estimator, covariant=True)


class EstimatorModule(Part[EstimatorT]):
    """Chooses codes and quantizes in training: `forward` is the estimator.

    Attributes:
        is_straight_through: whether `forward` returns the nearest code with the gradient of the identity and nothing
            else, so that the quantizer may compute it together with the losses. For a subclass that overrides
            `forward` it is False, unless the subclass sets it itself.
    """

    is_straight_through: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "forward" in cls.__dict__ and "is_straight_through" not in cls.__dict__:
            cls.is_straight_through = False

    @property
    def prices(self) -> Tensor | None:
        """What each code costs beside the squared distance, `(K,)`, where that decides too; None where it does not."""
        return None

    @abstractmethod
    def forward(self, z: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Choose codes and quantize.

        Args:
            z: inputs, `(N, D)`.
            codes: `(K, D)`.

        Returns:
            Indices, int64 `(N,)`, and the quantized rows `(N, D)`.
        """

    def nearest(self, z: Tensor, codes: Tensor) -> Tensor:
        """Return the index of the nearest code by the settings' metric, int64 `(N,)`: the choice in eval mode."""
        return nearest_code(z.detach(), codes.detach(), metric=self.settings.metric)

    def observe(self, counts: Tensor) -> None:
        """Take note, at the end of a step, of how many inputs of all ranks chose each code: `counts` `(K,)`."""


class NearestCode(EstimatorModule[EstimatorT]):
    """Chooses the nearest code, and quantizes by a function of each input and its code alone.

    Args:
        settings: the settings of the estimator.
        function: takes inputs and their codes, both `(N, D)`, and returns the quantized rows `(N, D)`.
    """

    def __init__(self, settings: EstimatorT, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(settings)
        self.function = function

    @override
    def forward(self, z: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        indices = self.nearest(z, codes)
        return indices, self.function(z, F.embedding(indices, codes))


@dataclass(frozen=True)
class StraightThrough(Estimator):
    """The value of the code with the gradient of the identity: ∂L/∂z = ∂L/∂quantized (van den Oord et al. 2017, §3.2).

    The value is exactly the code's, bit for bit.

    Attributes:
        metric: the metric by which the code is chosen. With `"cosine"` the angle decides and codes keep their lengths,
            as in DAC (arXiv 2306.06546), whereas the codes of a `CosineCodebook` all have length 1.

    Raises:
        ValueError: the metric is none of `"euclidean"`, `"cosine"` and `"dot"`.

    Example:
        >>> z, codes = torch.tensor([[0.1]], requires_grad=True), torch.tensor([[-0.7], [0.3]])
        >>> StraightThrough().build(2, 1)(z, codes)
        (tensor([1]), tensor([[0.3000]], grad_fn=<AddBackward0>))
    """

    metric: Metric = "euclidean"
    accepts_positions = True

    @override
    def build(self, num_embeddings: int, embedding_dim: int) -> EstimatorModule[Estimator]:
        return _StraightThroughModule(self, straight_through)


class _StraightThroughModule(NearestCode[StraightThrough]):
    is_straight_through = True


@dataclass(frozen=True)
class Prices(Estimator):
    """Chooses the code of least ‖z − e_k‖² + p_k, with the gradient of the identity, so that prices balance the usage.

    The prices that make each of K codes the choice of N/K inputs, at the least total distance, are the dual variables
    of the assignment problem (Bertsekas 1988, the auction algorithm). They decide for inputs that were never seen too,
    without a look at any others. The search is exact and costs one more dimension: code k lies at (e_k, √(p_k − min p))
    and an input at (z, 0). A price is part of the choice, not of the codes, so that no loss and no lookup sees it, and
    a beam search adds it to the distances.

    All prices start at zero, which is `StraightThrough`; fits with `balanced=True` set them.

    Example:
        >>> import lexel
        >>> vq = lexel.VectorQuantizer(2, 1, estimator=Prices())
        >>> vq.load_codes(torch.tensor([[0.0], [1.0]]))
        >>> vq.estimator.price.copy_(torch.tensor([0.5, 0.0]))
        tensor([0.5000, 0.0000])
        >>> vq(torch.tensor([[0.1], [0.4]])).indices
        tensor([0, 1])
    """

    @override
    def build(self, num_embeddings: int, embedding_dim: int) -> EstimatorModule[Estimator]:
        return _PricesModule(self, num_embeddings)


class _PricesModule(NearestCode[Prices]):
    is_straight_through = True

    price: Tensor  # (K,)

    def __init__(self, settings: Prices, num_embeddings: int) -> None:
        super().__init__(settings, straight_through)
        self.register_buffer("price", torch.zeros(num_embeddings))

    def reset_parameters(self) -> None:
        """Charge nothing."""
        self.price.zero_()

    @property
    @override
    def prices(self) -> Tensor:
        return self.price

    @override
    def nearest(self, z: Tensor, codes: Tensor) -> Tensor:
        return nearest_at_price(z.detach(), codes.detach(), self.price)


def nearest_at_price(z: Tensor, codes: Tensor, price: Tensor) -> Tensor:
    """Return the index of the code of least ‖z − e_k‖² + p_k for each row of `z`, int64 `(N,)`.

    Args:
        z: `(N, D)`.
        codes: `(K, D)`.
        price: p, `(K,)`, finite.

    Example:
        >>> nearest_at_price(torch.tensor([[0.4]]), torch.tensor([[0.0], [1.0]]), torch.tensor([0.5, 0.0]))
        tensor([1])
    """
    height = (price - price.min()).sqrt().unsqueeze(1).to(codes.dtype)
    return nearest_code(F.pad(z, (0, 1)), torch.cat([codes, height], 1))


@dataclass(frozen=True)
class Synchronised(Estimator):
    """Adds to another estimator that the code gets ν times the gradient of the output (Huh et al. 2023, eq. 21).

        quantized = sg[e] + (z − sg[z]) + ν (e − sg[e])

    so that a code moves with its inputs in the same step. vector-quantize-pytorch adds ν times the straight-through
    output instead, which scales the encoder's gradient and never reaches the codes.

    Attributes:
        nu: ν, positive.
        estimator: the other estimator, whose gradient the encoder gets.

    Raises:
        ValueError: ν is not positive.

    Example:
        >>> z, codes = torch.tensor([[0.1]]), torch.tensor([[0.3]], requires_grad=True)
        >>> Synchronised(nu=0.5).build(1, 1)(z, codes)[1].sum().backward()
        >>> codes.grad
        tensor([[0.5000]])
    """

    nu: float = 0.2
    estimator: Estimator = StraightThrough()
    moves_codes = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("Synchronised", "nu", self.nu, above=0)
        if self.estimator.moves_codes:
            raise ValueError(f"Synchronised: {self.estimator} already passes a gradient to the codes")

    @property
    @override
    def metric(self) -> Metric:
        return self.estimator.metric

    @override
    def build(self, num_embeddings: int, embedding_dim: int) -> EstimatorModule[Estimator]:
        return _SynchronisedModule(self, self.estimator.build(num_embeddings, embedding_dim))


class _SynchronisedModule(EstimatorModule[Synchronised]):
    def __init__(self, settings: Synchronised, estimator: EstimatorModule[Estimator]) -> None:
        super().__init__(settings)
        self.estimator = estimator

    @property
    @override
    def prices(self) -> Tensor | None:
        return self.estimator.prices

    @override
    def nearest(self, z: Tensor, codes: Tensor) -> Tensor:
        return self.estimator.nearest(z, codes)

    @override
    def forward(self, z: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        indices, quantized = self.estimator(z, codes)
        return indices, carry(quantized, self.settings.nu * F.embedding(indices, codes))

    @override
    def observe(self, counts: Tensor) -> None:
        self.estimator.observe(counts)


@dataclass(frozen=True)
class RotationTrick(Estimator):
    """Treats the code as its input, rotated and stretched by constants (Fifty et al. 2024, arXiv 2410.06424, §4.2).

        quantized = sg[(‖e‖ / ‖z‖) R] z,    R = I − 2 r rᵀ + 2 ê ẑᵀ,    r = (ẑ + ê) / ‖ẑ + ê‖

    with ẑ and ê the unit vectors of z and e; R is the rotation that takes ẑ to ê in their plane. The gradient keeps its
    angle to the code when it moves to the input. Its value is the code, bit for bit. An input at the origin, which has
    no direction, gets the straight-through gradient.

    Example:
        >>> z = torch.tensor([[1.0, 0.0]], requires_grad=True)
        >>> _, quantized = RotationTrick().build(1, 2)(z, torch.tensor([[0.0, 2.0]]))
        >>> (quantized @ torch.tensor([0.0, 1.0])).sum().backward()
        >>> z.grad.round()  # the gradient along the code became one along the input
        tensor([[2., 0.]])
    """

    @override
    def build(self, num_embeddings: int, embedding_dim: int) -> EstimatorModule[Estimator]:
        return NearestCode(self, rotation_trick)


def rotation_trick(z: Tensor, e: Tensor) -> Tensor:
    """Return the rows of `e` with the gradient of the rows of `z` rotated and stretched to them, all `(N, D)`."""
    with torch.no_grad():
        z_norm, e_norm = z.norm(dim=1, keepdim=True), e.norm(dim=1, keepdim=True)
        z_unit, e_unit = F.normalize(z, dim=1), F.normalize(e, dim=1)
        r = F.normalize(z_unit + e_unit, dim=1)
        turns = z_norm > LEAST_LENGTH
        stretch = torch.where(turns, e_norm / torch.where(turns, z_norm, 1), 1)
    along_r, along_z = ((unit * z).sum(1, keepdim=True) for unit in (r, z_unit))
    return carry(e.detach(), stretch * (z - 2 * r * along_r + 2 * e_unit * along_z))


@dataclass(frozen=True)
class NSVQ(Estimator):
    """Replaces the quantization error by noise of the same length in a random direction (Vali & Bäckström 2022, eq. 4).

        quantized = z + ‖z − e‖ · v / ‖v‖,    v normal

    The length passes a gradient to the input and to the code, and the task loss alone moves the codes; the paper has no
    commitment loss either (`commitment_cost=0`).

    Example:
        >>> _, quantized = NSVQ().build(1, 3)(torch.zeros(1, 3), torch.tensor([[0.0, 3.0, 4.0]]))
        >>> quantized.norm().round(decimals=4)
        tensor(5.)
    """

    moves_codes = True
    replaces_codebook_loss = True

    @override
    def build(self, num_embeddings: int, embedding_dim: int) -> EstimatorModule[Estimator]:
        return NearestCode(self, nsvq)


def nsvq(z: Tensor, e: Tensor) -> Tensor:
    """Return the rows of `z` plus noise as long as their distance to those of `e`, all `(N, D)`."""
    return z + _length(z - e) * F.normalize(torch.randn_like(z), dim=1)


@dataclass(frozen=True)
class DiVeQ(Estimator):
    """Splits the quantization error into a length and a constant direction (Vali et al. 2025, arXiv 2509.26469, eq. 5).

        quantized = z + ‖e − z‖ · sg[v / ‖v‖],    v = (e − z) + noise of variance σ²

    The task loss alone moves the codes; the paper has no commitment loss either (`commitment_cost=0`). The authors'
    package draws noise with a standard deviation of σ², where the paper says variance; this follows the paper.

    Attributes:
        variance: σ², not negative; at 0 the value is the code itself, up to rounding.

    Raises:
        ValueError: the variance is negative.

    Example:
        >>> z = torch.zeros(1, 2, requires_grad=True)
        >>> DiVeQ(variance=0).build(1, 2)(z, torch.tensor([[3.0, 4.0]]))[1].detach()
        tensor([[3., 4.]])
    """

    variance: float = 1e-3
    moves_codes = True
    replaces_codebook_loss = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(type(self).__name__, "variance", self.variance, least=0)

    @override
    def build(self, num_embeddings: int, embedding_dim: int) -> EstimatorModule[Estimator]:
        return NearestCode(self, partial(diveq, variance=self.variance))


def diveq(z: Tensor, e: Tensor, variance: float) -> Tensor:
    """Return the rows of `z` moved by their distance to those of `e`, in about their direction, all `(N, D)`."""
    return z + _diveq_error(z, e, variance)


def _diveq_error(z: Tensor, e: Tensor, variance: float) -> Tensor:
    v = (e - z).detach()
    v = v + variance**0.5 * torch.randn_like(v)
    return _length(e - z) * F.normalize(v, dim=1)


@dataclass(frozen=True)
class SpaceFillingDiVeQ(DiVeQ):
    """Quantizes to the segments between each code and the next (Vali et al. 2025, arXiv 2509.26469, eq. 9).

    With λ_i uniform in [0, 1] for each segment in each step, i the nearest of the points (1 − λ_i) e_i + λ_i e_{i+1}:

        quantized = z + (1 − λ_i) · DiVeQ's error to e_i + λ_i · DiVeQ's error to e_{i+1}

    Every input pulls two codes, so that none stays unused. The index is that of the nearer end. In eval mode the
    quantizer returns the nearest code, as with every estimator, not the nearest point of a segment.

    Example:
        >>> z, codes = torch.randn(10, 4), torch.randn(16, 4)
        >>> indices, quantized = SpaceFillingDiVeQ().build(16, 4)(z, codes)
        >>> quantized.shape
        torch.Size([10, 4])
    """

    @override
    def build(self, num_embeddings: int, embedding_dim: int) -> EstimatorModule[Estimator]:
        return super().build(1, embedding_dim) if num_embeddings == 1 else _SpaceFillingModule(self)


class _SpaceFillingModule(EstimatorModule[SpaceFillingDiVeQ]):
    @override
    def forward(self, z: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        position = torch.rand(len(codes) - 1, 1, dtype=codes.dtype, device=codes.device)
        position = all_sum(position * (rank() == 0))[0]  # all ranks see the same segments
        segments = self.nearest(z, torch.lerp(codes[:-1], codes[1:], position))
        position, variance = position[segments], self.settings.variance
        first, second = F.embedding(segments, codes), F.embedding(segments + 1, codes)
        quantized = z + (1 - position) * _diveq_error(z, first, variance) + position * _diveq_error(z, second, variance)
        return segments + (position.squeeze(1) > 0.5), quantized


@dataclass(frozen=True)
class IndexBackpropagation(Estimator):
    """The one-hot choice with the gradient of the softmax, so that every code moves (IBQ, arXiv 2412.02692, eq. 5–6).

        p = softmax(⟨z, e_k⟩ over k),    quantized = (one-hot + p − sg[p]) · codes
        loss = ‖z − quantized‖² + ‖z − sg[e]‖² + β ‖sg[z] − e‖²

    The code is chosen by the largest dot product, in eval mode too. The first term of the loss, `terms["double"]`, has
    this gradient, for inputs and codes alike. The authors' β = 0.25 weighs the codebook's term and not the commitment:
    `learning=Gradient(0.25), commitment_cost=1.0`. Their codes start as unit normal vectors, `FreeCodebook(std=1.0)`,
    and the loss has `Entropy(0.05, temperature=0.01, metric="dot")`. `presets.ibq` is all of this together, and each
    part of it keeps codes in use. `KMeansStart`, `Revival` and `NormalisedQuantizer`, made for distances, do the
    opposite here: of codes in about the same direction the longest has the largest product with every input.

    Probabilities are computed for a few inputs at a time and again in backward: no (N, K) matrix is stored.

    Example:
        >>> z, codes = torch.randn(5, 4), torch.randn(16, 4, requires_grad=True)
        >>> indices, quantized = IndexBackpropagation().build(16, 4)(z, codes)
        >>> quantized.sum().backward()
        >>> bool(codes.grad.abs().amin() > 0)
        True
    """

    metric = "dot"
    moves_codes = True
    has_double_loss = True

    @override
    def build(self, num_embeddings: int, embedding_dim: int) -> EstimatorModule[Estimator]:
        return _IndexBackpropagationModule(self)


class _IndexBackpropagationModule(EstimatorModule[IndexBackpropagation]):
    @override
    def forward(self, z: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        indices = self.nearest(z, codes)

        def expected(codes: Tensor, z: Tensor) -> tuple[Tensor]:
            return (logits(z, codes, "dot").softmax(1) @ codes.detach(),)

        mean = torch.cat([chunk[0] for chunk in by_rows(expected, codes, z)])
        return indices, carry(F.embedding(indices, codes), mean)


@dataclass(frozen=True)
class GumbelSoftmax(Estimator):
    """Draws a code at random, nearer ones more often, with a relaxed gradient (Jang et al. 2017, arXiv 1611.01144).

        π_k ∝ exp(−‖z − e_k‖²),    y = softmax((log π + g) / τ),  g Gumbel noise

    `hard` gives the code of the largest y with the gradient of y · codes (straight-through Gumbel-softmax); otherwise
    the value is the mixture y · codes too, while the index is still that of the largest. The temperature falls from
    `temperature` to `final_temperature` as τ = max(final, temperature · exp(−rate · step)). The task loss alone moves
    the codes. Probabilities are computed for a few inputs at a time and again in backward: no (N, K) matrix is stored.

    Attributes:
        temperature: τ at the start, positive.
        hard: return codes, not mixtures.
        final_temperature: the lowest τ, positive.
        rate: how fast τ falls, for each step; 0 for a constant τ.

    Raises:
        ValueError: a value is out of its range.

    Example:
        >>> z, codes = torch.randn(5, 4), torch.randn(16, 4)
        >>> indices, quantized = GumbelSoftmax().build(16, 4)(z, codes)
        >>> torch.equal(quantized, codes[indices])
        True
    """

    temperature: float = 1.0
    hard: bool = True
    final_temperature: float = 0.5
    rate: float = 0.0
    moves_codes = True
    replaces_codebook_loss = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("temperature", "final_temperature"):
            check_number("GumbelSoftmax", name, getattr(self, name), above=0)
        check_number("GumbelSoftmax", "rate", self.rate, least=0)

    @override
    def build(self, num_embeddings: int, embedding_dim: int) -> EstimatorModule[Estimator]:
        return _GumbelModule(self)


class _GumbelModule(EstimatorModule[GumbelSoftmax]):
    step: Tensor  # int64 scalar: how many training steps with inputs came before

    def __init__(self, settings: GumbelSoftmax) -> None:
        super().__init__(settings)
        self.register_buffer("step", torch.empty((), dtype=torch.int64))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Begin with the first step."""
        self.step.zero_()

    @override
    def forward(self, z: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        tau, hard = self._temperature(z), self.settings.hard

        def draw(codes: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
            noise = -torch.empty(len(z), len(codes), dtype=z.dtype, device=z.device).exponential_().log()
            noisy = logits(z, codes) + noise
            return noisy.argmax(1), (noisy / tau).softmax(1) @ (codes.detach() if hard else codes)

        drawn, mixtures = (torch.cat(parts) for parts in zip(*by_rows(draw, codes, z), strict=True))
        return drawn, carry(F.embedding(drawn, codes), mixtures) if hard else mixtures

    @override
    def observe(self, counts: Tensor) -> None:
        self.step += counts.sum() > 0

    def _temperature(self, z: Tensor) -> Tensor:
        """τ of this step, a scalar of the dtype of `z`."""
        settings = self.settings
        tau = z.new_full((), settings.temperature)
        if settings.rate == 0:
            return tau
        least = min(settings.final_temperature, settings.temperature)
        return (tau * torch.exp(-settings.rate * self.step)).clamp_min(least)


def _length(x: Tensor) -> Tensor:
    """Euclidean length of each row, `(N, 1)`; its gradient at zero is zero."""
    length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return length
