"""What all quantizers share: any layout and dtype comes in, one `Quantized` goes out."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import override

from lexel._core.collectives import all_sum, mean_of_rows
from lexel._core.config import Configurable, from_config
from lexel.metrics import mean_perplexity

__all__ = ["Choice", "CodebookIndices", "Quantized", "Quantizer", "RowQuantizer", "check_weight"]


@dataclass(frozen=True)
class Quantized:
    """What a quantizer returns.

    It unpacks as the four values of the classic module, ``loss, quantized, perplexity, encodings = vq(z)``. Unpacking
    builds the one-hot `encodings`, (N, K); where they are not wanted, read the attributes instead.

    Attributes:
        loss: scalar, float32 at least; add it to the task loss.
        quantized: the input's shape and dtype, contiguous, carrying the estimator's gradient.
        perplexity: scalar; exp(entropy) of this batch's code usage, in training over all ranks.
        indices: int64, the input's shape without the channel axis, plus one trailing axis where there are several
            codebooks; −1 where masked.
        terms: the unweighted parts of the loss, by name.
        num_embeddings: K; of several codebooks the largest.
    """

    loss: Tensor
    quantized: Tensor
    perplexity: Tensor
    indices: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    num_embeddings: int = 0

    @property
    def encodings(self) -> Tensor:
        """One-hot codes, float32 `(N, K)` for N positions; made at each call, never kept. Masked rows are zero.

        With Q codebooks `(N·Q, K)`: the rows of one position follow each other.
        """
        indices = self.indices.reshape(-1, 1)
        encodings = torch.zeros(len(indices), self.num_embeddings, device=indices.device)
        return encodings.scatter_(1, indices.clamp_min(0), (indices >= 0).to(encodings.dtype))

    def __iter__(self) -> Iterator[Tensor]:
        yield from (self.loss, self.quantized, self.perplexity, self.encodings)


# `torch.export` and whatever else walks through nested outputs may look inside.
torch.export.register_dataclass(Quantized, serialized_type_name="lexel.Quantized")


@dataclass(frozen=True)
class Choice:
    """What a quantizer decides, before `Quantizer.forward` makes a `Quantized` of it.

    Attributes:
        indices: int64; one for each position and codebook. What stands where the input is masked does not matter.
        quantized: `(…, D)`, like the inputs that were given.
        loss: scalar; None for none.
        terms: the unweighted parts of the loss, by name.
    """

    indices: Tensor
    quantized: Tensor
    loss: Tensor | None = None
    terms: dict[str, Tensor] = field(default_factory=dict)


class CodebookIndices(NamedTuple):
    """The indices into one of a quantizer's codebooks.

    Attributes:
        indices: int64 of any shape; −1 where masked.
        num_embeddings: K.
        per_position: how many of them a position has: 1, or several where heads share a codebook.
    """

    indices: Tensor
    num_embeddings: int
    per_position: int


def check_weight(owner: str, argument: str, value: float) -> float:
    """Return a weight of the loss as a float, if it is one.

    Raises:
        TypeError: it is not a number.
        ValueError: it is negative or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{owner}: {argument} must be a number, got {value!r}")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{owner}: {argument} must be finite and not negative, got {value}")
    return float(value)


