"""FSDP's `fully_shard`: ranks that hold shards of a model end where one process ends that holds all of it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

import lexel
from lexel._core.sharding import is_sharded
from tests import ranks


def default() -> lexel.Quantizer:
    """The default recipe without its dropout, for which ranks draw other numbers than one process does."""
    quantizer = lexel.presets.default(16, DIM)
    assert isinstance(quantizer.quantizer, lexel.QuantizationDropout)
    quantizer.quantizer.rate = 0.0
    return quantizer


DIM, BATCH, STEPS = 4, 24, 3
UPKEEP = (lexel.KMeansStart(iterations=3), lexel.Revival(threshold=0.6, decay=0.5))
QUANTIZERS: dict[str, Callable[[], lexel.Quantizer]] = {
    "gradient": lambda: lexel.VectorQuantizer(16, DIM),
    "gradient and upkeep": lambda: lexel.VectorQuantizer(15, DIM, upkeep=UPKEEP),  # shards of different sizes
    "cosine, factorised": lambda: lexel.VectorQuantizer(
        15, DIM, codebook=lexel.FactorisedCodebook(3, lexel.CosineCodebook()), upkeep=UPKEEP
    ),
    "affine, online": lambda: lexel.VectorQuantizer(
        16, DIM, codebook=lexel.AffineCodebook(), upkeep=lexel.OnlineClustering(decay=0.5)
    ),
    "EMA": lambda: lexel.VectorQuantizer(16, DIM, learning=lexel.EMA(0.8), upkeep=UPKEEP),
    "residual": lambda: lexel.ResidualQuantizer(
        [lexel.VectorQuantizer(16, DIM), lexel.VectorQuantizer(8, DIM, learning=lexel.EMA(0.8))]
    ),
    "projected": lambda: lexel.ProjectedQuantizer(lexel.VectorQuantizer(16, 3), DIM),
    "FSQ": lambda: lexel.FiniteScalarQuantizer([5, 5, 4, 3]),
    "SimVQ": lambda: lexel.VectorQuantizer(16, DIM, codebook=lexel.SimVQ()),
    "default": default,
}
LAYOUTS = ("whole", "ignored", "with the rest", "on its own")


class Model(nn.Module):
    def __init__(self, quantizer: lexel.Quantizer) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, DIM))
        self.quantizer = quantizer
        self.decoder = nn.Sequential(nn.Linear(DIM, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x: Tensor) -> tuple[Tensor, lexel.Quantized]:
        output = self.quantizer(self.encoder(x))
        return self.decoder(output.quantized), output

    def encode(self, x: Tensor) -> Tensor:
        return self.quantizer(self.encoder(x)).indices


def shard(model: Model, layout: str, policy: MixedPrecisionPolicy) -> None:
    """Shard a model as people do."""
    fully_shard(model.encoder, mp_policy=policy)
    fully_shard(model.decoder, mp_policy=policy)
    if layout == "on its own":
        fully_shard(model.quantizer, mp_policy=policy)
    if layout != "whole":
        left_out = set(model.quantizer.parameters()) if layout == "ignored" else None
        fully_shard(model, mp_policy=policy, ignored_params=left_out)


def full(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in state.items()}


def batch(step: int) -> Tensor:
    return torch.randn(BATCH, 8, generator=torch.Generator().manual_seed(step))


def train(name: str, layout: str, rank: int, world: int, mixed: bool = False) -> dict[str, Any]:
    """Train a model as one of some ranks; alone if there is one."""
    torch.manual_seed(0)
    dtype = torch.float32 if mixed else torch.float64
    model = Model(QUANTIZERS[name]()).to(dtype)
    own = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
    if world > 1:
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if mixed else MixedPrecisionPolicy()
        shard(model, layout, policy)
    if mixed:
        for buffer in model.quantizer.buffers():
            if buffer.dtype.is_floating_point:
                buffer.data = buffer.data.bfloat16()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen: dict[str, Any] = {"losses": [], "indices": []}
    for step in range(STEPS):
        x = batch(step)[own].to(dtype)
        decoded, output = model(x)
        optimizer.zero_grad()
        (output.loss + (decoded - x).square().mean()).backward()
        if world > 1 and layout in ("whole", "ignored"):  # nobody else does it for what is not sharded
            for parameter in model.quantizer.parameters():
                dist.all_reduce(parameter.grad)
                parameter.grad /= world
        optimizer.step()
        seen["losses"].append((output.loss.detach(), output.perplexity, *output.terms.values()))
        seen["indices"].append(output.indices)
    seen["state"] = full(model.state_dict())
    return seen


def deferred(rank: int, world: int) -> dict[str, Any]:
    """Build on the meta device, shard, materialise, and start codes by k-means."""
    with torch.device("meta"):
        model = Model(QUANTIZERS["gradient and upkeep"]())
    shard(model, "with the rest", MixedPrecisionPolicy())
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    for module in model.modules():
        if hasattr(module, "reset_parameters") and not isinstance(module, lexel.Quantizer):
            module.reset_parameters()
    own = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
    for _ in range(2):
        x = batch(0)[own]
        _, output = model(x)
        output.loss.backward()
    return {"loss": output.loss.detach(), "codes": full(model.state_dict())["quantizer.codebook.weight"]}


def told(call: Callable[[], object]) -> str:
    try:
        call()
    except RuntimeError as error:
        return str(error)
    return "nothing"


def mistakes(rank: int, world: int) -> dict[str, str]:
    """What is said to those who call what is sharded, or let the ranks drift apart."""
    torch.manual_seed(0)
    model, x = Model(QUANTIZERS["gradient"]()), batch(rank)
    shard(model, "with the rest", MixedPrecisionPolicy())
    index = torch.zeros(1, dtype=torch.int64)
    said = {"encode": told(lambda: model.encode(x)), "lookup": told(lambda: model.quantizer.lookup(index))}
    model = Model(QUANTIZERS["gradient"]())
    shard(model, "with the rest", MixedPrecisionPolicy())
    register_fsdp_forward_method(model, "encode")
    said["encode, registered"] = told(lambda: model.encode(x))
    model.unshard()
    said["lookup, gathered"] = told(lambda: model.quantizer.lookup(index))

    model = Model(QUANTIZERS["gradient"]())
    shard(model, "ignored", MixedPrecisionPolicy())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def drift() -> None:
        for step in range(4):
            _, output = model(batch(10 * step + rank))
            output.loss.backward()
            optimizer.step()

    said["gradients left alone"] = told(drift)
    torch.manual_seed(rank)
    said["other seeds"] = told(lambda: QUANTIZERS["EMA"]()(torch.randn(6, DIM)))
    return said


def cases(world: int) -> list[tuple[str, str]]:
    """All combinations on two ranks; on four, the layouts take turns."""
    every = list(product(QUANTIZERS, LAYOUTS))
    return every if world == 2 else [case for i, case in enumerate(every) if (i % 4 + i // 4) % 4 in (0, 2)]


def as_rank(rank: int) -> dict[object, Any]:
    """Everything as one of two or four ranks."""
    world = dist.get_world_size()
    seen: dict[object, Any] = {case: train(*case, rank, world) for case in cases(world)}
    seen |= {(name, "mixed"): train(name, "with the rest", rank, world, mixed=True) for name in ("EMA", "gradient")}
    seen["deferred"], seen["mistakes"] = deferred(rank, world), mistakes(rank, world)
    return seen


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[object, Any]]]:
    """What each rank saw, for every world size."""
    return {world: ranks.on_ranks(as_rank, tmp_path_factory.mktemp(f"of-{world}"), world) for world in (2, 4)}


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Any]]:
    """What one process with the whole batch sees."""
    return {name: train(name, "", 0, 1) for name in QUANTIZERS}


@pytest.mark.parametrize(("world", "case"), [(world, case) for world in (2, 4) for case in cases(world)], ids=str)
def test_shards_are_one_process(
    seen: dict[int, list[dict[object, Any]]], alone: dict[str, dict[str, Any]], world: int, case: tuple[str, str]
) -> None:
    expected, by_rank = alone[case[0]], [each[case] for each in seen[world]]
    for parts, whole in zip(zip(*(each["indices"] for each in by_rank), strict=True), expected["indices"], strict=True):
        assert torch.equal(torch.cat(parts), whole)
    for part in ("losses", "state"):
        for each in by_rank:
            torch.testing.assert_close(each[part], expected[part], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("name", ["EMA", "gradient"])
def test_mixed_precision_keeps_statistics_and_ranks_together(
    seen: dict[int, list[dict[object, Any]]], alone: dict[str, dict[str, Any]], world: int, name: str
) -> None:
    """Parameters gathered in bfloat16, and buffers that somebody has cast."""
    first, *others = (each[name, "mixed"] for each in seen[world])
    for other in others:
        torch.testing.assert_close(other["losses"], first["losses"], rtol=0, atol=0)
        torch.testing.assert_close(other["state"], first["state"], rtol=0, atol=0)
    for key, value in first["state"].items():
        if key.endswith(("count", "sum", "usage")):
            assert value.dtype == torch.float32, key
        if "quantizer" not in key:  # rounding decides choices of codes
            torch.testing.assert_close(value.double(), alone[name]["state"][key], rtol=0.1, atol=0.03)


@pytest.mark.parametrize("world", [2, 4])
def test_codes_started_after_the_meta_device(seen: dict[int, list[dict[object, Any]]], world: int) -> None:
    first = seen[world][0]["deferred"]
    for other in seen[world][1:]:
        torch.testing.assert_close(other["deferred"], first, rtol=0, atol=0)
    assert first["loss"] < 0.1 * first["codes"].var()  # 24 inputs that 15 centres were taken from


@pytest.mark.parametrize("world", [2, 4])
def test_what_is_said_about_shards(seen: dict[int, list[dict[object, Any]]], world: int) -> None:
    for said in (each["mistakes"] for each in seen[world]):
        assert "VectorQuantizer.forward: fully_shard has sharded" in said["encode"]
        assert "register_fsdp_forward_method(model, 'encode')" in said["encode"]
        assert "model.unshard()" in said["lookup"]
        assert said["encode, registered"] == said["lookup, gathered"] == "nothing"
        assert "codebook.weight should be the same on all ranks" in said["gradients left alone"]
        assert "shard the quantizer with the rest" in said["gradients left alone"]
        assert "codebook.weight, learning.sum should be the same" in said["other seeds"]


def test_a_plain_tensor_is_no_shard() -> None:
    assert not is_sharded(nn.Parameter(torch.zeros(2)))
