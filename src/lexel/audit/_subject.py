"""The module under examination: which tensors of its output and its state are codes, indices and loss."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lexel.audit._compare import METRICS, SAMPLE, copied_state, is_close, rows_are_codes, squared_distances, state_of

__all__ = ["Output", "Readers", "Subject", "as_table", "unquantized"]


@dataclass(frozen=True)
class Readers:
    """The functions that the caller gives where the audit cannot tell by itself; None leaves it to the audit.

    Attributes:
        codebook: from the module to its codes.
        quantized: from the output to the quantized vectors.
        indices: from the output to the indices.
        loss: from the output to the loss.
    """

    codebook: Callable[[Any], Tensor] | None = None
    quantized: Callable[[Any], Tensor] | None = None
    indices: Callable[[Any], Tensor] | None = None
    loss: Callable[[Any], Tensor] | None = None


@dataclass(frozen=True)
class Output:
    """One output of the module.

    Attributes:
        quantized: in the inputs' layout.
        indices: as the module returns them, or of its one-hot rows.
        loss: scalar with a gradient.
        codes: `(K, D)`, as they were before the module ran, so those that the output was made of.
        num_embeddings: K, if the output says so.
    """

    quantized: Tensor
    indices: Tensor | None
    loss: Tensor | None
    codes: Tensor | None
    num_embeddings: int | None


class Subject:
    """A module and inputs for it. Every run takes a copy, so that the checks cannot disturb each other.

    Attributes:
        inputs: as the module takes them.
        axis: which axis of the inputs holds the vectors.
        metric: by what the module chooses its codes; the check of nearest codes finds it.
        trusts_indices: whether the indices in the output number the rows of the codebook.
    """

    def __init__(self, module: nn.Module, inputs: Tensor, readers: Readers) -> None:
        self._module = module
        self._readers = readers
        self._codebook = readers.codebook
        self.inputs = inputs
        self.axis = 1
        self.metric = METRICS[0]
        if self._codebook is not None:
            self.axis = self._axis_of(self._codebook(module).shape[-1])
        else:
            self._find_codebook()
            if not self.has_codes:  # it may make its codes from the first batch
                self._module = self.copy(training=True)
                self.run(self._module, inputs)
                self._find_codebook()
            if not self.has_codes:
                self._module = module
        self.trusts_indices = self.has_codes and self._indices_number_the_codes()

    @property
    def has_codes(self) -> bool:
        """Whether there is a codebook `(K, D)`."""
        return self._codebook is not None

    def copy(self, *, training: bool) -> nn.Module:
        """A copy of the module, in training or in eval mode."""
        return copy.deepcopy(self._module).train(training)

    def codes(self, model: nn.Module) -> Tensor:
        """The codes of a copy, `(K, D)`: the tensor that it works with."""
        assert self._codebook is not None
        codes = self._codebook(model).detach()
        return codes.reshape(-1, codes.shape[-1])

    def run(self, model: nn.Module, inputs: Tensor) -> Output:
        """Run a copy, and find out which tensor of its output is which.

        Raises:
            ValueError: nothing in the output has the inputs' shape.
        """
        codes = self.codes(model).clone() if self.has_codes else None
        output = model(inputs)
        tensors = list(_tensors_in(output))
        if self._readers.quantized is not None:
            quantized = self._readers.quantized(output)
        else:
            quantized = _quantized_among(tensors, inputs)
        others = [tensor for tensor in tensors if tensor is not quantized]
        loss: Tensor | None
        if self._readers.loss is not None:
            loss = self._readers.loss(output).sum()
        else:
            loss = next((each.sum() for each in others if each.numel() == 1 and each.requires_grad), None)
        indices = self._readers.indices(output) if self._readers.indices is not None else _indices_among(others)
        size = getattr(output, "num_embeddings", None)
        return Output(quantized, indices, loss, codes, size if isinstance(size, int) else None)

    def rows(self, tensor: Tensor) -> Tensor:
        """The vectors `(N, D)` of a tensor in the inputs' layout."""
        return tensor.movedim(self.axis, -1).reshape(-1, tensor.shape[self.axis])

    def chosen(self, output: Output) -> Tensor:
        """Which code each vector of the output is, `(N,)`: by its indices or, if they are of no use, by comparison."""
        if self.trusts_indices and output.indices is not None:
            return output.indices.reshape(-1)
        assert output.codes is not None
        codes, rows = output.codes.double(), self.rows(output.quantized).double()
        return torch.cat([squared_distances(part, codes).argmin(1) for part in torch.split(rows, SAMPLE)])

    def _axis_of(self, dim: int) -> int:
        shape = self.inputs.shape
        axes: list[int] = [axis for axis in (1, *range(len(shape) - 1, -1, -1)) if shape[axis] == dim]
        if not axes:
            raise ValueError(f"audit: the codes have {dim} dimensions, inputs of shape {tuple(shape)} no such axis")
        return axes[0]

    def _find_codebook(self) -> None:
        """Find the table whose rows the quantized vectors are, and still are after its rows have been moved."""
        model = self.copy(training=False)
        state = copied_state(model)
        quantized = self.run(model, self.inputs).quantized
        axes = (1, *range(quantized.ndim - 1, 1, -1), 0)
        for name, tensor in state.items():
            table = as_table(tensor)
            for axis in axes if table is not None else ():
                if table is None or quantized.shape[axis] != table.shape[1]:
                    continue
                self.axis = axis
                if rows_are_codes(self.rows(quantized), table, self.inputs) and self._output_follows(name):
                    self._codebook = partial(_tensor_named, name=name)
                    return
        self.axis = 1

    @torch.no_grad()
    def _output_follows(self, name: str) -> bool:
        """Whether the quantized vectors are still rows of a table when the table is changed."""
        model = self.copy(training=False)
        table = _tensor_named(model, name)
        moved = table + torch.randn_like(table) * (0.1 * table.std())
        table.copy_(moved)
        rows = self.rows(self.run(model, self.inputs).quantized)
        return rows_are_codes(rows, moved.reshape(-1, moved.shape[-1]), self.inputs)

    def _indices_number_the_codes(self) -> bool:
        output = self.run(self.copy(training=False), self.inputs)
        codes, rows, indices = output.codes, self.rows(output.quantized), output.indices
        if codes is None or indices is None or indices.numel() != len(rows):
            return False
        chosen = indices.reshape(-1)
        within = bool((chosen >= 0).all() and (chosen < len(codes)).all())
        return within and is_close(rows, codes[chosen], self.inputs)


