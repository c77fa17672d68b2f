"""What people get wrong in their first part is answered with what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import lexel


class Chooses(lexel.EstimatorModule):
    def forward(self, z: Tensor, codes: Tensor) -> Any:
        return self.settings.result(z, codes)


@dataclass(frozen=True)
class _Choosing(lexel.Estimator):
    result: Any

    def build(self, num_embeddings: int, embedding_dim: int) -> lexel.EstimatorModule:
        return Chooses(self)


@pytest.mark.parametrize(
    ("result", "kind", "message"),
    [
        (lambda z, codes: (torch.zeros(len(z)), z), TypeError, "indices must be an int64 tensor, got torch.float32"),
        (lambda z, codes: (torch.zeros(len(z), dtype=torch.int32), z), TypeError, "int64 tensor, got torch.int32"),
        (
            lambda z, codes: (torch.zeros(len(z), dtype=torch.int64), z.T),
            ValueError,
            r"quantized must have shape \(6, 3\)",
        ),
        (
            lambda z, codes: (torch.zeros(len(z), 1, dtype=torch.int64), z),
            ValueError,
            r"indices must have shape \(6,\)",
        ),
    ],
)
def test_an_estimator_that_returns_something_else(result: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        lexel.VectorQuantizer(4, 3, estimator=_Choosing(result))(torch.randn(6, 3))


@dataclass(frozen=True)
class _Forgetful(lexel.Upkeep):
    def build(self, num_embeddings: int, embedding_dim: int) -> Any:
        lexel.KMeansStart().build(num_embeddings, embedding_dim)


@dataclass(frozen=True)
class _Bent(lexel.Codebook):
    inverse: bool = False

    def build(self, num_embeddings: int, embedding_dim: int, *, trainable: bool = True) -> lexel.CodebookModule:
        kind = Inverse if self.inverse else Bent
        return kind(self, num_embeddings, embedding_dim, trainable=trainable)


class Bent(lexel.CodebookModule):
    def forward(self) -> Tensor:
        return self.weight.tanh()


class Inverse(Bent):
    def table_for(self, codes: Tensor) -> Tensor:
        return codes.atanh()


class _Rows(lexel.RowQuantizer):
    def __init__(self, size: int) -> None:
        super().__init__(size, 1)

    def quantize_rows(self, z: Tensor, valid: Tensor | None) -> Any:
        return torch.zeros(len(z), dtype=torch.int64), z

    def lookup_rows(self, indices: Tensor) -> Tensor:
        return indices.unsqueeze(1).float()


def test_a_build_without_a_return() -> None:
    with pytest.raises(TypeError, match=r"_Forgetful.build must return a lexel UpkeepModule, got None"):
        lexel.VectorQuantizer(4, 3, upkeep=_Forgetful())


def test_a_function_of_the_table_without_its_inverse() -> None:
    vq = lexel.VectorQuantizer(2, 1, codebook=_Bent(), upkeep=lexel.KMeansStart())
    before = vq.codebook.weight.clone()
    with pytest.raises(NotImplementedError, match=r"Bent overrides forward.*define table_for, or set"):
        vq(torch.tensor([[0.5], [-0.5]]))
    assert torch.equal(vq.codebook.weight, before)


def test_an_inverse_that_ends_in_nan() -> None:
    vq = lexel.VectorQuantizer(2, 1, codebook=_Bent(inverse=True), upkeep=lexel.KMeansStart())
    before = vq.codebook.weight.clone()
    with pytest.raises(ValueError, match="table_for gives NaN or infinity"):
        vq(torch.tensor([[2.0], [-2.0]]))
    assert torch.equal(vq.codebook.weight, before)


def test_a_tuple_for_a_choice_and_an_argument_that_is_not_kept() -> None:
    quantizer = _Rows(4)
    with pytest.raises(TypeError, match=r"_Rows.quantize_rows must return a lexel.Choice, got tuple"):
        quantizer(torch.zeros(3, 1))
    with pytest.raises(TypeError, match=r"must keep each argument of its constructor.* it has no size"):
        _ = quantizer.config


@pytest.mark.parametrize(
    ("parts", "kind", "message"),
    [
        ({"regularisers": [lexel.Entropy(0.1), lexel.Entropy(0.5)]}, ValueError, "names of their own"),
        (
            {"regularisers": lexel.Entropy},
            TypeError,
            "regularisers must be a lexel Regulariser or a sequence of",
        ),
        ({"upkeep": "kmeans"}, TypeError, "upkeep must be a lexel Upkeep or a sequence of Upkeep, got"),
    ],
)
def test_parts_that_are_none(parts: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        lexel.VectorQuantizer(4, 3, **parts)


def test_upkeep_that_searches_compiles_into_one_graph_under_a_mask() -> None:
    vq = lexel.VectorQuantizer(4, 2, upkeep=lexel.OnlineClustering())
    z, mask = torch.randn(6, 2), torch.arange(6) < 5
    compiled = torch.compile(vq, fullgraph=True, backend="eager")
    assert torch.equal(compiled(z, mask).indices, vq.eval()(z, mask).indices)
