"""Channels-first inputs are read where they lie, on a GPU or in Triton's interpreter, and give what their rows give."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from typing_extensions import override

import lexel
from lexel._core import by_code, values
from lexel._core.positions import collapse
from lexel.nearest import _dispatch, _triton, use_backend
from tests._core.test_by_code import DEVICE, small_tiles

triton = pytest.importorskip("triton")


@pytest.fixture(autouse=True, scope="module")
def _in_place() -> Iterator[None]:
    """Where there is no GPU, the CPU stands in for one: its tensors take the layer's kernels, and are never asked."""
    with small_tiles(), pytest.MonkeyPatch.context() as patch:
        if DEVICE == "cpu":
            patch.setattr(values, "HOST", ())
        yield


@pytest.fixture
def _search_in_place(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Its tensors take the kernels of the search, too: these are slow in the interpreter."""
    if DEVICE == "cuda":
        yield
        return
    entry = replace(_triton.BACKEND, variants=("triton_float32", "triton"), missing=str)
    monkeypatch.setitem(_dispatch.BACKENDS, DEVICE, entry)
    assert _triton.products_are_sound(torch.device(DEVICE))
    with use_backend("triton"):
        yield


DIM = 3
SHAPES = [(1, 7), (6, 1), (3, 5), (2, 3, 4), (1, 2, 3, 2), (3, 1, 1), (0, 4), (2, 0, 3)]
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels first": torch.Tensor.contiguous,
    "channels last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "turned": lambda x: x.mT.contiguous().mT,
    "one batch again and again": lambda x: x[:1].expand_as(x),
    "one position again and again": lambda x: x[..., :1].expand_as(x),
    "every second position": lambda x: torch.stack([x, -x], -1).flatten(-2)[..., ::2],
    "some of the channels": lambda x: torch.cat([-x, x, -x], 1)[:, x.shape[1] : 2 * x.shape[1]],
    "some of the positions": lambda x: torch.cat([-x, x], 2)[:, :, x.shape[2] :],
    "every second channel": lambda x: torch.stack([x, -x], 2).flatten(1, 2)[:, ::2],
}


def started(quantizer: Any) -> lexel.Quantizer:
    """The default quantizer after its start, whose k-means would take long in the interpreter."""
    vq = quantizer.quantizer.quantizer
    vq.load_codes(torch.randn(vq.codebook.weight.shape))
    for name, value in (("shift", 0.1), ("scale", 0.7), ("found", True)):
        getattr(quantizer, name).fill_(value)
    return quantizer


QUANTIZERS: dict[str, Callable[[int], lexel.Quantizer]] = {
    "default": lambda axis: started(lexel.presets.default(6, DIM, channel_dim=axis)),
    "gradient": lambda axis: lexel.VectorQuantizer(9, DIM, channel_dim=axis),
    "averages": lambda axis: lexel.VectorQuantizer(
        70, DIM, learning=lexel.EMA(0.5), upkeep=lexel.Revival(0.9, 0.5), channel_dim=axis
    ),
}


def inputs_of(seed: int, shape: tuple[int, ...], layout: str) -> Tensor:
    torch.manual_seed(seed)
    return LAYOUTS[layout](torch.randn(shape[0], DIM, *shape[1:]))


@settings(max_examples=60)
@given(seed=st.integers(0, 2**31), shape=st.sampled_from(SHAPES), layout=st.sampled_from(sorted(LAYOUTS)))
def test_positions_are_merged_without_a_copy_if_two_axes_suffice(
    seed: int, shape: tuple[int, ...], layout: str
) -> None:
    z = inputs_of(seed, shape, layout).movedim(1, -1)
    merged = collapse(z)
    assert merged.ndim in (2, 3)
    assert torch.equal(merged.flatten(0, -2), z.reshape(-1, DIM))
    if layout in ("channels first", "channels last", "some of the channels", "every second channel") and z.numel():
        assert merged.data_ptr() == z.data_ptr()


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**31),
    name=st.sampled_from(sorted(QUANTIZERS)),
    shape=st.sampled_from(SHAPES),
    layout=st.sampled_from(sorted(LAYOUTS)),
    masked=st.booleans(),
)
def test_rows_give_the_same_to_the_bit(seed: int, name: str, shape: tuple[int, ...], layout: str, masked: bool) -> None:
    torch.manual_seed(seed)
    quantizer = QUANTIZERS[name](1)
    twin = QUANTIZERS[name](-1)
    twin.load_state_dict(quantizer.state_dict())
    x = inputs_of(seed, shape, layout)
    mask = torch.rand(shape) < 0.7 if masked else None
    upstream = torch.randn(x.shape)
    ends = []
    for module, axis in ((quantizer, 1), (twin, -1)):
        z = (x if axis == 1 else x.movedim(1, -1).contiguous()).detach().requires_grad_()
        torch.manual_seed(seed)
        output = module(z, mask)
        assert output.quantized.is_contiguous()
        gradient = upstream if axis == 1 else upstream.movedim(1, -1).contiguous()
        torch.autograd.backward([output.loss, output.quantized], [torch.ones_like(output.loss), gradient])
        assert z.grad is not None
        gradients = [value.grad for value in module.parameters() if value.grad is not None]
        state = module.state_dict().values()
        moved = [value.movedim(axis, 1) for value in (output.quantized, z.grad)]
        ends.append([output.loss, output.indices, output.perplexity, *moved, *gradients, *state])
    assert len(ends[0]) == len(ends[1])
    assert all(map(torch.equal, *ends))


class Copies(TorchDispatchMode):
    """Counts what copies so many numbers or more, within our operators as well, but not in Triton's interpreter."""

    OPERATORS = (
        (by_code._sum_operator, by_code._sums),
        (by_code._count_operator, by_code._counts),
        (by_code._difference_operator, by_code._difference),
        (_dispatch._operator, _dispatch._run),
    )

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.numbers = numbers
        self.found: list[str] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for operator, inside in self.OPERATORS:
            if operation is operator:
                with self:
                    return inside(*args)
        result = operation(*args, **(kwargs or {}))
        aten = torch.ops.aten
        if operation.overloadpacket in (aten.clone, aten.copy_, aten._to_copy, aten.contiguous, aten.index):
            self.found += [f"{operation} {tuple(result.shape)}"] * (result.numel() >= self.numbers)
        return result


@pytest.fixture
def _kernels_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE == "cuda":
        return
    from triton.runtime.interpreter import GridExecutor

    run = GridExecutor.__call__

    def unseen(*args: Any, **kwargs: Any) -> None:
        with _disable_current_modes():
            run(*args, **kwargs)

    monkeypatch.setattr(GridExecutor, "__call__", unseen)


@pytest.mark.usefixtures("_kernels_unseen", "_search_in_place")
@pytest.mark.parametrize(("name", "masked"), [("default", True), ("default", False), ("gradient", True)])
def test_a_step_copies_no_inputs(name: str, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    quantizer = QUANTIZERS[name](1)
    x = torch.randn(2, DIM, 8, 6)
    mask = torch.rand(2, 8, 6) < 0.9 if masked else None

    def step() -> None:
        output = quantizer(x.detach().requires_grad_(), mask)
        one = torch.ones_like(output.loss)
        torch.autograd.backward([output.loss, output.quantized], [one, torch.ones(x.shape)])

    with Copies(x.numel()) as copies:
        step()
    assert copies.found == []
    monkeypatch.setattr("lexel.quantizers.base.collapse", lambda z: z.reshape(-1, DIM))
    with Copies(x.numel()) as copies:
        step()
    assert copies.found  # it can find some


class _Rows(lexel.EMA):
    """A learning rule of somebody who knows of rows only: what it inherits says nothing of that."""

    def build(self, num_embeddings: int, embedding_dim: int) -> Any:
        part = super().build(num_embeddings, embedding_dim)
        statistics = part.statistics

        def of_rows(z: Tensor, indices: Tensor, num_embeddings: int) -> tuple[Tensor, ...]:
            assert z.ndim == 2
            assert indices.ndim == 1
            return statistics(z, indices, num_embeddings)

        part.statistics = of_rows
        return part


def test_parts_that_know_of_rows_only_get_rows() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, DIM, 6)
    quantizers = [lexel.VectorQuantizer(8, DIM, learning=learning) for learning in (_Rows(), lexel.EMA())]
    quantizers[1].load_codes(quantizers[0].codebook())
    outputs = [quantizer(x) for quantizer in quantizers]
    assert torch.equal(outputs[0].quantized, outputs[1].quantized)
    assert torch.equal(quantizers[0].codebook(), quantizers[1].codebook())
    assert copy.deepcopy(quantizers[1]).accepts_positions
    assert not quantizers[0].accepts_positions


def test_quantizers_that_know_of_rows_only_get_rows() -> None:
    class _Flat(lexel.VectorQuantizer):
        @override
        def quantize_rows(self, z: Tensor, valid: Tensor | None) -> lexel.Choice:
            assert z.ndim == 2
            assert valid is not None
            assert valid.ndim == 1
            return super().quantize_rows(z, valid)

    x, mask = torch.randn(2, DIM, 6), torch.rand(2, 6) < 0.7
    flat, quantizer = _Flat(8, DIM), lexel.VectorQuantizer(8, DIM)
    quantizer.load_state_dict(flat.state_dict())
    assert torch.equal(flat(x, mask).quantized, quantizer(x, mask).quantized)


def test_errors_of_positions_revive_codes() -> None:
    x = torch.tensor([[0.0, 0.0, 3.0], [7.0, 0.0, 0.0]]).unsqueeze(1)  # all error is that of the 3
    vq = lexel.VectorQuantizer(3, 1, upkeep=lexel.Revival(threshold=0.5, decay=0.4, by="error"))
    vq.load_codes(torch.tensor([[0.0], [99.0], [7.0]]))
    for _ in range(2):
        vq(x, torch.tensor([[True, False, True], [True, True, True]]))
    assert vq.codebook().flatten().tolist() == [0.0, 3.0, 7.0]
