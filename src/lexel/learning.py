"""Learning rules: how the codes move."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from typing_extensions import override

from lexel._core.by_code import sum_by_code
from lexel._core.checks import check_number
from lexel._core.config import Configurable, Part
from lexel._core.values import at_hand

__all__ = ["EMA", "Gradient", "Learning", "LearningModule"]


class Learning(Configurable):
    """Settings that say how the codes move; `build` makes the module from them."""

    @property
    def trainable(self) -> bool:
        """Whether gradient descent moves the codes; otherwise `LearningModule.update` does, in place."""
        return False

    @property
    def has_codebook_loss(self) -> bool:
        """Whether the loss contains the codebook term ‖sg[z] − e‖²."""
        return False

    @property
    def codebook_weight(self) -> float:
        """The weight of that term."""
        return 1.0

    @property
    def accepts_positions(self) -> bool:
        """Whether the module's `statistics` take `(B, S, D)`, B batches of S rows, as well as rows `(N, D)`."""
        return False

    @abstractmethod
    def build(self, num_embeddings: int, embedding_dim: int) -> LearningModule[Learning]:
        """Make the module for K codes of D numbers."""


LearningT = TypeVar("LearningT", bound=Learning, covariant=True)


class LearningModule(Part[LearningT]):
    """Moves the codes at the end of a training step. This class does nothing: it leaves them to gradient descent."""

    def statistics(self, z: Tensor, indices: Tensor, num_embeddings: int) -> tuple[Tensor, ...]:
        """Return the sums over this rank's inputs that `update` needs; the quantizer adds them up over all ranks.

        Args:
            z: this rank's inputs, `(N, D)`, without gradient; masked rows are zero. Where the settings declare
                `accepts_positions`, they may be `(B, S, D)`, channels-first inputs where they lie in memory.
            indices: int64 `(N,)`, or `(B, S)`, the code that each input chose.
            num_embeddings: K.
        """
        return ()

    def update(self, codes: Tensor, counts: Tensor, *sums: Tensor) -> None:
        """Move the codes in place by one step.

        Args:
            codes: the table, `(K, D)`.
            counts: n, float32 `(K,)`: how many inputs of all ranks chose each code; all zero for an empty batch.
            *sums: what `statistics` returned, summed over all ranks.
        """

    def restart(self, codes: Tensor, strength: Tensor) -> None:
        """Start the state of codes afresh that upkeep has moved, to the extent to which it has moved them.

        Args:
            codes: the table after the move, `(K, D)`.
            strength: `(K,)` in [0, 1]: 0 for a code that stayed, 1 for one that was replaced.
        """


@dataclass(frozen=True)
class Gradient(Learning):
    """Gradient descent on the codebook loss ‖sg[z] − e‖² (van den Oord et al. 2017, eq. 3, second term).

    Attributes:
        weight: of the codebook loss, not negative; 1 in the paper. Implementations that put β on this term instead of
            the commitment (taming-transformers' "legacy" loss, Chameleon, Janus) have `weight=β` and
            `commitment_cost=1`.

    Raises:
        ValueError: the weight is negative or not finite.
    """

    weight: float = 1.0
    trainable = True
    accepts_positions = True
    has_codebook_loss = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("Gradient", "weight", self.weight, least=0)

    @property
    @override
    def codebook_weight(self) -> float:
        return self.weight

    @override
    def build(self, num_embeddings: int, embedding_dim: int) -> LearningModule[Learning]:
        return LearningModule(self)


