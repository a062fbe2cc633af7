"""InfoMerge: merging of visual tokens before the language model by their information (arXiv 2606.02161)."""

from compress.infomerge.infomerge import InfoMerge

__all__ = ["InfoMerge"]
