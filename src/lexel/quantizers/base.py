"""The base of all quantizers: inputs of any layout and dtype, and one result type, `Quantized`."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from typing_extensions import Self, override

from lexel._core.by_code import takes
from lexel._core.checks import check_integer
from lexel._core.collectives import all_sum, mean_of_rows, require_same, world_size
from lexel._core.config import Configurable, from_config
from lexel._core.modules import WideBuffers, evaluating, without_autocast
from lexel._core.positions import collapse
from lexel._core.recomputation import Recorder, is_checkpointed, is_second_run
from lexel._core.sharding import require_whole
from lexel._core.values import Refusal, at_hand, is_recorded
from lexel.metrics import mean_perplexity
from lexel.nearest import nearest_code

__all__ = [
    "Candidates",
    "Choice",
    "CodebookIndices",
    "Quantized",
    "Quantizer",
    "RowQuantizer",
    "check_choice",
]


CANDIDATE_TILE = 1 << 22  # numbers looked up at once
MOST_CANDIDATE_CODES = 1 << 20
INTEGERS = frozenset(
    [torch.uint8, torch.uint16, torch.uint32, torch.int8, torch.int16, torch.int32, torch.int64]
)  # fmt: skip


@dataclass(frozen=True)
class Quantized:
    """What a quantizer returns.

    It unpacks as the four values of the classic module, ``loss, quantized, perplexity, encodings = vq(z)``. Unpacking
    builds the one-hot `encodings`, (N, K); to avoid that, read the attributes instead.

    Attributes:
        loss: scalar, float32 at least; add it to the task loss.
        quantized: the input's shape and dtype, contiguous, with the estimator's gradient.
        perplexity: scalar; exp(entropy) of this batch's code usage, in training over all ranks.
        indices: int64, the input's shape without the channel axis, plus one trailing axis where there are several
            codebooks; −1 where masked.
        terms: the unweighted terms of the loss, by name.
        num_embeddings: K; the largest of several codebooks.
    """

    loss: Tensor
    quantized: Tensor
    perplexity: Tensor
    indices: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    num_embeddings: int = 0

    @property
    def encodings(self) -> Tensor:
        """One-hot codes, float32 `(N, K)` for N positions; built at each call and never stored. Masked rows are zero.

        With Q codebooks `(N·Q, K)`: the rows of one position follow each other.
        """
        indices = self.indices.reshape(-1, 1)
        encodings = torch.zeros(len(indices), self.num_embeddings, device=indices.device)
        return encodings.scatter_(1, indices.clamp_min(0), (indices >= 0).to(encodings.dtype))

    def __iter__(self) -> Iterator[Tensor]:
        yield from (self.loss, self.quantized, self.perplexity, self.encodings)


def _leaves(output: Quantized) -> tuple[list[Tensor], tuple[list[str], int]]:
    tensors = [output.loss, output.quantized, output.perplexity, output.indices, *output.terms.values()]
    return tensors, (list(output.terms), output.num_embeddings)


def _from_leaves(tensors: Iterable[Tensor], context: tuple[list[str], int]) -> Quantized:
    loss, quantized, perplexity, indices, *terms = tensors
    names, num_embeddings = context
    return Quantized(loss, quantized, perplexity, indices, dict(zip(names, terms, strict=True)), num_embeddings)


# `torch.export`, ONNX and whatever else walks through nested outputs see the tensors, and K beside them.
pytree.register_pytree_node(
    Quantized,
    _leaves,
    _from_leaves,
    serialized_type_name="lexel.Quantized",
    to_dumpable_context=list,
    from_dumpable_context=tuple,
)


@dataclass(frozen=True)
class Choice:
    """What a quantizer decides; `Quantizer.forward` turns it into a `Quantized`.

    Attributes:
        indices: int64; one for each position and codebook. Values at masked positions do not matter.
        quantized: `(…, D)`, the shape of the inputs.
        loss: scalar; None for a quantizer without a loss.
        terms: the unweighted terms of the loss, by name.
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
        per_position: how many of these indices a position has: 1, or several where heads share a codebook.
    """

    indices: Tensor
    num_embeddings: int
    per_position: int


class Candidates(NamedTuple):
    """Several choices of indices for each position, the best first.

    Attributes:
        indices: int64 `(*positions, n, *index_shape)`, all of them different.
        errors: `(*positions, n)`, the squared distance of what they stand for from `unquantized(inputs)`; rising.
    """

    indices: Tensor
    errors: Tensor


def check_choice(
    owner: str, indices: Any, quantized: Any, shape: Sequence[int], index_shape: tuple[int, ...] = ()
) -> None:
    """Refuse what is no choice of a code for each row.

    Raises:
        TypeError: `indices` are not int64.
        ValueError: `indices` are not `(N, *index_shape)`, or `quantized` is not of `shape` `(N, D)`; or likewise for
            `(B, S, D)`.
    """
    if torch.compiler.is_compiling():
        return
    if not isinstance(indices, Tensor) or indices.dtype != torch.int64:
        raise TypeError(f"{owner}: indices must be an int64 tensor, got {getattr(indices, 'dtype', type(indices))}")
    for name, value, expected in (
        ("indices", indices, (*shape[:-1], *index_shape)),
        ("quantized", quantized, tuple(shape)),
    ):
        if not isinstance(value, Tensor) or tuple(value.shape) != expected:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{owner}: {name} must have shape {expected}, got {got}")


class Quantizer(WideBuffers, Configurable):
    """Turns continuous vectors into discrete codes and back.

    A subclass implements `quantize_positions` and `lookup_positions`; this class takes care of the layout, dtype, mask
    and checks of the input and of the perplexity. Most quantizers take each vector on its own and derive from
    `RowQuantizer`.

    Attributes:
        num_embeddings: K, how many different values an index takes; at most 2^62.
        embedding_dim: D, the size of the channel axis.
        channel_dim: which axis of the input holds the channels.
        frozen: whether `freeze` keeps everything as it is.
        positionwise: whether each position of the input has indices of its own.
        needs_partial_sum: whether, as a stage of a `ResidualQuantizer`, it needs the sum of the codes that the stages
            before it have chosen.
    """

    positionwise: ClassVar[bool] = True
    needs_partial_sum: ClassVar[bool] = False

    num_embeddings: int
    embedding_dim: int
    channel_dim: int
    _thawed: list[str]

    def __init__(self, num_embeddings: int, embedding_dim: int, channel_dim: int = 1) -> None:
        super().__init__()
        name = type(self).__name__
        num_embeddings = check_integer(name, "num_embeddings", num_embeddings, least=1)
        embedding_dim = check_integer(name, "embedding_dim", embedding_dim, least=1)
        channel_dim = check_integer(name, "channel_dim", channel_dim)
        if num_embeddings > 2**62:
            raise ValueError(
                f"{name}: num_embeddings must be at most 2^62, so that an index fits int64, "
                f"got {num_embeddings} (about 2^{math.log2(num_embeddings):.0f})"
            )
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.channel_dim = channel_dim
        self.frozen = False
        self._recorder = Recorder()
        self._refusal = Refusal()
        self._passes = 0

    def freeze(self) -> Self:
        """Leave all codes, and whatever else is learned here, as they are from now on, also in training mode.

        No parameter gets a gradient, and no forward pass moves any state: no moving average, no start, no revival.
        Estimators and regularisers go on as in training, and the encoder goes on to learn. `train()` and `eval()`
        change nothing of this; a state dict and a configuration do not hold it.

        Returns:
            The quantizer.

        Example:
            >>> import torch, lexel
            >>> vq = lexel.VectorQuantizer(16, 4, learning=lexel.EMA()).freeze().train()
            >>> before = vq.codebook().clone()
            >>> _ = vq(torch.randn(8, 4))
            >>> torch.equal(vq.codebook(), before)
            True
        """
        for module in self.modules():
            if isinstance(module, Quantizer) and not module.frozen:
                module.frozen = True
                module._thawed = [name for name, value in module.named_parameters() if value.requires_grad]
        return self.requires_grad_(False)

    def unfreeze(self) -> Self:
        """Undo `freeze`: what had a gradient before has one again.

        Returns:
            The quantizer.
        """
        for module in self.modules():
            if isinstance(module, Quantizer) and module.frozen:
                module.frozen = False
                for name in module._thawed:  # by name: loading, casting and sharding may replace parameters
                    module.get_parameter(name).requires_grad_()
        return self

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
        """Take the state of a new quantizer with the same settings, for instance after `to_empty`."""
        fresh = from_config(self.config).state_dict()
        # Modules within, which may not be materialised yet, reset themselves then.
        ready = {name: fresh[name] for name, value in self.state_dict().items() if not value.is_meta}
        self.load_state_dict(ready, strict=False)

    @property
    def learns_from_task(self) -> bool:
        """Whether the task loss must train parameters of the quantizer that its own loss does not reach."""
        return False

    @property
    def has_own_gradient(self) -> bool:
        """Whether an estimator gives its inputs another gradient in training than the identity's."""
        return False

    @property
    def leaves_remainder(self) -> bool:
        """Whether codes lie in the same place as the inputs, so that input minus code can be quantized further."""
        return self.output_dim == self.embedding_dim

    @property
    def prices(self) -> Tensor | None:
        """What the choice of each code costs beside the squared distance, `(K,)`; None where it costs nothing."""
        return None

    @property
    def could_use_upkeep(self) -> bool:
        """Whether it has a codebook that upkeep could start and revive, but no upkeep."""
        return False

    @property
    def map_size(self) -> tuple[int, int] | None:
        """The (height, width) of the maps that it takes; None if it takes any."""
        return None

    def grids(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Return the (rows, columns) of each grid that the indices of a map of `size` consist of, coarse to fine."""
        return [size]

    @abstractmethod
    def quantize_positions(self, z: Tensor, valid: Tensor | None) -> Choice:
        """Quantize `z` `(*positions, D)`, where `positions` are the axes of the input without the channels.

        Args:
            z: inputs, float32 or float64; finite in training; zero where masked.
            valid: bool `(*positions,)`, False where masked: these count in no loss or statistic; None when all count.

        Returns:
            Indices `(*positions, *index_shape)`, the quantized vectors `(*positions, D)`, the loss and its terms.
        """

    @abstractmethod
    def lookup_positions(self, indices: Tensor) -> Tensor:
        """Return `(*positions, D)` for int64 indices `(*positions, *index_shape)`, zero where they are −1."""

    def quantize_after(self, z: Tensor, valid: Tensor | None, partial: Tensor) -> Choice:
        """Quantize as `quantize_positions` does, given the sum of the earlier stages' codes, of the shape of `z`."""
        return self.quantize_positions(z, valid)

    def lookup_after(self, indices: Tensor, partial: Tensor) -> Tensor:
        """Look up as `lookup_positions` does, given the sum of the earlier stages' codes, `(*positions, D)`."""
        return self.lookup_positions(indices)

    def choose(self, z: Tensor, valid: Tensor | None, partial: Tensor | None = None) -> Choice:
        """Return what `quantize_positions` decides, with indices of −1 where masked and a loss in any case.

        Args:
            z: as for `quantize_positions`.
            valid: as for `quantize_positions`.
            partial: the sum of the earlier stages' codes, of the shape of `z`; None outside a residual quantizer.
        """
        choice = self.quantize_positions(z, valid) if partial is None else self.quantize_after(z, valid, partial)
        # A zero that backward() accepts, so that the loss of every quantizer can be differentiated.
        loss = z[:0].sum() if choice.loss is None else choice.loss
        return replace(choice, indices=self._masked(choice.indices, valid), loss=loss)

    def search_positions(self, z: Tensor, beam_size: int) -> Tensor:
        """Return the indices for `z` `(*positions, D)` that `beam_search` finds; here the quantizer's own choice."""
        return self.choose(z, None).indices

    def by_codebook(self, indices: Tensor) -> list[CodebookIndices]:
        """Split indices, as `choose` returns them, by the codebook that they belong to."""
        return [CodebookIndices(indices, self.num_embeddings, 1)]

    def check_indices(self, indices: Tensor) -> None:
        """Refuse indices that no position can have.

        Raises:
            ValueError: an index is not in [−1, K), or the shape does not fit.
        """
        shape = self.index_shape
        if shape and tuple(indices.shape[-len(shape) :]) != shape:
            raise ValueError(
                f"{type(self).__name__}.lookup: the last axes of indices must be {shape}, got {tuple(indices.shape)}"
            )
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
            ValueError: `inputs` or `mask` has another shape, or `inputs` holds NaN or Inf, in training on any rank
                (before any state changes). A training step on an accelerator does not wait until it knows: there such
                inputs are masked as a whole, their loss is NaN, and the next pass raises the error.
            RuntimeError: it is called within a backward pass, but repeats no forward pass of
                ``torch.utils.checkpoint(…, use_reentrant=False)``; its parameters are sharded and not gathered at the
                moment; or, in training, they are not the same on all ranks.
        """
        self._check(inputs, mask)
        require_whole(self, "forward")
        if torch.compiler.is_compiling() or not self.training:
            return self._forward(inputs, mask)
        if is_second_run():
            with self._recorder.second_run(self, inputs, mask):
                return self._forward(inputs, mask)
        if not is_checkpointed():
            return self._forward(inputs, mask)
        with self._recorder.first_run(self, inputs, mask) as outputs:
            result = self._forward(inputs, mask)
            outputs += [result.loss, result.quantized]
        return result

    def _forward(self, inputs: Tensor, mask: Tensor | None) -> Quantized:
        rows = inputs.movedim(self.channel_dim, -1)
        with without_autocast(inputs.device):
            z, fine = self._finite_vectors(rows, mask)
            if self.training and world_size() > 1 and not torch.compiler.is_compiling():
                self._require_same_on_ranks()
            valid = mask
            if fine is not None:
                valid = fine.expand(z.shape[:-1]) if mask is None else mask & fine
            choice = self.choose(z, valid)
            perplexity = mean_perplexity(self.by_codebook(choice.indices), over_ranks=self.training)
        quantized = choice.quantized.to(inputs.dtype)
        if mask is not None:
            padding = rows if self.output_dim == self.embedding_dim else 0
            quantized = torch.where(mask.unsqueeze(-1), quantized, padding)
        quantized = quantized.movedim(-1, self.channel_dim).contiguous()
        assert choice.loss is not None
        loss = choice.loss if fine is None else torch.where(fine, choice.loss, torch.nan)
        return Quantized(loss, quantized, perplexity, choice.indices, choice.terms, self.num_embeddings)

    def lookup(self, indices: Tensor) -> Tensor:
        """Turn indices back into vectors: in eval mode exactly the `quantized` that `forward` returned with them.

        Args:
            indices: integers as `forward` returns them. −1, the index of masked positions, gives a zero vector.

        Returns:
            The codes in their own dtype, channels at `channel_dim`.

        Raises:
            TypeError: `indices` is not a tensor of integers.
            ValueError: an index is not in [−1, K), or the last axes are not those of `index_shape`.
        """
        name = type(self).__name__
        if not isinstance(indices, Tensor) or indices.dtype not in INTEGERS:
            got = indices.dtype if isinstance(indices, Tensor) else type(indices).__name__
            raise TypeError(f"{name}.lookup: indices must be a tensor of integers that fit int64, got {got}")
        indices = indices.long()
        require_whole(self, "lookup")
        self.check_indices(indices)
        with without_autocast(indices.device):
            return self.lookup_positions(indices).movedim(-1, self.channel_dim).contiguous()

    @torch.no_grad()
    def beam_search(self, inputs: Tensor, beam_size: int, mask: Tensor | None = None) -> Tensor:
        """Choose indices of smaller error than `forward` does, where the codes of several codebooks add up.

        Where none add up, these are the indices of `forward` in eval mode. A `ResidualQuantizer` says what it does.

        Args:
            inputs: as for `forward`.
            beam_size: how many partial sums of each vector are kept, at least 1.
            mask: as for `forward`.

        Returns:
            Indices as `forward` returns them.

        Raises:
            TypeError: as `forward`; or `beam_size` is not an integer.
            ValueError: as `forward`; `beam_size` is below 1; or a stage of a residual cannot be searched so.
        """
        self._check(inputs, mask)
        require_whole(self, "beam_search")
        beam_size = check_integer(f"{type(self).__name__}.beam_search", "beam_size", beam_size, least=1)
        with without_autocast(inputs.device), evaluating(self):
            z, _ = self._finite_vectors(inputs.movedim(self.channel_dim, -1), mask)
            return self._masked(self.search_positions(z, beam_size), mask)

    @torch.no_grad()
    def candidates(self, inputs: Tensor, count: int) -> Candidates:
        """Return for each vector the `count` choices of indices of the smallest error, or all that there are.

        They are exact for a quantizer with one codebook and for products of such; a `ResidualQuantizer` returns those
        that its beam search finds with a beam of `count`.

        Args:
            inputs: as for `forward`.
            count: how many, at least 1.

        Raises:
            TypeError: as `forward`; or `count` is not an integer.
            ValueError: as `forward`; `count` is below 1; or a codebook is too large or of another kind.

        Example:
            >>> import torch, lexel
            >>> vq = lexel.VectorQuantizer(3, 1)
            >>> vq.load_codes(torch.tensor([[1.0], [2.0], [5.0]]))
            >>> vq.candidates(torch.tensor([[4.0]]), 2)
            Candidates(indices=tensor([[2, 1]]), errors=tensor([[1., 4.]]))
        """
        name = type(self).__name__
        self._check(inputs, None)
        require_whole(self, "candidates")
        count = check_integer(f"{name}.candidates", "count", count, least=1)
        if not self.positionwise:
            raise ValueError(f"{name}.candidates: it quantizes whole maps, and no vector has indices of its own")
        with without_autocast(inputs.device), evaluating(self):
            z, _ = self._finite_vectors(inputs.movedim(self.channel_dim, -1), None)
            indices, errors = self.candidates_of_rows(z.reshape(-1, self.embedding_dim), count)
        positions = z.shape[:-1]
        return Candidates(indices.reshape(*positions, *indices.shape[1:]), errors.reshape(*positions, errors.shape[1]))

    def candidates_of_rows(self, z: Tensor, count: int) -> Candidates:
        """Return what `candidates` does for the rows of `z` `(N, D)`, float32 or float64."""
        found = self.search_candidates(z, count)
        target = self.unquantized_positions(z)
        height = max(1, CANDIDATE_TILE // (found.shape[1] * target.shape[1]))
        tiles = zip(torch.split(found, height), torch.split(target, height), strict=True)
        errors = torch.cat(
            [(row.unsqueeze(1) - self.lookup_positions(own).to(row.dtype)).square().sum(2) for own, row in tiles]
        )
        errors, order = errors.sort(dim=1, stable=True)
        order = order.reshape(*order.shape, *[1] * len(self.index_shape))
        return Candidates(found.take_along_dim(order, 1), errors)

    def search_candidates(self, z: Tensor, count: int) -> Tensor:
        """Return the indices that `candidates` returns for the rows of `z` `(N, D)`, in any order: `(N, n, …)`.

        Here those of the nearest rows of a table of all codes.
        """
        if self.index_shape or self.num_embeddings > MOST_CANDIDATE_CODES:
            raise ValueError(
                f"{type(self).__name__}.candidates: it takes quantizers with one codebook of at most "
                f"{MOST_CANDIDATE_CODES:,} codes, and residuals and products of these, got {self}"
            )
        table = self.lookup_positions(torch.arange(self.num_embeddings, device=z.device))
        k = min(count, self.num_embeddings)
        return nearest_code(self.unquantized_positions(z), table, k=k).reshape(len(z), k)

    def unquantized(self, inputs: Tensor) -> Tensor:
        """Return what `quantized` approximates: the output if every vector were exactly a code.

        That is the inputs themselves, unless the quantizer scales or projects them.

        Args:
            inputs: floating, channels at `channel_dim`.

        Returns:
            The shape of `quantized`, and the inputs' dtype.

        Raises:
            ValueError: the codes approximate no such thing.

        Example:
            >>> import torch, lexel
            >>> vq = lexel.VectorQuantizer(512, 3, codebook=lexel.CosineCodebook())
            >>> vq.unquantized(torch.tensor([[3.0, 0.0, 4.0]]))
            tensor([[0.6000, 0.0000, 0.8000]])
        """
        rows = inputs.movedim(self.channel_dim, -1)
        with without_autocast(inputs.device):
            target = self.unquantized_positions(rows.to(torch.promote_types(rows.dtype, torch.float32)))
        return target.movedim(-1, self.channel_dim).to(inputs.dtype)

    def unquantized_positions(self, z: Tensor) -> Tensor:
        """Return what `unquantized` does, for `z` `(*positions, D)`, float32 or float64."""
        if self.output_dim != self.embedding_dim:
            raise ValueError(
                f"{type(self).__name__}: its codes do not approximate its inputs: they have {self.output_dim} "
                f"channels and the inputs {self.embedding_dim}"
            )
        return z

    def means(self, *values: Tensor, valid: Tensor | None) -> tuple[Tensor, ...]:
        """Return the mean of each `(N, …)` over the rows that count; in training over all ranks.

        Ranks communicate in training only, so that evaluation on one rank never waits for the others.
        """
        return mean_of_rows(*values, valid=valid, over_ranks=self.training)

    def _check(self, inputs: Tensor, mask: Tensor | None) -> None:
        name = type(self).__name__
        if not isinstance(inputs, Tensor):
            raise TypeError(f"{name}: inputs must be a tensor, got {type(inputs).__name__}")
        if not inputs.dtype.is_floating_point or inputs.dtype.itemsize < 2:
            raise TypeError(f"{name}: inputs must be floating, of 16 bits at least, got {inputs.dtype}")
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
                f"expected embedding_dim={self.embedding_dim}; channel_dim= says which axis holds the channels"
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

    def _finite_vectors(self, rows: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the inputs `(*positions, D)` in float32 at least, zero where masked, and checked to be finite.

        Returns:
            The inputs; and None, or in a training step on an accelerator a bool scalar: whether all inputs are finite,
            on all ranks. If they are not, those returned are zero.
        """
        z = rows.to(torch.promote_types(rows.dtype, torch.float32))
        if mask is not None:
            z = torch.where(mask.unsqueeze(-1), z, 0)
        if torch.compiler.is_compiling() or z.is_meta or (is_recorded(z) and not self.training):
            return z, None
        fine, message = self._are_finite(z), f"{type(self).__name__}: inputs hold NaN or Inf; no code was changed"
        if at_hand(z) or not self.training:
            self._refusal.settle()
            if not fine:
                raise ValueError(message)
            return z, None
        self._refusal.unless(fine, message)
        return torch.where(fine, z, 0), fine

    def _are_finite(self, z: Tensor) -> Tensor:
        """Return whether all inputs are finite, bool scalar; in training those of all ranks, which all stop together.

        One that went on alone would wait for the others for ever.
        """
        values = z.detach()
        if not values.numel():
            fine = torch.ones((), dtype=torch.bool, device=values.device)
        elif at_hand(values):
            # A finite sum proves that every element is finite; a sum that is not may just have overflowed.
            fine = values.sum().isfinite()
            fine = fine if fine else values.isfinite().all()
        else:
            fine = torch.linalg.vector_norm(values, torch.inf).isfinite()
        return all_sum((~fine).to(values.dtype))[0] == 0 if self.training and world_size() > 1 else fine

    def _require_same_on_ranks(self) -> None:
        """Refuse, in the first passes and now and then later, quantizers that have gone their own way on some rank."""
        self._passes += 1
        if self._passes & (self._passes - 1) == 0:  # 1, 2, 4, 8, …
            # Not the state dict, for which FSDP would put its shards back.
            tensors = dict(chain(self.named_parameters(), self.named_buffers()))
            floating = {name: value for name, value in tensors.items() if value.dtype.is_floating_point}
            require_same(type(self).__name__.removeprefix("FSDP"), floating)

    def _masked(self, indices: Tensor, valid: Tensor | None) -> Tensor:
        """Set the indices of masked positions to −1; a quantizer of whole maps has done so itself."""
        if valid is None or not self.positionwise:
            return indices
        return torch.where(valid.reshape(*valid.shape, *[1] * len(self.index_shape)), indices, -1)


class RowQuantizer(Quantizer):
    """A quantizer that takes each vector on its own: a subclass quantizes plain rows `(N, D)`.

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

    @property
    def accepts_positions(self) -> bool:
        """Whether `quantize_rows` takes `(B, S, D)`, B batches of S rows, as well as rows `(N, D)`.

        Then, where kernels can read them so, it gets channels-first inputs where they lie in memory; else a copy of
        them as rows. The mask and what it returns have the same positions, `(B, S)`.
        """
        return False

    @abstractmethod
    def quantize_rows(self, z: Tensor, valid: Tensor | None) -> Choice:
        """Quantize the rows of `z` `(N, D)`, float32 or float64.

        Args:
            z: inputs, finite in training; masked rows are zero.
            valid: bool `(N,)`, False for masked rows, which count in no loss or statistic; None when all count.

        Returns:
            Indices `(N, *index_shape)`, the quantized rows `(N, D)`, the loss and its terms.
        """

    @abstractmethod
    def lookup_rows(self, indices: Tensor) -> Tensor:
        """Return the quantized rows `(N, D)` for indices `(N, *index_shape)`, all within [0, K)."""

    @override
    def quantize_positions(self, z: Tensor, valid: Tensor | None) -> Choice:
        rows = self._rows(z)
        choice = self.quantize_rows(rows, None if valid is None else valid.reshape(rows.shape[:-1]))
        name = type(self).__name__
        if not isinstance(choice, Choice):
            raise TypeError(f"{name}.quantize_rows must return a lexel.Choice, got {type(choice).__name__}")
        check_choice(name, choice.indices, choice.quantized, (*rows.shape[:-1], self.output_dim), self.index_shape)
        indices = choice.indices.reshape(*z.shape[:-1], *self.index_shape)
        quantized = choice.quantized.reshape(*z.shape[:-1], self.output_dim)
        return replace(choice, indices=indices, quantized=quantized)

    def _rows(self, z: Tensor) -> Tensor:
        """Return `(*positions, D)` as `quantize_rows` takes it."""
        return collapse(z) if takes(z) and self.accepts_positions else z.reshape(-1, z.shape[-1])

    @override
    def lookup_positions(self, indices: Tensor) -> Tensor:
        positions = indices.shape[: indices.ndim - len(self.index_shape)]
        # An export would take `positions.numel()` and `len(indices)` for constants.
        indices = indices.reshape(-1, *self.index_shape)
        absent = (indices < 0).reshape(-1, math.prod(self.index_shape)).all(1, keepdim=True)
        rows = torch.where(absent, 0, self.lookup_rows(indices.clamp_min(0)))
        return rows.reshape(*positions, self.output_dim)
