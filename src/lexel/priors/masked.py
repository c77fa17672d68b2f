"""The masked prior: a transformer that sees tokens on all sides, and fills a grid in a dozen steps."""

# No `from __future__ import annotations` here: the hub mixin reads the constructor's annotations as types.
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lexel._core.checks import check_number
from lexel.priors.base import FREE, Prior, Sampling
from lexel.priors.network import Attention, Places

__all__ = ["MaskedPrior"]

MOST_PASSES = 64  # of the network, for the bits of an example


class MaskedPrior(Prior):
    """Predicts hidden tokens from all that are shown: MaskGIT (Chang et al. 2022, arXiv 2202.04200, §3).

    In training, a share cos(πr/2) of an example's tokens is hidden, r uniform in [0, 1), and the loss is the mean
    cross-entropy of these. To draw an example, all free tokens are hidden at first. In step t of T, each of them is
    drawn, and those of which the network is least sure are hidden again, so that cos(πt/2T) of them are. How sure it is
    of a token is ln p + τ(1 − t/T)·g with Gumbel noise g, so that the order is not always the same (§3.2).

    The tokens of several codebooks are hidden and drawn one by one: a position of the transformer sees those of its
    codebooks that are shown, and has logits for all.

    The order in which samples are drawn depends on what is drawn, and so their probability cannot be computed. `bits`
    are those of the same network's code that shows the tokens in an order that is fixed in advance: one by one, or, if
    there are more than 64 tokens, in 64 groups, of which each costs what its tokens cost independently.

    Attributes:
        network: the transformer.

    Args:
        levels: (h, w) of the grids of an example, coarse to fine; one for a plain VQ-VAE.
        codebook_sizes: K of each of the Q codebooks from which a position has a token.
        num_classes: how many classes examples may have; None for none.
        layers: blocks of the transformer.
        width: channels between the blocks.
        heads: attention heads of a block; they divide the width into even parts.
        class_dropout: in training, the share of examples whose class is withheld.
        steps: T, in how many steps an example is drawn.
        choice_temperature: τ.

    Raises:
        ImportError: transformers is not installed.
        ValueError: an argument is out of its range.

    Example:
        >>> prior = MaskedPrior([(2, 3)], [16], num_classes=10, layers=1, width=8, heads=2)
        >>> prior.sample(4, labels=7).shape
        torch.Size([4, 2, 3])
        >>> prior.bits(torch.zeros(5, 2, 3, dtype=torch.long)).shape
        torch.Size([5])
    """

    name = "masked"
    exact = False

    def __init__(
        self,
        levels: Sequence[Sequence[int]],
        codebook_sizes: Sequence[int],
        num_classes: int | None = None,
        layers: int = 6,
        width: int = 256,
        heads: int = 8,
        class_dropout: float = 0.1,
        steps: int = 12,
        choice_temperature: float = 4.5,
    ) -> None:
        super().__init__(levels, codebook_sizes, num_classes, layers, width, heads, class_dropout)
        if steps < 1:
            raise ValueError(f"MaskedPrior: steps must be at least 1, got {steps}")
        self.steps = steps
        self.choice_temperature = float(check_number("MaskedPrior", "choice_temperature", choice_temperature, least=0))
        sizes = {"layers": layers, "width": width, "heads": heads}
        self.network = Attention("MaskedPrior", sum(self.codebook_sizes), length=self.positions, **sizes)
        # Of each codebook: one row for each token, and a last one that stands for a hidden token.
        self.tokens = nn.ModuleList(nn.Embedding(size + 1, width) for size in self.codebook_sizes)
        self.classes = nn.Embedding(self.no_class + 1, width)
        for embedding in (*self.tokens, self.classes):
            nn.init.normal_(embedding.weight, std=0.02)  # as Llama's own
        self.places = Places(self.levels, width)

    @override
    def loss_of_tokens(self, tokens: Tensor, classes: Tensor) -> Tensor:
        """Return the mean cross-entropy of the tokens that are hidden."""
        count = tokens[0].numel()
        ratio = torch.rand(len(tokens), 1, device=tokens.device)
        number = (count * torch.cos(ratio * math.pi / 2)).ceil().clamp(1, count)
        rank = torch.rand(len(tokens), count, device=tokens.device).argsort(1).argsort(1)
        hidden = (rank < number).reshape(tokens.shape)
        return (self._nats(tokens, hidden, classes) * hidden).sum() / hidden.sum()

    @override
    def bits_of_tokens(self, tokens: Tensor, classes: Tensor) -> Tensor:
        """Return the bits of each example in an order that is the same for all."""
        count = tokens[0].numel()
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).to(tokens.device)
        nats = torch.zeros(len(tokens), device=tokens.device)
        passes = min(count, MOST_PASSES)
        for step in range(passes):
            first, following = count * step // passes, count * (step + 1) // passes
            group = (order >= first) & (order < following)
            hidden = (order >= first).reshape(tokens.shape[1:]).expand(tokens.shape)
            nats += self._nats(tokens, hidden, classes).flatten(1)[:, group].sum(1)
        return nats / math.log(2)

    @override
    def sample_tokens(self, given: Tensor, classes: Tensor, sampling: Sampling) -> Iterator[Tensor]:
        """Draw the tokens of which the network is surest first, more in each step."""
        tokens = given.clone()
        hidden = (given == FREE).flatten(1)
        free = hidden.sum(1)
        classes = sampling.classes(classes, self.no_class)
        for step in range(1, self.steps + 1):
            inputs = tokens.repeat(len(classes) // len(tokens), 1, 1)
            each = [sampling.guided(logits) for logits in self._logits(inputs, inputs == FREE, classes)]
            drawn = torch.stack([sampling.draw(logits) for logits in each], -1)
            drawn = torch.where(tokens == FREE, drawn, tokens)
            chances = [
                logits.float().log_softmax(-1).gather(-1, drawn[..., book, None])[..., 0]
                for book, logits in enumerate(each)
            ]
            sure = torch.stack(chances, -1).flatten(1)
            noise = self.choice_temperature * sampling.temperature * (1 - step / self.steps)
            sure = sure + noise * _gumbel(sure, sampling)
            # At least one more is shown in each step, and all in the last.
            left = (free * math.cos(step / self.steps * math.pi / 2)).floor().long()
            left = torch.minimum(left, hidden.sum(1) - 1).clamp_min(0) if step < self.steps else torch.zeros_like(free)
            rank = sure.masked_fill(~hidden, math.inf).argsort(dim=1, stable=True).argsort(1)
            hidden = hidden & (rank < left[:, None])
            tokens = torch.where(hidden.reshape(tokens.shape), FREE, drawn)
            yield tokens

    def _nats(self, tokens: Tensor, hidden: Tensor, classes: Tensor) -> Tensor:
        """Return −ln of each token's probability given those that are not hidden, `(B, L, Q)`."""
        pairs = zip(self._logits(tokens, hidden, classes), tokens.unbind(2), strict=True)
        nats = [F.cross_entropy(logits.movedim(-1, 1).float(), own, reduction="none") for logits, own in pairs]
        return torch.stack(nats, -1)

    def _logits(self, tokens: Tensor, hidden: Tensor, classes: Tensor) -> Sequence[Tensor]:
        """Return the logits `(B, L, K)` of each codebook, given the tokens that are not hidden."""
        inputs = self.places() + self.classes(classes)[:, None]
        for book, (embedding, size) in enumerate(zip(self.tokens, self.codebook_sizes, strict=True)):
            inputs = inputs + embedding(torch.where(hidden[..., book], size, tokens[..., book]))
        everywhere = torch.ones(self.positions, self.positions, dtype=torch.bool, device=tokens.device)
        return torch.split(self.network(inputs, everywhere), self.codebook_sizes, -1)


def _gumbel(like: Tensor, sampling: Sampling) -> Tensor:
    """Return Gumbel noise of the shape of a tensor, from the generator's device."""
    times = torch.empty(like.shape, device=sampling.noise_device(like)).exponential_(generator=sampling.generator)
    return -times.log().to(like.device)
