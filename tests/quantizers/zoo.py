"""One example of every quantizer, for `test_every.py`. Whoever adds a quantizer or a part of one adds a line here.

Parts and quantizers that others wrote must pass too: those of `tests/extension`, and the template of CONTRIBUTING.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

import lexel
from tests.extension import my_parts
from tests.extension.template import Template

__all__ = ["ZOO", "Example"]


@dataclass(frozen=True)
class Example:
    """How to build a quantizer, and what must be true of it.

    Attributes:
        make: builds it; its `embedding_dim` may be anything, its maps 4×4.
        flow: for the task loss and each term, the names of what its gradient reaches: `"inputs"`, or parameters.
        maps_only: it takes `(B, D, 4, 4)` and no other shape, and its indices are not the input's positions.
        foreign: its modules were written outside of Lexel.
        noisy: its choices depend on noise drawn for each input, like dropout's; ranks draw other numbers than one
            process does.
    """

    make: Callable[[], lexel.Quantizer]
    flow: dict[str, set[str]]
    maps_only: bool = False
    noisy: bool = False
    foreign: bool = False


def spread(num_embeddings: int = 32, embedding_dim: int = 6, **settings: object) -> lexel.VectorQuantizer:
    """Build a vector quantizer whose codes are spread as widely as standard normal inputs."""
    vq = lexel.VectorQuantizer(num_embeddings, embedding_dim, **settings)
    vq.pull(torch.randn_like(vq.codebook.weight), torch.ones(num_embeddings))  # upkeep has yet to begin
    return vq


def implicit() -> lexel.ImplicitQuantizer:
    """Build an implicit stage whose network has something to say."""
    stage = lexel.ImplicitQuantizer(16, 6, depth=1, width=8)
    for parameter in stage.parameters():
        nn.init.normal_(parameter, std=0.4)
    return stage


TASK = {"task": {"inputs"}}
BITS = {**TASK, "entropy": {"inputs"}, "diversity": {"inputs"}, "commitment": {"inputs"}}


def vector(prefix: str = "", weight: str = "codebook.weight") -> dict[str, set[str]]:
    """Flow of a vector quantizer's terms, those of part `prefix` of a composite."""
    module = "".join(f"quantizers.{part}." for part in prefix.split(".") if part)
    return {f"{prefix}codebook": {module + weight}, f"{prefix}commitment": {"inputs"}}


OWN = {"commitment": {"inputs"}}
MAPS = tuple(f"{way}.{name}" for way in ("down", "up") for name in ("weight", "bias"))
CLASSIFIER = ("logits.weight", "logits.bias", "codes")
IMPLICIT = ("codebook.weight", "mix.weight", "mix.bias", "blocks.0.0.weight", "blocks.0.2.weight")
MOVED = {"task": {"inputs", "codebook.weight"}}

