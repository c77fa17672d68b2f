"""A quantizer between two linear maps."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from lexel.codebook import apply_layer
from lexel.quantizers._composite import check_parts
from lexel.quantizers.base import Quantized, Quantizer

__all__ = ["ProjectedQuantizer"]


class ProjectedQuantizer(Quantizer):
    """Quantizes a learned linear map of the input, and maps the result back by another.

        quantized = up(quantizer(down(z)))

    So a quantizer whose dimension its method decides, as with `FiniteScalarQuantizer`, meets features of any size, and
    a whole `ResidualQuantizer` works in few dimensions. The losses are those of the quantizer, in its own space; the
    task loss moves both maps. A table alone has the same in `FactorisedCodebook`.

    Attributes:
        quantizer: the quantizer that was given.
        down: from D to the quantizer's channels.
        up: back.

    Args:
        quantizer: any quantizer of single positions.
        embedding_dim: D, the input's channels.
        bias: whether the maps have one.
        back: whether there is a map back. Without it, `quantized` has the quantizer's own channels, as the tokenizer of
            CosyVoice 2 (arXiv 2412.10117) has them, whose indices go on and whose vectors do not.
        channel_dim: which axis of the input holds the channels.

    Raises:
        TypeError: `quantizer` is something else, or quantizes whole maps.

    Example:
        >>> import torch, lexel
        >>> fsq = lexel.ProjectedQuantizer(lexel.FiniteScalarQuantizer([8, 5, 5, 5]), 256)
        >>> output = fsq(torch.randn(2, 256, 7))
        >>> output.quantized.shape, output.indices.shape, fsq.num_embeddings
        (torch.Size([2, 256, 7]), torch.Size([2, 7]), 1000)
    """

    def __init__(
        self,
        quantizer: Quantizer,
        embedding_dim: int,
        *,
        bias: bool = True,
        back: bool = True,
        channel_dim: int = 1,
    ) -> None:
        check_parts(type(self).__name__, [quantizer], "use two of these")
        super().__init__(quantizer.num_embeddings, embedding_dim, channel_dim)
        self.bias = bias
        self.quantizer = quantizer
        self.down = nn.Linear(embedding_dim, quantizer.embedding_dim, bias)
        self.back = back
        self.up = nn.Linear(quantizer.output_dim, embedding_dim, bias) if back else nn.Identity()

    @property
    def output_dim(self) -> int:
        """How many channels `quantized` has."""
        return self.embedding_dim if self.back else self.quantizer.output_dim

    @property
    def bits(self) -> float:
        """Bits that the indices of one position carry at most."""
        return self.quantizer.bits

    @property
    def index_shape(self) -> tuple[int, ...]:
        """As that of the quantizer."""
        return self.quantizer.index_shape

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """As those of the quantizer."""
        return self.quantizer.codebook_sizes

    def check_indices(self, indices: Tensor) -> None:  # noqa: D102
        self.quantizer.check_indices(indices)

    def quantize_positions(self, z: Tensor, valid: Tensor | None) -> Quantized:  # noqa: D102
        inner = apply_layer(self.down, z)
        if valid is not None:
            inner = torch.where(valid.unsqueeze(-1), inner, 0)
        result = self.quantizer.quantize_positions(inner, valid)
        return replace(result, quantized=self._outward(result.quantized))

    def unquantized(self, inputs: Tensor) -> Tensor:  # noqa: D102
        inner = apply_layer(self.down, inputs.movedim(self.channel_dim, -1)).movedim(-1, self.quantizer.channel_dim)
        inner = self.quantizer.unquantized(inner).movedim(self.quantizer.channel_dim, -1)
        return self._outward(inner).movedim(-1, self.channel_dim)

    def lookup_positions(self, indices: Tensor) -> Tensor:  # noqa: D102
        absent = (indices < 0).all(-1) if self.index_shape else indices < 0
        return torch.where(absent.unsqueeze(-1), 0, self._outward(self.quantizer.lookup_positions(indices)))

    def _outward(self, e: Tensor) -> Tensor:
        return apply_layer(self.up, e) if isinstance(self.up, nn.Linear) else e

    def extra_repr(self) -> str:
        """Show D."""
        return f"{self.embedding_dim}"
