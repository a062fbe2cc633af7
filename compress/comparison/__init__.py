"""Comparison of methods: what each keeps of a video, what it costs, and what the answers lose."""

from compress.comparison.cell import Cell
from compress.comparison.comparison import Asked, Job, VideoComparison, choose_methods, compare

__all__ = ["Asked", "Cell", "Job", "VideoComparison", "choose_methods", "compare"]
