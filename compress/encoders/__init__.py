"""Encoders that come with the package: no weights, no download."""

from compress.encoders.spectral import SpectralEncoder

__all__ = ["SpectralEncoder"]
