"""Codebooks: what the codes of a quantizer are a function of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Codebook"]


class Codebook(nn.Module):
    """A free table of codes: each row is learned on its own. Calling it gives the codes, `(K, D)`.

    Attributes:
        weight: the table, `(K, D)`; a parameter when it learns by gradient, else a buffer.
    """

    weight: Tensor

    def __init__(self, num_embeddings: int, embedding_dim: int, *, trainable: bool = True) -> None:
        super().__init__()
        weight = torch.empty(num_embeddings, embedding_dim)
        if trainable:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start the codes uniform in [−1/K, 1/K]."""
        self.weight.uniform_(-1 / len(self.weight), 1 / len(self.weight))

    def forward(self) -> Tensor:
        """Return the codes, `(K, D)`."""
        return self.weight

    def extra_repr(self) -> str:
        """Show K and D."""
        return "{}, {}".format(*self.weight.shape)
