"""What autoencoders of images have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from lexel.models.base import Autoencoder, Level
from lexel.quantizers.base import Quantized, Quantizer

__all__ = ["ImageAutoencoder", "at_finest", "check_architecture", "require_images"]

MOST_DOWNSAMPLING = 1024


class ImageAutoencoder(Autoencoder, tags=["vector-quantization", "image-tokenizer"]):
    """Turns images into codes and back, through one or more quantizers, each of which codes a map of its own.

    Attributes:
        image_channels: C, how many channels an image has.
    """

    kind = "images"
    image_channels: int

    @property
    @abstractmethod
    def factors(self) -> Sequence[int]:
        """The side of the square of pixels for which one position of each quantizer's map stands, coarse to fine."""

    @override
    def maps(self, size: tuple[int, ...]) -> list[tuple[int, int]]:
        most = max(self.factors)
        # Without negative numbers, whose quotient ONNX rounds towards zero.
        height, width = ((side + most - 1) // most * most for side in size)
        return [(height // factor, width // factor) for factor in self.factors]

    @override
    def levels(self, size: tuple[int, ...]) -> list[tuple[int, int]]:
        maps = zip(self.quantizers, self.maps(size), strict=True)
        return [grid for quantizer, own in maps for grid in quantizer.grids(own)]

    @override
    def decode(self, indices: Tensor, size: tuple[int, ...] | None = None) -> Tensor:
        """Turn indices into images `(B, C, H, W)`, clamped to [0, 1]; otherwise as for any autoencoder."""
        return super().decode(indices, size).clamp(0, 1)

    @override
    def joined(self, levels: Sequence[Level]) -> Quantized:
        """Join what several quantizers returned.

        The loss is the sum of theirs, the perplexity the geometric mean, the indices are as `encode` returns them,
        level k's terms are named ``"k.codebook"`` and so on, and `quantized` holds all of them at the finest
        resolution, one after the other along the channels.
        """
        outputs = [level.output for level in levels]
        if len(outputs) == 1:
            return outputs[0]
        return Quantized(
            loss=torch.stack([output.loss for output in outputs]).sum(),
            quantized=at_finest([output.quantized for output in outputs]),
            perplexity=torch.stack([output.perplexity for output in outputs]).log().mean().exp(),
            indices=self._flat([output.indices for output in outputs]),
            terms={f"{k}.{name}": term for k, output in enumerate(outputs) for name, term in output.terms.items()},
            num_embeddings=self.num_embeddings,
        )

    @property
    def image_size(self) -> tuple[int, int] | None:
        """The largest (H, W) of the images that it takes, and also the only one but for padding; None if any."""
        for quantizer, factor in zip(self.quantizers, self.factors, strict=True):
            if quantizer.map_size is not None:
                return factor * quantizer.map_size[0], factor * quantizer.map_size[1]
        return None

    def padded(self, images: Tensor) -> Tensor:
        """Check images `(B, C, H, W)`, pad them by their edge to whole positions, and bring them to [−1, 1].

        Raises:
            TypeError: `images` is not a floating tensor.
            ValueError: `images` has another number of dimensions or channels, or no pixels.
        """
        name = type(self).__name__
        if not images.dtype.is_floating_point:
            raise TypeError(f"{name}: images must be floating, in [0, 1], got {images.dtype}")
        if images.ndim != 4 or images.shape[1] != self.image_channels or 0 in images.shape[-2:]:
            raise ValueError(
                f"{name}: images must have shape (B, {self.image_channels}, H, W) with H and W above 0, "
                f"got {tuple(images.shape)}"
            )
        height, width = images.shape[-2:]
        side = max(self.factors)
        return 2 * F.pad(images, (0, -width % side, 0, -height % side), mode="replicate") - 1

    @override
    def _flat(self, indices: Sequence[Tensor]) -> Tensor:
        """Join the indices of all levels: one axis of positions, unless there is only one level."""
        if len(indices) == 1:
            return indices[0]
        pairs = zip(self.quantizers, indices, strict=True)
        return torch.cat([own.flatten(1, 2) if each.positionwise else own for each, own in pairs], 1)

    @override
    def _split(self, indices: Tensor, size: tuple[int, ...] | None) -> Sequence[Tensor]:
        """Undo `_flat`."""
        if len(self.quantizers) == 1:
            return [indices]
        name = type(self).__name__
        if size is None:
            raise ValueError(f"{name}: several levels need the size (H, W) of the images")
        grids = [each.grids(own) for each, own in zip(self.quantizers, self.maps(size), strict=True)]
        lengths = [sum(h * w for h, w in own) for own in grids]
        if indices.ndim < 2 or indices.shape[1] != sum(lengths):
            raise ValueError(
                f"{name}: indices of images of size {size} must have shape (B, {sum(lengths)}, …), "
                f"got {tuple(indices.shape)}"
            )
        parts = zip(self.quantizers, torch.split(indices, lengths, 1), grids, strict=True)
        return [part.reshape(-1, *own[0], *part.shape[2:]) if each.positionwise else part for each, part, own in parts]


def at_finest(maps: Sequence[Tensor]) -> Tensor:
    """Bring maps `(B, D, h, w)`, coarse to fine, to the size of the last, and join their channels."""
    size = maps[-1].shape[-2:]
    return torch.cat([each if each.shape[-2:] == size else F.interpolate(each, size) for each in maps], 1)


def check_architecture(
    owner: str,
    quantizers: Sequence[Quantizer],
    factors: Sequence[int],
    **counts: tuple[int, int],
) -> None:
    """Check what the models have in common.

    Args:
        owner: the class to name.
        quantizers: its quantizers.
        factors: the side of the square of pixels for which a position stands, of each.
        counts: further arguments by name, with the least that each may be.

    Raises:
        ValueError: an argument is out of its range.
    """
    for quantizer in quantizers:
        if quantizer.channel_dim != 1:
            raise ValueError(f"{owner}: the quantizer must have channel_dim=1, got {quantizer.channel_dim}")
    for name, (value, least) in counts.items():
        if value < least:
            raise ValueError(f"{owner}: {name} must be at least {least}, got {value}")
    for factor in factors:
        if factor < 1 or factor & (factor - 1):
            raise ValueError(f"{owner}: downsampling must be a power of two, got {factor}")
        if factor > MOST_DOWNSAMPLING:  # images are padded to a multiple of it
            raise ValueError(f"{owner}: downsampling must be at most {MOST_DOWNSAMPLING}, got {factor}")


def require_images(model: Autoencoder, what: str) -> ImageAutoencoder:
    """Return a model of images.

    Raises:
        ValueError: it takes something else; `what` names what needs images.
    """
    if not isinstance(model, ImageAutoencoder):
        raise ValueError(f"{what} needs a model of images, this one takes {model.kind}")
    return model
