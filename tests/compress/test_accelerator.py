"""The methods on an accelerator: no tensor on the wrong device, few launches, three waits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from compress.infomerge import InfoMerge
from compress.metom import BTM, MATM
from compress.stage import Signals
from tests.oracle.accelerator import DEVICE, Accelerator, OnAccelerator

FRAMES, COUNT, WIDTH = 12, 36, 128


def make_video() -> tuple[torch.Tensor, Signals]:
    """Shots of 3 frames in bfloat16 with every signal."""
    generator = torch.Generator().manual_seed(0)
    shots = torch.randn(FRAMES // 3, COUNT, WIDTH, generator=generator).repeat_interleave(3, 0)
    look = torch.randn(FRAMES // 3, 40, generator=generator).repeat_interleave(3, 0)
    signals = Signals(
        saliency=torch.rand(FRAMES, COUNT, generator=generator),
        frame_features=look + 0.1 * torch.randn(FRAMES, 40, generator=generator),
        density=np.random.default_rng(0).random((FRAMES, COUNT)).astype(np.float32),
        packet_size=np.arange(1, FRAMES + 1),
    )
    return (shots + 0.1 * torch.randn(FRAMES, COUNT, WIDTH, generator=generator)).bfloat16(), signals


@pytest.mark.parametrize(
    ("method", "launches", "waits"),
    [
        (InfoMerge(retention=0.2), 240, 3),
        (InfoMerge(retention=0.2, richness="off"), 160, 3),
        (InfoMerge(retention=0.2, assignment="segment_global", include_self=True), 260, 3),
        (InfoMerge(retention=0.2, tfd="adjacent", dtm_features="original", tie="saliency"), 260, 3),
        (InfoMerge(retention=0.9), 260, 3),
        (BTM(retention=0.3, refill=False), 85, 3),
        (BTM(retention=0.3, window=1, fold="size"), 100, 3),
    ],
)
def test_methods_run_there_as_on_the_cpu(method: Any, launches: int, waits: int) -> None:
    tokens, signals = make_video()
    expected = method.before_llm(tokens, signals)
    with Accelerator() as accelerator:
        assert signals.saliency is not None and signals.frame_features is not None
        there = replace(signals, saliency=signals.saliency.to(DEVICE), frame_features=signals.frame_features.to(DEVICE))
        tokens_there = tokens.to(DEVICE)
        method.before_llm(tokens_there, there)  # what is the same for every video goes over once
        accelerator.reset()
        found = method.before_llm(tokens_there, there)
        shorter = found.apply(tokens_there)
    assert isinstance(shorter, OnAccelerator)
    assert torch.equal(found.plan.keep.held, expected.plan.keep)
    torch.testing.assert_close(shorter.held, expected.apply(tokens), rtol=0, atol=0.02)
    assert accelerator.launches.total() <= launches
    assert accelerator.waits.total() <= waits


def test_merging_inside_the_language_model_runs_there() -> None:
    generator = torch.Generator().manual_seed(1)
    scores, hidden = torch.rand(3, 50, generator=generator), torch.randn(50, 16, generator=generator)
    expected = MATM().inside_llm(scores, hidden)
    with Accelerator() as accelerator:
        hidden_there, scores_there = hidden.to(DEVICE), scores.to(DEVICE)
        accelerator.reset()
        found = MATM().inside_llm(scores_there, hidden_there)
        shorter = found.plan.apply(hidden_there)
    assert torch.equal(found.plan.keep.held, expected.plan.keep)
    torch.testing.assert_close(shorter.held, expected.plan.apply(hidden))
    assert accelerator.waits.total() == 1


def test_the_accelerator_notices_mistakes() -> None:
    with Accelerator() as accelerator:
        there = torch.ones(3).to(DEVICE)
        with pytest.raises(RuntimeError, match="mixes devices"):
            there + torch.ones(3)
        with pytest.raises((RuntimeError, TypeError)):
            there.numpy()
        accelerator.reset()
        assert float((there + 1).sum()) == 6
        assert accelerator.launches.total() == 3  # with the read
        assert accelerator.waits.total() == 1
        assert there[there > 0].shape == (3,)
        assert accelerator.waits.total() == 2
        place = torch.tensor([1]).to(DEVICE, non_blocking=True)
        there.index_fill_(0, place, 0)
        assert accelerator.waits.total() == 2
        there[place] = 0
        assert accelerator.waits.total() == 3


def test_copies_are_waited_for_unless_they_are_asked_not_to() -> None:
    plan = MATM().inside_llm(torch.rand(3, 50), torch.randn(50, 16)).plan
    with Accelerator() as accelerator:
        torch.ones(3).to(DEVICE)
        assert accelerator.waits.total() == accelerator.copies == 1
        accelerator.reset()
        there = plan.to(DEVICE)
        assert accelerator.copies == 4 and accelerator.waits.total() == 0
        back = there.to("cpu")  # could be read before it has arrived
        assert accelerator.waits.total() == 4
    back.check()
