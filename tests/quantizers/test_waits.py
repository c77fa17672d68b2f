"""A training step asks no tensor for its value, since on an accelerator that would be a wait for the device.

Where the tests run without an accelerator, the CPU stands in for one: `values.HOST` is empty, so that the program takes
the way that it takes there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import lexel
from lexel._core import values
from lexel.models import VQVAE, VQVAE2, Autoencoder
from lexel.nearest import backend
from tests.quantizers.test_every import EXACTLY, OUTPUTS, learned, state
from tests.quantizers.zoo import Example

aten = torch.ops.aten
ASKS = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim, aten.equal}
MOVES = {torch.tensor, torch.as_tensor, torch.from_numpy, Tensor.new_tensor, Tensor.cpu}


@pytest.fixture
def as_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "HOST", ())


class NoAnswers(TorchDispatchMode):
    """Raises where an operation hands a value to the program, or has a shape that depends on one."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        by_mask = operation.overloadpacket in (aten.index, aten.index_put, aten.index_put_) and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        assert not by_mask, operation
        assert operation.overloadpacket not in ASKS, operation
        return operation(*args, **(kwargs or {}))


class NoNumbers(TorchFunctionMode):
    """Raises where a tensor is made of Python's numbers, or copied to the program's memory."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function not in MOVES, function
        return function(*args, **(kwargs or {}))


@contextmanager
def no_waits(device: torch.device) -> Iterator[None]:
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
    else:
        with NoAnswers(), NoNumbers():
            yield


def step(quantizer: lexel.Quantizer, z: Tensor, mask: Tensor | None = None) -> lexel.Quantized:
    """Forward and backward."""
    output = quantizer(z, mask)
    (output.loss + output.quantized.sum()).backward()
    return output


def parts() -> Iterator[tuple[str, Callable[[], lexel.Quantizer]]]:
    """What the zoo has no example of: parts with other settings."""
    for name, settings in {
        "temperature that falls": {"estimator": lexel.GumbelSoftmax(rate=0.1)},
        "random anchors": {"upkeep": lexel.OnlineClustering(anchor="random")},
        "revival": {"upkeep": lexel.Revival(threshold=0.9, decay=0.5), "learning": lexel.EMA()},
        "revival by error": {"upkeep": lexel.Revival(threshold=0.9, decay=0.5, by="error"), "learning": lexel.EMA()},
        "entropy": {"regularisers": (lexel.Entropy(), lexel.Orthogonality())},
        "VQBridge": {"codebook": lexel.VQBridge(width=8, heads=2)},
    }.items():
        yield name, lambda settings=settings: lexel.VectorQuantizer(32, 6, **settings)
    yield "many codes", lambda: lexel.VectorQuantizer(70_000, 2)
    yield "default", lambda: lexel.presets.default(32, 6)


def skip_without_a_search(device: torch.device) -> None:
    if device.type != "cpu" and backend(device).startswith("portable"):
        pytest.skip(f"the search for {device} is {backend(device)}")


def takes_a_step_without_a_wait(make: Callable[[], lexel.Quantizer]) -> None:
    quantizer = make()
    device = torch.zeros(()).device
    skip_without_a_search(device)
    batch = 16 if device.type == "cpu" else 256
    z = torch.randn(batch, quantizer.embedding_dim, 4, 4, requires_grad=True)
    mask = torch.rand(batch, 4, 4) < 0.7
    for _ in range(2):  # codes start, constants are made
        step(quantizer, z, mask)
        step(quantizer, z)
    with no_waits(z.device):
        for _ in range(2):
            step(quantizer, z, mask)
            step(quantizer, z)


@pytest.mark.usefixtures("as_device")
def test_a_training_step_waits_for_no_value(example: Example) -> None:
    takes_a_step_without_a_wait(example.make)


@pytest.mark.usefixtures("as_device")
@pytest.mark.parametrize("make", [make for _, make in parts()], ids=[name for name, _ in parts()])
def test_a_training_step_with_other_parts_waits_for_no_value(make: Callable[[], lexel.Quantizer]) -> None:
    takes_a_step_without_a_wait(make)


@pytest.mark.usefixtures("as_device")
@pytest.mark.parametrize(
    "make",
    [
        lambda: VQVAE(lexel.presets.default(32, 6), hidden_channels=8),
        lambda: VQVAE2([lexel.presets.default(32, 6) for _ in range(2)], hidden_channels=8),
    ],
    ids=["VQVAE", "VQVAE2"],
)
def test_a_training_step_of_a_model_waits_for_no_value(make: Callable[[], Autoencoder]) -> None:
    torch.manual_seed(0)
    whole = make()
    device = torch.zeros(()).device
    skip_without_a_search(device)
    images = torch.rand(8, 3, 16, 16)

    def train() -> None:
        reconstructions, levels = whole.reconstruct(images)
        (whole.joined(levels).loss + F.mse_loss(reconstructions, images)).backward()

    for _ in range(3):
        train()
    with no_waits(device):
        train()


def test_the_default_device_says_nothing_of_the_inputs(example: Example) -> None:
    """Whoever makes a tensor says where: next to the inputs."""
    quantizer = example.make()
    z = torch.randn(16, quantizer.embedding_dim, 4, 4)
    mask = torch.rand(16, 4, 4) < 0.7
    with torch.device("meta"):
        for _ in range(2):
            output = step(quantizer, z.requires_grad_(), mask)
        assert not quantizer.lookup(output.indices).is_meta
        step(quantizer.eval(), z)


def test_steps_are_those_of_a_device_that_answers_at_once(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    quantizer = example.make()
    twin = copy.deepcopy(quantizer)
    z = [torch.randn(16, quantizer.embedding_dim, 4, 4) for _ in range(4)]
    expected, got = [], []
    for module, outputs in ((quantizer, expected), (twin, got)):
        torch.manual_seed(1)
        outputs += [step(module, each.requires_grad_()) for each in z]
        monkeypatch.setattr(values, "HOST", ())
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one.indices, other.indices)
        for name in OUTPUTS:
            torch.testing.assert_close(getattr(one, name), getattr(other, name))
    torch.testing.assert_close(state(twin), state(quantizer))


@pytest.mark.usefixtures("as_device")
@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_poison_changes_nothing_and_the_next_pass_says_so(example: Example, poison: float) -> None:
    quantizer = example.make()
    z = torch.randn(3, quantizer.embedding_dim, 4, 4)
    bad, before = z.clone(), learned(quantizer)
    bad[1, 0, 2, 3] = poison
    for mask in (None, torch.rand(3, 4, 4) < 2):
        output = quantizer(bad, mask)
        assert output.loss.isnan()
        assert (output.indices == -1).all()
        torch.testing.assert_close(learned(quantizer), before, **EXACTLY)
        with pytest.raises(ValueError, match="NaN or Inf; no code was changed"):
            quantizer(z)
        torch.testing.assert_close(learned(quantizer), before, **EXACTLY)
    output = quantizer(z, torch.zeros(3, 4, 4, dtype=torch.bool))
    assert output.loss == 0
    quantizer.train(False)
    with pytest.raises(ValueError, match="NaN or Inf"):  # what is evaluated is looked at, so this waits
        quantizer(bad)


@pytest.mark.usefixtures("as_device")
def test_codes_that_a_codebook_cannot_have_change_nothing() -> None:
    vq = lexel.VectorQuantizer(4, 2)
    before = vq.codebook().clone()
    vq.codebook.pull(torch.full((4, 2), torch.inf), torch.tensor([0.0, 1.0, 1.0, 0.0]))
    torch.testing.assert_close(vq.codebook(), before, **EXACTLY)
    with pytest.raises(ValueError, match="table_for gives NaN or infinity"):
        vq.codebook.pull(torch.ones(4, 2), torch.ones(4))
