"""A quantizer of directions."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from lexel._core.gradients import unit_rows
from lexel.quantizers._composite import check_parts
from lexel.quantizers._wrapper import Wrapper
from lexel.quantizers.base import Quantizer

__all__ = ["UnitQuantizer"]


class UnitQuantizer(Wrapper):
    """Scales each vector to length 1 before another quantizer takes it: only directions count.

    The quantized vectors lie where the unit vectors lie, and need not have length 1 themselves. A single codebook whose
    codes all have length 1 is a `CosineCodebook`.

    Args:
        quantizer: any quantizer of single positions.
        channel_dim: which axis of the input holds the channels.

    Raises:
        TypeError: `quantizer` is not a quantizer, or quantizes whole maps.

    Example:
        >>> import torch, lexel
        >>> unit = lexel.UnitQuantizer(lexel.ResidualQuantizer([lexel.VectorQuantizer(16, 8) for _ in range(2)]))
        >>> z = torch.randn(4, 8)
        >>> torch.equal(unit(z).indices, unit(2 * z).indices)
        True
    """

    def __init__(self, quantizer: Quantizer, *, channel_dim: int = 1) -> None:
        check_parts(type(self).__name__, [quantizer], "use two of these")
        super().__init__(quantizer, quantizer.embedding_dim, channel_dim)

    @property
    @override
    def leaves_remainder(self) -> bool:
        return False

    @override
    def inward(self, z: Tensor) -> Tensor:
        return unit_rows(z)

    @override
    def outward(self, e: Tensor) -> Tensor:
        return e
