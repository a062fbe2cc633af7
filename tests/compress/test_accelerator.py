"""The methods on an accelerator: no tensor on the wrong device, few launches, one wait."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.infomerge import InfoMerge, ats
from compress.infomerge.dyseg import segment_members
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
    ("method", "graphs", "launches", "waits"),
    [
        (InfoMerge(retention=0.2), True, 60, 1),
        (InfoMerge(retention=0.2), False, 240, 3),
        (InfoMerge(retention=0.2, richness="off"), True, 60, 1),
        (InfoMerge(retention=0.2, richness="exact"), True, 220, 3),
        (InfoMerge(retention=0.2, assignment="segment_global", include_self=True), True, 60, 1),
        (InfoMerge(retention=0.2, tfd="adjacent", dtm_features="original"), True, 60, 1),
        (InfoMerge(retention=0.2, tfd="adjacent", tie="saliency"), False, 260, 3),
        (InfoMerge(retention=0.9), True, 60, 1),
        (InfoMerge(retention=0.2, lam=float("inf"), rho=0.5), True, 60, 1),
        (BTM(retention=0.3, refill=False), True, 60, 1),
        (BTM(retention=0.3, refill=False), False, 60, 1),
        (BTM(retention=0.3, window=1, fold="size"), True, 60, 1),
    ],
)
def test_methods_run_there_as_on_the_cpu(method: Any, graphs: bool, launches: int, waits: int) -> None:
    tokens, signals = make_video()
    expected = method.before_llm(tokens, signals)
    with Accelerator(graphs=graphs) as accelerator:
        assert signals.saliency is not None and signals.frame_features is not None
        there = replace(signals, saliency=signals.saliency.to(DEVICE), frame_features=signals.frame_features.to(DEVICE))
        tokens_there = tokens.to(DEVICE)
        for _ in range(4):  # what is the same for every video goes over once; shapes are recorded and checked
            method.before_llm(tokens_there, there)
        accelerator.reset()
        found = method.before_llm(tokens_there, there)
        shorter = found.apply(tokens_there)
    assert isinstance(shorter, OnAccelerator)
    assert torch.equal(found.plan.keep.held, expected.plan.keep)
    torch.testing.assert_close(shorter.held, expected.apply(tokens), rtol=0, atol=0.02)
    assert accelerator.launches.total() <= launches
    assert accelerator.waits.total() <= waits
    assert ("graph" in accelerator.launches) == (graphs and waits == 1)


def test_a_token_foreseen_wrongly_is_scored_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, signals = make_video()
    # One segment of all frames, and a penalty that reaches from the first to the last.
    method = InfoMerge(retention=0.2, c=1, tau_seg=-1, rho=0.9, lam=2)
    expected = method.before_llm(tokens, signals)
    waits = {}
    for passes in (1, ats.FORESIGHT):
        monkeypatch.setattr(ats, "FORESIGHT", passes)
        with Accelerator(graphs=True) as accelerator:
            assert signals.saliency is not None and signals.frame_features is not None
            there = replace(
                signals, saliency=signals.saliency.to(DEVICE), frame_features=signals.frame_features.to(DEVICE)
            )
            tokens_there = tokens.to(DEVICE)
            accelerator.reset()
            found = method.before_llm(tokens_there, there)
        assert torch.equal(found.plan.keep.held, expected.plan.keep)
        waits[passes] = accelerator.waits.total()
    assert waits == {1: 2, ats.FORESIGHT: 1}


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_what_is_foreseen_is_what_the_host_selects(data: st.DataObject) -> None:
    """In segments of at most `FORESIGHT` frames always; saliency without ties."""
    lengths = data.draw(st.lists(st.integers(1, ats.FORESIGHT), min_size=1, max_size=5))
    frames, per_frame = sum(lengths), data.draw(st.integers(2, 12))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    saliency, static = rng.random((frames, per_frame)), rng.random((len(lengths), per_frame)) < 0.5
    count = data.draw(st.integers(0, per_frame))
    lam = data.draw(st.sampled_from((0.0, 0.7, 12.0, float("inf"))))
    bounds = np.concatenate(([0], np.cumsum(lengths)))
    member = torch.nn.functional.pad(segment_members(bounds), (0, 0, 0, frames - len(lengths)))  # empty segments
    of_frame = torch.from_numpy(np.repeat(static, lengths, axis=0))
    salient, replaced = ats.foresee_salient(torch.from_numpy(saliency), of_frame, member, count=count, lam=lam)
    expected = ats.select_salient(saliency, static, bounds, count=count, lam=lam)
    np.testing.assert_array_equal(salient.numpy(), expected)
    np.testing.assert_array_equal(replaced.numpy(), ats.substituted_tokens(expected, static, bounds))


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
