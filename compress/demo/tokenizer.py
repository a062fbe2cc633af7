"""Words as tokens, for a model whose whole language is some ninety words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from compress.errors import ConfigError

TEMPLATE: Final = {
    "<|im_start|>user": " <bos> ",
    "<|im_end|>": " ",
    "<|im_start|>assistant": " answer ",
}
"""Words that replace the marks of LLaVA-OneVision's chat template."""


class WordTokenizer:
    """Tokenizer that splits at blanks and before punctuation; a word's id is its place in the vocabulary.

    Args:
        words: the vocabulary, beginning with <pad>, <bos>, <video> and <eos>.

    Attributes:
        words: the same.
        eos_token_id: id of <eos>.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._ids = {word: number for number, word in enumerate(self.words)}
        self.eos_token_id = self._ids["<eos>"]

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Encode a text to ids; the chat template's marks become <bos> and the word "answer".

        Raises:
            ConfigError: a word is not in the vocabulary.
        """
        for mark, word in TEMPLATE.items():
            text = text.replace(mark, word)
        words = re.sub(r"([?:])", r" \1 ", text).split()
        ids = [self._ids.get(word, self._ids.get(word.lower(), -1)) for word in words]
        if -1 in ids:
            unknown = ", ".join(repr(word) for word, number in zip(words, ids, strict=True) if number == -1)
            raise ConfigError(
                f"the demo model does not know {unknown}; it answers questions such as 'which digit was shown ?', "
                f"and its words are {' '.join(self.words[4:])}"
            )
        return ids

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """Return the words of ids, with blanks between them."""
        words = [self.words[one] for one in map(int, ids) if one < len(self.words)]
        return " ".join(word for word in words if not (skip_special_tokens and word.startswith("<")))
