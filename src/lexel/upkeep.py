"""Upkeep: how codes start, and how they come back to life.

Upkeep acts at the beginning of a training step, before the search, so that the codes it moves take part in the same
step; at the end of the step it is told how often each code was chosen. A part that declares `needs_errors` is told the
squared errors as well, and may move codes then, to inputs whose errors it knows without a search of its own. All ranks
see the inputs of all ranks in one order, so every choice is the same on each of them, and the same as one process with
all the inputs would make. Random choices are functions of the part's `seed` and of its own count of steps, which is
saved with the module's state: they depend neither on the global random generator nor on the rank, and a run resumed
from a checkpoint goes on as if it had not stopped.

Optimizers keep moments for each code, which upkeep cannot reach and need not: a dead code had no gradient for long, so
its first moment has decayed to nothing and cannot drag the new code along. Its second moment is small, so Adam's first
steps are larger than usual, by (1 − β₁)/√(1 − β₂) at most (about 3 learning rates), which suits a code that is new.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from typing_extensions import override

from lexel._core.checks import check_integer, check_number
from lexel._core.collectives import AllRows, rank
from lexel._core.config import Configurable, Part
from lexel._core.values import Reading, Transient, is_recorded
from lexel.kmeans import common_row, kmeans
from lexel.nearest import nearest_code

__all__ = ["Change", "KMeansStart", "OnlineClustering", "Revival", "StepErrors", "Upkeep", "UpkeepModule"]

Change = tuple[Tensor, Tensor]
"""Anchors `(K, D)` and how strongly each code is pulled to its own, `(K,)` in [0, 1]."""


class StepErrors(NamedTuple):
    """The squared distances of a step's inputs to the codes that they chose, before the learning rule moved these.

    Attributes:
        by_code: the sum over the inputs of all ranks that chose each code, `(K,)`.
        own: of each of this rank's inputs, `(N,)`; zero where it does not count.
        rows: the inputs of all ranks.
    """

    by_code: Tensor
    own: Tensor
    rows: AllRows


class Upkeep(Configurable):
    """Settings that say how codes start and come back to life; `build` makes the module from them."""

    @property
    def needs_errors(self) -> bool:
        """Whether the quantizer calls `UpkeepModule.observe_errors` in place of `observe`."""
        return False

    @abstractmethod
    def build(self, num_embeddings: int, embedding_dim: int) -> UpkeepModule[Upkeep]:
        """Make the module for K codes of D numbers."""


UpkeepT = TypeVar("UpkeepT", bound=Upkeep, covariant=True)


class UpkeepModule(Part[UpkeepT]):
    """Decides in each training step which codes move where, and holds what it knows of their usage in buffers."""

    @abstractmethod
    def prepare(self, codes: Tensor, rows: AllRows, *, unit_length: bool = False) -> Change | None:
        """Return where codes should move before this step's search; None if none should.

        Args:
            codes: `(K, D)`.
            rows: the inputs of all ranks.
            unit_length: whether codes and inputs have length 1.
        """

    def observe(self, counts: Tensor) -> None:
        """Take note, at the end of a step, of how many inputs of all ranks chose each code: `counts` `(K,)`."""

    def observe_errors(self, counts: Tensor, errors: StepErrors) -> Change | None:
        """Take note of counts, as `observe` does, and of errors; return where codes should move, None if none should.

        Only a part whose settings declare `needs_errors` is asked, after the learning rule has moved the codes.
        """
        raise NotImplementedError(f"{type(self).__name__} must define observe_errors, since its settings need errors")

    def skip_start(self) -> None:
        """Do not start the codes: they have been trained already."""


@dataclass(frozen=True)
class KMeansStart(Upkeep):
    """Starts the codes as the k-means centres of the first inputs, which `lexel.kmeans` finds.

    When the first batch (of all ranks) has fewer than K inputs, the inputs of each batch simply replace the next codes
    that have not started, and k-means runs on all of them with the batch that completes K. Until then training goes on
    with the codes as they are.

    Attributes:
        iterations: number of Lloyd's iterations after the start by splitting and merging.
        seed: seed of the random sample that the start looks at.

    Raises:
        ValueError: `iterations` is negative.

    Example:
        >>> import lexel
        >>> vq = lexel.VectorQuantizer(2, 1, upkeep=KMeansStart())
        >>> _ = vq(torch.tensor([[1.0], [9.0], [11.0], [3.0]]))
        >>> vq.codebook.weight.detach().sort(0).values
        tensor([[ 2.],
                [10.]])
    """

    iterations: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("KMeansStart", "iterations", self.iterations, least=0)

    @override
    def build(self, num_embeddings: int, embedding_dim: int) -> UpkeepModule[Upkeep]:
        return _KMeansStartModule(self, num_embeddings)


class _KMeansStartModule(UpkeepModule[KMeansStart]):
    collected: Tensor  # int64 scalar: how many codes have started

    def __init__(self, settings: KMeansStart, num_embeddings: int) -> None:
        super().__init__(settings)
        self.num_embeddings = num_embeddings
        self.register_buffer("collected", torch.empty((), dtype=torch.int64))
        self._complete = Reading()
        self._start = _Start()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Wait for the first inputs."""
        self.collected.zero_()
        self._start.complete = False

    @override
    def _load_from_state_dict(self, *arguments: Any, **settings: Any) -> None:
        super()._load_from_state_dict(*arguments, **settings)
        self._start.complete = False  # until it turns out to be

    @override
    def prepare(self, codes: Tensor, rows: AllRows, *, unit_length: bool = False) -> Change | None:
        if not torch.compiler.is_compiling():
            self._start.complete = self._complete.of(self.collected, lambda: self.collected == len(codes))
        if self._start.complete:
            return None
        settings, key = self.settings, self._start.key
        start = _kmeans_start(*rows.own, codes, self.collected, settings.iterations, settings.seed, unit_length, key)
        anchors, strength, collected = start
        self.collected.copy_(collected)
        return anchors, strength

    @override
    def skip_start(self) -> None:
        self.collected.fill_(self.num_embeddings)


