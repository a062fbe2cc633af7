"""What merges inside the language model and not by attention only, against the definitions."""

from __future__ import annotations

import pytest
import torch

from compress.baselines import (
    STTM,
    STTMInner,
    ToMeVideo,
    ToMeVideoInner,
    replay,
)
from compress.errors import ConfigError
from compress.methods import METHODS
from compress.stage import InnerTokens, Signals
from tests.compress.baselines.test_inner import scene


def test_what_merges_inside_is_what_merges_before() -> None:
    scores, hidden, tokens = scene(5, 4, 4, seed=1)
    video = hidden.view(5, 16, -1)
    for inner, outer in (
        (ToMeVideoInner(retention=0.4), ToMeVideo(retention=0.4)),
        (STTMInner(retention=0.4), STTM(retention=0.4)),
    ):
        inside = inner.inside_llm(scores[None, :0].reshape(0, 80), hidden, tokens)
        before = outer.before_llm(video, Signals(grid=(4, 4)))
        assert torch.equal(inside.plan.keep, before.plan.keep)
        torch.testing.assert_close(inside.apply(hidden), before.apply(video))
        chosen = inner.at_depth(28)
        assert chosen.cuts is not None
        assert (chosen.merge_layer, chosen.layers, chosen.at_depth(28)) == (2, (), chosen)
        assert METHODS[inner.name].query_agnostic
        assert METHODS[inner.name].signals == ()
    found = replay("tome-video-inner", {"X": hidden.numpy()}, retention=0.4)
    assert found["keep"].tolist() == ToMeVideo(retention=0.4).before_llm(video, Signals()).plan.keep.tolist()
    with pytest.raises(ConfigError, match="K is 0"):
        STTMInner(K=0)


def test_sttm_needs_whole_grids() -> None:
    _, hidden, tokens = scene(3, 4, 4, seed=2)
    nothing = torch.zeros(0, 48)
    with pytest.raises(ConfigError, match="whole grids"):
        STTMInner(retention=0.5).inside_llm(nothing, hidden, InnerTokens(cut=0, entered=48))
    assert tokens.place is not None
    part = InnerTokens(cut=0, entered=48, place=tokens.place[1:], grids=tokens.grids)
    with pytest.raises(ConfigError, match="whole grids"):
        STTMInner(retention=0.5).inside_llm(nothing[:, 1:], hidden[1:], part)
