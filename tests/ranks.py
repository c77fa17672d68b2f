"""One training run of a few steps, on all the data or on one rank's share of it.

Run as a program by `on_ranks`, once for each rank: `python -m tests.ranks RANK WORLD DEVICE BACKEND FOLDER MODULE
FUNCTION`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

import lexel
from lexel._core.collectives import world_size
from tests import processes
from tests.devices import tensors_on
from tests.quantizers.zoo import ZOO

LEARNING = {"gradient": lexel.Gradient(), "ema": lexel.EMA(decay=0.8)}
UPKEEP = {
    "none": (),
    "kmeans": lexel.KMeansStart(iterations=3),
    "revival": lexel.Revival(threshold=0.6, decay=0.5),
    "revival by error": lexel.Revival(threshold=0.6, decay=0.5, by="error"),
    "closest": lexel.OnlineClustering(decay=0.5),
    "random": lexel.OnlineClustering(decay=0.5, anchor="random"),
    "both": (lexel.KMeansStart(iterations=3), lexel.Revival(threshold=0.6, decay=0.5)),
}
QUIET = [name for name, example in ZOO.items() if not example.noisy]
STEPS, BATCH, DIM = 5, 24, 4
WATCHDOG_SECONDS = 300
SHARES = {"equal": [12] * STEPS, "unequal": [5, 20, 12, 23, 1], "empty": [0, 24, 0, 12, 0]}
"""How much of each batch the first of two ranks holds."""


def cases() -> Iterator[tuple[str, str, str, bool]]:
    """All combinations of learning, upkeep, share and mask."""
    yield from product(LEARNING, UPKEEP, SHARES, (False, True))


def own_slice(first: int, whole: int, rank: int, world: int) -> slice:
    """Which of `whole` inputs a rank holds: of two, `first` and the rest; of four, half of each."""
    cuts = {1: [0, whole], 2: [0, first, whole], 4: [0, first // 2, first, (first + whole) // 2, whole]}[world]
    return slice(cuts[rank], cuts[rank + 1])


def train(case: tuple[str, str, str, bool], rank: int, world: int) -> dict[str, object]:
    """Train as `rank` of `world` and return everything that should not depend on how many ranks there are.

    In float64, so that rounding decides no choice: online clustering pulls several codes to almost the same place.
    """
    learning, upkeep, share, masked = case
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(STEPS, BATCH, DIM, 2, generator=generator).double()
    masks = torch.rand(STEPS, BATCH, 2, generator=generator) < 0.7
    encoder = nn.Conv1d(DIM, DIM, 1).double()
    vq = lexel.VectorQuantizer(
        40, DIM, learning=LEARNING[learning], upkeep=UPKEEP[upkeep], regularisers=lexel.Entropy()
    ).double()
    with torch.no_grad():
        encoder.weight.copy_(torch.eye(DIM).unsqueeze(2))
        encoder.bias.zero_()
        vq.pull(torch.randn(40, DIM, generator=generator) * 0.5, torch.ones(40))
    parameters = [*encoder.parameters(), *vq.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.3)
    seen: dict[str, object] = {"losses": [], "indices": []}
    for batch, mask, first in zip(data, masks, SHARES[share], strict=True):
        own = own_slice(first, BATCH, rank, world)
        output = vq(encoder(batch[own]), mask[own] if masked else None)
        optimizer.zero_grad()
        output.loss.backward()
        for parameter in parameters:  # what DistributedDataParallel does
            dist.is_initialized() and dist.all_reduce(parameter.grad)
            parameter.grad /= world
        optimizer.step()
        seen["losses"].append((output.loss.detach(), output.perplexity, *output.terms.values()))
        seen["indices"].append(output.indices)
    seen["state"] = vq.state_dict()
    seen["encoder"] = encoder.state_dict()
    return seen


def every(name: str, rank: int, world: int) -> dict[str, object]:
    """Take a few training steps with an example of the zoo, and return what should not depend on the ranks."""
    torch.manual_seed(0)
    quantizer = ZOO[name].make().double()
    seen: dict[str, object] = {"losses": [], "gradients": [], "indices": []}
    for first in (2, 6, 0):
        z = torch.randn(6, quantizer.embedding_dim, 4, 4).double()
        mask = torch.rand(6, 4, 4) < 0.7
        torch.manual_seed(first + (world > 1) * rank)  # ranks may draw differently; then rank 0 decides
        own = own_slice(first, 6, rank, world)
        z = z[own].requires_grad_()
        output = quantizer(z, mask[own])
        parameters = list(quantizer.parameters())
        *gradients, inputs = torch.autograd.grad(output.loss, [*parameters, z], materialize_grads=True)
        gradients = [gradient.contiguous() for gradient in gradients]
        for gradient in gradients:  # what DistributedDataParallel does
            dist.is_initialized() and dist.all_reduce(gradient)
            gradient /= world
        seen["losses"].append((output.loss.detach(), output.perplexity, *output.terms.values()))
        seen["gradients"].append(gradients)
        seen["indices"].append((output.indices, inputs / world))
        torch.manual_seed(first)
    seen["state"] = quantizer.state_dict()
    return seen


def poisoned(rank: int) -> str:
    """What a rank is told when only the last rank's input holds a NaN."""
    z: Tensor = torch.randn(4, DIM)
    if rank:
        z[1, 1] = torch.nan
    try:
        vq = lexel.VectorQuantizer(8, DIM, learning=lexel.EMA())
        vq(z)
        vq(z)  # an accelerator is not waited for
    except ValueError as error:
        return str(error)
    return "nothing"


