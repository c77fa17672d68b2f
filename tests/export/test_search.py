"""The search of an exported graph chooses what the library chooses."""

from __future__ import annotations

import io
from itertools import permutations

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import lexel
from lexel.export.graphs import Port, Way


class Search(nn.Module):
    """Searches one codebook."""

    def __init__(self, codebook: Tensor, metric: str) -> None:
        super().__init__()
        self.register_buffer("codebook", codebook)
        self.metric = metric

    def forward(self, x: Tensor) -> Tensor:
        return lexel.nearest_code(x, self.codebook, metric=self.metric)


def exported(codebook: Tensor, metric: str) -> onnxruntime.InferenceSession:
    """The search of a codebook, in onnxruntime."""
    x, rows = torch.randn(7, codebook.shape[1]), {0: torch.export.Dim.DYNAMIC}
    ports = Port("x", "float32", ("N", codebook.shape[1]), ""), Port("indices", "int64", ("N",), "")
    proto = Way(Search(codebook, metric), (x,), (rows,), ports[:1], ports[1]).to_onnx()
    file = io.BytesIO(proto.SerializeToString())
    return onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])


def codebooks() -> dict[str, Tensor]:
    """Codebooks that are easy, and those on which float32 scores choose wrong codes."""
    torch.manual_seed(0)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    sphere = (signs * torch.tensor(list(permutations([1.0, 2.0, 3.0]))).unsqueeze(1)).flatten(0, 1)
    return {
        "spread": torch.randn(300, 16),
        "single": torch.randn(1, 3),
        "many equal": torch.randn(8, 4)[torch.randint(8, (64,))],  # more equal codes than the first pass keeps
        "far away": 1e4 + 1e-2 * torch.randn(300, 8),
        "on a sphere": sphere[torch.randperm(47)],  # zero is as far from every code: only all true distances tell
        "with ties": torch.randint(-2, 3, (200, 3)).float(),
    }


@pytest.mark.parametrize(
    ("name", "metric"),
    [(name, "euclidean") for name in codebooks()] + [("many equal", "dot"), ("with ties", "cosine")],
)
def test_the_same_codes(name: str, metric: str) -> None:
    codebook = codebooks()[name]
    session, (K, D) = exported(codebook, metric), codebook.shape
    middles = (codebook[torch.randint(K, (500,))] + codebook[torch.randint(K, (500,))]) / 2
    for x in (
        torch.randn(5000, D),  # more rows than a tile has
        codebook,
        middles,
        torch.randint(-4, 5, (1000, D)) / 2,
        1e6 + torch.randint(-4, 5, (100, D)) / 2,
        torch.zeros(1, D),
        torch.zeros(0, D),
    ):
        found = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
        assert torch.equal(found, lexel.nearest_code(x, codebook, metric=metric))
