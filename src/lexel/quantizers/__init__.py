"""Quantizers: one file for each family."""

from lexel.quantizers.base import Quantized, Quantizer
from lexel.quantizers.vector import VectorQuantizer

__all__ = ["Quantized", "Quantizer", "VectorQuantizer"]
