"""Quantizers: one file for each family."""

from lexel.quantizers.base import Quantized, Quantizer
from lexel.quantizers.finite_scalar import FiniteScalarQuantizer, LatentQuantizer
from lexel.quantizers.implicit import ImplicitQuantizer
from lexel.quantizers.lookup_free import BinarySphericalQuantizer, LookupFreeQuantizer
from lexel.quantizers.multi_scale import MultiScaleResidualQuantizer
from lexel.quantizers.product import ProductQuantizer
from lexel.quantizers.projected import ProjectedQuantizer
from lexel.quantizers.random_projection import RandomProjectionQuantizer
from lexel.quantizers.residual import ResidualQuantizer
from lexel.quantizers.vector import VectorQuantizer

__all__ = [
    "BinarySphericalQuantizer",
    "FiniteScalarQuantizer",
    "ImplicitQuantizer",
    "LatentQuantizer",
    "LookupFreeQuantizer",
    "MultiScaleResidualQuantizer",
    "ProductQuantizer",
    "ProjectedQuantizer",
    "Quantized",
    "Quantizer",
    "RandomProjectionQuantizer",
    "ResidualQuantizer",
    "VectorQuantizer",
]
