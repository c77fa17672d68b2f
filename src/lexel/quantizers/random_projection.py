"""Random-projection quantization: labels for speech, from nothing learned."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lexel._core.gradients import straight_through
from lexel.nearest import nearest_code
from lexel.quantizers.base import Choice, RowQuantizer

__all__ = ["RandomProjectionQuantizer"]


class RandomProjectionQuantizer(RowQuantizer):
    """Labels each vector by the nearest of K random directions in a random subspace: BEST-RQ (arXiv 2202.01855).

        index = argmin_i ‖ c_i/‖c_i‖ − Az/‖Az‖ ‖

    A has Xavier-uniform entries and the codes c are standard normal; both are drawn once and never learn. The paper
    takes the indices as targets for self-supervised learning, and needs inputs normalised to zero mean and unit
    variance over the data, or few of the codes are chosen. `quantized`, which the paper has no use for, is the smallest
    vector whose projection is the code, A⁺c/‖c‖; the loss is zero and the gradient passes straight through.

    vector-quantize-pytorch draws a Xavier-normal A and normalises each input by a layer norm of its own.

    Attributes:
        projection: A transposed, `(D, projection_dim)`.
        codebook: unit codes, `(K, projection_dim)`.
        vectors: what the codes are in the input's space, A⁺c/‖c‖, `(K, D)`.

    Args:
        num_embeddings: K; 8,192 in the paper.
        embedding_dim: D, the input's channels.
        projection_dim: the subspace's dimension, 16 in the paper; at most D.
        channel_dim: which axis of the input holds the channels.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: K or D is below 1, or `projection_dim` not in [1, D].

    Example:
        >>> import torch, lexel
        >>> rpq = lexel.RandomProjectionQuantizer(8192, 80, channel_dim=-1)
        >>> rpq(torch.randn(2, 100, 80)).indices.shape
        torch.Size([2, 100])
    """

    projection: Tensor
    codebook: Tensor
    vectors: Tensor

    def __init__(
        self, num_embeddings: int, embedding_dim: int, projection_dim: int = 16, *, channel_dim: int = 1
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, channel_dim)
        if not 1 <= projection_dim <= embedding_dim:
            raise ValueError(
                f"RandomProjectionQuantizer: projection_dim must be in [1, embedding_dim={embedding_dim}], "
                f"got {projection_dim}"
            )
        self.projection_dim = projection_dim
        self.register_buffer("projection", torch.empty(embedding_dim, projection_dim))
        self.register_buffer("codebook", torch.empty(num_embeddings, projection_dim))
        self.register_buffer("vectors", torch.empty(num_embeddings, embedding_dim))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw another projection and other codes."""
        nn.init.xavier_uniform_(self.projection)
        self.codebook.copy_(F.normalize(nn.init.normal_(self.codebook), dim=1))
        if not self.projection.is_meta:
            self.vectors.copy_(self.codebook @ torch.linalg.pinv(self.projection))

    @override
    def quantize_rows(self, z: Tensor, valid: Tensor | None) -> Choice:
        projected = F.normalize(z.detach() @ self.projection.to(z.dtype), dim=1)
        indices = nearest_code(projected, self.codebook.to(z.dtype))
        quantized = straight_through(z, self.lookup_rows(indices).to(z.dtype))
        return Choice(indices, quantized)

    @override
    def lookup_rows(self, indices: Tensor) -> Tensor:
        return F.embedding(indices, self.vectors)

    def extra_repr(self) -> str:
        """Show K, D and the dimension of the projection."""
        return f"{self.num_embeddings}, {self.embedding_dim}, projection_dim={self.projection_dim}"
