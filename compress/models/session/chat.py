"""Several questions about one video over one shortened cache."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from compress.errors import ConfigError
from compress.models.adapters.wrappers import input_device
from compress.models.inputs.prompt import Tokenizer, encode_text, prepare
from compress.models.session.kv_cache import CACHE, cache_of

if TYPE_CHECKING:
    from codecmeta import VideoMeta
    from compress.models.session.session import Session


class Chat:
    """A conversation inside a session; made by `Session.chat`.

    The video is encoded and shortened once, with the first question. Each further turn feeds only its own ids, with a
    mask as long as the cache and them: passing the whole conversation again over a shortened cache would feed its end
    twice.

    Attributes:
        cache: of the decoder, None before the first question.
    """

    def __init__(
        self,
        session: Session,
        video: VideoMeta | NDArray[np.uint8] | str | os.PathLike[str],
        tokenizer: Tokenizer,
        options: dict[str, Any],
    ) -> None:
        self.cache: Any = None
        self._session = session
        self._video = video
        self._tokenizer = tokenizer
        self._options = options
        self._pending: list[int] = []

    def ask(self, question: str) -> str:
        """Answer a question.

        Raises:
            ConfigError: the session is over.
        """
        session = self._session
        if not session.active:
            raise ConfigError("the `with` block of this chat was left, and with it the shortened cache's positions")
        model: Any = session.model
        if self.cache is None:
            inputs = prepare(model, self._video, question, tokenizer=self._tokenizer)
        else:
            turn = encode_text(session.adapter, self._tokenizer, session.adapter.write_turn(question))
            device = input_device(model)
            ids = torch.tensor([self._pending + turn], device=device)
            length = self.cache.get_seq_length() + ids.shape[1]
            inputs = {"input_ids": ids, "attention_mask": ids.new_ones(1, length), CACHE: self.cache}
        output = model.generate(**inputs, **self._options, return_dict_in_generate=True)
        self.cache = cache_of(output)
        answer = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        # The last id is not in the cache yet: one that ends an answer comes with the next turn's text anyway.
        ends = model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        self._pending = [] if answer[-1] in ends else answer[-1:]
        return self._tokenizer.decode(answer, skip_special_tokens=True)
