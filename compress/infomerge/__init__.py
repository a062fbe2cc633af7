"""InfoMerge: merge visual tokens before the language model by what they inform (arXiv 2606.02161)."""

from compress.infomerge.infomerge import InfoMerge

__all__ = ["InfoMerge"]
