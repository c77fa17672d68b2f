"""Lexel: vector quantization in PyTorch. Continuous features become discrete codes, and codes become features again.

import torch, lexel

vq = lexel.VectorQuantizer(512, 64)
loss, quantized, perplexity, encodings = vq(torch.randn(2, 64, 8, 8))
"""

from importlib.metadata import version as _version

from lexel import presets
from lexel._core.config import from_config, to_config
from lexel.audit import audit
from lexel.codebook import (
    AffineCodebook,
    Codebook,
    CosineCodebook,
    FactorisedCodebook,
    FreeCodebook,
    NormalisedCodebook,
    SimVQ,
    VQBridge,
)
from lexel.estimators import (
    NSVQ,
    DiVeQ,
    Estimator,
    GumbelSoftmax,
    IndexBackpropagation,
    RotationTrick,
    SpaceFillingDiVeQ,
    StraightThrough,
    Synchronised,
)
from lexel.learning import EMA, Gradient, Learning
from lexel.nearest import nearest_code
from lexel.quantizers import (
    BinarySphericalQuantizer,
    CategoricalQuantizer,
    FiniteScalarQuantizer,
    ImplicitQuantizer,
    LatentQuantizer,
    LookupFreeQuantizer,
    MultiScaleResidualQuantizer,
    ParallelQuantizer,
    ProductQuantizer,
    ProjectedQuantizer,
    Quantized,
    Quantizer,
    RandomProjectionQuantizer,
    ResidualFiniteScalarQuantizer,
    ResidualQuantizer,
    StridedResidualQuantizer,
    VectorQuantizer,
)
from lexel.regularisers import Entropy, Orthogonality, Regulariser
from lexel.upkeep import KMeansStart, OnlineClustering, Revival, Upkeep

__version__ = _version("lexel")

__all__ = [
    "EMA",
    "NSVQ",
    "AffineCodebook",
    "BinarySphericalQuantizer",
    "CategoricalQuantizer",
    "Codebook",
    "CosineCodebook",
    "DiVeQ",
    "Entropy",
    "Estimator",
    "FactorisedCodebook",
    "FiniteScalarQuantizer",
    "FreeCodebook",
    "Gradient",
    "GumbelSoftmax",
    "ImplicitQuantizer",
    "IndexBackpropagation",
    "KMeansStart",
    "LatentQuantizer",
    "Learning",
    "LookupFreeQuantizer",
    "MultiScaleResidualQuantizer",
    "NormalisedCodebook",
    "OnlineClustering",
    "Orthogonality",
    "ParallelQuantizer",
    "ProductQuantizer",
    "ProjectedQuantizer",
    "Quantized",
    "Quantizer",
    "RandomProjectionQuantizer",
    "Regulariser",
    "ResidualFiniteScalarQuantizer",
    "ResidualQuantizer",
    "Revival",
    "RotationTrick",
    "SimVQ",
    "SpaceFillingDiVeQ",
    "StraightThrough",
    "StridedResidualQuantizer",
    "Synchronised",
    "Upkeep",
    "VQBridge",
    "VectorQuantizer",
    "audit",
    "from_config",
    "nearest_code",
    "presets",
    "to_config",
]
