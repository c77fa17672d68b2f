"""The hierarchical autoencoder of the VQ-VAE-2 paper, around any quantizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Self, override

from lexel._core.modules import TypedModuleList
from lexel.models.base import Level
from lexel.models.images import ImageAutoencoder, at_finest, check_architecture
from lexel.models.layers import decoder, encoder
from lexel.quantizers.base import Quantizer

__all__ = ["VQVAE2"]


class Stage(nn.Module):
    """What one level of the hierarchy holds.

    Attributes:
        encoder: images, or the features of the next finer level, to features of this level.
        projection: these, and what the coarser levels decode to, to the inputs of the quantizer.
        quantizer: of this level.
        context: the codes of this level, and what the coarser ones decode to, to features of the next finer level; the
            finest level has none.
    """

    def __init__(self, encoder: nn.Module, projection: nn.Module, quantizer: Quantizer, context: nn.Module) -> None:
        super().__init__()
        self.encoder, self.projection, self.quantizer, self.context = encoder, projection, quantizer, context


class VQVAE2(ImageAutoencoder, paper_url="https://arxiv.org/abs/1906.00446"):
    """Turns images into codes at several resolutions and back (Razavi et al. 2019, arXiv 1906.00446, §3.1).

    The encoder of the finest level brings an image to features of `(H/f, W/f)`; each coarser level encodes those of
    the next finer one. Then the levels are quantized, coarse to fine: what a finer level quantizes depends on its
    features and on the decoded codes of the coarser levels, so that it need only hold what these lack. The decoder sees
    the codes of all levels, brought to the finest resolution. Images are floating, in [0, 1]. Sizes that the largest f
    does not divide are padded by their edge and cropped back.

    The indices of all levels are one axis, coarse to fine: `(B, Σ h_k·w_k)`, with one more for several codebooks.

    Attributes:
        stages: what each level holds, coarse to fine.
        decoder: the codes of all levels, at the finest resolution, to images.

    Args:
        quantizers: two or more quantizers, coarse to fine, with their channels at axis 1 and the same `codebook_sizes`.
        image_channels: C, 3 for colour.
        hidden_channels: channels of the features; the layers at the highest resolution of each part have half of them.
        residual_channels: channels inside a residual layer.
        residual_layers: how many residual layers stand in each encoder and decoder.
        downsampling: f of each level, coarse to fine: powers of two that fall.
        upsampling: how decoders double the resolution, as in `VQVAE`.

    Raises:
        ValueError: an argument is out of its range, or the quantizers do not fit each other.
        TypeError: a quantizer is not a lexel quantizer.

    Example:
        >>> import torch, lexel
        >>> model = VQVAE2([lexel.VectorQuantizer(512, 64), lexel.VectorQuantizer(512, 64)])
        >>> model.levels((64, 64))
        [(8, 8), (16, 16)]
        >>> indices = model.encode(torch.rand(1, 3, 64, 64))
        >>> indices.shape
        torch.Size([1, 320])
        >>> model.decode(indices, size=(64, 64)).shape
        torch.Size([1, 3, 64, 64])
    """

    def __init__(
        self,
        quantizers: Sequence[Quantizer],
        image_channels: int = 3,
        hidden_channels: int = 128,
        residual_channels: int = 32,
        residual_layers: int = 2,
        downsampling: Sequence[int] = (8, 4),
        upsampling: Literal["transposed", "resize"] = "transposed",
    ) -> None:
        super().__init__()
        levels, factors = list(quantizers), list(downsampling)
        check_architecture(
            "VQVAE2",
            levels,
            factors,
            image_channels=(image_channels, 1),
            hidden_channels=(hidden_channels, 2),
            residual_channels=(residual_channels, 1),
            residual_layers=(residual_layers, 0),
        )
        if len(factors) < 2 or any(coarse <= fine for coarse, fine in pairwise(factors)):
            raise ValueError(f"VQVAE2: downsampling must hold two or more numbers that fall, got {factors}")
        if len(levels) != len(factors) or len({id(each) for each in levels}) < len(levels):
            raise ValueError(
                f"VQVAE2: quantizers must hold another one for each of {len(factors)} levels, got {len(levels)}"
            )
        if len({each.codebook_sizes for each in levels}) > 1:
            found = [list(each.codebook_sizes) for each in levels]
            raise ValueError(f"VQVAE2: quantizers must all have the same codebook_sizes, got {found}")
        self.image_channels = image_channels
        self.hidden_channels = hidden_channels
        self.residual_channels = residual_channels
        self.residual_layers = residual_layers
        self.downsampling = factors
        self.upsampling = upsampling

        sizes = {
            "hidden_channels": hidden_channels,
            "residual_channels": residual_channels,
            "residual_layers": residual_layers,
        }
        self.stages: TypedModuleList[Stage] = TypedModuleList()
        for k, quantizer in enumerate(levels):
            coarser = hidden_channels if k else 0
            if k + 1 == len(levels):
                inward = encoder(image_channels, hidden_channels, **sizes, downsampling=factors[k])
                context: nn.Module = nn.Identity()
            else:
                ratio = factors[k] // factors[k + 1]
                inward = encoder(hidden_channels, hidden_channels, **sizes, downsampling=ratio)
                seen = quantizer.output_dim + coarser
                context = decoder(seen, hidden_channels, **sizes, downsampling=ratio, upsampling=upsampling)
            projection = nn.Conv2d(hidden_channels + coarser, quantizer.embedding_dim, 1)
            self.stages.append(Stage(inward, projection, quantizer, context))
        codes = sum(each.output_dim for each in levels)
        self.decoder = decoder(codes, image_channels, **sizes, downsampling=factors[-1], upsampling=upsampling)

    @property
    @override
    def quantizers(self) -> Sequence[Quantizer]:
        return [stage.quantizer for stage in self.stages]

    @property
    @override
    def factors(self) -> Sequence[int]:
        return self.downsampling

    @classmethod
    @override
    def around(cls, quantizer: Callable[[], Quantizer], **settings: Any) -> Self:
        downsampling = settings.get("downsampling", signature(cls).parameters["downsampling"].default)
        return cls([quantizer() for _ in downsampling], **settings)

    @override
    def quantize(self, images: Tensor) -> list[Level]:
        features = [self.padded(images)]
        for stage in reversed(self.stages):
            features.append(stage.encoder(features[-1]))
        levels: list[Level] = []
        coarser: list[Tensor] = []  # what the coarser levels decode to, where there are any
        for stage, own in zip(self.stages, reversed(features[1:]), strict=True):
            latents = stage.projection(torch.cat([own, *coarser], 1))
            levels.append(Level(latents, stage.quantizer(latents)))
            coarser = [stage.context(torch.cat([levels[-1].output.quantized, *coarser], 1))]
        return levels

    @override
    def synthesize(self, quantized: Sequence[Tensor], size: tuple[int, ...] | None = None) -> Tensor:
        images: Tensor = (self.decoder(at_finest(quantized)) + 1) / 2
        return images if size is None else images[..., : size[0], : size[1]]
