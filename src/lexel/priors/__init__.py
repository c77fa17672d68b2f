"""Priors: what learns which codes follow each other, and draws new ones. Needs the extra `lexel[priors]`."""

from lexel.priors.base import FREE, Prior, Sampling, kinds
from lexel.priors.causal import CausalPrior
from lexel.priors.masked import MaskedPrior
from lexel.priors.next_scale import NextScalePrior

__all__ = ["FREE", "CausalPrior", "MaskedPrior", "NextScalePrior", "Prior", "Sampling", "kinds"]
