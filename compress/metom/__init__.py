"""MeToM: merge what the codec says is redundant, before the encoder, before and inside the language model."""

from compress.metom.btm import BTM
from compress.metom.rpm import RPM

__all__ = ["BTM", "RPM"]
