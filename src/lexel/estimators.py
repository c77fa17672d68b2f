"""Estimators: what gradient the encoder gets through the choice of a code, which has none of its own.

They act in training; in eval mode the quantizer returns the code itself, with the gradient of the identity. Where they
draw noise for each input, it comes from torch's global generator, like that of dropout, and is each rank's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lexel._core.collectives import all_sum, rank
from lexel._core.config import Configurable
from lexel._core.soft_assignment import by_rows, logits
from lexel.nearest import Metric, nearest_code

__all__ = [
    "NSVQ",
    "DiVeQ",
    "Estimator",
    "GumbelSoftmax",
    "IndexBackpropagation",
    "RotationTrick",
    "SpaceFillingDiVeQ",
    "StraightThrough",
    "Synchronised",
]


class Estimator(Configurable, abstract=True):
    """Maps inputs to the quantized output, whose gradient stands in for that of the choice of a code.

    An estimator that needs no more than each input and its nearest code overrides `__call__`; one that has a say in
    the choice, or needs all codes, overrides `quantize`.

    Attributes:
        metric: by what the nearest code is chosen, in eval mode too.
        moves_codes: the gradient of the task loss reaches the codes, so they cannot be averages (EMA).
        replaces_codebook_loss: that gradient is all that moves the codes; there is no codebook loss.
        annealed: `quantize` depends on the step.
    """

    metric: Metric = "euclidean"
    moves_codes: ClassVar[bool] = False
    replaces_codebook_loss: ClassVar[bool] = False
    annealed: ClassVar[bool] = False

    def __call__(self, z: Tensor, e: Tensor) -> Tensor:
        """Return the quantized rows `(N, D)` for inputs `z` and their codes `e`, both `(N, D)`."""
        raise NotImplementedError

    def select(self, z: Tensor, codes: Tensor) -> Tensor:
        """Return the index of the nearest code, int64 `(N,)`."""
        return nearest_code(z.detach(), codes.detach(), metric=self.metric)

    def quantize(self, z: Tensor, codes: Tensor, step: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Choose codes and quantize, in training.

        Args:
            z: inputs, `(N, D)`.
            codes: `(K, D)`.
            step: int64 scalar, how many training steps came before; only where `annealed`.

        Returns:
            Indices, int64 `(N,)`, and the quantized rows `(N, D)`.
        """
        indices = self.select(z, codes)
        return indices, self(z, F.embedding(indices, codes))


@dataclass(frozen=True)
class StraightThrough(Estimator):
    """The value of the code with the gradient of the identity: ∂L/∂z = ∂L/∂quantized (van den Oord et al. 2017, §3.2).

    The usual way to write it, ``z + (e - z).detach()``, rounds: its value is not exactly the code. Here the zero
    ``z - z.detach()`` carries the gradient and the value stays the code's, bit for bit.

    Attributes:
        metric: by what the code is chosen. With `"cosine"` the angle decides and codes keep their lengths, as in DAC
            (arXiv 2306.06546); with a `CosineCodebook` there are no lengths to keep.

    Raises:
        ValueError: the metric is none of `"euclidean"`, `"cosine"` and `"dot"`.

    Example:
        >>> z, e = torch.tensor([[0.1]], requires_grad=True), torch.tensor([[0.3]])
        >>> StraightThrough()(z, e)
        tensor([[0.3000]], grad_fn=<AddBackward0>)
    """

    metric: Metric = "euclidean"

    def __post_init__(self) -> None:
        if self.metric not in ("euclidean", "cosine", "dot"):
            raise ValueError(f"StraightThrough: metric must be euclidean, cosine or dot, got {self.metric!r}")

    def __call__(self, z: Tensor, e: Tensor) -> Tensor:  # noqa: D102
        return _carry(e.detach(), z)


@dataclass(frozen=True)
class Synchronised(Estimator):
    """Another estimator whose output also passes ν times its gradient on to the code (Huh et al. 2023, eq. 21).

        quantized = sg[e] + (z − sg[z]) + ν (e − sg[e])

    so that codes follow their inputs within the same step, as the encoder moves these. vector-quantize-pytorch adds
    ν times the straight-through output instead, which scales the encoder's gradient and never reaches the codes.

    Attributes:
        nu: ν, positive.
        estimator: the gradient that the encoder gets.

    Raises:
        ValueError: ν is not positive.

    Example:
        >>> z, e = torch.tensor([[0.1]]), torch.tensor([[0.3]], requires_grad=True)
        >>> Synchronised(nu=0.5)(z, e).sum().backward()
        >>> e.grad
        tensor([[0.5000]])
    """

    nu: float = 0.2
    estimator: Estimator = StraightThrough()
    moves_codes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.nu > 0:
            raise ValueError(f"Synchronised: nu must be positive, got {self.nu}")
        if self.estimator.moves_codes:
            raise ValueError(f"Synchronised: {self.estimator} has a gradient for the codes already")
        object.__setattr__(self, "metric", self.estimator.metric)

    def __call__(self, z: Tensor, e: Tensor) -> Tensor:  # noqa: D102
        return _carry(self.estimator(z, e), self.nu * e)


