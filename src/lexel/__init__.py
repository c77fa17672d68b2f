"""Lexel: vector quantization in PyTorch. Continuous features become discrete codes, and codes become features again.

import torch, lexel

vq = lexel.VectorQuantizer(512, 64)
loss, quantized, perplexity, encodings = vq(torch.randn(2, 64, 8, 8))
"""

from importlib.metadata import version as _version

from lexel.codebook import (
    AffineCodebook,
    Codebook,
    CosineCodebook,
    FactorizedCodebook,
    FreeCodebook,
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
    Synchronized,
)
from lexel.learning import EMA, Gradient, Learning
from lexel.nearest import nearest_code
from lexel.parts import from_config, to_config
from lexel.quantizers import Quantized, Quantizer, VectorQuantizer
from lexel.upkeep import KMeansStart, OnlineClustering, Revival, Upkeep

__version__ = _version("lexel")

__all__ = [
    "EMA",
    "NSVQ",
    "AffineCodebook",
    "Codebook",
    "CosineCodebook",
    "DiVeQ",
    "Estimator",
    "FactorizedCodebook",
    "FreeCodebook",
    "Gradient",
    "GumbelSoftmax",
    "IndexBackpropagation",
    "KMeansStart",
    "Learning",
    "OnlineClustering",
    "Quantized",
    "Quantizer",
    "Revival",
    "RotationTrick",
    "SimVQ",
    "SpaceFillingDiVeQ",
    "StraightThrough",
    "Synchronized",
    "Upkeep",
    "VQBridge",
    "VectorQuantizer",
    "from_config",
    "nearest_code",
    "to_config",
]
