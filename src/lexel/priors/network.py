"""What the networks of the priors have in common: a transformer from its settings, and where a token lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import LlamaConfig

__all__ = ["Attention", "Places", "llama_config"]


def llama_config(owner: str, *, layers: int, width: int, heads: int, length: int, vocabulary: int) -> LlamaConfig:
    """Return the settings of transformers' Llama for sequences of a `length`.

    Args:
        owner: the class to name.
        layers: blocks of the network.
        width: channels between the blocks.
        heads: attention heads of a block; they divide the width into even parts.
        length: the longest sequence.
        vocabulary: how many tokens there are.

    Raises:
        ImportError: transformers is not installed.
        ValueError: the heads do not divide the width into even parts.
    """
    try:
        from transformers import LlamaConfig
    except ImportError as error:
        raise ImportError(f"{owner} needs transformers: pip install 'lexel[priors]'") from error
    if width // heads % 2:  # rotary embeddings turn channels in pairs
        raise ValueError(f"{owner}: width / heads must be even, got {width} / {heads}")
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=length,
        bos_token_id=None,
        eos_token_id=None,
    )


class Attention(nn.Module):
    """Llama as a network from vectors to logits, in which each position attends to those that it is told to.

    Args:
        owner: the prior to name.
        outputs: how many logits a position has.
        length: the longest sequence.
        layers: blocks of the network.
        width: channels between the blocks.
        heads: attention heads of a block.

    Raises:
        ImportError: transformers is not installed.
        ValueError: the heads do not divide the width into even parts.
    """

    def __init__(self, owner: str, outputs: int, *, length: int, layers: int, width: int, heads: int) -> None:
        super().__init__()
        config = llama_config(owner, layers=layers, width=width, heads=heads, length=length, vocabulary=1)
        from transformers import LlamaModel

        self.llama = LlamaModel(config)
        self.llama.set_input_embeddings(nn.Identity())  # it is given vectors
        self.head = nn.Linear(width, outputs, bias=False)
        nn.init.normal_(self.head.weight, std=config.initializer_range)

    def forward(self, inputs: Tensor, allowed: Tensor, cache: Any = None) -> Tensor:
        """Return logits `(B, T, outputs)`.

        Args:
            inputs: `(B, T, width)`.
            allowed: bool `(T, S)`, whether a position attends to one of the S − T before in the cache or of these.
            cache: transformers' cache of the positions before, to which these are added.
        """
        # A mask of four axes takes the place of the causal one.
        found = self.llama(
            inputs_embeds=inputs, attention_mask=allowed[None, None], cache=cache, use_cache=cache is not None
        )
        logits: Tensor = self.head(found.last_hidden_state)
        return logits


class Places(nn.Module):
    """What tells a network where a token lies: embeddings of its row, its column and its grid.

    Args:
        levels: (h, w) of the grids of an example.
        width: channels of the embeddings.
    """

    places: Tensor

    def __init__(self, levels: Sequence[tuple[int, int]], width: int) -> None:
        super().__init__()
        self.rows = nn.Embedding(max(height for height, _ in levels), width)
        self.columns = nn.Embedding(max(columns for _, columns in levels), width)
        self.grids = nn.Embedding(len(levels), width)
        for embedding in (self.rows, self.columns, self.grids):
            nn.init.normal_(embedding.weight, std=0.02)  # as Llama's tokens
        places = [
            (row, column, level)
            for level, (height, columns) in enumerate(levels)
            for row in range(height)
            for column in range(columns)
        ]
        self.register_buffer("places", torch.tensor(places).T.contiguous(), persistent=False)  # (3, L)

    def forward(self) -> Tensor:
        """Return `(L, width)`, for the positions of all grids."""
        rows, columns, grids = self.places
        placed: Tensor = self.rows(rows) + self.columns(columns) + self.grids(grids)
        return placed
