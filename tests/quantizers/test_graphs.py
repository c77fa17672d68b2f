"""Training in CUDA graphs, which repeat what was recorded, goes the way of training step by step."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.utils import counters

import lexel
from lexel.nearest import backend

STEPS = 20
QUANTIZERS: dict[str, Callable[[], lexel.Quantizer]] = {
    "default": lambda: lexel.presets.default(64, 8),
    "EMA": lambda: lexel.VectorQuantizer(64, 8, learning=lexel.EMA()),
    "gradient": lambda: lexel.VectorQuantizer(64, 8),
    "revival": lambda: lexel.VectorQuantizer(64, 8, learning=lexel.EMA(), upkeep=lexel.Revival(0.5, 0.5)),
    "revival by error": lambda: lexel.VectorQuantizer(
        64, 8, learning=lexel.EMA(), upkeep=lexel.Revival(0.5, 0.5, by="error")
    ),
    "finite scalar": lambda: lexel.FiniteScalarQuantizer([8, 5, 5, 5]),
    "residual": lambda: lexel.ResidualQuantizer([lexel.VectorQuantizer(64, 8, learning=lexel.EMA()) for _ in range(4)]),
}


class Model(nn.Module):
    """Two layers around a quantizer."""

    def __init__(self, quantizer: lexel.Quantizer) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(12, quantizer.embedding_dim, 1)
        self.quantizer = quantizer
        self.decoder = nn.Conv1d(quantizer.embedding_dim, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        output = self.quantizer(self.encoder(x))
        return F.mse_loss(self.decoder(output.quantized), x) + output.loss


def losses(model: nn.Module, run: Callable[[Tensor], Tensor]) -> list[float]:
    """The loss of each step of training."""
    optimizer, seen = torch.optim.Adam(model.parameters(), lr=1e-3), []
    for number in range(STEPS):
        x = torch.randn(4, 12, 64, generator=torch.Generator().manual_seed(number))
        torch.compiler.cudagraph_mark_step_begin()
        loss = run(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    return seen


@pytest.mark.parametrize("name", QUANTIZERS)
def test_training_in_graphs_has_the_same_losses(name: str, device: str) -> None:
    if device != "cuda":
        pytest.skip("CUDA graphs need CUDA")
    if backend(device).startswith("portable"):
        pytest.skip(f"the search for {device} is {backend(device)}")
    torch.manual_seed(0)
    torch.compiler.reset()
    model = Model(QUANTIZERS[name]())
    twin = copy.deepcopy(model)
    skipped = counters["inductor"]["cudagraph_skips"]
    got = losses(twin, torch.compile(twin, fullgraph=True, mode="reduce-overhead"))
    # The start of the codes looks at the inputs, and keeps the first graph, which has it, from being a CUDA graph.
    assert counters["inductor"]["cudagraph_skips"] - skipped <= (2 if name == "default" else 0)
    torch.testing.assert_close(torch.tensor(got), torch.tensor(losses(model, model)), rtol=1e-3, atol=1e-4)
