"""Attention received, from queries and keys as they enter a kernel that does not return its weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compress.ops.saliency import attention_received
from compress.serving.vllm.attention import AttentionTap


class Kernel(nn.Module):
    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return value


def states(frames: int, count: int, heads: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(frames)
    query, key = torch.randn(2, frames, count, heads, width, generator=generator)
    return query, key


def expected(query: Tensor, key: Tensor) -> Tensor:
    return attention_received(query.transpose(1, 2), key.transpose(1, 2))


def test_packed_videos() -> None:
    """Qwen: all frames of all videos in one sequence, by keyword."""
    kernel, (first, second) = Kernel(), (states(3, 10, 2, 4), states(2, 6, 2, 4))
    tap = AttentionTap(kernel, heads=2)
    query, key = (torch.cat((a.flatten(0, 1), b.flatten(0, 1)))[None] for a, b in zip(first, second, strict=True))
    with tap.listening():
        kernel(query=query, key=key, value=key)
        assert torch.allclose(tap.measure(3, 10), expected(*first))
        assert torch.allclose(tap.measure(2, 6), expected(*second))


def test_frames_as_a_batch() -> None:
    """SigLIP: frames are the batch, heads are not yet apart."""
    kernel, (query, key) = Kernel(), states(4, 9, 2, 8)
    tap = AttentionTap(kernel, heads=2)
    with tap.listening():
        kernel(query.flatten(2), key.flatten(2), key.flatten(2))
        assert torch.allclose(tap.measure(4, 9), expected(query, key))


def test_nothing_is_kept_between_passes() -> None:
    kernel, (query, key) = Kernel(), states(1, 5, 2, 4)
    tap = AttentionTap(kernel, heads=2)
    kernel(query, key, key)
    with tap.listening(), pytest.raises(RuntimeError, match="without its attention"):
        tap.measure(1, 5)
    with tap.listening():
        kernel(query, key, key)
    with pytest.raises(RuntimeError, match="without its attention"):
        tap.measure(1, 5)
