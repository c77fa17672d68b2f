"""Fits: quantizers of vectors, found to convergence."""

from lexel.fit.base import Fit as Fit
from lexel.fit.base import Rows as Rows
from lexel.fit.base import State as State
from lexel.fit.flat import FlatFit as FlatFit
from lexel.fit.product import ProductFit as ProductFit
from lexel.fit.residual import ResidualFit as ResidualFit
