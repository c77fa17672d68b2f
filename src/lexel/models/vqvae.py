"""The convolutional autoencoder of the VQ-VAE paper, around any quantizer."""

# No `from __future__ import annotations` here: the hub mixin reads the constructor's annotations as types.
import inspect
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lexel._core.config import from_config, to_config
from lexel._core.modules import evaluating
from lexel.quantizers.base import Quantized, Quantizer

try:
    from huggingface_hub import ModelHubMixin, hf_hub_download

    from lexel._core.pretrained import CONFIG, WEIGHTS, check_config, load_weights, save_model
except ImportError as error:
    raise ImportError("lexel.models needs huggingface_hub and safetensors: pip install 'lexel[models]'") from error

__all__ = ["VQVAE"]

MOST_DOWNSAMPLING = 1024


class ResidualLayer(nn.Module):
    """x + conv1×1(relu(conv3×3(relu(x)))), the residual block of the paper's §4.1."""

    def __init__(self, channels: int, residual_channels: int) -> None:
        super().__init__()
        self.conv3 = nn.Conv2d(channels, residual_channels, 3, padding=1)
        self.conv1 = nn.Conv2d(residual_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` plus the output of the layers; same shape."""
        inner: Tensor = self.conv1(F.relu(self.conv3(F.relu(x))))
        return x + inner


class VQVAE(
    nn.Module,
    ModelHubMixin,
    library_name="lexel",
    tags=["vector-quantization", "image-tokenizer"],
    paper_url="https://arxiv.org/abs/1711.00937",
    coders={Quantizer: (to_config, from_config)},
):
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

    kind = "images"

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
        if not isinstance(quantizer, Quantizer):
            raise TypeError(f"VQVAE: quantizer must be a lexel Quantizer, got {type(quantizer).__name__}")
        if quantizer.channel_dim != 1:
            raise ValueError(f"VQVAE: the quantizer must have channel_dim=1, got {quantizer.channel_dim}")
        for name, value, least in (
            ("image_channels", image_channels, 1),
            ("hidden_channels", hidden_channels, 2),
            ("residual_channels", residual_channels, 1),
            ("residual_layers", residual_layers, 0),
        ):
            if value < least:
                raise ValueError(f"VQVAE: {name} must be at least {least}, got {value}")
        if downsampling < 1 or downsampling & (downsampling - 1):
            raise ValueError(f"VQVAE: downsampling must be a power of two, got {downsampling}")
        if downsampling > MOST_DOWNSAMPLING:  # images are padded to a multiple of it
            raise ValueError(f"VQVAE: downsampling must be at most {MOST_DOWNSAMPLING}, got {downsampling}")
        if upsampling not in ("transposed", "resize"):
            raise ValueError(f"VQVAE: upsampling must be 'transposed' or 'resize', got {upsampling!r}")
        self.image_channels = image_channels
        self.hidden_channels = hidden_channels
        self.residual_channels = residual_channels
        self.residual_layers = residual_layers
        self.downsampling = downsampling
        self.upsampling = upsampling

        self.quantizer: Quantizer = quantizer
        # Channels of the image, then of each halving of the resolution, from the outside in.
        halvings = downsampling.bit_length() - 1
        widths = [image_channels, hidden_channels // 2, *[hidden_channels] * (halvings - 1)][: halvings + 1]
        halves = [layer for outer, inner in pairwise(widths) for layer in (nn.Conv2d(outer, inner, 4, 2, 1), nn.ReLU())]
        self.encoder = nn.Sequential(
            *halves,
            nn.Conv2d(widths[-1], hidden_channels, 3, padding=1),
            *[ResidualLayer(hidden_channels, residual_channels) for _ in range(residual_layers)],
            nn.ReLU(),
            nn.Conv2d(hidden_channels, quantizer.embedding_dim, 1),
        )
        double = _resize_and_convolve if upsampling == "resize" else _transposed_convolution
        channels = [hidden_channels, *widths[-2::-1]]
        doubles = [layer for inner, outer in pairwise(channels) for layer in (nn.ReLU(), double(inner, outer))]
        self.decoder = nn.Sequential(
            nn.Conv2d(quantizer.output_dim, hidden_channels, 3, padding=1),
            *[ResidualLayer(hidden_channels, residual_channels) for _ in range(residual_layers)],
            *(doubles or [nn.ReLU(), nn.Conv2d(hidden_channels, image_channels, 3, padding=1)]),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Quantized]:
        """Reconstruct images through their codes.

        Args:
            images: floating `(B, C, H, W)` in [0, 1], of any size.

        Returns:
            The reconstructions, `(B, C, H, W)`, not clamped; and what the quantizer returned.

        Raises:
            TypeError: `images` is not a floating tensor.
            ValueError: `images` has another number of dimensions or channels, or no pixels.
        """
        output = self.quantizer(self.latents(images))
        return self.images(output.quantized, images.shape[-2:]), output

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return the indices of images `(B, C, H, W)`. No state changes, even in training mode.

        Returns:
            int64 `(B, ⌈H/f⌉, ⌈W/f⌉)`, with one axis more for several codebooks.

        Raises:
            TypeError: `images` is not a floating tensor.
            ValueError: `images` has another number of dimensions or channels, or no pixels.
        """
        with evaluating(self.quantizer):
            indices: Tensor = self.quantizer(self.latents(images)).indices
        return indices

    def decode(self, indices: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Turn indices into images `(B, C, H, W)`, clamped to [0, 1].

        Args:
            indices: as `encode` returns them.
            size: (H, W) to crop to; by default the images keep all their pixels.

        Raises:
            TypeError: `indices` are not integers.
            ValueError: an index is out of range, or images of this `size` do not have as many positions.
        """
        quantized = self.quantizer.lookup(indices)
        if size is not None:
            grid, expected = tuple(quantized.shape[-2:]), tuple(-(-side // self.downsampling) for side in size)
            if grid != expected:
                raise ValueError(f"VQVAE.decode: an image of size {size} has {expected} positions, the indices {grid}")
        return self.images(quantized, size).clamp(0, 1)

    def levels(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Return the grids of which the indices of an image of `size` (H, W) consist, coarse to fine.

        One, `(⌈H/f⌉, ⌈W/f⌉)`, for most quantizers. If there are more, indices are `(B, L)`: the positions of one grid
        after those of the other, each row by row.

        Example:
            >>> import lexel
            >>> VQVAE(lexel.VectorQuantizer(512, 64), downsampling=8).levels((50, 70))
            [(7, 9)]
        """
        height, width = size
        return self.quantizer.grids((-(-height // self.downsampling), -(-width // self.downsampling)))

    def latents(self, images: Tensor) -> Tensor:
        """Encode images `(B, C, H, W)` into the inputs of the quantizer, `(B, D, ⌈H/f⌉, ⌈W/f⌉)`.

        Raises:
            TypeError: `images` is not a floating tensor.
            ValueError: `images` has another number of dimensions or channels, or no pixels.
        """
        if not images.dtype.is_floating_point:
            raise TypeError(f"VQVAE: images must be floating, in [0, 1], got {images.dtype}")
        if images.ndim != 4 or images.shape[1] != self.image_channels or 0 in images.shape[-2:]:
            raise ValueError(
                f"VQVAE: images must have shape (B, {self.image_channels}, H, W) with H and W above 0, "
                f"got {tuple(images.shape)}"
            )
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % self.downsampling, 0, -height % self.downsampling), mode="replicate")
        latents: Tensor = self.encoder(2 * padded - 1)
        return latents

    def images(self, quantized: Tensor, size: tuple[int, int] | torch.Size | None = None) -> Tensor:
        """Decode quantized vectors `(B, D, h, w)` into images `(B, C, H, W)`, not clamped, cropped to `size`."""
        images: Tensor = (self.decoder(quantized) + 1) / 2
        return images if size is None else images[..., : size[0], : size[1]]

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        return {
            name: to_config(getattr(self, name))
            for name in inspect.signature(type(self).__init__).parameters
            if name != "self"
        }

    def _save_pretrained(self, save_directory: Path) -> None:
        save_model(save_directory, self, self.config)

    @classmethod
    @override
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **settings: Any) -> "VQVAE":
        """Load what `save_pretrained` wrote, from a folder or from the hub, in eval mode. No file can run code.

        Args:
            pretrained_model_name_or_path: the folder, or the name on the hub.
            **settings: as for `huggingface_hub.ModelHubMixin.from_pretrained`.

        Raises:
            ValueError: a file is malformed or damaged, or they do not belong together.
        """
        folder = Path(pretrained_model_name_or_path)
        if (folder / CONFIG).is_file():
            check_config(folder)
        model: VQVAE = super().from_pretrained(pretrained_model_name_or_path, **settings)
        return model

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, map_location: str = "cpu", force_download: bool = False, token: Any = None,
        cache_dir: Any = None, local_files_only: bool = False, revision: str | None = None, **model_kwargs: Any,
    ) -> "VQVAE":  # fmt: skip
        path = Path(model_id) / WEIGHTS
        if (Path(model_id) / "model" / CONFIG).is_file() and not path.is_file():
            raise ValueError(f"{model_id} is the folder of a run: give that of its model, {Path(model_id) / 'model'}")
        model = cls(**model_kwargs)
        if not Path(model_id).is_dir():
            path = Path(
                hf_hub_download(
                    model_id, WEIGHTS, revision=revision, cache_dir=cache_dir, force_download=force_download,
                    token=token, local_files_only=local_files_only,
                )
            )  # fmt: skip
        load_weights(path, model, map_location)
        return model.eval()


def _transposed_convolution(channels: int, out_channels: int) -> nn.Module:
    return nn.ConvTranspose2d(channels, out_channels, 4, 2, 1)


def _resize_and_convolve(channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(channels, out_channels, 3, padding=1))
