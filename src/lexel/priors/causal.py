"""The causal prior: a transformer that predicts the next token, row by row."""

# No `from __future__ import annotations` here: the hub mixin reads the constructor's annotations as types.
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lexel.priors.base import FREE, Prior, Sampling
from lexel.priors.network import Places, llama_config

__all__ = ["CausalPrior"]


class CausalPrior(Prior):
    """Predicts each token from those before it, in raster order: transformers' `LlamaForCausalLM`.

    p(x) = Π p(x_i | x_1 … x_{i−1}, class), as PixelCNN does in van den Oord et al. 2017, §4.2, with a transformer as in
    VQGAN (Esser et al. 2021, arXiv 2012.09841, §3.2). The first input is the class, or the embedding of having none.
    Each input also says which row, column and grid the token to predict has.

    Several codebooks follow the delay pattern of MusicGen (Copet et al. 2023, arXiv 2306.05284, §2.2): codebook q is q
    steps late, so that in a step there is a token of each codebook, and that of codebook q sees those of the codebooks
    before it at its position. The tokens of one step do not see each other. Hence L + Q − 1 steps, not L · Q.

    Attributes:
        transformer: the network; its vocabulary is that of all codebooks, one after the other.

    Args:
        levels: (h, w) of the grids of an example, coarse to fine; one for a plain VQ-VAE.
        codebook_sizes: K of each of the Q codebooks from which a position has a token.
        num_classes: how many classes examples may have; None for none.
        layers: blocks of the transformer.
        width: channels between the blocks.
        heads: attention heads of a block; they divide the width into even parts.
        class_dropout: in training, the share of examples whose class is withheld.

    Raises:
        ImportError: transformers is not installed.
        ValueError: an argument is out of its range.

    Example:
        >>> prior = CausalPrior([(2, 3)], [16], num_classes=10, layers=1, width=8, heads=2)
        >>> prior.sample(4, labels=7).shape
        torch.Size([4, 2, 3])
        >>> prior.bits(torch.zeros(5, 2, 3, dtype=torch.long)).shape
        torch.Size([5])
    """

    name = "causal"

    def __init__(
        self,
        levels: Sequence[Sequence[int]],
        codebook_sizes: Sequence[int],
        num_classes: int | None = None,
        layers: int = 6,
        width: int = 256,
        heads: int = 8,
        class_dropout: float = 0.1,
    ) -> None:
        super().__init__(levels, codebook_sizes, num_classes, layers, width, heads, class_dropout)
        self.steps = self.positions + len(self.codebook_sizes) - 1
        config = llama_config(
            "CausalPrior",
            layers=layers,
            width=width,
            heads=heads,
            length=self.steps,
            vocabulary=sum(self.codebook_sizes),
        )
        from transformers import LlamaForCausalLM

        self.transformer = LlamaForCausalLM(config)
        self.classes = nn.Embedding(self.no_class + 1, width)
        nn.init.normal_(self.classes.weight, std=0.02)  # as the tokens' own
        self.places = Places(self.levels, width)
        starts = [sum(self.codebook_sizes[:book]) for book in range(len(self.codebook_sizes))]
        self.register_buffer("starts", torch.tensor(starts), persistent=False)
        self.starts: Tensor

    @override
    def loss_of_tokens(self, tokens: Tensor, classes: Tensor) -> Tensor:
        """Return the mean cross-entropy of all tokens."""
        return self._nats(tokens, classes).mean()

    @override
    def bits_of_tokens(self, tokens: Tensor, classes: Tensor) -> Tensor:
        """Return −log2 of the probability of each example."""
        return self._nats(tokens, classes).flatten(1).sum(1) / math.log(2)

    @override
    def sample_tokens(self, given: Tensor, classes: Tensor, sampling: Sampling) -> Iterator[Tensor]:
        """Draw one step after the other; each computes one input alone, since the cache keeps those before it."""
        from transformers import DynamicCache

        tokens = given.clone()
        classes = sampling.classes(classes, self.no_class)
        places, cache = self._placed(), DynamicCache(config=self.transformer.config)
        vocabulary, following = self.transformer.get_input_embeddings(), self.classes(classes)
        for step in range(self.steps):
            inputs = (following + places[step])[:, None]
            logits = sampling.guided(self.transformer(inputs_embeds=inputs, cache=cache, use_cache=True).logits[:, -1])
            following = torch.zeros_like(following)
            for book, (start, size) in enumerate(zip(self.starts.tolist(), self.codebook_sizes, strict=True)):
                position = step - book
                if 0 <= position < self.positions:
                    kept = given[:, position, book]
                    drawn = torch.where(kept == FREE, sampling.draw(logits[:, start : start + size]), kept)
                    tokens[:, position, book] = drawn
                    following += vocabulary(start + drawn).repeat(len(classes) // len(drawn), 1)
            yield tokens

    def _nats(self, tokens: Tensor, classes: Tensor) -> Tensor:
        """Return −ln of each token's probability given those before it, `(B, L, Q)`."""
        embedded = self.transformer.get_input_embeddings()(tokens + self.starts)  # (B, L, Q, width)
        last = len(self.codebook_sizes) - 1
        late = [F.pad(each, (0, 0, book, last - book)) for book, each in enumerate(embedded.unbind(2))]
        inputs = torch.cat([self.classes(classes)[:, None], torch.stack(late).sum(0)[:, :-1]], 1) + self._placed()
        logits = self.transformer(inputs_embeds=inputs, use_cache=False).logits
        nats = [
            F.cross_entropy(
                logits[:, book : book + self.positions, start : start + size].movedim(-1, 1).float(),
                tokens[:, :, book],
                reduction="none",
            )
            for book, (start, size) in enumerate(zip(self.starts.tolist(), self.codebook_sizes, strict=True))
        ]
        return torch.stack(nats, -1)

    def _placed(self) -> Tensor:
        """Return what says where the token of each step lies, `(L + Q − 1, width)`; zeros where codebook 0 is done."""
        return F.pad(self.places(), (0, 0, 0, self.steps - self.positions))