def own_groups(rank: int) -> tuple[int, Tensor, Tensor]:
    """What a rank sees that shares its inputs with nobody, by a group and by a mesh; then the default group again."""
    z, seen = torch.randn(12, DIM, generator=torch.Generator().manual_seed(rank)), []
    groups = [dist.new_group([each]) for each in range(2)]
    mesh = init_device_mesh("cpu", (1, 2), mesh_dim_names=("data", "tensor"))
    for group in (groups[rank], mesh["data"]):
        lexel.set_process_group(group)
        vq = lexel.VectorQuantizer(8, DIM, learning=lexel.EMA(decay=0.5))
        vq.load_codes(torch.randn(8, DIM, generator=torch.Generator().manual_seed(9)))
        vq(z)
        seen.append(vq.codebook())
    lexel.set_process_group(None)
    return world_size(), *seen


def everything(rank: int) -> dict[object, object]:
    """All of the above as one of two ranks."""
    seen: dict[object, object] = {case: train(case, rank, 2) for case in cases()}
    seen |= {name: every(name, rank, 2) for name in QUIET}
    seen["poisoned"] = poisoned(rank)
    seen["own groups"] = own_groups(rank)
    return seen


def as_one_of_four(rank: int) -> dict[object, object]:
    """Every example of the zoo as one of four ranks, some of which hold nothing."""
    return {name: every(name, rank, 4) for name in QUIET}


def alone(rank: int) -> dict[object, object]:
    """All of the above as the only rank."""
    return {case: train(case, rank, 1) for case in cases()} | {name: every(name, rank, 1) for name in QUIET}


def on_ranks(
    function: Callable[[int], object], folder: Path, world: int = 2, device: str = "cpu", backend: str = "gloo"
) -> list[Any]:
    """Call a function of a test module with its rank in each of so many processes, and return what it returned.

    A hang is killed and fails.
    """
    words = [device, backend, folder, function.__module__, function.__name__]
    workers = [
        processes.Started(["tests.ranks", rank, world, *words], cwd=Path(__file__).parents[1]) for rank in range(world)
    ]
    try:
        assert [worker.wait(WATCHDOG_SECONDS) for worker in workers] == [0] * world
    finally:
        for worker in workers:
            worker.kill()
    return [torch.load(folder / f"{rank}.pt", device, weights_only=True) for rank in range(world)]


def main(rank: str, world: str, device: str, backend: str, folder: str, module: str, function: str) -> None:
    """Take part as one rank, and write what the function returned."""
    if device == "cuda":
        torch.cuda.set_device(int(rank) % torch.cuda.device_count())
    dist.init_process_group(backend, init_method=f"file://{folder}/rendezvous", rank=int(rank), world_size=int(world))
    with tensors_on(device):
        torch.save(getattr(import_module(module), function)(int(rank)), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