@dataclass(frozen=True)
class EMA(Learning):
    """Moving averages of the inputs that chose each code, without a gradient (van den Oord et al. 2017, appendix A.1).

    With n_i inputs assigned to code i in this step and their sum Σz:

        N_i ← γ N_i + (1 − γ) n_i
        m_i ← γ m_i + (1 − γ) Σz
        e_i ← m_i / N̂_i,  where N̂_i = (N_i + ε) / (ΣN + K ε) · ΣN

    The averages start as if each code had already been chosen once, by an input equal to itself (N_i = 1, m_i = e_i),
    so that a code which no input chooses stays where it is for some ln(1/ε) / (1 − γ) steps; when N_i is no longer far
    above ε, the smoothing draws it to the origin, unless upkeep revives it before. Implementations that start from
    N_i = 0 with m_i = e_i throw such a code so far away in the first step that no input ever chooses it again; Sonnet's
    zero-debiased averages send it to the origin.

    An average over a hundred steps is slow to leave the place where it started. With a warm-up of w, a code that inputs
    have chosen in t_i steps averages over about the last t_i / w of them, until γ alone would make it as long:

        1 − γ_i = max(1 − γ, w / (t_i + w)) for codes with n_i > 0

    A code that upkeep replaces warms up again. This is how k-means learns from a stream (MacQueen 1967): with w = 1 a
    code is the mean of all its inputs; a larger w forgets the early ones, which came when the codes lay elsewhere.

    Attributes:
        decay: γ, in [0, 1).
        epsilon: ε, the Laplace smoothing of the counts, positive.
        warmup: w, not negative; 0 for no warm-up. A code has warmed up after w γ / (1 − γ) steps.

    Raises:
        ValueError: a value is out of its range.

    Example:
        >>> import lexel
        >>> vq = lexel.VectorQuantizer(2, 1, learning=EMA(decay=0.5))
        >>> vq.load_codes(torch.tensor([[0.0], [10.0]]))
        >>> _ = vq(torch.tensor([[11.0], [11.0]]))
        >>> vq.learning.count, vq.codebook().round(decimals=1)
        (tensor([0.5000, 1.5000]), tensor([[ 0.0000],
                [10.7000]]))
    """

    decay: float = 0.99
    epsilon: float = 1e-5
    warmup: float = 0.0
    accepts_positions = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("EMA", "decay", self.decay, least=0, below=1)
        check_number("EMA", "epsilon", self.epsilon, above=0)
        check_number("EMA", "warmup", self.warmup, least=0)

    @override
    def build(self, num_embeddings: int, embedding_dim: int) -> LearningModule[Learning]:
        return EMAModule(self, num_embeddings, embedding_dim)


class EMAModule(LearningModule[EMA]):
    """Holds and updates the moving averages of `EMA`.

    Attributes:
        count: N, `(K,)`.
        sum: m, `(K, D)`.
        age: t, `(K,)`, in how many steps each code was chosen; None without a warm-up.
    """

    count: Tensor
    sum: Tensor
    age: Tensor | None

    wide_buffers = ("count", "sum", "age")

    def __init__(self, settings: EMA, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__(settings)
        self.register_buffer("count", torch.empty(num_embeddings))
        self.register_buffer("sum", torch.empty(num_embeddings, embedding_dim))
        self.register_buffer("age", torch.empty(num_embeddings) if settings.warmup else None)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Forget everything: codes whose count is 0 start when the next step begins."""
        for buffer in self.buffers():
            buffer.zero_()

    @override
    def statistics(self, z: Tensor, indices: Tensor, num_embeddings: int) -> tuple[Tensor, ...]:
        return sum_by_code(indices, num_embeddings, z)

    @override
    @torch.no_grad()
    def update(self, codes: Tensor, counts: Tensor, *sums: Tensor) -> None:
        self._begin(codes)
        decay, epsilon, warmup = self.settings.decay, self.settings.epsilon, self.settings.warmup
        n, total_z = counts.to(self.count.dtype), sums[0].to(self.sum.dtype)
        moves = n.sum() > 0
        step = (1 - decay) * moves.to(n.dtype).unsqueeze(0)  # zero for an empty batch, without a branch
        if self.age is not None:
            self.age += n > 0
            step = torch.where(n > 0, (warmup / (self.age + warmup)).clamp_min(1 - decay), step)
        self.count.lerp_(n, step)
        self.sum.lerp_(total_z, step.unsqueeze(1))
        total = self.count.sum()
        smoothed = (self.count + epsilon) / (total + len(n) * epsilon) * total
        # e = m / smoothed; for an empty batch e stays. In place, since these are the largest tensors of a step.
        codes.mul_(~moves).addcdiv_(self.sum, smoothed.where(moves, torch.inf).unsqueeze(1))

    def _begin(self, codes: Tensor) -> None:
        """Start the averages of codes that have none: as if each had been chosen once, by an input equal to itself."""
        self.widen()
        absent = self.count == 0
        if not at_hand(absent) or bool(absent.any()):
            self.count.masked_fill_(absent, 1)
            self.sum.copy_(torch.where(absent.unsqueeze(1), codes, self.sum))

    @override
    @torch.no_grad()
    def restart(self, codes: Tensor, strength: Tensor) -> None:
        self.widen()
        # As all codes start: chosen once, by an input equal to itself. Its old count and sum would take a code that was
        # replaced straight back in the next update.
        strength = strength.to(self.count.dtype)
        self.count.lerp_(torch.ones_like(self.count), strength)
        self.sum.copy_(torch.where(strength.unsqueeze(1) > 0, codes * self.count.unsqueeze(1), self.sum))
        if self.age is not None:
            self.age.mul_(1 - strength)
