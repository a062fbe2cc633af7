"""PruneVid against a computation with loops, its segments, and what its released code does otherwise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from compress.baselines import PruneVid, replay
from compress.baselines.prunevid import pairwise_similarity, refine_segments
from compress.errors import ConfigError
from compress.stage import Signals
from tests.compress.baselines.scenes import video
from tests.oracle import clustering as oracle


def scene(frames: int, seed: int) -> torch.Tensor:
    return video(frames, (4, 5), seed=seed, width=12, shot=4)


@pytest.mark.parametrize("retention", [0.08, 0.3, 0.6])
@pytest.mark.parametrize("frames", [1, 2, 9, 14])
def test_clusters_equal_the_definition(frames: int, retention: float) -> None:
    tokens = scene(frames, seed=frames)
    result = PruneVid(retention=retention).before_llm(tokens, Signals())
    tau = float(result.diagnostics["tau"])
    assert tau == 0.8 or retention == 0.6
    margin = 1e-6 if tau > 0.8 else 0  # a raised threshold is a similarity itself, in float32
    answer, bounds = oracle.prunevid(tokens.double().numpy(), tau=tau + margin, count=result.nominal)
    assert [segment.start for segment in result.segments] == bounds[:-1]
    assert result.plan.keep.tolist() == sorted(answer)
    merged = result.apply(tokens.double()).numpy()
    np.testing.assert_allclose(merged, np.array([answer[i] for i in sorted(answer)]), atol=1e-5)


def test_thresholds_decide_where_the_ratio_is_given() -> None:
    tokens = scene(12, seed=3)
    result = PruneVid(cluster_ratio=0.5, retention=1.0).before_llm(tokens, Signals())
    answer, _ = oracle.prunevid(tokens.double().numpy(), ratio=0.5)
    assert result.plan.keep.tolist() == sorted(answer)
    assert result.nominal == result.achieved == len(answer)


def test_a_static_clip_raises_tau_until_its_groups_hold_the_budget() -> None:
    tokens = scene(1, seed=5).expand(12, -1, -1) + 0.02 * torch.randn(
        12, 20, 12, generator=torch.Generator().manual_seed(1)
    )
    result = PruneVid(retention=0.5).before_llm(tokens, Signals())
    assert result.achieved == 120
    assert result.diagnostics["tau"] > 0.8


def test_segments_absorb_every_lone_frame() -> None:
    for length in range(1, 8):
        for labels in itertools.product(range(3), repeat=length):
            for longest in (True, False):
                bounds = refine_segments(np.array(labels), longest=longest).tolist()
                assert bounds == oracle.refine(list(labels), longest=longest)
                assert length == 1 or min(np.diff(bounds)) > 1
    assert refine_segments(np.array([0, 0, 1, 1, 0, 0]), longest=False).tolist() == [0, 2, 4, 6]
    assert refine_segments(np.array([0, 0, 1, 1, 0, 0])).tolist() == [0, 2, 6]


def test_the_mean_of_all_pairs() -> None:
    tokens = scene(7, seed=6)
    tokens[2, 3] = 0
    bounds = np.array([0, 5, 7])
    found = pairwise_similarity(tokens, bounds)
    direction = torch.nn.functional.normalize(tokens.double(), dim=2)
    for row, (start, stop) in enumerate(((0, 5), (5, 7))):
        pairs = list(itertools.combinations(range(start, stop), 2))
        mean = sum((direction[a] * direction[b]).sum(dim=1) for a, b in pairs) / len(pairs)
        np.testing.assert_allclose(found[row], mean.numpy(), atol=1e-6)


def test_released_code_fails_on_few_frames_and_leaves_groups_in_order() -> None:
    tokens = scene(10, seed=7)
    with pytest.raises(ConfigError, match="fails on 6 frames"):
        replay("prunevid", {"X": tokens[:6].numpy()})
    found = replay("prunevid", {"X": tokens.numpy()})
    keep = found["keep"].tolist()
    assert len(set(keep)) == len(keep)
    answer, bounds = oracle.prunevid(tokens.double().numpy())
    assert len(keep) == len(answer)
    # A segment's static tokens precede those of its frames.
    static = PruneVid(cluster_ratio=0.5).before_llm(tokens, Signals())
    assert static.kind is not None
    held = {i for i, kind in zip(static.plan.keep.tolist(), static.kind.tolist(), strict=True) if kind}
    assert held
    for start, stop in itertools.pairwise(bounds):
        mine = [i for i in keep if start <= i // 20 < stop]
        places = [mine.index(i) for i in mine if i in held]
        assert places == list(range(len(places)))


def test_released_noise_picks_among_equal_densities() -> None:
    tokens = scene(1, seed=8).expand(8, -1, -1).clone()
    tokens[:, :16] = tokens[:, :1]  # static, all alike
    noise = torch.rand(400, generator=torch.Generator().manual_seed(3))
    noise[:8] = 0  # the frames' own clustering
    other = noise.clone()
    other[8:] = noise[8:].flip(0)
    first, second = (replay("prunevid", {"X": tokens.numpy(), "noise": one.numpy()})["keep"] for one in (noise, other))
    assert first.tolist() != second.tolist()