@dataclass(frozen=True)
class Revival(Upkeep):
    """Replaces codes that fell out of use by inputs of the batch (SoundStream, arXiv 2107.03312, §III-B).

    A code is dead when the running average of its usage falls below `threshold`. An input of the batch replaces it;
    each dead code gets another input, and when there are more dead codes than inputs, the rest wait for the next step.
    SoundStream counts usage in inputs for each batch (and replaces below 2); here it is relative, so that it means the
    same for any batch and any K: 1 is the usage of each code when all are used equally often. A batch of N < K inputs
    cannot use every code and counts as N/K of a step: it decays the average by γ^(N/K).

    In the best codebook of many codes all have the same share of the error, not of the inputs (Gersho 1979): on image
    patches, where most inputs are nearly flat, many good codes have less than a tenth of the average usage. A threshold
    of 0.1 would replace them again and again.

    With `by="error"` the error counts as well. If n_i inputs chose code i in a step, with a sum of squared errors E_i,

        usage_i ← γ usage_i + (1 − γ) K max(n_i / Σn, E_i / ΣE)

    so that a code for rare inputs lives by its share of the error, and one whose inputs all lie close to it by their
    number. An input is drawn in proportion to its squared error, as a seed of k-means++ is (Arthur and Vassilvitskii
    2007), but by systematic sampling (Madow 1949), all codes at once: a new code helps most where the error is. It
    comes at the end of the step after the one in which the old one died, since the errors of a step are known then. Of
    the codes that fall on the same input all but one wait for the next step.

    Attributes:
        threshold: usage below which a code is dead, in [0, 1). With `by="error"` a threshold of 0.1 spares the codes
            for rare inputs.
        decay: γ of the running average, in [0, 1). A code starts, and starts again, with a usage of 1, so one that no
            input chooses lives for log(threshold) / log(decay) steps of at least K inputs: about 44 by default.
        seed: seed of the choice of inputs.
        by: "usage", or "error".

    Raises:
        ValueError: a value is out of its range.

    Example:
        >>> import lexel
        >>> vq = lexel.VectorQuantizer(512, 64, learning=lexel.EMA(), upkeep=(KMeansStart(), Revival()))
        >>> vq(torch.randn(2, 64, 32, 32)).quantized.shape
        torch.Size([2, 64, 32, 32])

        All error is that of the input 3, so the code that no input chose moves there:

        >>> vq = lexel.VectorQuantizer(3, 1, upkeep=Revival(threshold=0.5, decay=0.4, by="error"))
        >>> vq.load_codes(torch.tensor([[0.0], [99.0], [7.0]]))
        >>> for _ in range(2):
        ...     _ = vq(torch.tensor([[0.0], [0.0], [3.0], [7.0]]))
        >>> vq.codebook().detach().flatten()
        tensor([0., 3., 7.])
    """

    threshold: float = 0.01
    decay: float = 0.9
    seed: int = 0
    by: Literal["usage", "error"] = "usage"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("threshold", "decay"):
            check_number("Revival", name, getattr(self, name), least=0, below=1)

    @property
    @override
    def needs_errors(self) -> bool:
        return self.by == "error"

    @override
    def build(self, num_embeddings: int, embedding_dim: int) -> UpkeepModule[Upkeep]:
        return (_RevivalByErrorModule if self.by == "error" else _RevivalModule)(self, num_embeddings)


