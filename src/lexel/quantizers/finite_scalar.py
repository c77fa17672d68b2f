"""Finite scalar quantization: every channel is rounded to a few levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from typing_extensions import override

from lexel._core.checks import check_number
from lexel._core.gradients import straight_through
from lexel._core.values import constant
from lexel.quantizers._radix import check_levels, from_digits, to_digits
from lexel.quantizers.base import Choice, RowQuantizer

__all__ = ["FiniteScalarQuantizer", "LatentQuantizer"]

Bound: TypeAlias = Literal["tan", "artanh", "symmetric", "clamp", "sigmoid", "normal"]


class FiniteScalarQuantizer(RowQuantizer):
    """Bounds each channel and rounds it to one of L_i levels: FSQ (Mentzer et al. 2023, arXiv 2309.15505).

    The implied codebook is the grid of all level combinations, K = Π L_i. It is never built: an index is the
    mixed-radix number of the levels, the first channel least significant, so K may be as large as 2^62. There is
    nothing to learn and nothing to collapse; the loss is zero.

        f(z) = tanh(z + shift) · h − offset,  quantized = round(f(z)) / ⌊L/2⌋    (§3.1 and appendix A.1)

    with h = (L − 1)(1 − ε)/2; for even L, offset = 1/2 and shift = tan(offset/h), so that there are L levels with zero
    among them; for odd L both are zero. The codes of an even L therefore run from −1 to 1 − 2/L.
    ε = 0.001 as in the paper up to L = 500, and smaller beyond, where the outermost levels would be out of reach.
    The gradient is that of f, straight through the rounding.

    vector-quantize-pytorch takes h = (L − 1)(1 + ε)/2 and shift = artanh(offset/h), which moves the thresholds between
    levels by some thousandths, and refuses L = 2; its indices and codes have the same meaning. Lexel follows the paper,
    and `bound="artanh"` the package, for encoders that were trained with it.

    The other bounds have levels that lie symmetrically about zero for even L too. With g(z) in [−1, 1]:

        quantized = 2 ⌊(L − 1)(g(z) + 1)/2 + 1/2⌋/(L − 1) − 1

    where g is tanh with `"symmetric"` (stable-codec, arXiv 2411.19842, §3.2); z cut off at ±1 with `"clamp"`, for
    inputs that are within bounds already; and 2σ(1.6z) − 1 with `"sigmoid"` (iFSQ, arXiv 2601.17124, for odd L), which
    spreads inputs with a variance of 1 more evenly: it is nearly 2Φ(z) − 1, with Φ the distribution function of the
    unit normal. The outermost levels lie at ±1 and their bins are half as wide as the others. With `bound="normal"`
    (FSP, arXiv 2602.17133, §3.3) all are equally wide, and each code lies in the middle of its bin, as is best for
    numbers that are spread evenly (Max 1960):

        quantized = 2 (⌊L Φ(z)⌋ + 1/2)/L − 1    (eq. 15 and 18, on [−1, 1] in place of the paper's [0, 1])

    FSP also pulls the mean and variance of its inputs to 0 and 1; `NormalisedQuantizer(fsp, std=1.0)` starts there.

    `noise` is for training: with this probability a number, instead of being rounded, gets uniform noise as wide as the
    step from one level to the next, and the true gradient (stable-codec and FSP, with 1/2). Noise that would lead out
    of the outermost bins is left out, and the number stays as it is (FSP, eq. 17). Indices, and everything in eval
    mode, are without noise. FSP's authors draw for each number, as here. In stable-codec's code one draw decides for a
    whole example, and half of those without noise are not rounded either; vector-quantize-pytorch adds its noise, of
    a width of 1 for any L, to the codes. Noise comes from torch's global generator, as that of dropout does.

    Args:
        levels: L_i for each channel, at least 2; the paper recommends `[8, 6, 5]` for about 2^8 codes, `[8, 5, 5, 5]`
            for 2^10, `[7, 5, 5, 5, 5]` for 2^12, `[8, 8, 8, 6, 5]` for 2^14, `[8, 8, 8, 5, 5, 5]` for 2^16.
        bound: `"tan"` for f as above, `"artanh"` for that of vector-quantize-pytorch, `"symmetric"`, `"clamp"`,
            `"sigmoid"` or `"normal"`.
        noise: p, in [0, 1].
        channel_dim: which axis of the input holds the channels, `len(levels)` of them.

    Raises:
        TypeError: `levels` is not a sequence of integers.
        ValueError: a level is below 2 (or not in [3, 1000] with `bound="artanh"`), K exceeds 2^62, `bound` is none of
            these, or `noise` is not in [0, 1].

    Example:
        >>> import torch, lexel
        >>> fsq = lexel.FiniteScalarQuantizer([8, 5, 5, 5])
        >>> fsq.num_embeddings
        1000
        >>> output = fsq(torch.zeros(1, 4))
        >>> output.quantized, output.indices
        (tensor([[0., 0., 0., 0.]]), tensor([500]))
        >>> fsp = lexel.FiniteScalarQuantizer([4, 4], bound="normal", noise=0.5)
        >>> fsp.lookup(torch.arange(4))[:, 0]
        tensor([-0.7500, -0.2500,  0.2500,  0.7500])
    """

    def __init__(
        self, levels: Sequence[int], *, bound: Bound = "tan", noise: float = 0.0, channel_dim: int = 1
    ) -> None:
        name = type(self).__name__
        checked = check_levels(name, levels)
        super().__init__(math.prod(checked), len(checked), channel_dim)
        if bound == "artanh" and not 3 <= min(checked) <= max(checked) <= 1000:
            raise ValueError(f"{name}: levels must be in [3, 1000] with bound='artanh', got {list(checked)}")
        self.levels = checked
        self.bound = bound
        self.noise = float(check_number(name, "noise", noise, least=0, most=1))

    @override
    def quantize_rows(self, z: Tensor, valid: Tensor | None) -> Choice:
        bounded, half_width = self.bounded(z), self._half_width(z)
        steps = bounded.detach()
        digits = ((steps + 0.5).floor() if self._symmetric else steps.round() + half_width).long()
        # Far out a bound is reached, or exceeded by rounding.
        digits = digits.clamp_min(0).minimum(constant((level - 1 for level in self.levels), digits))
        indices = from_digits(digits, self.levels)
        e = self.lookup_rows(indices).to(z.dtype)
        if self.training and self.noise:
            e = torch.where(torch.rand_like(z) < self.noise, self._place(self._with_noise(bounded.detach())), e)
        return Choice(indices, straight_through(bounded / half_width, e))

    @override
    def lookup_rows(self, indices: Tensor) -> Tensor:
        digits = to_digits(indices, self.levels)
        return self._place(digits.float() if self._symmetric else (digits - self._half_width(digits)).float())

    @override
    def unquantized_positions(self, z: Tensor) -> Tensor:
        bounded = self.bounded(z)
        return self._place(bounded) if self._symmetric else bounded / self._half_width(bounded)

    def bounded(self, z: Tensor) -> Tensor:
        """Return f(z), each number of `z` `(…, D)` squashed so that rounding gives exactly L levels."""
        if self.bound == "normal":
            share: Tensor = torch.special.ndtr(z)
            return share * constant(self.levels, z) - 0.5
        if self._symmetric:
            slope = 0.8 if self.bound == "sigmoid" else 1  # 2σ(1.6z) − 1 = tanh(0.8z)
            within = z.clamp(-1, 1) if self.bound == "clamp" else torch.tanh(slope * z)
            return (within + 1) * self._half_width(z)
        margins = [min(1e-3, 0.5 / level) if self.bound == "tan" else -1e-3 for level in self.levels]
        half = [(level - 1) * (1 - margin) / 2 for level, margin in zip(self.levels, margins, strict=True)]
        offset = [0.5 if level % 2 == 0 else 0.0 for level in self.levels]
        inverse = math.tan if self.bound == "tan" else math.atanh
        shift = [inverse(o / h) for o, h in zip(offset, half, strict=True)]
        return torch.tanh(z + constant(shift, z)) * constant(half, z) - constant(offset, z)

    @property
    def _symmetric(self) -> bool:
        return self.bound not in ("tan", "artanh")

    def _half_width(self, like: Tensor) -> Tensor:
        """How many steps between levels a unit of `quantized` has, for each channel."""
        if self.bound == "normal":
            return constant((level / 2 for level in self.levels), like, torch.float32)
        if self._symmetric:
            return constant(((level - 1) / 2 for level in self.levels), like, torch.float32)
        return constant((level // 2 for level in self.levels), like)

    def _place(self, steps: Tensor) -> Tensor:
        """Where `quantized` has what lies so many steps from the lowest level, or from zero."""
        if self.bound == "normal":
            steps = steps + 0.5
        place = steps / self._half_width(steps)
        return place - 1 if self._symmetric else place

    def _with_noise(self, bounded: Tensor) -> Tensor:
        """Add uniform noise one step wide to f(z), except where that leaves the outermost levels."""
        shifted = bounded + torch.rand_like(bounded) - 0.5
        lowest = constant((0 if self._symmetric else -(level // 2) for level in self.levels), bounded) - 0.5
        inside = (shifted > lowest) & (shifted < lowest + constant(self.levels, bounded))
        return torch.where(inside, shifted, bounded)

    def extra_repr(self) -> str:
        """Show the levels."""
        return f"levels={list(self.levels)}, bound={self.bound!r}, noise={self.noise}"


class LatentQuantizer(RowQuantizer):
    """Replaces each channel by the nearest of its own few learned values (Hsu et al. 2023, arXiv 2305.18378).

    The codebook is the product of one scalar codebook V_i for each channel: K = Π |V_i| codes, indexed by mixed radix,
    the first channel least significant. Only the Σ |V_i| values are ever held.

        loss = ‖sg[z] − e‖² + commitment_cost · ‖z − sg[e]‖²    (means over elements)

    `terms["codebook"]` moves the values, `terms["commitment"]` the inputs; the task loss moves the inputs alone,
    straight through. The paper gives both terms the same small weight against the reconstruction. The values start
    evenly spaced over [−1/2, 1/2]. vector-quantize-pytorch starts an even number of values in [−1/2, 1/2) and computes
    its indices as if the values had never moved, so that they no longer identify codes once training begins; here they
    always do.

    Attributes:
        values: the values of all channels one after the other, `(Σ |V_i|,)`.

    Args:
        levels: how many values each channel has, at least 2.
        commitment_cost: β, the weight of the commitment term; not negative.
        channel_dim: which axis of the input holds the channels, `len(levels)` of them.

    Raises:
        TypeError: `levels` is not a sequence of integers.
        ValueError: a level is below 2, K exceeds 2^62, or `commitment_cost` is negative or not finite.

    Example:
        >>> import torch, lexel
        >>> lq = lexel.LatentQuantizer([5, 3])
        >>> lq(torch.tensor([[0.3, -0.1]])).quantized.detach()
        tensor([[0.2500, 0.0000]])
    """

    def __init__(self, levels: Sequence[int], commitment_cost: float = 1.0, *, channel_dim: int = 1) -> None:
        name = type(self).__name__
        checked = check_levels(name, levels)
        super().__init__(math.prod(checked), len(checked), channel_dim)
        self.levels = checked
        self.commitment_cost = float(check_number(name, "commitment_cost", commitment_cost, least=0))
        self.values = nn.Parameter(torch.empty(sum(checked)))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Space each channel's values evenly over [−1/2, 1/2]."""
        for part in torch.split(self.values, list(self.levels)):
            part.copy_(torch.linspace(-0.5, 0.5, len(part)))

    @override
    def quantize_rows(self, z: Tensor, valid: Tensor | None) -> Choice:
        digits = [
            (channel.detach().unsqueeze(1) - values.detach()).abs().argmin(1)
            for channel, values in zip(z.unbind(1), torch.split(self.values, list(self.levels)), strict=True)
        ]
        indices = from_digits(torch.stack(digits, 1), self.levels)
        e = self.lookup_rows(indices).to(z.dtype)
        codebook, commitment = self.means(
            (e - z.detach()).square().mean(1), (z - e.detach()).square().mean(1), valid=valid
        )
        loss = codebook + self.commitment_cost * commitment
        return Choice(indices, straight_through(z, e), loss, {"codebook": codebook, "commitment": commitment})

    @override
    def lookup_rows(self, indices: Tensor) -> Tensor:
        starts = [sum(self.levels[:i]) for i in range(len(self.levels))]
        return self.values[to_digits(indices, self.levels) + constant(starts, indices)]

    def extra_repr(self) -> str:
        """Show the levels."""
        return f"levels={list(self.levels)}, commitment_cost={self.commitment_cost}"
