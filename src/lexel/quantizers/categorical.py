"""Codes that a learned classifier of the inputs chooses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lexel._core.checks import check_number
from lexel._core.soft_assignment import by_rows
from lexel.codebook import apply_layer
from lexel.nearest import nearest_code
from lexel.quantizers.base import Choice, RowQuantizer

__all__ = ["CategoricalQuantizer"]


class CategoricalQuantizer(RowQuantizer):
    """A linear map of the input says how likely each code is: dVAE's and wav2vec 2.0's (arXiv 2006.11477, §2).

        l = W z + b,  y = softmax((l + g)/τ),  g Gumbel noise,  quantized = code of the largest y

    The codes have no say in the choice, and need not lie where the inputs lie, nor have as many numbers. In training
    the choice is drawn, and its gradient is that of y · codes (straight-through Gumbel-softmax); with `hard=False` the
    value is the mixture y · codes too. In eval mode the largest l decides, and no gradient reaches the inputs. There is
    no loss: what spreads the choices over all codes, such as wav2vec 2.0's diversity, is the task's to add.

    Attributes:
        logits: the linear map.
        codes: the codes, `(K, d)`.
        temperature: τ; a schedule may set it.

    Args:
        num_embeddings: K.
        embedding_dim: D, the input's channels.
        code_dim: d, the output's channels; by default D.
        temperature: τ, positive.
        hard: give codes in training, not mixtures.
        channel_dim: which axis of the input holds the channels.

    Raises:
        ValueError: `code_dim` is below 1, or `temperature` is not positive.

    Example:
        >>> import torch, lexel
        >>> groups = [lexel.CategoricalQuantizer(320, 512, code_dim=128, temperature=2.0) for _ in range(2)]
        >>> output = lexel.ParallelQuantizer(groups, combine="concatenate")(torch.randn(2, 512, 50))
        >>> output.quantized.shape, output.indices.shape
        (torch.Size([2, 256, 50]), torch.Size([2, 50, 2]))
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        code_dim: int | None = None,
        temperature: float = 1.0,
        hard: bool = True,
        channel_dim: int = 1,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, channel_dim)
        name = type(self).__name__
        if code_dim is not None and code_dim < 1:
            raise ValueError(f"{name}: code_dim must be at least 1, got {code_dim}")
        self.code_dim = code_dim
        self.temperature = float(check_number(name, "temperature", temperature, above=0))
        self.hard = hard
        self.logits = nn.Linear(embedding_dim, num_embeddings)
        nn.init.normal_(self.logits.weight)  # as in wav2vec 2.0
        nn.init.zeros_(self.logits.bias)
        self.codes = nn.Parameter(torch.rand(num_embeddings, self.output_dim))

    @property
    @override
    def learns_from_task(self) -> bool:
        return True

    @property
    @override
    def leaves_remainder(self) -> bool:
        return False  # the codes need not lie where the inputs lie

    @property
    @override
    def output_dim(self) -> int:
        return self.embedding_dim if self.code_dim is None else self.code_dim

    @override
    def quantize_rows(self, z: Tensor, valid: Tensor | None) -> Choice:
        if self.training:
            return Choice(*self._drawn(z))
        # The largest logit is the largest product of (z, 1) and (W, b): a search like any other.
        inputs = torch.cat([z.detach(), z.new_ones(z.shape[0], 1)], 1)
        rows = torch.cat([self.logits.weight, self.logits.bias.unsqueeze(1)], 1).detach()
        indices = nearest_code(inputs, rows.to(z.dtype), metric="dot")
        return Choice(indices, self.lookup_rows(indices).to(z.dtype))

    @override
    def lookup_rows(self, indices: Tensor) -> Tensor:
        return F.embedding(indices, self.codes)

    def _drawn(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Indices `(N,)` and the quantized rows `(N, d)` of a random choice."""

        def draw(codes: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
            scores = apply_layer(self.logits, z)
            noise = -torch.empty_like(scores).exponential_().log()
            y = ((scores + noise) / self.temperature).softmax(1)
            chosen = y.argmax(1)
            if self.hard:
                one_hot = torch.zeros_like(y).scatter_(1, chosen.unsqueeze(1), 1)  # F.one_hot looks at the indices
                y = one_hot + (y - y.detach())
            return chosen, y @ codes.to(y.dtype)

        indices, quantized = (torch.cat(parts) for parts in zip(*by_rows(draw, self.codes, z), strict=True))
        return indices, quantized

    def extra_repr(self) -> str:
        """Show K, d and the temperature."""
        return f"{self.num_embeddings}, code_dim={self.output_dim}, temperature={self.temperature}, hard={self.hard}"
