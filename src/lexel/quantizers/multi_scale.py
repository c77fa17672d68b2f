"""Multi-scale residual quantization: a feature map becomes token maps of growing resolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lexel._core.checks import check_number
from lexel._core.gradients import straight_through
from lexel.quantizers.base import Choice, Quantizer
from lexel.quantizers.residual import check_remainders

__all__ = ["MultiScaleResidualQuantizer"]


class MultiScaleResidualQuantizer(Quantizer):
    """Quantizes a 2-D map as residuals of growing resolution, with one codebook: VAR (arXiv 2404.02905, algorithm 1).

        f̂_0 = 0;  for each scale k:  r_k = quantize(down_k(z − f̂_{k−1})),  f̂_k = f̂_{k−1} + φ_k(up(r_k));  quantized = f̂

    `down` is the mean over areas, `up` is bicubic, and φ is a 3×3 convolution that repairs what upsampling lost, mixed
    with its input: (1 − ρ)·h + ρ·conv(h). The K scales share a few convolutions between them, coarse to fine.

        loss = mean_k ‖sg[z] − f̂_k‖² + commitment_cost · ‖z − sg[f̂_k]‖² + quantizer_weight · quantizer's own loss

    `terms["codebook"]` moves the codes and the convolutions, `terms["commitment"]` the inputs. In the paper the
    quantizer's own loss has no weight, since the first term moves its codes already; a `BinarySphericalQuantizer` needs
    one for its entropy, and so does a quantizer with a map inward, as `ProjectedQuantizer` or `FactorisedCodebook`,
    which nothing else trains. The task loss reaches the inputs straight through.

    `indices` is one axis of all tokens, `(B, Σ h_k·w_k)`, scale by scale from coarse to fine and row by row within
    each: the order in which VAR predicts them. `lookup` also takes the tokens of the first scales alone. Under a mask,
    `down` is the mean over the valid positions of each area, and a token with none has index −1.

    Attributes:
        quantizer: the quantizer of every scale.
        phi: φ, the convolutions, coarse to fine.

    Args:
        quantizer: any quantizer with one codebook.
        scales: the resolutions, coarse to fine, as sides of squares or as `(height, width)`; the last is the input's.
            They must not shrink.
        commitment_cost: β, the weight of the commitment term.
        convolutions: how many convolutions there are, evenly shared between the scales; 0 for none. By default 4, as in
            VAR, or one for each of fewer scales. Or the number of each scale's convolution, from 0, as `[0, 0, 1]`.
        convolution_weight: ρ, in [0, 1].
        upsampling: `"bicubic"` or, as in Infinity (arXiv 2412.04431), `"bilinear"`.
        quantizer_weight: the weight of the quantizer's own loss, averaged over the scales.
        channel_dim: which axis of the input holds the channels: 1 or −1.

    Raises:
        TypeError: `quantizer` is not one.
        ValueError: it has several codebooks, its codes leave no remainder, as those of a `NormalisedQuantizer` that
            does not scale back, or a number is out of range.

    Example:
        >>> import torch, lexel
        >>> msrq = lexel.MultiScaleResidualQuantizer(lexel.VectorQuantizer(4096, 32), [1, 2, 3, 4, 5, 6, 8, 10, 13, 16])
        >>> output = msrq(torch.randn(2, 32, 16, 16))
        >>> output.indices.shape
        torch.Size([2, 680])
        >>> msrq.lookup(output.indices[:, :1 + 4 + 9]).shape
        torch.Size([2, 32, 16, 16])
    """

    positionwise = False

    def __init__(
        self,
        quantizer: Quantizer,
        scales: Sequence[int | tuple[int, int]],
        commitment_cost: float = 0.25,
        *,
        convolutions: int | Sequence[int] | None = None,
        convolution_weight: float = 0.5,
        upsampling: Literal["bicubic", "bilinear"] = "bicubic",
        quantizer_weight: float = 0.0,
        channel_dim: int = 1,
    ) -> None:
        name = type(self).__name__
        if quantizer.index_shape or not quantizer.positionwise:
            raise ValueError(f"{name}: quantizer must have one codebook, got a {type(quantizer).__name__}")
        check_remainders(name, [quantizer])
        super().__init__(quantizer.num_embeddings, quantizer.embedding_dim, channel_dim)
        self.scales = [scale if isinstance(scale, int) else tuple(scale) for scale in scales]
        self.sizes = [(scale, scale) if isinstance(scale, int) else (scale[0], scale[1]) for scale in scales]
        if not self.sizes or min(min(size) for size in self.sizes) < 1:
            raise ValueError(f"{name}: scales must hold one or more positive sizes, got {list(scales)}")
        if any(a > c or b > d for (a, b), (c, d) in zip(self.sizes, self.sizes[1:], strict=False)):
            raise ValueError(f"{name}: scales must not shrink, got {list(scales)}")
        if convolutions is None:
            convolutions = min(4, len(self.sizes))
        if isinstance(convolutions, int):
            count, shared = convolutions, [int((i + 0.5) / len(self.sizes) * convolutions) for i in range(len(scales))]
        else:
            count, shared = len(set(convolutions)), list(convolutions)
            if len(shared) != len(self.sizes) or set(shared) != set(range(count)):
                raise ValueError(
                    f"{name}: convolutions must hold a number for each of {len(self.sizes)} scales, all of them from 0 "
                    f"to the largest, got {shared}"
                )
        check_number(name, "convolutions", count, least=0, most=len(self.sizes))
        self.upsampling = upsampling
        self.quantizer = quantizer
        self.commitment_cost = float(check_number(name, "commitment_cost", commitment_cost, least=0))
        self.convolution_weight = float(check_number(name, "convolution_weight", convolution_weight, least=0, most=1))
        self.quantizer_weight = float(check_number(name, "quantizer_weight", quantizer_weight, least=0))
        dim = quantizer.embedding_dim
        self.convolutions = convolutions if isinstance(convolutions, int) else shared
        self._convolution_of = shared
        self.phi = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in range(count))

    @property
    def tokens(self) -> list[int]:
        """How many tokens each scale has."""
        return [height * width for height, width in self.sizes]

    @property
    def bits(self) -> float:
        """Bits that the indices carry at most, for each position of the input."""
        return math.log2(self.num_embeddings) * sum(self.tokens) / self.tokens[-1]

    @property
    @override
    def could_use_upkeep(self) -> bool:
        return self.quantizer.could_use_upkeep

    @property
    @override
    def map_size(self) -> tuple[int, int] | None:
        return self.sizes[-1]

    @override
    def grids(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        return list(self.sizes)

    @override
    def quantize_positions(self, z: Tensor, valid: Tensor | None) -> Choice:
        if z.ndim != 4 or z.shape[1:3] != self.sizes[-1]:
            raise ValueError(
                f"{type(self).__name__}: inputs must be maps of the last scale, {self.sizes[-1]}, "
                f"got positions of shape {tuple(z.shape[:-1])}"
            )
        f = z.permute(0, 3, 1, 2)
        present = None if valid is None else valid.unsqueeze(1).to(z.dtype)
        total = torch.zeros_like(f)
        indices, losses, errors = [], [], []
        for scale, size in enumerate(self.sizes):
            residual = f - total.detach()
            share = None
            if present is None:
                tokens = _down(residual, size)
            else:
                share = _down(present, size)
                tokens = _down(residual * present, size) / share.clamp_min(torch.finfo(z.dtype).tiny)
                share = share.squeeze(1) > 0
            choice = self.quantizer.choose(tokens.permute(0, 2, 3, 1), share)
            codes = self.quantizer.lookup_positions(choice.indices)
            seen = choice.quantized if share is None else torch.where(share.unsqueeze(-1), choice.quantized, 0)
            # The value that was chosen (an EMA may have moved the code since), with the table's gradient.
            total = total + self._up(straight_through(codes, seen.to(codes.dtype)), scale)
            indices.append(choice.indices.flatten(1))
            if choice.loss is not None:
                losses.append(choice.loss)
            errors += [(total - f.detach()).square(), (f - total.detach()).square()]

        rows = [error.mean(1).flatten() for error in errors]
        means = self.means(*rows, valid=None if valid is None else valid.flatten())
        terms = {"codebook": torch.stack(means[::2]).mean(), "commitment": torch.stack(means[1::2]).mean()}
        loss = terms["codebook"] + self.commitment_cost * terms["commitment"]
        if self.quantizer_weight:
            terms["quantizer"] = torch.stack(losses).mean()
            loss = loss + self.quantizer_weight * terms["quantizer"]
        joined = torch.cat(indices, 1)
        quantized = total.permute(0, 2, 3, 1) if self.training else self.lookup_positions(joined).to(z.dtype)
        return Choice(joined, straight_through(z, quantized), loss, terms)

    def lookup_positions(self, indices: Tensor) -> Tensor:
        """Return `(B, H, W, D)` for the tokens `(B, T)` of all scales or of the first."""
        total: Tensor | None = None
        for scale, (size, start) in enumerate(zip(self.sizes, self._starts(), strict=True)):
            if start == indices.shape[1]:
                break
            own = indices[:, start : start + math.prod(size)].reshape(-1, *size)
            h = self._up(self.quantizer.lookup_positions(own), scale)
            total = h if total is None else total + h
        assert total is not None  # check_indices lets no empty sequence through
        return total.permute(0, 2, 3, 1)

    @override
    def check_indices(self, indices: Tensor) -> None:
        allowed = [*self._starts()[1:], sum(self.tokens)]
        if indices.ndim != 2 or indices.shape[1] not in allowed:
            raise ValueError(
                f"{type(self).__name__}.lookup: indices must have shape (B, T) with T in {allowed}, "
                f"got {tuple(indices.shape)}"
            )
        super().check_indices(indices)

    def _starts(self) -> list[int]:
        return [sum(self.tokens[:scale]) for scale in range(len(self.sizes))]

    def _up(self, tokens: Tensor, scale: int) -> Tensor:
        """φ(up(tokens)), `(B, D, H, W)`, of tokens `(B, h, w, D)`."""
        h = tokens.permute(0, 3, 1, 2)
        if self.sizes[scale] != self.sizes[-1]:
            h = F.interpolate(h, self.sizes[-1], mode=self.upsampling)
        if not len(self.phi):
            return h
        return torch.lerp(h, self.phi[self._convolution_of[scale]](h), self.convolution_weight)

    def extra_repr(self) -> str:
        """Show what the parts' own lines do not."""
        return f"scales={self.scales}, commitment_cost={self.commitment_cost}"


def _down(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return maps if maps.shape[2:] == size else F.interpolate(maps, size, mode="area")