class Quantizer(nn.Module, Configurable):
    """Turns continuous vectors into discrete codes and back.

    A subclass says in `quantize_positions` and `lookup_positions` what it does; the layout, dtype, mask and checks of
    the input and the perplexity of the output are settled here, once for all. Most quantizers take each vector on its
    own and derive from `RowQuantizer`.

    Attributes:
        num_embeddings: K, how many different values an index takes; at most 2^62.
        embedding_dim: D, the size of the channel axis.
        channel_dim: which axis of the input holds the channels.
        positionwise: whether each position of the input has indices of its own.
        needs_partial_sum: as a stage of a `ResidualQuantizer` it must be told what the stages before it have chosen.
    """

    positionwise: ClassVar[bool] = True
    needs_partial_sum: ClassVar[bool] = False

    num_embeddings: int
    embedding_dim: int
    channel_dim: int

    def __init__(self, num_embeddings: int, embedding_dim: int, channel_dim: int = 1) -> None:
        super().__init__()
        name = type(self).__name__
        for argument, value in (("num_embeddings", num_embeddings), ("embedding_dim", embedding_dim)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name}: {argument} must be an int, got {value!r} ({type(value).__name__})")
            if value < 1:
                raise ValueError(f"{name}: {argument} must be at least 1, got {value}")
        if num_embeddings > 2**62:
            raise ValueError(
                f"{name}: num_embeddings must be at most 2^62, so that an index fits int64, "
                f"got {num_embeddings} (about 2^{math.log2(num_embeddings):.0f})"
            )
        if isinstance(channel_dim, bool) or not isinstance(channel_dim, int):
            raise TypeError(f"{name}: channel_dim must be an int, got {channel_dim!r} ({type(channel_dim).__name__})")
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.channel_dim = channel_dim

    @property
    def bits(self) -> float:
        """Bits that the indices of one position carry at most: log2 K."""
        return math.log2(self.num_embeddings)

    @property
    def index_shape(self) -> tuple[int, ...]:
        """Shape of the indices of one position: `()`, or `(Q,)` with several codebooks."""
        return ()

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """How many different values each index of a position takes, in their order."""
        return (self.num_embeddings,)

    @property
    def output_dim(self) -> int:
        """How many channels `quantized` has: D, with few exceptions."""
        return self.embedding_dim

    def reset_parameters(self) -> None:
        """Start afresh, with the state of a new quantizer of the same settings: what follows a module's `to_empty`."""
        self.load_state_dict(from_config(self.config).state_dict())

    @property
    def learns_from_task(self) -> bool:
        """Whether the gradient at `quantized` moves parameters in it that its own loss does not."""
        return False

    @property
    def leaves_remainder(self) -> bool:
        """Whether codes lie where the inputs lie, so that input minus code is a remainder to quantize further."""
        return self.output_dim == self.embedding_dim

    @property
    def could_use_upkeep(self) -> bool:
        """Whether it has a codebook whose codes upkeep could start and revive, and no upkeep."""
        return False

    @property
    def map_size(self) -> tuple[int, int] | None:
        """The only (height, width) of maps that it takes; None if it takes any."""
        return None

    @abstractmethod
    def quantize_positions(self, z: Tensor, valid: Tensor | None) -> Choice:
        """Quantize `z` `(*positions, D)`, where `positions` are the axes of the input without the channels.

        Args:
            z: inputs, float32 or float64; finite in training; zero where masked.
            valid: bool `(*positions,)`, False where masked, which counts in nothing; None when all count.

        Returns:
            Indices `(*positions, *index_shape)`, the quantized vectors `(*positions, D)`, the loss and its terms.
        """

    @abstractmethod
    def lookup_positions(self, indices: Tensor) -> Tensor:
        """Return `(*positions, D)` for int64 indices `(*positions, *index_shape)`, zero where they are −1."""

    def quantize_after(self, z: Tensor, valid: Tensor | None, partial: Tensor) -> Choice:
        """Quantize as `quantize_positions` does, given the sum of the codes that earlier stages chose, like `z`."""
        return self.quantize_positions(z, valid)

    def lookup_after(self, indices: Tensor, partial: Tensor) -> Tensor:
        """Look up as `lookup_positions` does, given the sum of the codes of earlier stages, `(*positions, D)`."""
        return self.lookup_positions(indices)

    def choose(self, z: Tensor, valid: Tensor | None, partial: Tensor | None = None) -> Choice:
        """Return what `quantize_positions` decides, complete: with indices −1 where masked, and a loss.

        Args:
            z: as there.
            valid: as there.
            partial: the sum of the codes that earlier stages chose, like `z`; None outside of a residual.
        """
        choice = self.quantize_positions(z, valid) if partial is None else self.quantize_after(z, valid, partial)
        indices = choice.indices
        if valid is not None and self.positionwise:
            indices = torch.where(valid.reshape(*valid.shape, *[1] * len(self.index_shape)), indices, -1)
        # A zero that backward() accepts: the loss of every quantizer can be differentiated.
        return replace(choice, indices=indices, loss=z[:0].sum() if choice.loss is None else choice.loss)

    def by_codebook(self, indices: Tensor) -> list[CodebookIndices]:
        """Return indices, as `choose` returns them, by the codebook that they point into."""
        return [CodebookIndices(indices, self.num_embeddings, 1)]

    def check_indices(self, indices: Tensor) -> None:
        """Refuse indices that no position can have.

        Raises:
            ValueError: an index is not in [−1, K), or the shape does not fit.
        """
        if torch.compiler.is_compiling() or indices.is_meta or not indices.numel():
            return
        low, high = (int(bound) for bound in indices.aminmax())
        if low < -1 or high >= self.num_embeddings:
            raise ValueError(
                f"{type(self).__name__}.lookup: indices must be in [-1, {self.num_embeddings}), got {low} to {high}"
            )

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Quantized:
        """Quantize every vector along the channel axis.

        Args:
            inputs: floating, two or more dimensions, `embedding_dim` channels at `channel_dim`: `(B, D)`, `(B, D, T)`,
                `(B, D, H, W)`, `(B, D, T, H, W)` and so on. Any strides. Everything is computed in float32 at least,
                whatever the dtype of the inputs and whatever autocast says.
            mask: bool, the inputs' shape without the channel axis; False marks padding, which passes through unchanged
                (or is zero, where the output has other channels), has index −1, and counts in no loss, statistic or
                perplexity.

        Returns:
            A `Quantized`. For an empty batch its loss is zero and nothing else changes.

        Raises:
            TypeError: `inputs` is not a floating tensor, or `mask` not a boolean one.
            ValueError: `inputs` or `mask` has another shape, or, in training, `inputs` holds NaN or Inf on any rank
                (before any state changes).
        """
        self._check(inputs, mask)
        rows = inputs.movedim(self.channel_dim, -1)
        with torch.autocast(inputs.device.type, enabled=False):
            z = rows.to(torch.promote_types(inputs.dtype, torch.float32))
            if mask is not None:
                z = torch.where(mask.unsqueeze(-1), z, 0)
            if self.training:
                self._require_finite(z)
            choice = self.choose(z, mask)
            perplexity = mean_perplexity(self.by_codebook(choice.indices), over_ranks=self.training)
        quantized = choice.quantized.to(inputs.dtype)
        if mask is not None:
            padding = rows if self.output_dim == self.embedding_dim else 0
            quantized = torch.where(mask.unsqueeze(-1), quantized, padding)
        quantized = quantized.movedim(-1, self.channel_dim).contiguous()
        assert choice.loss is not None
        return Quantized(choice.loss, quantized, perplexity, choice.indices, choice.terms, self.num_embeddings)

    def lookup(self, indices: Tensor) -> Tensor:
        """Turn indices back into vectors: in eval mode, exactly the `quantized` that they came with.

        Args:
            indices: integers as `forward` returns them. −1, the index of masked positions, gives a zero vector.

        Returns:
            The codes in their own dtype, channels at `channel_dim`.

        Raises:
            TypeError: `indices` is not an integer tensor.
            ValueError: an index is not in [−1, K).
        """
        if indices.dtype.is_floating_point or indices.dtype.is_complex or indices.dtype == torch.bool:
            raise TypeError(f"{type(self).__name__}.lookup: indices must be integers, got {indices.dtype}")
        self.check_indices(indices)
        return self.lookup_positions(indices.long()).movedim(-1, self.channel_dim).contiguous()

    def unquantized(self, inputs: Tensor) -> Tensor:
        """Return what `quantized` approximates: the output that these inputs would get if every vector were a code.

        That is the inputs themselves, unless the codebook scales or projects them.

        Args:
            inputs: floating, channels at `channel_dim`.

        Returns:
            The inputs' shape and dtype.

        Example:
            >>> import torch, lexel
            >>> vq = lexel.VectorQuantizer(512, 3, codebook=lexel.CosineCodebook())
            >>> vq.unquantized(torch.tensor([[3.0, 0.0, 4.0]]))
            tensor([[0.6000, 0.0000, 0.8000]])
        """
        return inputs

    def means(self, *values: Tensor, valid: Tensor | None) -> tuple[Tensor, ...]:
        """Return the mean of each `(N, …)` over the rows that count, in training over those of all ranks.

        Ranks talk to each other in training alone: evaluating on one of them must not wait for the others.
        """
        return mean_of_rows(*values, valid=valid, over_ranks=self.training)

    def _check(self, inputs: Tensor, mask: Tensor | None) -> None:
        name = type(self).__name__
        if not isinstance(inputs, Tensor):
            raise TypeError(f"{name}: inputs must be a tensor, got {type(inputs).__name__}")
        if not inputs.dtype.is_floating_point:
            raise TypeError(f"{name}: inputs must be floating, got {inputs.dtype}")
        shape = tuple(inputs.shape)
        if inputs.ndim < 2:
            raise ValueError(
                f"{name}: inputs must have a batch and a channel axis, got {inputs.ndim} dimensions {shape}"
            )
        if not -inputs.ndim <= self.channel_dim < inputs.ndim:
            raise ValueError(f"{name}: inputs of shape {shape} have no axis channel_dim={self.channel_dim}")
        if inputs.shape[self.channel_dim] != self.embedding_dim:
            raise ValueError(
                f"{name}: inputs have {inputs.shape[self.channel_dim]} channels at axis {self.channel_dim} of {shape}, "
                f"expected embedding_dim={self.embedding_dim}"
            )
        if mask is None:
            return
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            raise TypeError(f"{name}: mask must be a boolean tensor, got {getattr(mask, 'dtype', type(mask).__name__)}")
        axis = self.channel_dim % inputs.ndim
        expected = shape[:axis] + shape[axis + 1 :]
        if tuple(mask.shape) != expected:
            raise ValueError(
                f"{name}: mask has shape {tuple(mask.shape)}, expected {expected}, inputs without channels"
            )

    def _require_finite(self, z: Tensor) -> None:
        if torch.compiler.is_compiling() or z.is_meta:
            return
        # The sum is finite unless an element is not, or the sum itself overflows; only then is it worth a closer look.
        total = z.detach().sum()
        poisoned = not torch.isfinite(total) and not torch.isfinite(z).all()
        # All ranks stop together: one that went on alone would wait for the others for ever.
        if all_sum(total.new_tensor(float(poisoned)))[0] > 0:
            raise ValueError(f"{type(self).__name__}: inputs hold NaN or Inf; no code was changed")


