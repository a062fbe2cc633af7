"""MeToM: merging of what the codec shows to be redundant, before the encoder, before and inside the language model."""

from compress.metom.btm import BTM
from compress.metom.matm import MATM
from compress.metom.metom import MeToM
from compress.metom.rpm import RPM

__all__ = ["BTM", "MATM", "RPM", "MeToM"]
