"""A quantizer between two linear maps."""

from __future__ import annotations

from torch import Tensor, nn
from typing_extensions import override

from lexel.codebook import apply_layer
from lexel.quantizers._composite import check_parts
from lexel.quantizers._wrapper import Wrapper
from lexel.quantizers.base import Quantizer

__all__ = ["ProjectedQuantizer"]


class ProjectedQuantizer(Wrapper):
    """Maps the input linearly, quantizes it, and maps the result back; both maps are learned.

        quantized = up(quantizer(down(z)))

    So a quantizer whose method decides its dimension, such as `FiniteScalarQuantizer`, can quantize features of any
    size, and a whole `ResidualQuantizer` can work in few dimensions. The losses are those of the quantizer, in its own
    space; the task loss trains both maps. For a single codebook, `FactorisedCodebook` does the same.

    Attributes:
        down: the linear map from D channels to the quantizer's.
        up: the linear map back.

    Args:
        quantizer: any quantizer of single positions.
        embedding_dim: D, the input's channels.
        bias: whether the maps have one.
        back: whether there is a map back. Without it, `quantized` has the quantizer's own channels, as the tokenizer of
            CosyVoice 2 (arXiv 2412.10117) has them, whose indices go on and whose vectors do not.
        channel_dim: which axis of the input holds the channels.

    Raises:
        TypeError: `quantizer` is not a quantizer, or quantizes whole maps.

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
        super().__init__(quantizer, embedding_dim, channel_dim)
        self.bias = bias
        self.down = nn.Linear(embedding_dim, quantizer.embedding_dim, bias)
        self.back = back
        self.up = nn.Linear(quantizer.output_dim, embedding_dim, bias) if back else None

    @property
    @override
    def output_dim(self) -> int:
        return self.quantizer.output_dim if self.up is None else self.embedding_dim

    @property
    @override
    def learns_from_task(self) -> bool:
        return True

    @property
    @override
    def leaves_remainder(self) -> bool:
        return self.back  # the map back learns to bring the codes to where the inputs lie

    @property
    @override
    def prices(self) -> Tensor | None:
        if (prices := super().prices) is not None and self.back:
            raise ValueError(
                "ProjectedQuantizer: its quantizer has prices, which its maps do not take to where the inputs lie, as "
                f"distances are others there: use another estimator, got {self.quantizer}"
            )
        return prices

    @override
    def inward(self, z: Tensor) -> Tensor:
        return apply_layer(self.down, z)

    @override
    def outward(self, e: Tensor) -> Tensor:
        return e if self.up is None else apply_layer(self.up, e)

    def extra_repr(self) -> str:
        """Show D."""
        return f"{self.embedding_dim}"
