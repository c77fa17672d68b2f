"""The convolutional autoencoder of the VQ-VAE paper, around any quantizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor
from typing_extensions import Self, override

from lexel.models.base import Level
from lexel.models.images import ImageAutoencoder, check_architecture
from lexel.models.layers import decoder, encoder
from lexel.quantizers.base import Quantizer

__all__ = ["VQVAE"]


class VQVAE(ImageAutoencoder, paper_url="https://arxiv.org/abs/1711.00937"):
    """Turns images into grids of codes and back (van den Oord et al. 2017, arXiv 1711.00937, §4.1).

    log2(f) convolutions of stride 2, a residual stack and a 1×1 convolution bring an image of `(3, H, W)` to latents of
    `(D, H/f, W/f)`; the quantizer replaces each by a code; the decoder mirrors the encoder. Images are floating, in
    [0, 1]. Sizes that f does not divide are padded by their edge and cropped back.

    Attributes:
        kind: the kind of data that it takes, `"images"`.
        encoder: images `(B, C, H, W)` to latents `(B, D, H/f, W/f)`.
        quantizer: latents to codes.
        decoder: quantized latents to images.

    Args:
        quantizer: any quantizer with its channels at axis 1; its `embedding_dim` is D.
        image_channels: C, 3 for colour.
        hidden_channels: channels of the inner layers; the layers at the highest resolution have half of them.
        residual_channels: channels inside a residual layer.
        residual_layers: how many residual layers stand in the encoder, and in the decoder.
        downsampling: f, the side of the square of pixels for which one position stands; a power of two.
        upsampling: how the decoder doubles the resolution: with `"transposed"` convolutions as in the paper, or with
            `"resize"`, nearest-neighbour upsampling and a convolution, which leaves no checkerboard pattern.

    Raises:
        ValueError: an argument is out of its range.
        TypeError: `quantizer` is not a lexel quantizer.

    Example:
        >>> import torch, lexel
        >>> model = VQVAE(lexel.VectorQuantizer(512, 64), downsampling=8)
        >>> indices = model.encode(torch.rand(1, 3, 50, 70))
        >>> indices.shape
        torch.Size([1, 7, 9])
        >>> model.decode(indices, size=(50, 70)).shape
        torch.Size([1, 3, 50, 70])
    """

    def __init__(
        self,
        quantizer: Quantizer,
        image_channels: int = 3,
        hidden_channels: int = 128,
        residual_channels: int = 32,
        residual_layers: int = 2,
        downsampling: int = 4,
        upsampling: Literal["transposed", "resize"] = "transposed",
    ) -> None:
        super().__init__()
        check_architecture(
            "VQVAE",
            [quantizer],
            [downsampling],
            image_channels=(image_channels, 1),
            hidden_channels=(hidden_channels, 2),
            residual_channels=(residual_channels, 1),
            residual_layers=(residual_layers, 0),
        )
        self.image_channels = image_channels
        self.hidden_channels = hidden_channels
        self.residual_channels = residual_channels
        self.residual_layers = residual_layers
        self.downsampling = downsampling
        self.upsampling = upsampling

        self.quantizer: Quantizer = quantizer
        sizes = {
            "hidden_channels": hidden_channels,
            "residual_channels": residual_channels,
            "residual_layers": residual_layers,
            "downsampling": downsampling,
        }
        self.encoder = encoder(image_channels, quantizer.embedding_dim, **sizes)
        self.decoder = decoder(quantizer.output_dim, image_channels, **sizes, upsampling=upsampling)

    @property
    @override
    def quantizers(self) -> Sequence[Quantizer]:
        return [self.quantizer]

    @property
    @override
    def factors(self) -> Sequence[int]:
        return [self.downsampling]

    @classmethod
    @override
    def around(cls, quantizer: Callable[[], Quantizer], **settings: Any) -> Self:
        return cls(quantizer(), **settings)

    @override
    def quantize(self, images: Tensor) -> list[Level]:
        latents = self.latents(images)
        return [Level(latents, self.quantizer(latents))]

    @override
    def synthesize(self, quantized: Sequence[Tensor], size: tuple[int, ...] | None = None) -> Tensor:
        return self.images(quantized[0], size)

    def latents(self, images: Tensor) -> Tensor:
        """Encode images `(B, C, H, W)` into the inputs of the quantizer, `(B, D, ⌈H/f⌉, ⌈W/f⌉)`.

        Raises:
            TypeError: `images` is not a floating tensor.
            ValueError: `images` has another number of dimensions or channels, or no pixels.
        """
        latents: Tensor = self.encoder(self.padded(images))
        return latents

    def images(self, quantized: Tensor, size: tuple[int, ...] | None = None) -> Tensor:
        """Decode quantized vectors `(B, D, h, w)` into images `(B, C, H, W)`, not clamped, cropped to `size`."""
        images: Tensor = (self.decoder(quantized) + 1) / 2
        return images if size is None else images[..., : size[0], : size[1]]
