"""The convolutional encoder and decoder of the VQ-VAE paper (van den Oord et al. 2017, §4.1)."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ResidualLayer", "decoder", "encoder"]


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


def encoder(
    in_channels: int,
    out_channels: int,
    *,
    hidden_channels: int,
    residual_channels: int,
    residual_layers: int,
    downsampling: int,
) -> nn.Sequential:
    """Return log2(f) convolutions of stride 2, a residual stack and a 1×1 convolution: `(H, W)` to `(H/f, W/f)`."""
    widths = _widths(in_channels, hidden_channels, downsampling)
    halves = [layer for outer, inner in pairwise(widths) for layer in (nn.Conv2d(outer, inner, 4, 2, 1), nn.ReLU())]
    return nn.Sequential(
        *halves,
        nn.Conv2d(widths[-1], hidden_channels, 3, padding=1),
        *[ResidualLayer(hidden_channels, residual_channels) for _ in range(residual_layers)],
        nn.ReLU(),
        nn.Conv2d(hidden_channels, out_channels, 1),
    )


def decoder(
    in_channels: int,
    out_channels: int,
    *,
    hidden_channels: int,
    residual_channels: int,
    residual_layers: int,
    downsampling: int,
    upsampling: Literal["transposed", "resize"],
) -> nn.Sequential:
    """Return the mirror of `encoder`: `(H/f, W/f)` to `(H, W)`."""
    double = _resize_and_convolve if upsampling == "resize" else _transposed_convolution
    channels = [hidden_channels, *_widths(out_channels, hidden_channels, downsampling)[-2::-1]]
    doubles = [layer for inner, outer in pairwise(channels) for layer in (nn.ReLU(), double(inner, outer))]
    return nn.Sequential(
        nn.Conv2d(in_channels, hidden_channels, 3, padding=1),
        *[ResidualLayer(hidden_channels, residual_channels) for _ in range(residual_layers)],
        *(doubles or [nn.ReLU(), nn.Conv2d(hidden_channels, out_channels, 3, padding=1)]),
    )


def _widths(outside: int, hidden_channels: int, downsampling: int) -> list[int]:
    """Return the channels outside, then those of each halving of the resolution, from the outside in."""
    halvings = downsampling.bit_length() - 1
    return [outside, hidden_channels // 2, *[hidden_channels] * (halvings - 1)][: halvings + 1]


def _transposed_convolution(channels: int, out_channels: int) -> nn.Module:
    return nn.ConvTranspose2d(channels, out_channels, 4, 2, 1)


def _resize_and_convolve(channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(channels, out_channels, 3, padding=1))
