"""Autoencoders that contain a quantizer. Needs the extra `lexel[models]`."""

from lexel.models.vqvae import VQVAE

__all__ = ["VQVAE"]
