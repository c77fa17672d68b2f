"""Quantizers: one file for each family."""

from lexel.quantizers.base import Quantized, Quantizer
from lexel.quantizers.categorical import CategoricalQuantizer
from lexel.quantizers.finite_scalar import FiniteScalarQuantizer, LatentQuantizer
from lexel.quantizers.implicit import ImplicitQuantizer
from lexel.quantizers.lookup_free import BinarySphericalQuantizer, LookupFreeQuantizer
from lexel.quantizers.multi_scale import MultiScaleResidualQuantizer
from lexel.quantizers.parallel import ParallelQuantizer
from lexel.quantizers.product import ProductQuantizer
from lexel.quantizers.projected import ProjectedQuantizer
from lexel.quantizers.random_projection import RandomProjectionQuantizer
from lexel.quantizers.residual import ResidualQuantizer
from lexel.quantizers.residual_finite_scalar import ResidualFiniteScalarQuantizer
from lexel.quantizers.strided import StridedResidualQuantizer
from lexel.quantizers.vector import VectorQuantizer

__all__ = [
    "BinarySphericalQuantizer",
    "CategoricalQuantizer",
    "FiniteScalarQuantizer",
    "ImplicitQuantizer",
    "LatentQuantizer",
    "LookupFreeQuantizer",
    "MultiScaleResidualQuantizer",
    "ParallelQuantizer",
    "ProductQuantizer",
    "ProjectedQuantizer",
    "Quantized",
    "Quantizer",
    "RandomProjectionQuantizer",
    "ResidualFiniteScalarQuantizer",
    "ResidualQuantizer",
    "StridedResidualQuantizer",
    "VectorQuantizer",
]
