"""ToMe over all frames against a direct computation, and its released order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.baselines import ToMeVideo, replay
from compress.errors import ConfigError
from compress.ops.bipartite import match_halves
from compress.stage import Signals
from tests.compress.baselines.scenes import video
from tests.oracle import merging as oracle


@pytest.mark.parametrize("count", [0, 1, 5, 50])
@pytest.mark.parametrize("tokens", [1, 2, 7, 24])
@pytest.mark.parametrize("protected", [False, True])
def test_the_matching_equals_a_comparison_of_all_pairs(tokens: int, count: int, protected: bool) -> None:
    metric = torch.randn(3, tokens, 5, generator=torch.Generator().manual_seed(tokens)) + 0.3
    matching = match_halves(metric, count, protected=protected, in_order=True)
    for row in range(3):
        edges = oracle.match(metric[row].double().numpy(), count, protected=protected)
        found = zip(matching.source[row].tolist(), matching.target[row].tolist(), strict=True)
        assert list(found) == edges
        gone = {source for source, _ in edges}
        groups = matching.groups()[row].tolist()
        for source, target in edges:
            assert groups[source] == groups[target]
        stays = matching.stays[row].tolist()
        assert sorted(stays) == [i for i in range(tokens) if i not in gone]
        assert [groups[i] for i in stays] == list(range(len(stays)))
    if edges and not protected:
        assert oracle.match(-(metric[0].double().numpy() ** 3), count) != edges or tokens == 2  # it looks at the metric


def test_equal_similarities_go_to_the_lower_index() -> None:
    matching = match_halves(torch.ones(1, 8, 3), 2)
    assert matching.source.tolist() == [[0, 2]]
    assert matching.target.tolist() == [[1, 1]]


@pytest.mark.parametrize("size_weighted", [True, False])
@pytest.mark.parametrize("retention", [0.07, 0.3, 0.5, 0.8])
def test_rounds_equal_the_definition(retention: float, size_weighted: bool) -> None:
    tokens = video(5, (3, 4), seed=1, width=7)
    flat = tokens.flatten(0, 1).double().numpy()
    method = ToMeVideo(retention=retention, size_weighted=size_weighted)
    result = method.before_llm(tokens, Signals())
    answer = oracle.tome_video(flat, result.nominal, size_weighted=size_weighted)
    assert result.plan.keep.tolist() == [i for i, _ in answer]
    np.testing.assert_allclose(result.apply(tokens).numpy(), np.array([value for _, value in answer]), atol=1e-5)


def test_frames_on_their_own() -> None:
    tokens = video(3, (4, 4), seed=2)
    result = ToMeVideo(retention=0.75, scope="frame").before_llm(tokens, Signals())
    for t in range(3):
        alone = ToMeVideo(retention=0.75).before_llm(tokens[t : t + 1], Signals())
        mine = result.plan.keep[result.plan.keep // 16 == t]
        assert (mine - 16 * t).tolist() == alone.plan.keep.tolist()
    whole = ToMeVideo(retention=0.75).before_llm(tokens, Signals())
    assert whole.plan.keep.tolist() != result.plan.keep.tolist()


@pytest.mark.parametrize("size_weighted", [True, False])
def test_the_released_code_scrambles_the_order(size_weighted: bool) -> None:
    tokens = video(4, (3, 3), seed=3, width=6)
    for retention in (0.3, 0.4):
        found = replay("tome-video", {"X": tokens.numpy()}, retention=retention, size_weighted=size_weighted)
        count = int(retention * 36 + 0.5)
        flat = tokens.flatten(0, 1).double().numpy()
        answer = oracle.tome_video(flat, count, in_order=False, size_weighted=size_weighted)
        assert found["keep"].tolist() == [i for i, _ in answer]
        assert found["keep"].tolist() != sorted(found["keep"].tolist())
        np.testing.assert_allclose(found["values"], np.array([value for _, value in answer]), atol=1e-5)
    # Where a round merges the whole first set, what is left is in order.
    halved = replay("tome-video", {"X": tokens.numpy()}, retention=0.25)["keep"].tolist()
    assert halved == sorted(halved)
    assert len(halved) == 9


def test_the_released_code_renumbers_positions_and_fails_frame_by_frame() -> None:
    tokens = video(4, (3, 3), seed=3)
    assert ToMeVideo(fidelity="reference").before_llm(tokens, Signals()).positions == "contiguous"
    assert ToMeVideo().before_llm(tokens, Signals()).positions == "original"
    with pytest.raises(ConfigError, match="fails on 4 frames"):
        replay("tome-video", {"X": tokens.numpy()}, scope="frame")
    assert len(replay("tome-video", {"X": tokens[:1].numpy()}, scope="frame", retention=0.5)["keep"]) == 5