class RowQuantizer(Quantizer):
    """A quantizer that takes each vector on its own: a subclass says what happens to plain rows.

    Example:
        >>> import torch, lexel
        >>> class Rounding(lexel.RowQuantizer):
        ...     def quantize_rows(self, z, valid):
        ...         indices = z.detach()[:, 0].round().clamp(0, self.num_embeddings - 1).long()
        ...         return lexel.Choice(indices, lexel.straight_through(z, self.lookup_rows(indices)))
        ...
        ...     def lookup_rows(self, indices):
        ...         return indices.unsqueeze(1).float()
        >>> Rounding(num_embeddings=8, embedding_dim=1)(torch.tensor([[2.2], [40.0]])).indices
        tensor([2, 7])
    """

    @abstractmethod
    def quantize_rows(self, z: Tensor, valid: Tensor | None) -> Choice:
        """Quantize the rows of `z` `(N, D)`, float32 or float64.

        Args:
            z: inputs, finite in training; masked rows are zero.
            valid: bool `(N,)`, False for masked rows, which count in nothing; None when all count.

        Returns:
            Indices `(N, *index_shape)`, the quantized rows `(N, D)`, the loss and its terms.
        """

    @abstractmethod
    def lookup_rows(self, indices: Tensor) -> Tensor:
        """Return the quantized rows `(N, D)` for indices `(N, *index_shape)`, all within [0, K)."""

    @override
    def quantize_positions(self, z: Tensor, valid: Tensor | None) -> Choice:
        choice = self.quantize_rows(z.reshape(-1, self.embedding_dim), None if valid is None else valid.reshape(-1))
        indices = choice.indices.reshape(*z.shape[:-1], *self.index_shape)
        quantized = choice.quantized.reshape(*z.shape[:-1], self.output_dim)
        return replace(choice, indices=indices, quantized=quantized)

    @override
    def lookup_positions(self, indices: Tensor) -> Tensor:
        positions = indices.shape[: indices.ndim - len(self.index_shape)]
        indices = indices.reshape(positions.numel(), *self.index_shape)
        absent = (indices < 0).reshape(len(indices), math.prod(self.index_shape)).all(1, keepdim=True)
        rows = torch.where(absent, 0, self.lookup_rows(indices.clamp_min(0)))
        return rows.reshape(*positions, self.output_dim)
