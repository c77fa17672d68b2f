"""Lexel quantizers with given numbers in them, for the files of `origins/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lexel.codebook import Codebook, CosineCodebook, FreeCodebook
from lexel.learning import Gradient, Learning
from lexel.migrate._keys import Keys
from lexel.quantizers.base import Quantizer
from lexel.quantizers.product import ProductQuantizer
from lexel.quantizers.projected import ProjectedQuantizer
from lexel.quantizers.residual import ResidualQuantizer
from lexel.quantizers.vector import VectorQuantizer

__all__ = [
    "are_bit_values",
    "codebook_for",
    "for_each",
    "in_heads",
    "linear_map",
    "projected",
    "reordered",
    "require_started",
    "residual",
    "vector",
    "with_values",
]

Value = TypeVar("Value")


def vector(
    codes: Tensor,
    commitment_cost: float,
    *,
    codebook: Codebook = FreeCodebook(),
    learning: Learning = Gradient(),
    averages: Sequence[Tensor] = (),
    embedding_dim: int | None = None,
    **parts: Any,
) -> VectorQuantizer:
    """A vector quantizer with these codes and, if averages move them, these running counts and sums.

    Nothing else here knows what a `VectorQuantizer` looks like inside.
    """
    dim = codes.shape[1] if embedding_dim is None else embedding_dim
    vq = VectorQuantizer(len(codes), dim, commitment_cost, codebook=codebook, learning=learning, **parts)
    remembered = dict(zip(("count", "sum"), averages, strict=True)) if averages and not learning.trainable else {}
    vq.load_codes(codes, **remembered)
    return vq


def with_values(quantizer: Quantizer, values: Mapping[str, Tensor]) -> Quantizer:
    """The same quantizer with these of its parameters and buffers."""
    quantizer.load_state_dict({**quantizer.state_dict(), **values})
    return quantizer


def residual(stages: Sequence[Quantizer], dropout: float = 0.0) -> ResidualQuantizer:
    """A residual quantizer. Of a shared codebook, which is written down once for each stage, there is one."""
    first, *others = [stage.state_dict() for stage in stages]
    shared = bool(others) and all(
        other.keys() == first.keys() and all(torch.equal(first[name], other[name]) for name in first)
        for other in others
    )
    return ResidualQuantizer(stages[:1] if shared else stages, depth=len(stages) if shared else None, dropout=dropout)


def for_each(name: str, values: Sequence[Value], count: int | None = None) -> list[Value]:
    """A setting that has a value for each stage, as a list.

    Raises:
        ValueError: it is no list, or has another number of values.
    """
    if isinstance(values, str) or not isinstance(values, Sequence) or count not in (None, len(values)):
        number = "" if count is None else f", with a value for each of {count} stages"
        raise ValueError(f"migrate.load: {name} must be a list{number}, got {values!r}")
    return list(values)


def in_heads(quantizer: Quantizer, heads: int) -> Quantizer:
    """A quantizer that takes several groups of channels, if there are several."""
    return ProductQuantizer([quantizer], heads=heads) if heads > 1 else quantizer


def projected(keys: Keys, quantizer: Quantizer, order: Tensor | None = None, scale: float = 1.0) -> Quantizer:
    """The quantizer between `project_in` and `project_out`, if there are any, as `reordered` changes it otherwise."""
    if "project_in.weight" not in keys:
        return quantizer
    inner = quantizer.embedding_dim
    order = torch.arange(inner) if order is None else order
    down = keys.take("project_in.weight", inner, None)
    up = keys.take("project_out.weight", down.shape[1], inner)
    maps = {"down.weight": down[order] / scale, "up.weight": up[:, order] * scale}
    bias = "project_in.bias" in keys
    if bias:
        maps["down.bias"] = keys.take("project_in.bias", inner)[order] / scale
        maps["up.bias"] = keys.take("project_out.bias", len(up))
    return with_values(ProjectedQuantizer(quantizer, len(up), bias=bias), maps)


def reordered(quantizer: Quantizer, order: Tensor, scale: float = 1.0) -> Quantizer:
    """The quantizer with its channels in another order and, if it says so, with codes of another size; frozen."""
    turn = torch.eye(len(order))[order]
    turned = ProjectedQuantizer(quantizer, len(order), bias=False)
    return with_values(turned, {"down.weight": turn / scale, "up.weight": turn.T * scale}).requires_grad_(False)


def linear_map(keys: Keys, *, bias: bool = True) -> dict[str, Tensor]:
    """Weight and bias of a linear map or a convolution of width 1, with or without weight normalisation."""
    for length, direction in (
        ("weight_g", "weight_v"),
        ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    ):
        if direction in keys:
            width = [1] * (keys.dimensions(direction) - 2)
            v = keys.take(direction, None, None, *width)
            weight = F.normalize(v, dim=1) * keys.take(length, len(v), 1, *width)
            break
    else:
        weight = keys.take("weight", None, None, *[1] * (keys.dimensions("weight") - 2))
    return {"weight": weight.flatten(1), **({"bias": keys.take("bias", len(weight))} if bias else {})}


def codebook_for(metric: str) -> Codebook:
    """The codebook in which the nearest code by that metric is chosen.

    Raises:
        ValueError: the metric is neither `"euclidean"` nor `"cosine"`.
    """
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f"migrate.load: metric must be 'euclidean' or 'cosine', got {metric!r}")
    return CosineCodebook() if metric == "cosine" else FreeCodebook()


def require_started(keys: Keys, started: Tensor) -> None:
    """Refuse codes that the first batch was to make.

    Raises:
        ValueError: they are not made yet.
    """
    if not started.all():
        raise ValueError(f"migrate.load: the codes of {keys.prefix!r} wait for their k-means start: there are none yet")


def are_bit_values(mask: Tensor) -> bool:
    """Whether these are the powers of two that LFQ keeps as the values of its bits, largest first."""
    return mask.dtype == torch.int64 and mask.ndim == 1 and mask.tolist() == [2**i for i in range(len(mask))][::-1]
