"""Autoencoders that contain quantizers. Needs the extra `lexel[models]`."""

from lexel.models.base import Autoencoder, Level
from lexel.models.vqvae import VQVAE
from lexel.models.vqvae2 import VQVAE2

__all__ = ["VQVAE", "VQVAE2", "Autoencoder", "Level"]
