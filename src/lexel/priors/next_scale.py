"""The next-scale prior: a transformer that predicts a whole grid at once, given the coarser ones."""

# No `from __future__ import annotations` here: the hub mixin reads the constructor's annotations as types.
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lexel.priors.base import FREE, Prior, Sampling
from lexel.priors.network import Attention, Places

__all__ = ["NextScalePrior"]


class NextScalePrior(Prior):
    """Predicts all tokens of a grid in parallel, given those of the coarser grids: VAR (Tian et al. 2024, 2404.02905).

    p(x) = Π_k p(r_k | r_1 … r_{k−1}, class), and the tokens of r_k are independent of each other given the coarser
    grids. So the probability of an example is exact, and it is drawn in as many steps as there are grids. This suits
    the scales of a `MultiScaleResidualQuantizer`, which begin with a single token. The first grid is drawn from the
    class alone, each token on its own: where it is large, as the first of a `VQVAE2`, a `CausalPrior` knows more.

    The paper's inputs for grid k are the tokenizer's sum of the codes so far, brought to the size of r_k. Here the
    embeddings that this sum adds are learnt: Σ_{j<k} area(embedding_j(r_j)). So the prior needs no tokenizer, and the
    grids of a `VQVAE2`, whose codes do not add up, are as good. A position attends to its own grid and to the coarser.

    Several codebooks are a grid each, one after the other, as the stages of a residual quantizer refine each other.

    Attributes:
        network: the transformer.

    Args:
        levels: (h, w) of the grids of an example, coarse to fine.
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
        >>> prior = NextScalePrior([(1, 1), (2, 2), (4, 4)], [16], num_classes=10, layers=1, width=8, heads=2)
        >>> prior.sample(4, labels=7).shape
        torch.Size([4, 21])
        >>> prior.bits(torch.zeros(5, 21, dtype=torch.long)).shape
        torch.Size([5])
    """

    name = "next-scale"

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
        # What is predicted at once: a grid of one codebook. Each knows its size, its first position and its codebook.
        starts = [sum(h * w for h, w in self.levels[:level]) for level in range(len(self.levels))]
        books = range(len(self.codebook_sizes))
        self.grids = [(size, start, book) for size, start in zip(self.levels, starts, strict=True) for book in books]
        self.network = Attention(
            "NextScalePrior",
            sum(self.codebook_sizes),
            length=self.positions * len(self.codebook_sizes),
            layers=layers,
            width=width,
            heads=heads,
        )
        self.tokens = nn.ModuleList(nn.Embedding(self.codebook_sizes[book], width) for _, _, book in self.grids[:-1])
        self.books = nn.Embedding(len(self.codebook_sizes), width)
        self.classes = nn.Embedding(self.no_class + 1, width)
        for embedding in (*self.tokens, self.books, self.classes):
            nn.init.normal_(embedding.weight, std=0.02)  # as Llama's own
        self.places = Places(self.levels, width)

    @override
    def loss_of_tokens(self, tokens: Tensor, classes: Tensor) -> Tensor:
        """Return the mean cross-entropy of all tokens."""
        return self._nats(tokens, classes).mean()

    @override
    def bits_of_tokens(self, tokens: Tensor, classes: Tensor) -> Tensor:
        """Return −log2 of the probability of each example."""
        return self._nats(tokens, classes).sum(1) / math.log(2)

    @override
    def sample_tokens(self, given: Tensor, classes: Tensor, sampling: Sampling) -> Iterator[Tensor]:
        """Draw one grid after the other; the cache keeps those before it."""
        from transformers import DynamicCache

        tokens = given.clone()
        classes = sampling.classes(classes, self.no_class)
        cache, seen = DynamicCache(config=self.network.llama.config), 0
        for number, (_, start, book) in enumerate(self.grids):
            inputs = self._inputs(tokens.repeat(len(classes) // len(tokens), 1, 1), classes, number)
            seen += inputs.shape[1]
            allowed = torch.ones(inputs.shape[1], seen, dtype=torch.bool, device=tokens.device)
            logits = sampling.guided(self._of_book(self.network(inputs, allowed, cache), book))
            own = slice(start, start + inputs.shape[1])
            kept = given[:, own, book]
            tokens[:, own, book] = torch.where(kept == FREE, sampling.draw(logits), kept)
            yield tokens.clone()

    def _nats(self, tokens: Tensor, classes: Tensor) -> Tensor:
        """Return −ln of each token's probability given the coarser grids, `(B, L·Q)`, grid by grid."""
        inputs = [self._inputs(tokens, classes, number) for number in range(len(self.grids))]
        lengths = [each.shape[1] for each in inputs]
        grid_of = torch.arange(len(lengths), device=tokens.device).repeat_interleave(
            torch.tensor(lengths, device=tokens.device)
        )
        logits = self.network(torch.cat(inputs, 1), grid_of[:, None] >= grid_of)
        nats = [
            F.cross_entropy(
                self._of_book(own, book).movedim(-1, 1).float(),
                tokens[:, start : start + own.shape[1], book],
                reduction="none",
            )
            for own, (_, start, book) in zip(torch.split(logits, lengths, 1), self.grids, strict=True)
        ]
        return torch.cat(nats, 1)

    def _inputs(self, tokens: Tensor, classes: Tensor, number: int) -> Tensor:
        """Return the inputs of a grid, `(B, h·w, width)`: its places, the class, and the grids before it."""
        (height, width), start, book = self.grids[number]
        placed = self.places()[start : start + height * width] + self.books.weight[book]
        inputs: Tensor = placed + self.classes(classes)[:, None]
        for embedding, (size, first, earlier) in zip(self.tokens, self.grids[:number], strict=False):
            embedded = embedding(tokens[:, first : first + size[0] * size[1], earlier])
            maps = embedded.mT.unflatten(2, size)
            # The mean over areas: of a smaller grid it repeats the tokens, and of a larger one it loses none.
            inputs = inputs + F.adaptive_avg_pool2d(maps, (height, width)).flatten(2).mT
        return inputs

    def _of_book(self, logits: Tensor, book: int) -> Tensor:
        """Return the logits `(B, T, K)` of one codebook."""
        return torch.split(logits, self.codebook_sizes, -1)[book]
