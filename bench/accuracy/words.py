"""Word vectors for a decoder with random weights: a word points to where the tower's tokens of what it names lie."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from bench.accuracy.train_tower import FrameBank, encode_frames, normalised
from compress.accuracy.drawing import KINDS
from compress.accuracy.questions import WORDS
from compress.accuracy.scene import COLOURS, DIGITS, TEXTURES

NAMED: Final = {"kind": KINDS, "texture": TEXTURES, "colour": COLOURS, "digit": DIGITS}
"""Targets of a `FrameBank`, and the words of their classes."""


@torch.no_grad()
def point_words(model: Any, frames: FrameBank) -> None:
    """Replace the word vectors of everything that cells show, in place; their length and all others stay.

    Args:
        model: the whole model, with a trained tower.
        frames: with their targets, which cells show what.
    """
    tokens = torch.cat([encode_frames(model, part) for part in frames.frames.split(250)])
    centred = normalised(tokens) - normalised(tokens).mean((0, 1))
    table: Tensor = model.model.language_model.embed_tokens.weight
    length = table.norm(dim=-1).mean()
    for target, names in NAMED.items():
        for number, name in enumerate(names):
            shown = frames.target[target] == number
            if shown.any():
                direction = centred[shown].mean(0)
                table[WORDS.index(name)] = length * direction / direction.norm()
