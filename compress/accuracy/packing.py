"""Questions packed after shortened videos.

Questions share their first words ("what colour is the"), so that they are laid out as a tree of words: every node sees
the video and the words on its way from the root, at the position that it would have in its own question. Several
shortened versions of one video are read and asked in one pass, padded to the longest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TOGETHER: Final = 6
"""Prefixes of one pass, at most; more of them are no faster on a CPU."""
PADDED: Final = 1.1
"""Longest prefix of a pass over its shortest, at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prefix:
    """A video as it enters the first decoder layer, with what stands before it.

    Attributes:
        embeddings: (K, d).
        positions: int64 (K,).
        start: position of the first word of a question after it.
        seen: bool (K,), tokens that others see; None for all.
    """

    embeddings: Tensor
    positions: Tensor
    start: int
    seen: Tensor | None = None


@contextmanager
def first_layer_inputs(layers: nn.ModuleList) -> Iterator[dict[str, Tensor]]:
    """Let the decoder layers pass their inputs on unchanged; what reaches the first one is in the dictionary.

    Args:
        layers: of the decoder.

    Yields:
        ``embeddings`` (1, K, d) and ``positions`` (1, K), once the model has run.
    """
    found: dict[str, Tensor] = {}

    def take(hidden: Tensor, **options: Any) -> Tensor:
        found.setdefault("embeddings", hidden)
        found.setdefault("positions", options["position_ids"])
        return hidden

    with ExitStack() as stack:
        for layer in layers:
            layer.forward = take
            stack.callback(delattr, layer, "forward")
        yield found


@dataclass(frozen=True, kw_only=True, eq=False)
class Packed:
    """A tree of words that questions consist of.

    Attributes:
        ids: int64 (S,).
        depth: int64 (S,), words before it in its question.
        mask: bool (S, S): a word sees itself and those before it in its question.
        last: int64 (questions,), places whose logits are the answers.
    """

    ids: Tensor
    depth: Tensor
    mask: Tensor
    last: Tensor


def pack(texts: Sequence[Sequence[int]], *, device: torch.device) -> Packed:
    """Lay out questions as a tree; equal beginnings are one branch."""
    nodes: dict[tuple[int, ...], int] = {}
    parents: list[int] = []
    for text in texts:
        for end in range(1, len(text) + 1):
            way = tuple(text[:end])
            if way not in nodes:
                parents.append(nodes[way[:-1]] if end > 1 else -1)
                nodes[way] = len(nodes)
    mask = torch.eye(len(nodes), dtype=torch.bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            mask[node] |= mask[parent]
    return Packed(
        ids=torch.tensor([way[-1] for way in nodes], device=device),
        depth=torch.tensor([len(way) - 1 for way in nodes], device=device),
        mask=mask.to(device),
        last=torch.tensor([nodes[tuple(text)] for text in texts], device=device),
    )


def group_by_length(prefixes: Sequence[Prefix]) -> Iterator[list[int]]:
    """Group the numbers of prefixes that are read together: a few of nearly equal length, so that little is padding."""
    lengths = [len(prefix.positions) for prefix in prefixes]
    group: list[int] = []
    for number in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group and (len(group) == TOGETHER or lengths[number] > PADDED * lengths[group[0]]):
            yield group
            group = []
        group.append(number)
    if group:
        yield group


def join(prefixes: Sequence[Prefix], packed: Packed, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Join the inputs of one pass of the decoder over several prefixes, each followed by the same questions.

    Args:
        prefixes: B of them; the longest has K tokens.
        packed: the questions, S words.
        words: (S, d), their embeddings.

    Returns:
        Embeddings (B, K + S, d); positions, int64 (B, K + S); and what sees what, bool (B, 1, K + S, K + S). Padding
        follows the shorter prefixes, and no other token sees it.
    """
    longest = max(len(prefix.positions) for prefix in prefixes)
    device = words.device
    total = longest + len(words)
    causal = torch.ones(longest, longest, dtype=torch.bool, device=device).tril()
    mask = torch.zeros(len(prefixes), total, total, dtype=torch.bool, device=device)
    mask[:, longest:, longest:] = packed.mask
    embeddings, positions = [], []
    for row, prefix in enumerate(prefixes):
        spare = longest - len(prefix.positions)
        seen = torch.ones_like(prefix.positions, dtype=torch.bool) if prefix.seen is None else prefix.seen
        mask[row, :, :longest] = F.pad(seen, (0, spare))
        mask[row, :longest, :longest] &= causal
        embeddings.append(torch.cat((F.pad(prefix.embeddings, (0, 0, 0, spare)), words)))
        positions.append(torch.cat((F.pad(prefix.positions, (0, spare)), prefix.start + packed.depth)))
    mask |= torch.eye(total, dtype=torch.bool, device=device)
    return torch.stack(embeddings), torch.stack(positions), mask[:, None]
