"""Prompts of one video in a batch, whose video is computed once in the layers where it does not depend on the question.

A method that merges inside the language model treats each question's prompt separately from its merge layer on; in the
layers before that the visual tokens of all rows are equal. There, the batch is laid out as one sequence, the video
once, followed by the questions, each of which sees the video and itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from compress.models.adapters import attention


class Layout:
    """Layout of the tokens of a batch, padded on the left, in one sequence.

    Args:
        lengths: tokens after the video, per row.
        width: columns of the batch.
        device: of the tensors.

    Attributes:
        mask: bool (1, 1, K, K) over the sequence of K tokens.
    """

    def __init__(self, lengths: Sequence[int], width: int, device: torch.device) -> None:
        text = torch.tensor(lengths, device=device)
        longest = int(text.max())
        video = width - longest
        row = torch.arange(len(lengths), device=device)[:, None]
        column = torch.arange(width, device=device)
        behind = column - (width - text[:, None])
        start = video + text.cumsum(0) - text
        place = torch.where(behind >= 0, start[:, None] + behind, (behind + video).clamp_min(0))
        self._place = place
        # Of equal tokens any will do; in the longest row padding hides none.
        self._source = torch.empty(video + int(text.sum()), dtype=torch.int64, device=device)
        self._source[place[behind >= 0]] = (row * width + column)[behind >= 0]
        self._source[:video] = int(text.argmax()) * width + column[:video]
        owner = torch.full((len(self._source),), -1, device=device)
        owner[place[behind >= 0]] = row.expand_as(place)[behind >= 0]
        order = torch.arange(len(owner), device=device)
        sees = (owner[:, None] == owner) | (owner == -1)
        self.mask = (sees & (order[:, None] >= order))[None, None]

    def gather(self, batch: Tensor) -> Tensor:
        """Gather (rows or 1, columns, ...) -> (1, K, ...)."""
        rows, width = self._place.shape
        whole = batch.expand(rows, *batch.shape[1:]) if len(batch) == 1 < rows else batch
        return whole.reshape(rows * width, *batch.shape[2:]).index_select(0, self._source)[None]

    def scatter(self, sequence: Tensor, *, dim: int = 1) -> Tensor:
        """Spread (1, K, ...) -> (rows, columns, ...), or with the K tokens along ``dim``; padding takes any values."""
        taken = sequence[0].movedim(dim - 1, 0)[self._place]
        return taken.movedim(1, dim)


@contextmanager
def shared_video(layers: nn.ModuleList, merge_layer: int, lengths: Sequence[int]) -> Iterator[None]:
    """Let the decoder layers before a merge compute the video that all rows of a batch have in common once.

    Args:
        layers: of the decoder, within the session of a compressor.
        merge_layer: the layer before which the rows cease to be alike.
        lengths: tokens after the video, per row.
    """
    with ExitStack() as stack:
        for layer in layers[:merge_layer]:
            layer.forward = partial(_forward, type(layer).forward, layer, lengths)
            stack.callback(delattr, layer, "forward")
        yield


def _forward(
    original: Callable[..., Tensor], layer: Any, lengths: Sequence[int], hidden: Tensor, **options: Any
) -> Tensor:
    layout = Layout(lengths, hidden.shape[1], hidden.device)
    cos, sin = options["position_embeddings"]
    options |= {
        "attention_mask": layout.mask,
        "position_embeddings": (layout.gather(cos), layout.gather(sin)),
        "position_ids": None,
    }
    with _unfolded_tap(layer.self_attn, layout):
        return layout.scatter(original(layer, layout.gather(hidden), **options))


@contextmanager
def _unfolded_tap(module: nn.Module, layout: Layout) -> Iterator[None]:
    """Show a tap that looks at queries and keys row by row those of the batch."""
    tap = getattr(module, attention._TAP, None)
    if tap is None:
        yield
        return

    def unfolded(kernel: Any, module: nn.Module, query: Tensor, key: Tensor, *rest: Any, **options: Any) -> Any:
        def folded(*_: Any, **__: Any) -> Any:
            return kernel(module, query, key, *rest, **options)

        return tap(folded, module, layout.scatter(query, dim=2), layout.scatter(key, dim=2), *rest, **options)

    setattr(module, attention._TAP, unfolded)
    try:
        yield
    finally:
        setattr(module, attention._TAP, tap)
