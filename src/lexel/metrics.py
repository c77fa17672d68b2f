"""How the codes are used: counts, perplexity, dead codes, entropy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lexel._core.by_code import count_by_code
from lexel._core.collectives import all_sum, gather_rows, rank

__all__ = ["CodeUsage", "Usage", "mean_perplexity", "perplexity", "usage_counts"]

# Above this many codes their usage is counted by sorting the indices rather than in a vector of K numbers.
MOST_COUNTED = 1 << 16


def usage_counts(indices: Tensor, num_embeddings: int) -> Tensor:
    """Count how often each code was chosen.

    Args:
        indices: int64, any shape; negative entries (masked positions) are not counted.
        num_embeddings: K.

    Returns:
        float32 `(K,)`.

    Example:
        >>> usage_counts(torch.tensor([0, 2, 2, -1]), 3)
        tensor([1., 0., 2.])
    """
    return count_by_code(indices.reshape(-1), num_embeddings)


def perplexity(counts: Tensor) -> Tensor:
    """Exponential of the entropy of code usage: K when all codes are equally frequent, 1 when one code takes all.

    exp(−Σ p_k log(p_k + 1e-10)) with p the usage frequencies, as in the VQ-VAE module of van den Oord et al. (2017).

    Args:
        counts: `(K,)`, how often each code was chosen.

    Returns:
        A scalar; 1 when nothing was counted.

    Example:
        >>> perplexity(torch.tensor([5.0, 5.0, 0.0])).round(decimals=4)
        tensor(2.)
    """
    return torch.exp(_entropy(counts))


def _entropy(counts: Tensor) -> Tensor:
    """Entropy of the usage in nats."""
    frequencies = counts / counts.sum().clamp_min(1)
    return -torch.sum(frequencies * torch.log(frequencies + 1e-10))


def mean_perplexity(codebooks: Sequence[tuple[Tensor, int, int]], *, over_ranks: bool = True) -> Tensor:
    """Geometric mean over codebooks of the perplexity of their usage, exp(mean entropy), over all ranks.

    The memory does not grow with K: with more than 65,536 codes no vector of counts is made. The indices are sorted, so
    that the length of a run of equal indices is their count n_i, and the same sum is taken over positions instead of
    codes: Σ_k p_k log(p_k + 1e-10) = 1/N Σ_i log(n_i/N + 1e-10).

    Args:
        codebooks: for each of them the indices, int64 of any shape, where negative entries (masked positions) are not
            counted; K; and the weight of its entropy in the mean.
        over_ranks: False for the indices of this rank alone, without a collective.

    Returns:
        A scalar; 1 when nothing was counted.

    Example:
        >>> mean_perplexity([(torch.tensor([7, 7, 2**60, 2**60, -1]), 2**62, 1)]).round(decimals=4)
        tensor(2.)
    """
    # One collective for all codebooks whose counts are short.
    counts = [usage_counts(indices, size) for indices, size, _ in codebooks if size <= MOST_COUNTED]
    summed = iter(all_sum(*counts) if over_ranks and counts else counts)
    entropies = [
        _entropy(next(summed)) if size <= MOST_COUNTED else _sorted_entropy(indices, over_ranks)
        for indices, size, _ in codebooks
    ]
    if len(entropies) == 1:
        return torch.exp(entropies[0])
    weights = [weight for _, _, weight in codebooks]
    weighted = torch.stack([weight * entropy for weight, entropy in zip(weights, entropies, strict=True)])
    return torch.exp(weighted.sum() / sum(weights))


def _sorted_entropy(indices: Tensor, over_ranks: bool) -> Tensor:
    """Entropy of the usage in nats, from the sorted indices."""
    indices = indices.reshape(-1)
    indices = (gather_rows(indices, absent=-1) if over_ranks else indices).sort().values
    counted = (indices >= 0).to(torch.float32)
    run = torch.searchsorted(indices, indices, right=True) - torch.searchsorted(indices, indices)
    total = counted.sum().clamp_min(1)
    return -torch.sum(counted * torch.log(run / total + 1e-10)) / total


@dataclass(frozen=True)
class CodeUsage:
    """How a set of inputs uses the codes.

    Attributes:
        num_embeddings: K, how many codes there are.
        total: how many indices were counted.
        used: how many different codes occur.
        entropy: −Σ p_k ln p_k of the usage frequencies, in nats; 0 when nothing was counted.
        distortion: mean squared error of an element of the inputs; NaN when no vectors were given.
    """

    num_embeddings: int
    total: int
    used: int
    entropy: float
    distortion: float

    @property
    def usage(self) -> float:
        """Share of the codes that occur, in [0, 1]."""
        return self.used / self.num_embeddings

    @property
    def dead(self) -> int:
        """How many codes do not occur."""
        return self.num_embeddings - self.used

    @property
    def perplexity(self) -> float:
        """exp(entropy): K when all codes are equally frequent, 1 when one code takes all."""
        return math.exp(self.entropy)

    @property
    def bits_per_code(self) -> float:
        """The entropy in bits: what an ideal entropy coder needs for an index."""
        return self.entropy / math.log(2)


class _Output(Protocol):
    @property
    def quantized(self) -> Tensor: ...
    @property
    def indices(self) -> Tensor: ...


class Usage:
    """Counts the usage of the codes over many batches and all ranks, exactly, however the inputs are divided.

    It stores the codes that occurred and how often: memory grows with the codes in use, not with K. The indices of
    several codebooks are counted together; for one of them, give it `indices[..., q]`.

    Args:
        num_embeddings: K, at least 1.
        channel_dim: which axis of the inputs holds the channels.
        device: where the counts are stored; the ranks must be able to exchange tensors of this device.

    Raises:
        ValueError: `num_embeddings` is below 1.

    Example:
        >>> import lexel
        >>> vq, usage = lexel.VectorQuantizer(512, 64).eval(), Usage(512)
        >>> for batch in torch.randn(3, 8, 64, 4, 4):
        ...     usage.update(vq(batch), batch)
        >>> found = usage.compute()
        >>> found.total, found.used + found.dead, 1 <= found.perplexity <= found.used
        (384, 512, True)
    """

    def __init__(self, num_embeddings: int, *, channel_dim: int = 1, device: torch.device | str = "cpu") -> None:
        if num_embeddings < 1:
            raise ValueError(f"Usage: num_embeddings must be at least 1, got {num_embeddings}")
        self.num_embeddings = num_embeddings
        self.channel_dim = channel_dim
        self.device = torch.device(device)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._counted = torch.empty(0, 2, dtype=torch.int64, device=self.device)  # codes and how often they occurred
        self._error = torch.zeros(2, dtype=torch.float64, device=self.device)  # sum of squares, number of elements

    @torch.no_grad()
    def update(self, output: _Output | Tensor, inputs: Tensor | None = None) -> None:
        """Count the codes of a batch, and with `inputs` its distortion.

        Args:
            output: what a quantizer returned, or indices alone, integers of any shape; −1 (masked) does not count.
            inputs: what the quantizer was given; only with its whole output.

        Raises:
            TypeError: the indices are not integers, or `inputs` come with indices alone.
            ValueError: an index is not in [−1, K), or `inputs` have another shape than `output.quantized`.
        """
        indices = output if isinstance(output, Tensor) else output.indices
        if indices.dtype.is_floating_point or indices.dtype.is_complex or indices.dtype == torch.bool:
            raise TypeError(f"Usage.update: indices must be integers, got {indices.dtype}")
        codes, counts = torch.unique(indices.to(self.device, torch.int64), return_counts=True)
        if len(codes) and (codes[0] < -1 or codes[-1] >= self.num_embeddings):
            raise ValueError(
                f"Usage.update: indices must be in [-1, {self.num_embeddings}), got {int(codes[0])} to {int(codes[-1])}"
            )
        if inputs is not None:
            if isinstance(output, Tensor):
                raise TypeError("Usage.update: inputs need the quantizer's whole output, got its indices alone")
            self._error += self._distortion(output, inputs)
        self._counted = _merged(torch.cat([self._counted, torch.stack([codes, counts], 1)]))

    def compute(self) -> CodeUsage:
        """Return the figures over all batches of all ranks since the last reset. Every rank must call it."""
        _, counts = self.counts()
        squares, elements = all_sum(self._error)[0].tolist()
        total = int(counts.sum())
        return CodeUsage(
            num_embeddings=self.num_embeddings,
            total=total,
            used=len(counts),
            entropy=max(0.0, float(torch.special.entr(counts.double() / max(total, 1)).sum())),
            distortion=squares / elements if elements else math.nan,
        )

    def counts(self) -> tuple[Tensor, Tensor]:
        """Return the codes that occurred on any rank, ascending, and how often each did. Every rank must call it.

        Example:
            >>> usage = Usage(2**40)
            >>> usage.update(torch.tensor([[7, 2**39], [7, -1]]))
            >>> usage.counts()
            (tensor([           7, 549755813888]), tensor([2, 1]))
        """
        codes, counts = _merged(gather_rows(self._counted, absent=-1)).unbind(1)
        return codes, counts

    def state_dict(self) -> dict[str, Tensor]:
        """Return the counts of all ranks, from which any number of ranks can go on. Every rank must call it."""
        return {"counted": torch.stack(self.counts(), 1), "error": all_sum(self._error)[0]}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` returned; the first rank alone takes the counts over."""
        self.reset()
        if rank() == 0:
            self._counted, self._error = state["counted"].to(self.device), state["error"].to(self.device)

    def _distortion(self, output: _Output, inputs: Tensor) -> Tensor:
        """Sum of squared errors and number of elements, over the positions that are not masked."""
        if inputs.shape != output.quantized.shape:
            raise ValueError(
                f"Usage.update: inputs have shape {tuple(inputs.shape)}, quantized {tuple(output.quantized.shape)}"
            )
        difference = output.quantized.to(self.device, torch.float64) - inputs.to(self.device, torch.float64)
        difference = difference.movedim(self.channel_dim, -1)
        positions = difference.shape[:-1]
        if output.indices.shape[: len(positions)] == positions:  # not so for indices of several resolutions
            difference = difference[(output.indices.to(self.device) >= 0).reshape(*positions, -1).any(-1)]
        return torch.stack([difference.square().sum(), difference.new_tensor(difference.numel())])


def _merged(counted: Tensor) -> Tensor:
    """Codes and counts `(n, 2)`, each code once; without negative codes."""
    codes, counts = counted[counted[:, 0] >= 0].unbind(1)
    codes, group = torch.unique(codes, return_inverse=True)
    return torch.stack([codes, torch.zeros_like(codes).index_add_(0, group, counts)], 1)