@dataclass(frozen=True)
class RotationTrick(Estimator):
    """The code as its input rotated and stretched by a constant (Fifty et al. 2024, arXiv 2410.06424, §4.2).

        quantized = sg[(‖e‖ / ‖z‖) R] z,    R = I − 2 r rᵀ + 2 ê ẑᵀ,    r = (ẑ + ê) / ‖ẑ + ê‖

    with ẑ and ê the unit vectors of z and e; R is the rotation that takes ẑ to ê in their plane. The gradient keeps its
    angle to the code when it moves to the input. Its value is the code, bit for bit. An input at the origin, which has
    no direction, gets the straight-through gradient.

    Example:
        >>> z = torch.tensor([[1.0, 0.0]], requires_grad=True)
        >>> (RotationTrick()(z, torch.tensor([[0.0, 2.0]])) @ torch.tensor([0.0, 1.0])).sum().backward()
        >>> z.grad.round()  # the gradient along the code became one along the input
        tensor([[2., 0.]])
    """

    def __call__(self, z: Tensor, e: Tensor) -> Tensor:  # noqa: D102
        with torch.no_grad():
            z_norm, e_norm = z.norm(dim=1, keepdim=True), e.norm(dim=1, keepdim=True)
            z_unit, e_unit = F.normalize(z, dim=1), F.normalize(e, dim=1)
            r = F.normalize(z_unit + e_unit, dim=1)
            turns = z_norm > 0
            stretch = torch.where(turns, e_norm / torch.where(turns, z_norm, 1), 1)
        along_r, along_z = ((unit * z).sum(1, keepdim=True) for unit in (r, z_unit))
        return _carry(e.detach(), stretch * (z - 2 * r * along_r + 2 * e_unit * along_z))


@dataclass(frozen=True)
class NSVQ(Estimator):
    """Noise as long as the quantization error, in a random direction, in its place (Vali and Bäckström 2022, eq. 4).

        quantized = z + ‖z − e‖ · v / ‖v‖,    v normal

    The length carries a gradient to the input and to the code alike, and the task loss alone moves the codes; the paper
    has no commitment loss either (`commitment_cost=0`).

    Example:
        >>> z, e = torch.zeros(1, 3), torch.tensor([[0.0, 3.0, 4.0]])
        >>> NSVQ()(z, e).norm().round(decimals=4)
        tensor(5.)
    """

    moves_codes: ClassVar[bool] = True
    replaces_codebook_loss: ClassVar[bool] = True

    def __call__(self, z: Tensor, e: Tensor) -> Tensor:  # noqa: D102
        return z + _length(z - e) * F.normalize(torch.randn_like(z), dim=1)


@dataclass(frozen=True)
class DiVeQ(Estimator):
    """The quantization error as a length and a direction held constant (Vali et al. 2025, arXiv 2509.26469, eq. 5).

        quantized = z + ‖e − z‖ · sg[v / ‖v‖],    v = (e − z) + noise of variance σ²

    The task loss alone moves the codes; the paper has no commitment loss either (`commitment_cost=0`). The authors'
    package draws noise with a standard deviation of σ², where the paper says variance; this follows the paper.

    Attributes:
        variance: σ², not negative; at 0 the value is the code itself, but for rounding.

    Raises:
        ValueError: the variance is negative.

    Example:
        >>> z, e = torch.zeros(1, 2, requires_grad=True), torch.tensor([[3.0, 4.0]])
        >>> DiVeQ(variance=0)(z, e).detach()
        tensor([[3., 4.]])
    """

    variance: float = 1e-3
    moves_codes: ClassVar[bool] = True
    replaces_codebook_loss: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.variance >= 0:
            raise ValueError(f"{type(self).__name__}: variance must not be negative, got {self.variance}")

    def __call__(self, z: Tensor, e: Tensor) -> Tensor:  # noqa: D102
        return z + self._error(z, e)

    def _error(self, z: Tensor, e: Tensor) -> Tensor:
        v = (e - z).detach()
        v = v + self.variance**0.5 * torch.randn_like(v)
        return _length(e - z) * F.normalize(v, dim=1)