ZOO: dict[str, Example] = {
    "vector": Example(spread, {**TASK, **vector()}),
    "vector, EMA": Example(lambda: spread(learning=lexel.EMA()), {**TASK, **OWN}),
    "vector, EMA that warms up": Example(lambda: spread(learning=lexel.EMA(warmup=10)), {**TASK, **OWN}),
    "vector, by angle": Example(lambda: spread(estimator=lexel.StraightThrough(metric="cosine")), {**TASK, **vector()}),
    "vector, rotation": Example(lambda: spread(estimator=lexel.RotationTrick()), {**TASK, **vector()}),
    "vector, prices": Example(lambda: spread(estimator=lexel.Prices()), {**TASK, **vector()}),
    "vector, DiVeQ": Example(lambda: spread(estimator=lexel.DiVeQ()), {**MOVED, **OWN}),
    "vector, space-filling": Example(lambda: spread(estimator=lexel.SpaceFillingDiVeQ()), {**MOVED, **OWN}, noisy=True),
    "vector, NSVQ": Example(lambda: spread(estimator=lexel.NSVQ()), {**MOVED, **OWN}),
    "vector, Gumbel": Example(lambda: spread(estimator=lexel.GumbelSoftmax()), {**MOVED, **OWN}, noisy=True),
    "vector, IBQ": Example(
        lambda: spread(estimator=lexel.IndexBackpropagation()),
        {**MOVED, **vector(), "double": {"inputs", "codebook.weight"}},
    ),
    "vector, synchronised": Example(lambda: spread(estimator=lexel.Synchronised()), {**MOVED, **vector()}),
    "vector, cosine": Example(lambda: spread(codebook=lexel.CosineCodebook()), {**TASK, **vector()}),
    "vector, factorised": Example(
        lambda: lexel.VectorQuantizer(32, 6, codebook=lexel.FactorisedCodebook(3)),
        {
            "task": {"inputs", *(f"codebook.{name}" for name in MAPS)},
            "commitment": {"inputs", "codebook.down.weight", "codebook.down.bias"},
            "codebook": {"codebook.codes.weight"},
        },
    ),
    "vector, normalised": Example(
        lambda: lexel.NormalisedQuantizer(spread(learning=lexel.EMA(), upkeep=lexel.KMeansStart()), scale_back=False),
        {**TASK, **OWN},
    ),
    "vector, some dropped": Example(
        lambda: lexel.QuantizationDropout(spread(learning=lexel.EMA()), 0.5), {**TASK, **OWN}, noisy=True
    ),
    "vector, SimVQ": Example(
        lambda: lexel.VectorQuantizer(32, 6, codebook=lexel.SimVQ()), {**TASK, **vector(weight="codebook.map.weight")}
    ),
    "vector, affine": Example(
        lambda: spread(codebook=lexel.AffineCodebook()),
        {**TASK, **OWN, "codebook": {f"codebook.{name}" for name in ("weight", "shift", "scale")}},
    ),
    "vector, k-means and revival": Example(
        lambda: spread(learning=lexel.EMA(), upkeep=(lexel.KMeansStart(), lexel.Revival())), {**TASK, **OWN}
    ),
    "vector, revival by error": Example(
        lambda: spread(learning=lexel.EMA(), upkeep=lexel.Revival(0.5, 0.5, by="error")), {**TASK, **OWN}
    ),
    "vector, online clustering": Example(lambda: spread(upkeep=lexel.OnlineClustering()), {**TASK, **vector()}),
    "categorical": Example(lambda: lexel.CategoricalQuantizer(32, 6), {"task": {"inputs", *CLASSIFIER}}, noisy=True),
    "finite scalar, symmetric": Example(lambda: lexel.FiniteScalarQuantizer([8, 5, 4, 2], bound="symmetric"), TASK),
    "finite scalar, sigmoid": Example(lambda: lexel.FiniteScalarQuantizer([8, 5, 4, 2], bound="sigmoid"), TASK),
    "finite scalar, normal, with noise": Example(
        lambda: lexel.FiniteScalarQuantizer([8, 5, 4, 2], bound="normal", noise=0.5), TASK
    ),
    "residual finite scalar": Example(lambda: lexel.ResidualFiniteScalarQuantizer([8, 5, 4, 2], 3), TASK),
    "finite scalar": Example(lambda: lexel.FiniteScalarQuantizer([8, 5, 4, 2]), TASK),
    "finite scalar, 2^62": Example(lambda: lexel.FiniteScalarQuantizer([4] * 31), TASK),
    "latent": Example(
        lambda: lexel.LatentQuantizer([5, 4, 3]), {**TASK, "codebook": {"values"}, "commitment": {"inputs"}}
    ),
    "lookup-free, 2^62": Example(lambda: lexel.LookupFreeQuantizer(62, temperature=1.0), BITS),
    "binary spherical": Example(lambda: lexel.BinarySphericalQuantizer(10), BITS),
    "random projection": Example(lambda: lexel.RandomProjectionQuantizer(64, 12, 4), TASK),
    "residual": Example(
        lambda: lexel.ResidualQuantizer([spread(), spread(16)]), {**TASK, **vector("0."), **vector("1.")}
    ),
    "residual, EMA and dropout": Example(
        lambda: lexel.ResidualQuantizer([spread(learning=lexel.EMA()) for _ in range(3)], dropout=1.0),
        {**TASK, **{f"{stage}.commitment": {"inputs"} for stage in range(3)}},
    ),
    "residual, DiVeQ": Example(
        lambda: lexel.ResidualQuantizer([spread(estimator=lexel.DiVeQ()) for _ in range(2)]),
        {
            "task": {"inputs", "quantizers.0.codebook.weight", "quantizers.1.codebook.weight"},
            "0.commitment": {"inputs"},
            "1.commitment": {"inputs", "quantizers.0.codebook.weight"},
        },
        noisy=True,
    ),
    "residual, rotation": Example(
        lambda: lexel.ResidualQuantizer([spread(estimator=lexel.RotationTrick()) for _ in range(2)]),
        {**TASK, **vector("0."), **vector("1.")},
    ),
    "residual, shared": Example(
        lambda: lexel.ResidualQuantizer([spread()], depth=3),
        {
            **TASK,
            **{f"{stage}.codebook": {"quantizers.0.codebook.weight"} for stage in range(3)},
            **{f"{stage}.commitment": {"inputs"} for stage in range(3)},
        },
    ),
    "implicit": Example(implicit, {**TASK, "codebook": set(IMPLICIT), **OWN}),
    "residual, implicit": Example(
        lambda: lexel.ResidualQuantizer([spread(), implicit(), implicit()]),
        {
            **TASK,
            **vector("0."),
            **{f"{stage}.codebook": {f"quantizers.{stage}.{name}" for name in IMPLICIT} for stage in (1, 2)},
            **{f"{stage}.commitment": {"inputs"} for stage in (1, 2)},
        },
    ),
    "residual of finite scalar": Example(
        lambda: lexel.ResidualQuantizer([lexel.FiniteScalarQuantizer([5, 5, 4]) for _ in range(2)]), TASK
    ),
    "product": Example(
        lambda: lexel.ProductQuantizer([spread(32, 4), lexel.FiniteScalarQuantizer([5, 4])]), {**TASK, **vector("0.")}
    ),
    "product, heads": Example(lambda: lexel.ProductQuantizer([spread(32, 4)], heads=3), {**TASK, **vector("0.")}),
    "product of residuals": Example(
        lambda: lexel.ProductQuantizer([lexel.ResidualQuantizer([spread(32, 4)], depth=2) for _ in range(2)]),
        {
            **TASK,
            **{
                f"{group}.{stage}.codebook": {f"quantizers.{group}.quantizers.0.codebook.weight"}
                for group in range(2)
                for stage in range(2)
            },
            **{f"{group}.{stage}.commitment": {"inputs"} for group in range(2) for stage in range(2)},
        },
    ),
    "projected": Example(
        lambda: lexel.ProjectedQuantizer(lexel.ResidualQuantizer([spread(32, 3) for _ in range(2)]), 6),
        {
            "task": {"inputs", *MAPS},
            **{f"{stage}.codebook": {f"quantizer.quantizers.{stage}.codebook.weight"} for stage in range(2)},
            **{f"{stage}.commitment": {"inputs", "down.weight", "down.bias"} for stage in range(2)},
        },
    ),
    "residual of projected": Example(
        lambda: lexel.ResidualQuantizer(
            [lexel.ProjectedQuantizer(lexel.FiniteScalarQuantizer([5, 5, 4]), 6) for _ in range(2)]
        ),
        {"task": {"inputs", *(f"quantizers.{stage}.{name}" for stage in range(2) for name in MAPS)}},
    ),
    "parallel, summed": Example(
        lambda: lexel.ParallelQuantizer(
            [
                lexel.ProjectedQuantizer(spread(32, 3), 6, bias=False),
                lexel.ProjectedQuantizer(lexel.ResidualQuantizer([spread(32, 3) for _ in range(2)]), 6, bias=False),
            ]
        ),
        {
            "task": {"inputs", *(f"quantizers.{part}.{way}.weight" for part in range(2) for way in ("down", "up"))},
            "0.codebook": {"quantizers.0.quantizer.codebook.weight"},
            "0.commitment": {"inputs", "quantizers.0.down.weight"},
            **{f"1.{i}.codebook": {f"quantizers.1.quantizer.quantizers.{i}.codebook.weight"} for i in range(2)},
            **{f"1.{i}.commitment": {"inputs", "quantizers.1.down.weight"} for i in range(2)},
        },
    ),
    "parallel, side by side": Example(
        lambda: lexel.ParallelQuantizer(
            [lexel.CategoricalQuantizer(16, 6, code_dim=3) for _ in range(2)], combine="concatenate"
        ),
        {"task": {"inputs", *(f"quantizers.{part}.{name}" for part in range(2) for name in CLASSIFIER)}},
        noisy=True,
    ),
    "strided residual": Example(
        lambda: lexel.StridedResidualQuantizer([spread(), spread(16)], [2, 1]),
        {**TASK, **vector("0."), **vector("1.")},
        maps_only=True,
    ),
    "strided residual, chained": Example(
        lambda: lexel.StridedResidualQuantizer([lexel.ProjectedQuantizer(spread(32, 3), 6) for _ in range(2)], [4, 1]),
        {
            "task": {"inputs", *(f"quantizers.{stage}.{name}" for stage in range(2) for name in MAPS)},
            "0.codebook": {"quantizers.0.quantizer.codebook.weight"},
            "0.commitment": {"inputs", "quantizers.0.down.weight", "quantizers.0.down.bias"},
            "1.codebook": {"quantizers.1.quantizer.codebook.weight"},
            "1.commitment": {
                "inputs",
                *(f"quantizers.0.{name}" for name in MAPS),
                "quantizers.1.down.weight",
                "quantizers.1.down.bias",
            },
        },
        maps_only=True,
    ),
    "multi-scale": Example(
        lambda: lexel.MultiScaleResidualQuantizer(spread(), [1, 3, 4], convolutions=2),
        {
            **TASK,
            "codebook": {
                "quantizer.codebook.weight",
                *(f"phi.{number}.{name}" for number in range(2) for name in ("weight", "bias")),
            },
            "commitment": {"inputs"},
        },
        maps_only=True,
    ),
    "multi-scale, binary spherical": Example(
        lambda: lexel.MultiScaleResidualQuantizer(
            lexel.BinarySphericalQuantizer(12), [1, 4], convolutions=0, quantizer_weight=1.0
        ),
        {**TASK, "codebook": set(), "commitment": {"inputs"}, "quantizer": {"inputs"}},
        maps_only=True,
    ),
    "extension, codebook": Example(
        lambda: spread(codebook=my_parts.ScaledCodebook()),
        {**TASK, **OWN, "codebook": {"codebook.weight", "codebook.log_scale"}},
        foreign=True,
    ),
    "extension, learning": Example(lambda: spread(learning=my_parts.Approach()), {**TASK, **OWN}, foreign=True),
    "extension, estimator": Example(
        lambda: spread(estimator=my_parts.Attenuated()), {**TASK, **vector()}, foreign=True
    ),
    "extension, upkeep": Example(
        lambda: spread(learning=lexel.EMA(), upkeep=(lexel.KMeansStart(), my_parts.Recycling())),
        {**TASK, **OWN},
        foreign=True,
    ),
    "extension, regulariser": Example(
        lambda: spread(regularisers=my_parts.Smallness()),
        {**TASK, **vector(), "smallness": {"codebook.weight"}},
        foreign=True,
    ),
    "extension, quantizer": Example(lambda: my_parts.TernaryQuantizer(5), {**TASK, **OWN}, foreign=True),
    "template": Example(lambda: Template(8), TASK, foreign=True),
}
