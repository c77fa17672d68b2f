"""Forward passes that belong to `torch.utils.checkpoint`: what moves state must not move it twice.

A checkpointed segment runs forward twice: when it is called, and again in the backward pass, to make the tensors that
were not kept. The second run must see the state that the first one saw, and leave the state alone.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lexel._core.values import Transient

__all__ = ["Recorder", "is_checkpointed", "is_second_run"]


@dataclass(eq=False)
class _Record:
    """What a first run saw.

    Attributes:
        inputs: by which a second run is known as its repetition.
        state: parameters and buffers that the first run moved, as they were before it, by name.
    """

    inputs: tuple[object, ...]
    state: dict[str, Tensor]


class Recorder(Transient):
    """Keeps the state that checkpointed forward passes of a module saw, as long as their graphs are alive."""

    def __init__(self) -> None:
        self._records: list[weakref.ref[_Record]] = []

    @contextmanager
    def first_run(self, module: nn.Module, inputs: Tensor, mask: Tensor | None) -> Iterator[list[Tensor]]:
        """Record a checkpointed forward pass; its outputs go into the list that this gives."""
        outputs: list[Tensor] = []
        before = {name: (value, value._version, value.detach().clone()) for name, value in _state(module).items()}
        yield outputs
        moved = {name: copy for name, (value, version, copy) in before.items() if value._version != version}
        record = _Record(_fingerprint(inputs, mask), moved)
        self._records = [known for known in self._records if known() is not None] + [weakref.ref(record)]
        for output in outputs:
            if output.grad_fn is not None:
                output.grad_fn.metadata[self] = record  # type: ignore[index]

    @contextmanager
    def second_run(self, module: nn.Module, inputs: Tensor, mask: Tensor | None) -> Iterator[None]:
        """Let a forward pass see the state that the one it repeats saw, and put the present state back after it.

        Raises:
            RuntimeError: the first run is not known, as with ``use_reentrant=True``.
        """
        wanted = _fingerprint(inputs, mask)
        known = [record for each in self._records if (record := each()) is not None and record.inputs == wanted]
        if not known:
            raise RuntimeError(
                f"{type(module).__name__}: this forward pass, within a backward pass, repeats none that was recorded; "
                "call torch.utils.checkpoint with use_reentrant=False"
            )
        present: list[tuple[nn.Module, str, Tensor]] = []
        for name, value in known[-1].state.items():
            path, _, attribute = name.rpartition(".")
            owner = module.get_submodule(path)
            if attribute in owner._buffers:
                present.append((owner, attribute, owner._buffers[attribute]))  # type: ignore[arg-type]
                owner._buffers[attribute] = value.clone()
            else:
                parameter = getattr(owner, attribute)
                present.append((owner, attribute, parameter.data))
                parameter.data = value.clone()
        try:
            yield
        finally:
            for owner, attribute, value in present:
                if attribute in owner._buffers:
                    owner._buffers[attribute] = value
                else:
                    getattr(owner, attribute).data = value


def is_second_run() -> bool:
    """Whether this code runs within a backward pass."""
    return torch._C._current_graph_task_id() != -1


def is_checkpointed() -> bool:
    """Whether this code runs within a segment that `torch.utils.checkpoint` will run again."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return hooks is not None and getattr(hooks[0], "__module__", "") == "torch.utils.checkpoint"


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _fingerprint(inputs: Tensor, mask: Tensor | None) -> tuple[object, ...]:
    """What two runs with the same inputs have in common, and others hardly ever."""
    values = inputs.detach()
    sums = values.double().sum(), values.double().square().sum(), values.reshape(-1)[:: max(1, values.numel() // 64)]
    counted = None if mask is None else int(mask.sum())
    return (values.shape, values.dtype, counted, *(tuple(part.reshape(-1).tolist()) for part in sums))
