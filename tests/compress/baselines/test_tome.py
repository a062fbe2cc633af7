"""ToMe inside an encoder: schedules, one merge by hand and by the definition, and the order of released code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.baselines import ToMe, replay
from compress.budget import round_half_up
from compress.encoder_merging import MERGED_AT_ONCE, EncoderState
from compress.errors import ConfigError, ShapeError
from compress.ops.bipartite import match_halves
from tests.oracle import merging as oracle


def state(tokens: torch.Tensor, *, block: int = 0, depth: int = 2, size: torch.Tensor | None = None) -> EncoderState:
    frames, count, _ = tokens.shape
    return EncoderState(
        block=block,
        depth=depth,
        hidden=tokens,
        keys=tokens.flip(2),
        size=torch.ones(frames, count) if size is None else size,
        frames=frames,
        patches=count,
    )


@pytest.mark.parametrize("schedule", ["constant", "decreasing"])
@pytest.mark.parametrize(("patches", "depth"), [(729, 26), (49, 3), (16, 2), (7, 4)])
def test_schedules_meet_the_retention(patches: int, depth: int, schedule: str) -> None:
    for retention in (0.9, 0.5, 0.3):
        method = ToMe(retention=retention, schedule=schedule)
        counts = method.counts(patches, depth)
        assert len(counts) == depth
        assert patches - sum(counts) == max(1, round_half_up(retention * patches))
        left = patches
        for merged in counts:
            assert merged <= left // 2
            left -= merged
    even = ToMe(retention=0.5).counts(729, 26)
    assert max(even) - min(even) <= 1
    falling = ToMe(retention=0.5, schedule="decreasing").counts(729, 26)
    assert falling == sorted(falling, reverse=True)
    assert falling[0] > 10 * falling[-1]
    assert ToMe(r=8).counts(729, 26) == [8] * 26
    assert ToMe(r=8).counts(20, 3) == [8, 6, 3]  # at most half of what is left


def test_what_halving_cannot_reach_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs more than halving them in each of 2 blocks; use at least 0\.25"):
        ToMe(retention=0.2).counts(16, 2)
    with pytest.raises(ConfigError, match="r is -1"):
        ToMe(r=-1)
    assert ToMe(retention=1.0).merge_blocks(5) == ToMe(r=0).merge_blocks(5) == ()
    assert ToMe().merge_blocks(3) == (0, 1, 2)


@pytest.mark.parametrize("fidelity", ["fixed", "reference"])
@pytest.mark.parametrize("class_token", [False, True])
def test_a_merge_equals_the_definition(class_token: bool, fidelity: str) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(3, 11, 5, generator=generator)
    size = torch.randint(1, 4, (3, 11), generator=generator).float()
    method = ToMe(r=3, class_token=class_token, fidelity=fidelity)
    merge = method.inside_encoder(state(tokens, size=size))
    assert merge is not None
    merged = merge.apply(tokens.flatten(0, 1)).view(3, 8, 5)
    for frame in range(3):
        x, weight = tokens[frame].double().numpy(), size[frame].numpy()
        edges = oracle.match(x[:, ::-1], 3, protected=class_token)
        gone = {source for source, _ in edges}
        assert not (class_token and 0 in gone)
        first = [i for i in range(0, 11, 2) if i not in gone]
        if fidelity == "reference" and not class_token:
            first = [i for i, _ in oracle.match(x[:, ::-1], 5)[3:]] + [
                i for i in first if i not in dict(oracle.match(x[:, ::-1], 5))
            ]
        stays = first + list(range(1, 11, 2))
        assert (merge.keep.view(3, 8)[frame] - 11 * frame).tolist() == stays
        for place, i in enumerate(stays):
            members = [i, *(source for source, target in edges if target == i)]
            mean = (x[members] * weight[members, None]).sum(axis=0) / weight[members].sum()
            np.testing.assert_allclose(merged[frame, place].numpy(), mean, atol=1e-5)
    assert (merged[0] - tokens[0].mean(dim=0)).abs().max() > 0.1


def test_replay_does_one_block() -> None:
    generator = torch.Generator().manual_seed(1)
    tokens, keys = torch.randn(2, 8, 4, generator=generator), torch.randn(2, 8, 3, generator=generator)
    found = replay("tome", {"X": tokens.numpy(), "keys": keys.numpy()}, r=2)
    assert found["keep"].shape == (12,)
    every = oracle.match(keys[0].double().numpy(), 4)
    assert found["keep"][:6].tolist() == [i for i, _ in every[2:]] + [1, 3, 5, 7]
    size = np.full((2, 8), 3.0)
    size[:, 1::2] = 1
    weighted = replay("tome", {"X": tokens.numpy(), "keys": keys.numpy(), "size": size}, r=2)
    assert weighted["keep"].tolist() == found["keep"].tolist()
    assert np.abs(weighted["values"] - found["values"]).max() > 0.1
    alone = replay("tome", {"X": tokens.numpy()}, r=2)  # the tokens are their own keys
    assert [i for i, _ in oracle.match(tokens[0].double().numpy(), 4)[2:]] == alone["keep"][:2].tolist()


def test_keys_are_needed() -> None:
    one = state(torch.randn(2, 8, 4))
    with pytest.raises(ShapeError, match="keys have shape None"):
        ToMe().inside_encoder(
            EncoderState(block=0, depth=2, hidden=one.hidden, keys=None, size=one.size, frames=2, patches=8)
        )


@pytest.mark.parametrize("tokens", [2 * MERGED_AT_ONCE, 2 * MERGED_AT_ONCE + 1])
def test_means_of_more_tokens_than_a_block_holds(tokens: int) -> None:
    """Tokens of all blocks count in the same sum; the last block may be short."""
    generator = torch.Generator().manual_seed(4)
    values = torch.randn(2, tokens, 5, generator=generator)
    size = torch.randint(1, 4, (2, tokens), generator=generator).float()
    merge = ToMe(retention=0.5).inside_encoder(state(values, depth=1, size=size))
    assert merge is not None
    dense = np.zeros((len(merge.keep), 2 * tokens))
    dense[merge.origin.numpy(), np.arange(2 * tokens)] = size.flatten().numpy()
    expected = dense @ values.flatten(0, 1).double().numpy() / dense.sum(axis=1, keepdims=True)
    found = merge.apply(values.flatten(0, 1))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert np.abs(found.numpy() - values.flatten(0, 1)[merge.keep].numpy()).max() > 0.1  # not the anchors as they were
    halves = merge.apply(values.flatten(0, 1).bfloat16())
    assert halves.dtype == torch.bfloat16
    np.testing.assert_allclose(halves.float().numpy(), expected, atol=0.05)


def test_frames_merge_as_if_each_were_the_only_one() -> None:
    values = torch.randn(3, 40, 5, generator=torch.Generator().manual_seed(5))
    together = match_halves(values, 12)
    for place, frame in enumerate(values):
        single = match_halves(frame[None], 12)
        assert torch.equal(together.source[place], single.source[0])
        assert torch.equal(together.target[place], single.target[0])
    assert not torch.equal(together.source[0], together.source[1])
