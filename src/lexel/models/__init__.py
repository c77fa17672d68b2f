"""Autoencoders that contain a quantizer. Needs the extra `lexel[models]`."""

from lexel.models.vqvae import MODEL, VQVAE, load_model

__all__ = ["MODEL", "VQVAE", "load_model"]