@dataclass(frozen=True)
class SpaceFillingDiVeQ(DiVeQ):
    """DiVeQ onto the segments between each code and the next (Vali et al. 2025, arXiv 2509.26469, eq. 9).

    With λ_i uniform in [0, 1] for each segment in each step, i the nearest of the points (1 − λ_i) e_i + λ_i e_{i+1}:

        quantized = z + (1 − λ_i) · DiVeQ's error to e_i + λ_i · DiVeQ's error to e_{i+1}

    Every input pulls at two codes, so that none stays unused. The index is that of the nearer end. In eval mode it is
    the nearest code that is returned, as with every estimator, not the nearest point of a segment.

    Example:
        >>> z, codes = torch.randn(10, 4), torch.randn(16, 4)
        >>> indices, quantized = SpaceFillingDiVeQ().quantize(z, codes)
        >>> quantized.shape
        torch.Size([10, 4])
    """

    def quantize(self, z: Tensor, codes: Tensor, step: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: D102
        if len(codes) == 1:
            return super().quantize(z, codes)
        position = torch.rand(len(codes) - 1, 1, dtype=codes.dtype, device=codes.device)
        position = all_sum(position * (rank() == 0))[0]  # all ranks see the same segments
        segments = self.select(z, torch.lerp(codes[:-1], codes[1:], position))
        position = position[segments]
        first, second = F.embedding(segments, codes), F.embedding(segments + 1, codes)
        quantized = z + (1 - position) * self._error(z, first) + position * self._error(z, second)
        return segments + (position.squeeze(1) > 0.5), quantized


@dataclass(frozen=True)
class IndexBackpropagation(Estimator):
    """The one-hot choice with the gradient of the softmax, so that every code moves (IBQ, arXiv 2412.02692, eq. 5–6).

        p = softmax(⟨z, e_k⟩ over k),    quantized = (one-hot + p − sg[p]) · codes

    The code is chosen by the largest dot product, in eval mode too. The codebook and commitment losses stay, as in the
    paper. Probabilities are made for a few inputs at a time and again in backward: no (N, K) matrix is kept.

    Example:
        >>> z, codes = torch.randn(5, 4), torch.randn(16, 4, requires_grad=True)
        >>> indices, quantized = IndexBackpropagation().quantize(z, codes)
        >>> quantized.sum().backward()
        >>> bool(codes.grad.abs().amin() > 0)
        True
    """

    metric = "dot"  # a class attribute: without a type it is no setting
    moves_codes: ClassVar[bool] = True

    def quantize(self, z: Tensor, codes: Tensor, step: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: D102
        indices = self.select(z, codes)

        def expected(codes: Tensor, z: Tensor) -> tuple[Tensor]:
            return (logits(z, codes, self.metric).softmax(1) @ codes.detach(),)

        mean = torch.cat([chunk[0] for chunk in by_rows(expected, codes, z)])
        return indices, _carry(F.embedding(indices, codes), mean)


@dataclass(frozen=True)
class GumbelSoftmax(Estimator):
    """A code drawn at random, the nearer the likelier, with a relaxed gradient (Jang et al. 2017, arXiv 1611.01144).

        π_k ∝ exp(−‖z − e_k‖²),    y = softmax((log π + g) / τ),  g Gumbel noise

    `hard` gives the code of the largest y with the gradient of y · codes (straight-through Gumbel-softmax); otherwise
    the value is the mixture y · codes too, while the index is still that of the largest. The temperature falls from
    `temperature` to `final_temperature` as τ = max(final, temperature · exp(−rate · step)). The task loss alone moves
    the codes. Probabilities are made for a few inputs at a time and again in backward: no (N, K) matrix is kept.

    Attributes:
        temperature: τ at the start, positive.
        hard: give codes, not mixtures.
        final_temperature: the least τ, positive.
        rate: of the fall, for each step; 0 for a constant τ.

    Raises:
        ValueError: a value is out of its range.

    Example:
        >>> z, codes = torch.randn(5, 4), torch.randn(16, 4)
        >>> indices, quantized = GumbelSoftmax().quantize(z, codes, torch.tensor(0))
        >>> torch.equal(quantized, codes[indices])
        True
    """

    temperature: float = 1.0
    hard: bool = True
    final_temperature: float = 0.5
    rate: float = 0.0
    moves_codes: ClassVar[bool] = True
    replaces_codebook_loss: ClassVar[bool] = True
    annealed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("temperature", "final_temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"GumbelSoftmax: {name} must be positive, got {getattr(self, name)}")
        if not self.rate >= 0:
            raise ValueError(f"GumbelSoftmax: rate must not be negative, got {self.rate}")

    def quantize(self, z: Tensor, codes: Tensor, step: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: D102
        tau = torch.as_tensor(self.temperature, dtype=z.dtype, device=z.device)
        if self.rate > 0 and step is not None:
            tau = (tau * torch.exp(-self.rate * step)).clamp_min(min(self.final_temperature, self.temperature))

        def draw(codes: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
            noise = -torch.empty(len(z), len(codes), dtype=z.dtype, device=z.device).exponential_().log()
            noisy = logits(z, codes) + noise
            return noisy.argmax(1), (noisy / tau).softmax(1) @ (codes.detach() if self.hard else codes)

        drawn, mixtures = (torch.cat(parts) for parts in zip(*by_rows(draw, codes, z), strict=True))
        if not self.hard:
            return drawn, mixtures
        return drawn, _carry(F.embedding(drawn, codes), mixtures)


def _carry(value: Tensor, gradient: Tensor) -> Tensor:
    """Return `value`, with the gradient of `gradient` besides its own: a zero is added, so the value stays exact."""
    return value + (gradient - gradient.detach())


def _length(x: Tensor) -> Tensor:
    """Euclidean length of each row, `(N, 1)`; its gradient at zero is zero."""
    length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return length
