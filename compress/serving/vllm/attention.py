"""Attention that the tokens of a vision encoder receive, from the queries and keys of one of its blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compress.ops.saliency import attention_received
from compress.planning_mode import full_precision


class AttentionTap:
    """Tap on the attention of an encoder block of vLLM, whose kernel does not return its weights.

    Queries and keys are noted as they enter the kernel, after their rotary embedding.
    """

    def __init__(self, attention: nn.Module, *, heads: int) -> None:
        self._heads = heads
        self._open = False
        self._query: Tensor | None = None
        self._key: Tensor | None = None
        self._place = 0
        attention.register_forward_pre_hook(self._note, with_kwargs=True)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note the next pass; forget it when the block ends."""
        self._open, self._place = True, 0
        try:
            yield
        finally:
            self._open, self._query, self._key = False, None, None

    def _note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._open:
            query = kwargs["query"] if "query" in kwargs else args[0]
            key = kwargs["key"] if "key" in kwargs else args[1]
            self._query, self._key = (one.reshape(-1, self._heads, _width(one, self._heads)) for one in (query, key))

    def measure(self, frames: int, count: int) -> Tensor:
        """Measure the attention that each token of the next T frames received, float32 (T, count)."""
        if self._query is None or self._key is None:
            raise RuntimeError("the vision encoder ran without its attention being noted")
        stop = self._place + frames * count
        query, key = (
            one[self._place : stop].view(frames, count, self._heads, -1).transpose(1, 2)
            for one in (self._query, self._key)
        )
        self._place = stop
        with full_precision():
            return attention_received(query, key)

    def measure_lengths(self, lengths: Sequence[int]) -> Tensor:
        """Measure the attention that tokens received in frames of different lengths, float32 (sum,)."""
        return torch.cat([self.measure(1, length)[0] for length in lengths])


def _width(states: Tensor, heads: int) -> int:
    """Return the size of a head of states (..., heads, size) or (..., heads * size)."""
    dimensions_per_head = 4
    return states.shape[-1] if states.dim() == dimensions_per_head else states.shape[-1] // heads
