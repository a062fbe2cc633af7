"""Interviews: questions to a model about a video, over all of its tokens and over what a method leaves of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from compress.density import MapChoice
from compress.models.inputs.prompt import Tokenizer, prepare

if TYPE_CHECKING:
    from codecmeta import VideoMeta
    from compress.accuracy.answering import Examinee
    from compress.accuracy.questions import Question

Logits = NDArray[np.float32]
"""Of the first word of the answers, (questions, words)."""


class Interview(Protocol):
    """Questions about one video."""

    @property
    def plain(self) -> Logits:
        """Logits without a compressor."""
        ...

    def ask(self, compressor: Any) -> Logits:
        """Return logits with a compressor attached."""
        ...

    def ask_about(self, other: VideoMeta) -> Logits:
        """Return logits of the same questions, without a compressor, about another video."""
        ...


class PromptInterview:
    """One prompt to any supported model, one forward pass each time.

    Args:
        model: the model.
        tokenizer: its own.
        text: the prompt.
        meta: the video.
        map: by what density is measured.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, text: str, meta: VideoMeta, map: MapChoice) -> None:
        self._model, self._tokenizer, self._text = model, tokenizer, text
        self._meta, self._map = meta, map
        self._inputs = prepare(model, meta, text, tokenizer=tokenizer)

    @cached_property
    def plain(self) -> Logits:
        """See `Interview`."""
        return self._read(self._inputs)

    def ask(self, compressor: Any) -> Logits:
        """See `Interview`."""
        with compressor.attach(self._model, self._meta, map=self._map):
            return self._read(self._inputs)

    def ask_about(self, other: VideoMeta) -> Logits:
        """See `Interview`."""
        return self._read(prepare(self._model, other, self._text, tokenizer=self._tokenizer))

    @torch.inference_mode()
    def _read(self, inputs: Any) -> Logits:
        logits: Logits = self._model(**inputs, use_cache=False, logits_to_keep=1).logits[:, -1].float().cpu().numpy()
        return logits


class ClipInterview:
    """All questions of a clip of the benchmark to the demo model, over one prefix (`compress.accuracy.answering`).

    Args:
        examinee: the model.
        questions: the clip's own.
        meta: the clip.
        map: by what density is measured.
    """

    def __init__(self, examinee: Examinee, questions: Sequence[Question], meta: VideoMeta, map: MapChoice) -> None:
        self._examinee, self._questions = examinee, questions
        self._meta, self._map = meta, map
        self._sheet = examinee.write_sheet(meta, questions)
        self._memory = examinee.look(meta)

    @cached_property
    def plain(self) -> Logits:
        """See `Interview`."""
        return self._examinee.answer_plain(self._sheet, self._memory)

    def ask(self, compressor: Any) -> Logits:
        """See `Interview`."""
        logits, _ = self._examinee.answer_compressed(self._sheet, self._memory, self._meta, compressor, map=self._map)
        return logits

    def ask_about(self, other: VideoMeta) -> Logits:
        """See `Interview`."""
        sheet = self._examinee.write_sheet(other, self._questions)
        return self._examinee.answer_plain(sheet, self._examinee.look(other))
