"""An autoencoder of vectors around any quantizer: none but the quantizer, or RQ-VAE's two perceptrons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self, override

from lexel._core.checks import check_integer
from lexel._core.modules import evaluating
from lexel.models.base import Autoencoder, Level
from lexel.quantizers.base import Quantizer

__all__ = ["VectorAutoencoder"]


class VectorAutoencoder(Autoencoder, tags=["vector-quantization", "semantic-ids"]):
    """Turns vectors into tuples of codes and back: semantic IDs of embeddings (TIGER, arXiv 2305.05065, §3.1).

    Without hidden layers the quantizer codes the vectors as they are: residual k-means, product quantization, or plain
    k-means. With them it is RQ-VAE: a perceptron, the quantizer, and a perceptron of the same layers in reverse. What
    the perceptrons are given has mean 0 and variance 1 over all numbers of the vectors that `calibrate` has seen.

    Attributes:
        encoder: vectors `(B, dim)` to latents `(B, D)`.
        quantizer: latents to codes.
        decoder: quantized latents to vectors.
        mean: `(dim,)`, subtracted before the encoder and added after the decoder; zero without hidden layers.
        scale: scalar, by which the encoder's inputs are divided; one without hidden layers.

    Args:
        quantizer: any quantizer of single positions with its channels at axis 1; its `embedding_dim` is D.
        dim: how many numbers a vector has; by default D.
        hidden_channels: the widths of the encoder's inner layers. With none, and `dim` equal to D, there is no encoder.
        beam_size: how many partial sums `encode` keeps for each vector; more than 1 finds codes of smaller error where
            those of several codebooks add up (`Quantizer.beam_search`).
        unit: bring vectors to length 1 first, so that only their directions count.

    Raises:
        ValueError: an argument is out of its range.
        TypeError: `quantizer` is not a lexel quantizer.

    Example:
        >>> import torch, lexel
        >>> stages = [lexel.VectorQuantizer(256, 32) for _ in range(3)]
        >>> model = VectorAutoencoder(lexel.ResidualQuantizer(stages), dim=768, hidden_channels=[512, 128])
        >>> ids = model.encode(torch.randn(10, 768))
        >>> ids.shape, model.decode(ids).shape
        (torch.Size([10, 3]), torch.Size([10, 768]))
    """

    kind = "vectors"
    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        quantizer: Quantizer,
        dim: int | None = None,
        hidden_channels: Sequence[int] = (),
        beam_size: int = 1,
        unit: bool = False,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if quantizer.channel_dim != 1 or not quantizer.positionwise:
            raise ValueError(
                f"{name}: the quantizer must code single positions and have channel_dim=1, got {quantizer}"
            )
        self.dim = quantizer.embedding_dim if dim is None else check_integer(name, "dim", dim, least=1)
        self.hidden_channels = [check_integer(name, "hidden_channels", width, least=1) for width in hidden_channels]
        self.beam_size = check_integer(name, "beam_size", beam_size, least=1)
        self.unit = bool(unit)
        self.quantizer: Quantizer = quantizer
        widths = [self.dim, *self.hidden_channels]
        plain = not self.hidden_channels and self.dim == quantizer.embedding_dim == quantizer.output_dim
        self.encoder = nn.Identity() if plain else perceptron([*widths, quantizer.embedding_dim])
        self.decoder = nn.Identity() if plain else perceptron([quantizer.output_dim, *reversed(widths)])
        self.register_buffer("mean", torch.zeros(self.dim))
        self.register_buffer("scale", torch.ones(()))

    @property
    @override
    def quantizers(self) -> Sequence[Quantizer]:
        return [self.quantizer]

    @classmethod
    @override
    def around(cls, quantizer: Callable[[], Quantizer], **settings: Any) -> Self:
        return cls(quantizer(), **settings)

    @override
    def maps(self, size: tuple[int, ...]) -> list[tuple[int, ...]]:
        return [()]

    @override
    def levels(self, size: tuple[int, ...]) -> list[tuple[int, int]]:
        return [(1, 1)]

    @torch.no_grad()
    def calibrate(self, vectors: Tensor) -> None:
        """Take the mean and the scale of the encoder's inputs from vectors `(N, dim)`. Without an encoder, do nothing.

        Raises:
            TypeError: `vectors` is not a floating tensor.
            ValueError: `vectors` has another shape, or holds a zero vector where only directions count.
        """
        given = self._given(vectors).double()
        if not isinstance(self.encoder, nn.Identity):
            self.mean.copy_(given.mean(0))
            self.scale.copy_((given - given.mean(0)).square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny))

    @override
    def quantize(self, examples: Tensor) -> list[Level]:
        """Encode vectors `(B, dim)` and quantize them: by the quantizer's `forward`, without a beam.

        Raises:
            TypeError: `examples` is not a floating tensor.
            ValueError: `examples` has another shape, or holds a zero vector where only directions count.
        """
        latents = self.latents(examples)
        return [Level(latents, self.quantizer(latents))]

    @torch.no_grad()
    @override
    def encode(self, examples: Tensor) -> Tensor:
        """Return the indices of vectors `(B, dim)`. No state changes, even in training mode.

        Returns:
            int64 `(B,)`, or `(B, Q)` of Q codebooks.

        Raises:
            TypeError: `examples` is not a floating tensor.
            ValueError: `examples` has another shape, or holds a zero vector where only directions count.
        """
        with evaluating(self):
            return self.indices_of(self.latents(examples))

    @torch.no_grad()
    def indices_of(self, latents: Tensor) -> Tensor:
        """Return the indices of what the encoder returned, `(B, D)`, as `encode` returns those of vectors."""
        if self.beam_size > 1:
            return self.quantizer.beam_search(latents, self.beam_size)
        with evaluating(self):
            indices: Tensor = self.quantizer(latents).indices
        return indices

    @override
    def synthesize(self, quantized: Sequence[Tensor], size: tuple[int, ...] | None = None) -> Tensor:
        vectors: Tensor = self.decoder(quantized[0])
        return vectors if isinstance(self.decoder, nn.Identity) else vectors * self.scale + self.mean

    def latents(self, vectors: Tensor) -> Tensor:
        """Encode vectors `(B, dim)` into the inputs of the quantizer, `(B, D)`.

        Raises:
            TypeError: `vectors` is not a floating tensor.
            ValueError: `vectors` has another shape, or holds a zero vector where only directions count.
        """
        given = self._given(vectors)
        latents: Tensor = (
            given if isinstance(self.encoder, nn.Identity) else self.encoder((given - self.mean) / self.scale)
        )
        return latents

    def target(self, vectors: Tensor) -> Tensor:
        """Return what the reconstruction of vectors `(B, dim)` approximates: themselves, or their directions.

        Raises:
            TypeError: `vectors` is not a floating tensor.
            ValueError: `vectors` has another shape, or holds a zero vector where only directions count.
        """
        given = self._given(vectors)
        return self.quantizer.unquantized(given) if isinstance(self.encoder, nn.Identity) else given

    def _given(self, vectors: Tensor) -> Tensor:
        name = type(self).__name__
        if not vectors.dtype.is_floating_point:
            raise TypeError(f"{name}: vectors must be floating, got {vectors.dtype}")
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise ValueError(f"{name}: vectors must have shape (B, {self.dim}), got {tuple(vectors.shape)}")
        if not self.unit:
            return vectors
        zero = (vectors == 0).all(1)
        if not torch.compiler.is_compiling() and zero.any():  # a graph cannot depend on the data
            raise ValueError(f"{name}: the vector {int(zero.int().argmax())} is zero: it has no direction")
        return F.normalize(vectors, dim=1, eps=0)


def perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Return linear layers between these widths, with a ReLU after each but the last (TIGER's encoder and decoder)."""
    layers = [layer for inner, outer in pairwise(widths) for layer in (nn.Linear(inner, outer), nn.ReLU())]
    return nn.Sequential(*layers[:-1])
