"""Visual tokens of one video, as a language model would receive them, without a question and without running it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.errors import ConfigError
from compress.models.adapters.adapter import VideoTokens
from compress.models.inputs.prompt import Tokenizer, prepare
from compress.models.session.shortening import Prompt, Shortened
from compress.models.session.videos import VideoResult

if TYPE_CHECKING:
    from codecmeta import VideoMeta
    from compress.models.session.session import Session


@dataclass(frozen=True, kw_only=True, eq=False)
class VisualTokens:
    """The shortened tokens of one video.

    Attributes:
        tokens: (V', D), as the language model would be given them, without newlines, which belong to the prompt.
        run: (n, D), what stands in the prompt from the first token of the video to its last, newlines included.
        positions: int64 (V',), or (3, V') of a model whose positions have three axes: position ids, less those of the
            video's first token.
        place: where the tokens lay before they were shortened.
        result: how the video was compressed.
    """

    tokens: Tensor
    run: Tensor
    positions: Tensor
    place: VideoTokens
    result: VideoResult


class PromptRead(Exception):
    """The end of a forward pass in front of the language model.

    Attributes:
        prompt: as it came.
        short: what would have been given to the language model.
    """

    def __init__(self, prompt: Prompt, short: Shortened) -> None:
        super().__init__()
        self.prompt = prompt
        self.short = short


@torch.inference_mode()
def encode_video(
    session: Session, video: VideoMeta | NDArray[np.uint8] | str | os.PathLike[str], tokenizer: Tokenizer
) -> VisualTokens:
    """See `Session.encode`."""
    if not session.active:
        raise ConfigError("the session is not active; encode videos inside its `with` block")
    model: Any = session.model
    inputs = prepare(model, video, "", tokenizer=tokenizer)
    with session.ending_at_the_language_model():
        try:
            model(**inputs, use_cache=False)
        except PromptRead as read:
            prompt, short = read.prompt, read.short
        else:
            raise RuntimeError("the forward pass did not reach the language model")
    (place,), (result,), (visual,) = prompt.videos, session.results, short.visual
    positions = short.positions.index_select(-1, visual)
    # transformers may put a row of text positions before the three axes
    positions = positions[-3:, 0] if positions.dim() == 3 else positions[0]
    first = _first_position(prompt, place)
    embeddings, kept = short.kwargs["inputs_embeds"][0], short.kept[0]
    return VisualTokens(
        tokens=embeddings.index_select(0, visual),
        run=embeddings[(kept >= place.begin) & (kept < place.stop)],
        positions=positions.long() - first,
        place=place,
        result=result,
    )


def _first_position(prompt: Prompt, place: VideoTokens) -> int:
    """Return the position id of the video's first token; its axes begin together."""
    first = int(place.index[0])
    return first if prompt.positions is None else int(prompt.positions[..., place.row, first].flatten()[-1])
