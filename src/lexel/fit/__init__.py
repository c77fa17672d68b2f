"""Fits: quantizers of vectors, found to convergence."""

from lexel.fit.base import Fit as Fit, Rows as Rows, State as State
from lexel.fit.flat import FlatFit as FlatFit
from lexel.fit.product import ProductFit as ProductFit
from lexel.fit.residual import ResidualFit as ResidualFit
