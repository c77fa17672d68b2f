"""Autoencoders that contain quantizers. Needs the extra `lexel[models]`."""

from lexel.models.base import Autoencoder, Level
from lexel.models.images import ImageAutoencoder, require_images
from lexel.models.vectors import VectorAutoencoder
from lexel.models.vqvae import VQVAE
from lexel.models.vqvae2 import VQVAE2

__all__ = ["VQVAE", "VQVAE2", "Autoencoder", "ImageAutoencoder", "Level", "VectorAutoencoder", "require_images"]
