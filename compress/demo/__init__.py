"""Demo: a small Video-LLM of the LLaVA-OneVision architecture with trained weights, for trials without a network.

It was trained on rendered clips of moving sprites and answers the questions of the accuracy benchmark with one word
each; it knows nothing else.
"""

from compress.demo.model import WEIGHTS, build, load
from compress.demo.tokenizer import WordTokenizer

__all__ = ["WEIGHTS", "WordTokenizer", "build", "load"]