class _UsageModule(UpkeepModule[UpkeepT]):
    """Tracks how much each code has been used recently.

    Attributes:
        usage: running average, `(K,)`; 1 where a code is used as often as the average code.
        step: int64 scalar, the number of steps that had inputs.
    """

    usage: Tensor
    step: Tensor

    wide_buffers = ("usage",)

    def __init__(self, settings: UpkeepT, num_embeddings: int, usage: float) -> None:
        super().__init__(settings)
        self.first_usage = usage
        self.register_buffer("usage", torch.empty(num_embeddings))
        self.register_buffer("step", torch.empty((), dtype=torch.int64))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Forget everything."""
        self.usage.fill_(self.first_usage)
        self.step.zero_()

    def follow(self, counts: Tensor, step: Tensor, errors: Tensor | None = None) -> None:
        """Move the running average by `step` in [0, 1]; 0 for an empty batch. Errors, if given, count like inputs."""
        self.widen()
        share = counts.to(self.usage.dtype) * (len(self.usage) / counts.sum().clamp_min(1))
        if errors is not None:
            share = share.maximum((errors / errors.sum()).nan_to_num(0, 0, 0) * len(self.usage))  # 0 / 0: no error
        self.usage.lerp_(share.to(self.usage.dtype), step.to(self.usage.dtype))


class _RevivalModule(_UsageModule[Revival]):
    def __init__(self, settings: Revival, num_embeddings: int) -> None:
        super().__init__(settings, num_embeddings, usage=1)
        self._any_dead = Reading()

    @override
    def prepare(self, codes: Tensor, rows: AllRows, *, unit_length: bool = False) -> Change | None:
        turn = _random(self.step, self.settings.seed)
        self.step += rows.total > 0
        if not is_recorded(self.usage) and not self._any_dead.of(self.usage, lambda: self._dead().any()):
            return None
        dead = self._dead()
        queue = dead.cumsum(0) - 1
        dead &= queue < rows.total
        revived = dead.sum()
        total = rows.total.clamp_min(1)
        # Evenly spaced from a random start: different for each code, every input as likely as any other.
        positions = (queue * total + turn % total) // revived.clamp_min(1)
        self.usage.masked_fill_(dead, 1)
        return rows.take(torch.where(dead, positions, 0)), dead.to(codes.dtype)

    @override
    def observe(self, counts: Tensor) -> None:
        self._age(counts)

    def _age(self, counts: Tensor, errors: Tensor | None = None, revived: Tensor | None = None) -> None:
        share_of_step = (counts.sum() / len(counts)).clamp_max(1)
        self.follow(counts, 1 - self.settings.decay**share_of_step, errors)
        if revived is not None:
            self.usage.masked_fill_(revived, 1)
        if not is_recorded(self.usage):  # the answer is there when the next step asks
            self._any_dead.send_for(self.usage, self._dead().any())

    def _dead(self) -> Tensor:
        return self.usage < self.settings.threshold


class _RevivalByErrorModule(_RevivalModule):
    @override
    def prepare(self, codes: Tensor, rows: AllRows, *, unit_length: bool = False) -> Change | None:
        return None

    @override
    def observe_errors(self, counts: Tensor, errors: StepErrors) -> Change | None:
        rows, change, dead = errors.rows, None, None
        if is_recorded(self.usage) or self._any_dead.of(self.usage, lambda: self._dead().any()):
            dead = self._dead()
            change = self._change(dead, errors)
        self.step += rows.total > 0
        self._age(counts, errors.by_code, dead)
        return change

    def _change(self, dead: Tensor, errors: StepErrors) -> Change:
        """Replace dead codes; those that must wait are taken from `dead`."""
        rows = errors.rows
        turn = _random(self.step, self.settings.seed)
        positions = rows.draw(errors.own, dead.sum().minimum(rows.total), len(dead), turn)
        found = positions.diff(prepend=positions.new_full((1,), -1)) > 0  # an input, and not that of the code before
        queue = (dead.cumsum(0) - 1).clamp_min(0)
        dead &= found[queue]
        return rows.take(torch.where(dead, positions[queue], 0)), dead.to(errors.own.dtype)


@dataclass(frozen=True)
class OnlineClustering(Upkeep):
    """Pulls codes towards inputs of the batch, rarely used ones most strongly (CVQ-VAE, arXiv 2307.15139, eq. 4–6).

        N_i ← γ N_i + (1 − γ) n_i / N
        α_i = exp(−N_i · K · 10 / (1 − γ) − ε)
        e_i ← (1 − α_i) e_i + α_i · anchor_i

    N_i comes from the batches before, the anchors come from the current one, and the search of the same step already
    sees the codes where they have moved. In the first step no usage is known, and no code moves.

    Attributes:
        decay: γ, in [0, 1).
        anchor: which input each code is pulled to: "closest" to it, which takes a second search, or a "random" one.
        epsilon: ε.
        seed: seed of the choice of random anchors.

    Raises:
        ValueError: a value is out of its range.

    Example:
        >>> import lexel
        >>> vq = lexel.VectorQuantizer(512, 64, upkeep=OnlineClustering())
        >>> vq(torch.randn(2, 64, 8, 8)).quantized.shape
        torch.Size([2, 64, 8, 8])
    """

    decay: float = 0.99
    anchor: Literal["closest", "random"] = "closest"
    epsilon: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("OnlineClustering", "decay", self.decay, least=0, below=1)

    @override
    def build(self, num_embeddings: int, embedding_dim: int) -> UpkeepModule[Upkeep]:
        return _OnlineClusteringModule(self, num_embeddings, usage=0)


class _OnlineClusteringModule(_UsageModule[OnlineClustering]):
    @override
    def prepare(self, codes: Tensor, rows: AllRows, *, unit_length: bool = False) -> Change | None:
        settings, step = self.settings, self.step.clone()
        self.step += rows.total > 0
        strength = torch.exp(-self.usage * 10 / (1 - settings.decay) - settings.epsilon)  # usage is N_i · K
        strength = strength * ((self.usage.sum() > 0) & (rows.total > 0))
        if settings.anchor == "closest":
            return rows.nearest(codes, nearest_code), strength
        own = _random(torch.arange(len(codes), device=codes.device), _random(step, settings.seed))
        return rows.take(own % rows.total.clamp_min(1)), strength

    @override
    def observe(self, counts: Tensor) -> None:
        self.follow(counts, (1 - self.settings.decay) * (counts.sum() > 0))


class _Start(Transient):
    """Whether all codes of a module are known to have started: what a compiled graph may depend on."""

    every: ClassVar[WeakValueDictionary[int, _Start]] = WeakValueDictionary()
    keys: ClassVar[Iterator[int]] = count()

    def __init__(self) -> None:
        self.complete, self.key = False, next(self.keys)
        self.every[self.key] = self


# Not for a CUDA graph: it looks at the inputs.
_TAGS: dict[str, Any] = {"tags": (torch.Tag.cudagraph_unsafe,)} if hasattr(torch.Tag, "cudagraph_unsafe") else {}


@torch.library.custom_op("lexel::kmeans_start", mutates_args=(), **_TAGS)
def _kmeans_start(
    rows: Tensor,
    valid: Tensor,
    codes: Tensor,
    collected: Tensor,
    iterations: int,
    seed: int,
    unit_length: bool,
    key: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return anchors, strengths and the new number of collected inputs. One opaque step to torch.compile."""
    K, have = len(codes), int(collected)
    strength = codes.new_zeros(K)
    if have == K:
        if key in _Start.every:
            _Start.every[key].complete = True  # so a compiled graph with this step in it is not used again
        return codes.clone(), strength, collected.clone()
    every = AllRows(rows, valid)
    total = int(every.total)
    if have + total < K:
        fresh = every.take(torch.arange(total, device=rows.device))
        anchors = torch.cat([codes[:have], fresh, codes[have + total :]])
        strength[have : have + total] = 1
        return anchors, strength, collected + total
    own = torch.cat([codes[:have].to(rows), rows[valid]]) if rank() == 0 else rows[valid]
    same = common_row(own)
    if same is not None:  # an encoder that still gives the same for any input
        anchors = same.to(codes.dtype).repeat(K, 1)
    else:
        # A zero row has no direction: it does not count.
        weights = own.any(1).double() if unit_length else None
        found = kmeans(own, K, iterations=iterations, tolerance=0, seed=seed, unit=unit_length, weights=weights)
        anchors = found.codebook.to(codes.dtype)
    return anchors, strength.fill_(1), torch.full_like(collected, K)


@_kmeans_start.register_fake
def _(rows: Tensor, valid: Tensor, codes: Tensor, collected: Tensor, *settings: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(codes), codes.new_empty(len(codes)), torch.empty_like(collected)


_PRIME = 2**31 - 1


def _random(counter: Tensor, key: Tensor | int) -> Tensor:
    """Return a pseudo-random int64 in [0, 2³¹ − 1) for each value of a counter; no state, and no overflow."""
    x = (counter % _PRIME + 1) * (key % _PRIME + 12345) % _PRIME
    for multiplier in (48271, 1583458089, 784588716):
        x = (x ^ (x >> 15)) * multiplier % _PRIME
    return x
