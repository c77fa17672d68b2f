"""Priors: what learns which codes follow each other, and draws new ones. Needs the extra `lexel[priors]`."""

from lexel.priors.base import FREE, Prior, Sampling, kinds
from lexel.priors.causal import CausalPrior

__all__ = ["FREE", "CausalPrior", "Prior", "Sampling", "kinds"]
