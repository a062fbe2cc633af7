"""What the released code does otherwise than its method's definition, one case each, compared with the fixed method."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from compress.baselines import (
    EVS,
    DivPrune,
    DyCoke,
    FastVID,
    FlashVID,
    FlashVIDInner,
    HoliTom,
    VidCom2,
    VisionZip,
    replay,
)
from compress.baselines.noise import Noise, released_peaks
from compress.errors import ConfigError, ShapeError
from compress.stage import Signals
from tests.compress.baselines.scenes import signals_for, video


def released(name: str, *, X: torch.Tensor, **given: Any) -> tuple[list[int], np.ndarray]:
    arrays = {"X": X.numpy()} | {key: given.pop(key).numpy() for key in ("A", "g", "keys", "noise") if key in given}
    result = replay(name, arrays, **given)
    assert result["keep"].dtype == np.int64
    assert result["values"].shape == (len(result["keep"]), X.shape[2])
    return result["keep"].tolist(), result["values"]


def test_evs_gives_the_first_frame_all_of_a_small_budget() -> None:
    tokens = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(0))
    assert released("evs", X=tokens, q=0.9)[0] == list(range(6))  # never less than a frame
    assert released("evs", X=tokens, q=0.75)[0] == list(range(6))
    assert len(released("evs", X=tokens, q=0.5)[0]) == 12
    fixed = EVS(q=0.75).before_llm(tokens, Signals())
    assert fixed.frame_counts[0] == 3
    assert fixed.achieved == 6


def test_evs_breaks_ties_of_equal_frames_by_rounding() -> None:
    frame = torch.randn(1, 50, 33, generator=torch.Generator().manual_seed(1))
    tokens = frame.expand(4, -1, -1).clone()
    fixed = EVS(retention=0.5).before_llm(tokens, Signals()).plan.keep.tolist()
    assert fixed == list(range(100))  # raster order
    noise = 1 - torch.nn.functional.cosine_similarity(tokens[1:], tokens[:-1], dim=2)
    assert 0 < noise.abs().max() < 1e-6
    order = noise.flatten().argsort(descending=True, stable=True)[:50] + 50
    assert released("evs", X=tokens, q=0.5)[0] == [*range(50), *order.sort().values.tolist()]


def dycoke_scene(frames: int) -> torch.Tensor:
    """Four orthogonal tokens per frame; token t // 2 of every odd frame t, and token 3 of frames 2 and 6, is new."""
    tokens = torch.eye(4).repeat(frames, 1, 1)
    for t in range(frames):
        tokens[t] = tokens[t - 1] if t % 2 else torch.eye(4)
        if t % 2 or t % 4 == 2:
            tokens[t, (t // 2) % 4 if t % 2 else 3] *= -1
    return tokens


def test_dycoke_prunes_pairs_by_the_pair_before() -> None:
    tokens = dycoke_scene(8)
    keep, values = released("dycoke", X=tokens, K=0.75)
    # Pairs are frames (0, 1), (2, 3), ...; frame 1 is pruned as frame 7 should be, frame 3 as frame 1, ...
    assert keep == [0, 1, 2, 3, 4 + 3, 8 + 3, 12 + 0, 16, 17, 18, 19, 20 + 1, 24, 25, 26, 27, 28 + 2]
    np.testing.assert_array_equal(values, tokens.flatten(0, 1)[keep])
    fixed = DyCoke(K=0.75).before_llm(tokens, Signals())
    # Frame 3 is compared with frame 2, whose token 3 is new.
    assert fixed.plan.keep.tolist() == [0, 1, 2, 3, 4, 11, 13, 16, 17, 18, 19, 22, 27, 31]
    assert fixed.nominal == fixed.achieved


def test_dycoke_leaves_the_third_frame_of_the_last_window_whole() -> None:
    tokens = video(32, (14, 14), seed=0, width=4)
    keep, _ = released("dycoke", X=tokens)
    assert len(keep) == 9 * 196 + 23 * 58  # 49.4 % in place of 47.2 %
    assert sum(i // 196 == 30 for i in keep) == 196
    assert DyCoke(K=0.7).before_llm(tokens, Signals()).achieved == 8 * 196 + 24 * 58


def test_dycoke_emits_tokens_in_order_of_similarity() -> None:
    keep, _ = released("dycoke", X=video(8, (4, 4), seed=3), K=0.5)
    assert keep != sorted(keep)
    assert [i // 16 for i in keep] == sorted(i // 16 for i in keep)


def test_dycoke_loses_an_odd_last_frame_and_fails_on_short_videos() -> None:
    keep, _ = released("dycoke", X=video(9, (4, 4), seed=4))
    assert max(keep) // 16 == 7
    for frames in (1, 4):
        with pytest.raises(ConfigError, match=f"fails on {frames} frames"):
            released("dycoke", X=video(frames, (4, 4), seed=4))
        assert DyCoke().before_llm(video(frames, (4, 4), seed=4), Signals()).achieved > 0


def test_vidcom2_loses_what_the_cap_of_a_frame_takes() -> None:
    tokens = video(2, (10, 10), seed=5, shot=1)
    tokens[1] = tokens[1] * 0.01 + tokens[0].mean(dim=0)
    keep, _ = released("vidcom2", X=tokens, retention=0.9)
    counts = np.bincount(np.array(keep) // 100)
    assert counts.max() == 100  # the scale of 1.35 is cut at 1
    assert counts.sum() < 160
    assert VidCom2(retention=0.9).before_llm(tokens, Signals()).achieved == 180


def test_divprune_repeats_tokens_once_only_duplicates_are_left() -> None:
    distinct = torch.eye(3).repeat(3, 1)[None]
    keep, _ = released("divprune", X=distinct, retention=5 / 9)
    assert len(keep) == 5
    assert len(set(keep)) == 3
    method = DivPrune(retention=5 / 9, fidelity="reference").before_llm(distinct, Signals())
    assert method.achieved == 3
    assert method.diagnostics["repeated"] == 2
    assert DivPrune(retention=5 / 9).before_llm(distinct, Signals()).plan.keep.tolist() == [0, 1, 2, 3, 4]


def fastvid_scene(frames: int = 16) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    tokens = video(frames, (14, 14), seed=6, width=6)
    signals = signals_for(tokens)
    assert signals.saliency is not None
    # One look per shot, so that only the c - 1 lowest transitions cut.
    features = torch.ones(frames, 4) + 0.01 * torch.randn(frames, 4, generator=torch.Generator().manual_seed(2))
    return tokens, signals.saliency, features


def test_fastvid_floors_lose_tokens() -> None:
    tokens, attention, features = fastvid_scene()
    given = {"X": tokens, "A": attention, "g": features, "retention": 0.1}
    video_keep, _ = released("fastvid", budget="video", **given)
    assert len(video_keep) == 16 * 19  # 19 of 19.6 per frame
    onevision, _ = released("fastvid", budget="onevision", c=2, tau=-1.0, **given)
    cut = int(torch.nn.functional.cosine_similarity(features[1:], features[:-1]).argmin()) + 1
    lengths = np.diff([0, cut, 16])
    lost = sum(7 * int(n) % -(-int(n) // 4) for n in lengths)
    assert lost > 0
    assert len(onevision) == 16 * 19 - lost
    signals = Signals(saliency=attention, frame_features=features)
    for budget in ("video", "onevision"):
        method = FastVID(retention=0.1, budget=budget)
        assert method.before_llm(tokens, signals).achieved == 314


def test_fastvid_counts_anchor_frames_from_the_end_of_a_segment() -> None:
    tokens, attention, features = fastvid_scene(8)
    method = {"X": tokens, "A": attention, "g": features, "retention": 0.1, "c": 1, "tau": -1.0}
    keep, _ = released("fastvid", **method)
    counts = np.bincount(np.array(keep) // 196, minlength=8)
    context = int(19 * 8 * 0.4)
    salient = 19 * 8 - context
    expected = [salient // 8 + (t < salient % 8) for t in range(8)]
    expected[3] += context // 2
    expected[7] += context // 2
    assert context % 2 == 0
    assert counts.tolist() == expected


@pytest.mark.parametrize("budget", ["video", "onevision"])
def test_fastvid_fails_beyond_its_capacity_and_on_few_frames(budget: str) -> None:
    tokens, attention, features = fastvid_scene(8)
    given = {"X": tokens, "A": attention, "g": features, "budget": budget}
    whole = {"c": 1, "tau": -1.0}
    assert len(released("fastvid", retention=0.45, **whole, **given)[0]) > 0
    with pytest.raises(ConfigError, match="the released code fails: an anchor frame has"):
        released("fastvid", retention=0.46, **whole, **given)
    with pytest.raises(ConfigError, match="takes at least c = 9"):
        released("fastvid", c=9, **given)
    with pytest.raises(ConfigError, match="context token"):
        released("fastvid", retention=0.0052, **given)  # one token per frame


def test_noise_breaks_the_ties_of_densities() -> None:
    tokens, attention, features = fastvid_scene(8)
    tokens[:] = tokens[:, :1]  # all tokens of a frame are equal: all densities tie
    given = {"X": tokens, "A": attention, "g": features, "retention": 0.1}
    noise = torch.rand(8 * 196, generator=torch.Generator().manual_seed(3))
    assert released("fastvid", noise=noise, **given)[0] != released("fastvid", noise=noise.flip(0), **given)[0]
    with pytest.raises(ConfigError, match="the code draws more"):
        released("fastvid", noise=noise[:100], **given)


def holitom_scene(static: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Four frames of ten tokens; the first ``static`` positions do not change."""
    generator = torch.Generator().manual_seed(7)
    tokens = torch.randn(4, 10, 16, generator=generator)
    tokens[:, :static] = tokens[:1, :static]
    return tokens, torch.rand(4, 10, generator=generator)


def test_holitom_rounds_dynamic_up_and_static_to_the_nearest() -> None:
    tokens, attention = holitom_scene(2)
    keep, _ = released("holitom", X=tokens, A=attention, retention=0.15)
    ratio = 0.15 / ((40 - 2 * 3) / 40)
    assert round(2 * ratio) == 0  # the static content is lost
    assert len(keep) == 4 * math.ceil(8 * ratio)
    assert not {i % 10 for i in keep} & {0, 1}
    fixed = HoliTom(retention=0.15).before_llm(tokens, Signals(saliency=attention))
    assert fixed.achieved == 6
    assert {0, 1} & {i % 10 for i in fixed.plan.keep.tolist()}


def test_holitom_emits_static_tokens_before_the_others_of_their_window() -> None:
    tokens, attention = holitom_scene(5)
    tokens = tokens.flip(1)
    keep, values = released("holitom", X=tokens, A=attention, retention=0.5)
    ratio = 0.5 / ((40 - 5 * 3) / 40)
    static = round(5 * ratio)
    assert set(keep[:static]) <= set(range(5, 10))
    assert all(i % 10 < 5 for i in keep[static:])
    assert keep != sorted(keep)
    assert values.shape == (static + 4 * math.ceil(5 * ratio), 16)
    plan = HoliTom(retention=0.5, fidelity="reference").before_llm(tokens, Signals(saliency=attention)).plan
    assert plan.keep.tolist() == sorted(keep)
    np.testing.assert_allclose(plan.apply(tokens.flatten(0, 1)), values[np.argsort(keep)], atol=1e-6)


def test_holitom_cannot_spend_its_budget_on_a_static_clip() -> None:
    tokens, attention = holitom_scene(10)
    tokens = tokens + 1e-3 * torch.randn(4, 10, 16, generator=torch.Generator().manual_seed(8))
    keep, _ = released("holitom", X=tokens, A=attention, retention=0.6)
    assert len(keep) == 10  # of 24
    fixed = HoliTom(retention=0.6).before_llm(tokens, Signals(saliency=attention))
    assert fixed.achieved == 24
    assert fixed.diagnostics["tau"] > 0.8


def test_holitom_lets_noise_pick_the_only_centre() -> None:
    tokens, attention = holitom_scene(3)
    given = {"X": tokens, "A": attention, "retention": 0.25}
    assert round(3 * 0.25 / ((40 - 9) / 40)) == 1  # one cluster: one neighbour, the token itself
    firsts = {released("holitom", noise=torch.eye(3)[i], **given)[0][0] for i in range(3)}
    assert firsts == {0, 1, 2}


def test_visionzip_adds_where_it_should_average() -> None:
    tokens = torch.tensor([[[4.0, 0], [1, 0], [3, 1], [0, 2], [0, 4]]])
    attention = torch.tensor([[9.0, 1, 1, 1, 1]])
    given = {"X": tokens, "A": attention, "keys": tokens, "dominant": 1, "contextual": 2}
    keep, values = released("visionzip", **given)
    # The rest is tokens 1-4, a stride of 2 picks 1 and 3; token 2 joins 1, token 4 joins 3.
    assert keep == [0, 1, 3]
    assert values.tolist() == [[4, 0], [1 + 3, 0 + 1], [0, 2 + 4]]
    fixed = VisionZip(dominant=1, contextual=2).before_llm(tokens, Signals(saliency=attention, keys=tokens))
    assert fixed.apply(tokens).tolist() == [[4, 0], [2, 0.5], [0, 3]]
    assert fixed.nominal == fixed.achieved == 3
    plan = VisionZip(dominant=1, contextual=2, fidelity="reference").before_llm(
        tokens, Signals(saliency=attention, keys=tokens)
    )
    assert not plan.plan.stochastic
    assert plan.apply(tokens).tolist() == values.tolist()


def test_visionzip_puts_dominant_tokens_first() -> None:
    tokens = video(2, (3, 3), seed=9)
    attention = torch.arange(18.0).view(2, 9)
    keep, _ = released("visionzip", X=tokens, A=attention, dominant=3, contextual=2)
    assert keep[:5] == [6, 7, 8, 0, 3]
    assert [i - 9 for i in keep[5:]] == [6, 7, 8, 0, 3]
    with pytest.raises(ConfigError, match="fails with 7 dominant and 3 contextual of 9"):
        released("visionzip", X=tokens, A=attention, dominant=7, contextual=3)


def test_visionzip_keeps_the_class_token() -> None:
    tokens = video(1, (1, 6), seed=10)
    attention = torch.tensor([[1.0, 2, 9, 3, 4]])
    keep, _ = released("visionzip", X=tokens, A=attention, dominant=2, contextual=1, form="clip")
    assert keep == [0, 3, 1]
    heads = torch.stack((attention - 1, torch.ones_like(attention)), dim=1)
    assert released("visionzip", X=tokens, A=heads, dominant=2, contextual=1, form="clip")[0] == keep


def test_flashvid_divides_trees_by_one_more_than_their_roots_children() -> None:
    tokens = torch.eye(4).expand(4, 4, 4).clone()  # four chains of four equal tokens
    given = {"c": 1, "tau_s": -1.0, "alpha": 0.0, "retention": 0.25}
    keep, values = released("flashvid", X=tokens, A=torch.ones(4, 4), expansion=1.0, **given)
    assert keep == [0, 1, 2, 3]
    np.testing.assert_allclose(values, 2 * np.eye(4))
    fixed = FlashVID(**given).before_llm(tokens, Signals(saliency=torch.ones(4, 4)))
    assert fixed.plan.keep.tolist() == keep
    np.testing.assert_allclose(fixed.apply(tokens), np.eye(4))


def test_flashvid_may_pick_a_token_twice() -> None:
    tokens = torch.tensor([[[12.0, 0], [-1, 2], [-1, -2], [-1, 1]]])  # only token 0 is relevant to the mean
    given = {"c": 1, "alpha": 1.0, "retention": 0.5}
    attention = torch.ones(1, 4)
    assert released("flashvid", X=tokens, A=attention, expansion=1.0, **given)[0] == [0, 0]
    assert len(set(released("flashvid", X=tokens, A=attention, expansion=1.0, selection="v1", **given)[0])) == 2
    method = FlashVID(**given).before_llm(tokens, Signals(saliency=attention))
    assert method.achieved == 2
    reference = FlashVID(fidelity="reference", expansion=1.0, **given).before_llm(tokens, Signals(saliency=attention))
    assert reference.achieved == 1
    assert reference.diagnostics["repeated"] == 1


def test_flashvid_clusters_a_lone_frame_with_the_tokens_it_picked() -> None:
    tokens = torch.tensor([[[1.0, 0], [0, 1]]])
    given = {"X": tokens, "A": torch.tensor([[0.9, 0.1]]), "retention": 1.0, "alpha": 0.5, "expansion": 1.0}
    keep, values = released("flashvid", **given)
    assert keep == [0, 0]
    assert values.tolist() == [[1, 0], [0.5, 0.5]]
    # One cluster: one neighbour, equal densities; noise picks the centre.
    assert released("flashvid", noise=torch.tensor([0.0, 1.0]), **given)[0] == [0, 1]


def test_flashvid_rounds_up_in_every_frame() -> None:
    tokens = video(16, (14, 14), seed=11, width=8)
    attention = signals_for(tokens).saliency
    keep, _ = released("flashvid", X=tokens, A=attention, retention=0.1)
    assert len(keep) > 16 * math.ceil(196 * 0.1 * 1.25)
    fixed = FlashVID(retention=0.1).before_llm(tokens, Signals(saliency=attention))
    assert fixed.achieved == 314  # what enters the language model, not an average over its layers


def test_flashvid_fails_where_its_expanded_share_reaches_all() -> None:
    tokens = video(6, (4, 4), seed=12)
    with pytest.raises(ConfigError, match="retention x expansion reaches 1; it is 1"):
        released("flashvid", X=tokens, A=torch.ones(6, 16), retention=0.8)
    assert FlashVID(retention=0.8).before_llm(tokens, Signals()).achieved == 77


def test_flashvid_cuts_a_second_time_where_all_transitions_are_cut() -> None:
    method = FlashVID(c=6)
    similarity = np.array([0.5, 0.95, 0.6], np.float32)
    assert method._segments(similarity, repeat=True).tolist()[-1] == 4
    assert 0 in np.diff(method._segments(similarity, repeat=True))
    assert method._segments(similarity).tolist() == [0, 1, 2, 3, 4]


def test_flashvid_inner_keeps_what_is_attended() -> None:
    scores = torch.tensor([0.1, 0.5, 0.2, 0.5, 0.0, 0.3, 0.3])
    hidden = torch.arange(14.0).view(7, 2)
    result = FlashVIDInner(K=20, R=0.3).inside_llm(scores[None], hidden)
    assert result.plan.keep.tolist() == [1, 3, 5]  # ceil(2.1), ties to the lower place
    assert (FlashVIDInner().layers, FlashVIDInner().merge_layer) == (None, None)
    published, shallow = (FlashVIDInner().at_depth(depth) for depth in (28, 6))
    assert (published.layers, published.merge_layer, shallow.merge_layer) == ((19,), 20, 4)
    assert FlashVIDInner(K=2).at_depth(28).merge_layer == FlashVIDInner().at_depth(2, first=2).merge_layer == 2
    replayed = replay("flashvid-inner", {"A": scores.numpy(), "X": hidden.numpy()}, R=0.3)
    assert replayed["values"].tolist() == hidden[[1, 3, 5]].tolist()
    # The stated mean over 28 layers: 20 layers see 1.25 r, 8 layers 0.3 of that.
    assert pytest.approx(1) == 1.25 * (20 + 8 * 0.3) / 28
    with pytest.raises(ShapeError, match="scores"):
        FlashVIDInner().inside_llm(scores[:3], hidden)
    with pytest.raises(ConfigError, match="K is 0"):
        FlashVIDInner(K=0)


def test_replay_says_what_it_lacks_and_what_it_ignores() -> None:
    tokens = video(8, (3, 3), seed=13)
    with pytest.raises(ConfigError, match="flashvid needs A, its saliency; given are X"):
        replay("flashvid", {"X": tokens.numpy()})
    with pytest.raises(ConfigError, match="needs X, the tokens; given are noise"):
        replay("evs", {"noise": np.zeros(3)})
    with pytest.raises(ConfigError, match="EVS has no field 'tau'"):
        replay("evs", {"X": tokens.numpy()}, tau=1)
    with pytest.raises(ConfigError, match="'nothing'"):
        replay("nothing", {})
    result = replay("evs", {"tokens": tokens.flatten(0, 1).numpy(), "c": np.ones(8), "size": np.ones(2)}, r=0.5)
    assert result["ignored"] == ("c", "size")
    assert len(result["keep"]) == 36
    fixed = replay("evs", {"X": tokens.numpy()}, r=0.1, fidelity="fixed")
    assert fixed["keep"].tolist() == EVS(retention=0.1).before_llm(tokens, Signals()).plan.keep.tolist()
    packets = replay("pool", {"X": tokens.numpy(), "c": np.arange(8) + 1.0}, frame_budget="packets")
    assert packets["ignored"] == ()


def test_holitom_rounds_halves_to_even() -> None:
    tokens, attention = holitom_scene(5)
    keep, _ = released("holitom", X=tokens[:2], A=attention[:2], retention=0.375)
    assert 5 * 0.375 / ((20 - 5) / 20) == 2.5
    assert len(keep) == 2 + 2 * 3


def test_the_densest_token_is_set_apart_by_the_largest_distance_of_its_frame() -> None:
    points = torch.tensor([[[0.0], [1.0], [2.0], [10.0]]])
    scores, distance = released_peaks(points, neighbours=3, noise=Noise(None))
    density = torch.exp(-torch.tensor([5 / 3, 2 / 3, 5 / 3, (64 + 81) / 3]))
    assert distance[0, 1].max() == 9  # its own row's, which the definition takes
    torch.testing.assert_close(scores[0], density * torch.tensor([1.0, 10.0, 1.0, 8.0]))


def test_vidcom2_rounds_frame_by_frame() -> None:
    tokens = video(8, (3, 3), seed=14)
    keep, _ = released("vidcom2", X=tokens, retention=0.3)
    counts = np.bincount(np.array(keep) // 9, minlength=8).tolist()
    # One frame is unlike the others: 9 x 0.3 (1 + 1 - 1/8) is 5.06, and 9 x 0.3 (1 - 1/8) is 2.36.
    assert sorted(counts) == [2] * 7 + [5]
    assert VidCom2(retention=0.3).before_llm(tokens, Signals()).achieved == 22