def unquantized(model: nn.Module, inputs: Tensor) -> Tensor:
    """What the output approximates: the inputs, scaled or projected if the codebook does so."""
    scaled: Tensor = getattr(model, "unquantized", lambda same: same)(inputs)
    return scaled


def as_table(tensor: Tensor) -> Tensor | None:
    """A floating tensor as `(K, D)`, also with leading axes of size 1; None if it is no table."""
    one_table = tensor.ndim >= 2 and tensor.shape[-2] > 1 and tensor.numel() == tensor.shape[-2] * tensor.shape[-1]
    return tensor.reshape(tensor.shape[-2:]) if one_table and tensor.dtype.is_floating_point else None


def _tensor_named(model: nn.Module, name: str) -> Tensor:
    return state_of(model)[name]


def _tensors_in(output: object) -> Iterator[Tensor]:
    """All tensors of an output, however they are wrapped."""
    if isinstance(output, Tensor):
        yield output
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        for field in dataclasses.fields(output):
            yield from _tensors_in(getattr(output, field.name))
    elif isinstance(output, (Mapping, list, tuple)):
        for value in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors_in(value)
    elif hasattr(output, "__dict__"):
        yield from _tensors_in(vars(output))


def _quantized_among(tensors: list[Tensor], inputs: Tensor) -> Tensor:
    """The first floating tensor of the inputs' shape that is not the inputs themselves."""
    alike = [each for each in tensors if each.shape == inputs.shape and each.dtype.is_floating_point]
    if not alike:
        shapes = ", ".join(str(tuple(each.shape)) for each in tensors) or "no tensors"
        raise ValueError(
            f"audit: nothing in the output has the inputs' shape {tuple(inputs.shape)}, only {shapes}; "
            "say which it is with quantized="
        )
    return next((each for each in alike if each.data_ptr() != inputs.data_ptr()), alike[0])


def _indices_among(tensors: list[Tensor]) -> Tensor | None:
    """The first one-hot rows as indices, or the first tensor of several integers."""
    for tensor in tensors:
        if tensor.ndim > 1 and tensor.shape[-1] > 1 and _is_one_hot(tensor):
            return tensor.argmax(-1)
    integers = [each for each in tensors if not each.dtype.is_floating_point and each.dtype != torch.bool]
    return next((each for each in integers if each.numel() > 1), None)


def _is_one_hot(tensor: Tensor) -> bool:
    return bool(((tensor == 0) | (tensor == 1)).all() and (tensor.sum(-1) == 1).all())
