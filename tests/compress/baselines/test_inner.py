"""Methods inside the language model and at decoding: what all promise, their definitions, what released code does."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from compress.baselines import (
    D2Pruner,
    DyCokeDecoding,
    FastV,
    HoliTomInner,
    PruneVidInner,
    PyramidDrop,
    UnifiedSTTCInner,
    replay,
)
from compress.baselines.inner import Inner
from compress.compressor import Pipeline
from compress.errors import ConfigError, ShapeError
from compress.infomerge import InfoMerge
from compress.methods import METHODS, build, retained_fraction
from compress.plan import MergePlan
from compress.stage import AtDecoding, BeforeLLM, Compression, InnerTokens, InsideLLM, cuts_of
from tests.oracle import inner as oracle

INNER = ("fastv", "pyramiddrop", "holitom-inner", "d2pruner", "prunevid-inner", "unified-sttc-inner")
UNSEEN = ("tome-video-inner", "sttm-inner")
"""Methods that read no attention."""
VARIANTS: list[tuple[str, dict[str, str]]] = [
    *((name, {}) for name in (*INNER, *UNSEEN)),
    ("d2pruner", {"alpha": "0.5", "debias": "frames", "semantic": "minmax", "pivots_block": "yes"}),
    ("d2pruner", {"alpha": "0", "spatial": "inverse", "frames": "joined", "semantic": "shifted", "theta": "0.3"}),
]
every_method = pytest.mark.parametrize(("name", "fields"), VARIANTS)
RETENTIONS = (0.05, 0.1, 0.25, 0.31, 0.5, 0.77, 0.97)


def scene(frames: int, rows: int, cols: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor, InnerTokens]:
    """Attention, residual stream and places of a video's tokens."""
    generator = torch.Generator().manual_seed(seed)
    n = frames * rows * cols
    token = torch.arange(n)
    place = torch.stack((token * 0, token // (rows * cols), token % (rows * cols) // cols, token % cols), dim=1)
    tokens = InnerTokens(cut=0, entered=n, place=place, grids=((rows, cols),))
    hidden = torch.randn(frames, rows * cols, 8, generator=generator) * 0.4 + torch.randn(
        1, rows * cols, 8, generator=generator
    )
    return torch.rand(n, generator=generator), hidden.flatten(0, 1), tokens


def run(name: str, fields: dict[str, str], retention: float, given: tuple[Any, Any, InnerTokens]) -> list[Compression]:
    """All cuts of a method, one after the other."""
    scores, hidden, tokens = given
    method = build(name, retention=retention, settings=fields).at_depth(32)
    found = []
    for cut in range(len(method.cuts)):
        shown = InnerTokens(cut=cut, entered=tokens.entered, place=tokens.place, grids=tokens.grids)
        found.append(method.inside_llm(scores, hidden, shown))
        plan = found[-1].plan
        scores, hidden = scores[plan.keep], plan.apply(hidden)
        place = None if tokens.place is None else tokens.place[plan.keep]
        tokens = InnerTokens(cut=cut, entered=tokens.entered, place=place, grids=tokens.grids)
    return found


def test_every_method_is_listed() -> None:
    listed = {name for name, entry in METHODS.items() if entry.target.startswith("compress.baselines")}
    inside = {name for name in listed if "inside_llm" in METHODS[name].stages}
    assert inside >= {*INNER, *UNSEEN, "flashvid-inner"}
    for name in INNER:
        assert issubclass(METHODS[name].load(), Inner)
        assert METHODS[name].load().name == name
        assert not METHODS[name].query_agnostic
    assert {name for name in listed if "at_decoding" in METHODS[name].stages} == {"dycoke-decoding"}


@every_method
def test_counts_are_exact_and_places_sorted_and_unique(name: str, fields: dict[str, str]) -> None:
    for frames, rows, cols in ((6, 4, 5), (1, 3, 3), (2, 1, 1), (1, 1, 1)):
        given = scene(frames, rows, cols, seed=frames)
        n = frames * rows * cols
        for retention in RETENTIONS:
            *_, last = run(name, fields, retention, given)
            wanted = max(math.floor(retention * n + 0.5 + 1e-9), 1)
            assert last.nominal == last.achieved == wanted, (n, retention)
            last.plan.check()
        assert retained_fraction(build(name, retention=0.31, settings=fields)) == pytest.approx(0.31)
        for one in run(name, fields, 1.0, given):
            assert one.plan.keeps_all
            assert torch.equal(one.apply(given[1]), given[1])


@every_method
def test_the_same_input_gives_the_same_plan(name: str, fields: dict[str, str]) -> None:
    scores, hidden, tokens = given = scene(5, 4, 4, seed=2)
    first = run(name, fields, 0.3, given)
    torch.manual_seed(99)
    with torch.autocast("cpu", torch.bfloat16):
        again = run(name, fields, 0.3, (scores.clone(), hidden.clone().requires_grad_(), tokens))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        double = run(name, fields, 0.3, given)
    finally:
        torch.set_default_dtype(before)
    for a, *others in zip(first, again, double, strict=True):
        for b in others:
            assert torch.equal(a.plan.keep, b.plan.keep) and torch.equal(a.plan.weight, b.plan.weight)
    half = hidden.bfloat16()
    for a, b in zip(
        run(name, fields, 0.3, (scores, half, tokens)),
        run(name, fields, 0.3, (scores, half.float(), tokens)),
        strict=True,
    ):
        assert a.plan.keep.tolist() == b.plan.keep.tolist()
        assert a.apply(torch.zeros(a.plan.count_in, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


@every_method
@pytest.mark.parametrize("content", ["identical", "black"])
def test_videos_without_change(name: str, fields: dict[str, str], content: str) -> None:
    for frames in (1, 2, 6):
        scores, hidden, _ = scene(1, 4, 4, seed=5)
        scores, hidden = scores.repeat(frames), hidden.repeat(frames, 1)
        if content == "black":
            scores, hidden = torch.full_like(scores, 0.01), torch.zeros_like(hidden)
        n = frames * 16
        token = torch.arange(n)
        place = torch.stack((token * 0, token // 16, token % 16 // 4, token % 4), dim=1)
        *_, last = run(name, fields, 0.3, (scores, hidden, InnerTokens(cut=0, entered=n, place=place, grids=((4, 4),))))
        assert last.achieved == math.floor(0.3 * n + 0.5)
        last.plan.check()
        assert torch.isfinite(last.apply(torch.rand(last.plan.count_in, 3))).all()


@every_method
def test_bad_input_is_refused(name: str, fields: dict[str, str]) -> None:
    scores, hidden, tokens = scene(2, 3, 3, seed=6)
    method = build(name, retention=0.3, settings=fields)
    for bad in (scores[:5], scores[None, None], torch.zeros(0, 17 if name in UNSEEN else 18)):
        with pytest.raises(ShapeError, match="scores"):
            method.inside_llm(bad, hidden, tokens)
    with pytest.raises(ShapeError, match="hidden"):
        method.inside_llm(scores, hidden[None], tokens)
    for broken in (torch.nan, torch.inf):
        with pytest.raises(ShapeError, match=r"NaN|not finite|finite"):
            method.inside_llm(scores.index_fill(0, torch.tensor(3), broken), hidden, tokens)
    hidden[3, 0] = torch.nan
    if name in ("fastv", "pyramiddrop", "prunevid-inner"):  # what tokens hold decides nothing, and none are merged
        found = method.inside_llm(scores, hidden, tokens)
        stays = found.plan.keep != 3
        assert torch.equal(found.apply(hidden)[stays], hidden[found.plan.keep[stays]])
    else:
        with pytest.raises(ShapeError, match=r"NaN|not finite|finite"):
            method.inside_llm(scores, hidden, tokens)
    with pytest.raises(ConfigError, match="retention"):
        build(name, retention=0.0)


@every_method
def test_layers_belong_to_the_model_and_stages_combine(name: str, fields: dict[str, str]) -> None:
    method = build(name, settings=fields)
    assert cuts_of(method) is None
    assert (method.layers, method.merge_layer) == (None, None)
    chosen = method.at_depth(28, first=3)
    assert all(cut.layer >= 3 for cut in cuts_of(chosen) or ())
    assert chosen.at_depth(8) == chosen
    pipeline = Pipeline(InfoMerge(retention=0.2), chosen, DyCokeDecoding(L=27))
    assert isinstance(pipeline, InsideLLM) and isinstance(pipeline, BeforeLLM) and isinstance(pipeline, AtDecoding)
    assert cuts_of(pipeline) == cuts_of(chosen)
    assert (pipeline.merge_layer, pipeline.decode_layer) == (chosen.merge_layer, 27)


def test_papers_layers() -> None:
    assert FastV().at_depth(28).cuts[0].scored == (1,)
    assert FastV().at_depth(36, first=3).merge_layer == 3
    assert HoliTomInner().at_depth(28).merge_layer == 18
    assert PyramidDrop().at_depth(32).layer_list == (8, 16, 24)
    assert PyramidDrop().ratios == pytest.approx((0.5, 0.25, 0.125))
    assert D2Pruner().at_depth(32).merge_layer == 2
    assert DyCokeDecoding().at_depth(28).decode_layer == 3
    assert FastV(K=2, R=0.75).share == 0.25
    with pytest.raises(ConfigError, match="too few"):
        PyramidDrop().at_depth(3)
    for bad in ({"layer_list": (3, 2)}, {"image_token_ratio_list": (0.5,)}, {"fidelity": "exact"}):
        with pytest.raises(ConfigError):
            PyramidDrop(**bad)


def test_fastv_and_holitom_by_definition() -> None:
    scores, hidden, tokens = scene(4, 4, 5, seed=11)
    a, x = scores.double().numpy(), hidden.double().numpy()
    for retention in (0.1, 0.35, 0.8):
        kept = math.floor(retention * 80 + 0.5)
        result = FastV(retention=retention).inside_llm(scores, hidden, tokens)
        assert result.plan.keep.tolist() == oracle.top(a, kept)
        for fidelity, halves in (("fixed", False), ("reference", True)):
            merged = HoliTomInner(retention=retention, fidelity=fidelity).inside_llm(scores, hidden, tokens)
            keep, values = oracle.absorbed(a, x, kept, halves=halves)
            assert merged.plan.keep.tolist() == keep
            np.testing.assert_allclose(merged.apply(hidden.double()), values, atol=1e-6)


def test_pyramiddrop_by_definition() -> None:
    scores, hidden, _ = scene(4, 4, 5, seed=12)
    several = torch.stack([scores, scores.flip(0), scores.roll(7)])
    a = several.double().numpy()
    for retention in (0.125, 0.3, 0.6):
        counts = [math.floor(80 * retention ** (i / 3) + 0.5 + 1e-9) for i in (1, 2, 3)]
        found = replay(
            "pyramiddrop", {"A": several.numpy(), "X": hidden.numpy()}, retention=retention, fidelity="fixed"
        )
        assert found["keep"].tolist() == oracle.pyramid(a, counts)
        np.testing.assert_array_equal(found["values"], hidden[found["keep"]])
    assert oracle.pyramid(a, [40, 20, 10]) != oracle.pyramid(a[::-1], [40, 20, 10])


@pytest.mark.parametrize("block", [False, True])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_d2pruner_by_definition(alpha: float, block: bool) -> None:
    scores, hidden, tokens = scene(3, 4, 4, seed=13)
    prior = torch.linspace(0.1, 1, 16)
    a = scores.double().numpy() / (np.tile(prior.double().numpy(), 3) + 1e-7)
    x = hidden.double().numpy()
    assert tokens.place is not None
    place = tokens.place.numpy()

    def similar(i: int, j: int) -> float:
        near = 0.0
        if place[i, 1] == place[j, 1]:
            near = math.exp(-float(((place[i] - place[j])[2:] ** 2).sum()) / 2)
        return alpha * oracle.cosine(x[i], x[j]) + (1 - alpha) * near

    for retention, theta in ((0.2, 0.3), (0.5, 0.5), (0.9, 0.2)):
        kept = math.floor(retention * 48 + 0.5)
        method = D2Pruner(
            retention=retention, theta=theta, alpha=alpha, prior=tuple(prior.tolist()), pivots_block=block
        )
        result = method.inside_llm(scores, hidden, tokens)
        expected = oracle.independent(a, kept, math.floor(0.7 * kept + 1e-9), similar, theta, block=block)
        assert result.plan.keep.tolist() == expected
        assert expected != oracle.top(a, kept) or retention == 0.9
        assert result.sources["prior"] == "given"
        upper = D2Pruner(retention=retention, theta=theta, alpha=alpha, fill="none", pivots_block=block)
        assert upper.inside_llm(scores, hidden, tokens).achieved <= kept


def test_unified_sttc_by_definition() -> None:
    scores, hidden, tokens = scene(3, 4, 5, seed=15)
    text = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    a, x, t = scores.double().numpy(), hidden.double().numpy(), text.double().numpy()
    s = np.array([max(oracle.cosine(one, other) for other in t) for one in x])
    for normalise, scale in (
        ("minmax", lambda v: (v - v.min()) / (v.max() - v.min())),
        ("sum", lambda v: v / abs(v.sum())),
    ):
        for lam in (0.0, 0.5, 1.0):
            method = UnifiedSTTCInner(retention=0.3, lam=lam, normalise=normalise)  # type: ignore[arg-type]
            found = method.inside_llm(scores, hidden, dataclasses.replace(tokens, text=text))
            arrays = {"A": scores.numpy(), "X": hidden.numpy(), "text": text.numpy()}
            replayed = replay("unified-sttc-inner", arrays, retention=0.3, lam=lam, normalise=normalise)
            assert replayed["keep"].tolist() == found.plan.keep.tolist()
            assert replayed["ignored"] == ()
            keep, values = oracle.absorbed((1 - lam) * scale(a) + lam * scale(s), x, 18, halves=False)
            assert found.plan.keep.tolist() == keep
            np.testing.assert_allclose(found.apply(hidden.double()), values, atol=1e-6)
    assert UnifiedSTTCInner(K=3).cuts[0].reduce == "max"
    assert UnifiedSTTCInner(K=3, heads="mean").cuts[0].reduce == "max_of_means"
    assert UnifiedSTTCInner().inside_llm(scores, hidden).sources == {"text": "attention only (no text given)"}


def test_prunevid_by_definition() -> None:
    scores, hidden, tokens = scene(3, 4, 5, seed=16)
    kind = (torch.arange(60) % 3 == 0).to(torch.uint8)
    shown = dataclasses.replace(tokens, kind=kind, kinds=("dynamic", "static"))
    found = PruneVidInner(retention=0.4).inside_llm(scores, hidden, shown)
    moving, static = (np.flatnonzero(kind.numpy() == one) for one in (0, 1))
    a = scores.double().numpy()
    expected = [moving[i] for i in oracle.top(a[moving], 16)] + [static[i] for i in oracle.top(a[static], 8)]
    assert found.plan.keep.tolist() == sorted(expected) != oracle.top(a, 24)
    other = dataclasses.replace(shown, kinds=("selected", "merged"))
    assert PruneVidInner(retention=0.4).inside_llm(scores, hidden, other).plan.keep.tolist() == oracle.top(a, 24)
    (cut,) = PruneVidInner().at_depth(32).cuts or ()
    assert (cut.layer, cut.scored, cut.query, cut.reduce, cut.caches) == (10, (9,), "text", "max", True)


def test_d2pruner_says_what_it_lacks() -> None:
    scores, hidden, tokens = scene(2, 2, 2, seed=14)
    assert D2Pruner().inside_llm(scores, hidden).sources["prior"] == "none (none given)"
    with pytest.raises(ShapeError, match="the prior holds 3 values; frames of this prompt have"):
        D2Pruner(prior=(1.0, 2.0, 3.0)).inside_llm(scores, hidden, tokens)
    with pytest.raises(ShapeError, match="places"):
        D2Pruner(prior=(1.0, 2.0, 3.0)).inside_llm(scores, hidden)
    with pytest.raises(ShapeError, match=r"alpha is 0\.5"):
        D2Pruner(alpha=0.5).inside_llm(scores, hidden)
    flat = torch.tensor([0.5, 0.1, 0.1, 0.1, 0.5, 0.3, 0.1, 0.1])  # place 0 is always high; token 5 is above its own
    found = D2Pruner(debias="frames", retention=0.125, pivot_share=1).inside_llm(flat, hidden, tokens)
    assert found.plan.keep.tolist() == [5]


def test_dycoke_decoding_by_definition() -> None:
    generator = torch.Generator().manual_seed(3)
    base = torch.rand(1, 30, generator=generator)
    noise = torch.rand(8, 30, generator=generator)
    mixed = torch.tensor([1, 1, 0.1, 0.1, 0.9, 0, 0, 1])[:, None]
    scores = mixed * base + (1 - mixed) * noise
    for fidelity in ("fixed", "reference"):
        found = replay("dycoke-decoding", {"A": scores.numpy()}, P=0.7, fidelity=fidelity)
        expected = oracle.steps(scores.double().numpy(), 9, 0.9, everything=fidelity == "reference")
        assert [np.flatnonzero(step).tolist() for step in found["steps"]] == expected
        assert found["keep"].tolist() == expected[-1]
        assert len({tuple(step) for step in expected}) > 3
    with pytest.raises(ShapeError, match="the same at every step"):
        DyCokeDecoding().at_decoding(scores[0], scores[0, :5], None)
    for bad in ({"P": 1.0}, {"L": 0}, {"tau": 2}, {"retention": 0}):
        with pytest.raises(ConfigError):
            DyCokeDecoding(**bad)


def test_fastv_reads_the_last_row_where_the_paper_averages() -> None:
    assert FastV(K=2).cuts[0].query == "all"
    assert FastV(K=2, fidelity="reference").cuts[0].query == "last"
    assert FastV(K=2, query="last").cuts[0].query == "last"
    weights = torch.zeros(2, 6, 6)
    weights[:, :-1, 2], weights[:, -1, 3] = 1.0, 1.0  # all rows attend to column 2, the last one to column 3
    hidden = torch.arange(12.0).view(6, 2)
    arrays = {"A": weights[None].numpy(), "X": hidden.numpy(), "start": np.array(1), "length": np.array(4)}
    assert replay("fastv", arrays, R=0.75)["keep"].tolist() == [2]
    assert replay("fastv", arrays, R=0.75, fidelity="fixed")["keep"].tolist() == [1]
    assert replay("fastv", arrays, R=0.75)["values"].tolist() == hidden[3:4].tolist()
    mean = {**arrays, "A": weights.mean(dim=0).numpy(), "X": hidden[None].numpy()}
    assert replay("fastv", mean, R=0.75)["keep"].tolist() == [2]
    assert replay("holitom_inner", mean, R=0.75)["keep"].tolist() == [2]


def test_holitom_and_fastv_round_halves_to_even() -> None:
    scores, hidden, _ = scene(1, 1, 5, seed=1)
    for kind in (FastV, HoliTomInner):
        assert kind(R=0.5, fidelity="reference").inside_llm(scores, hidden).achieved == 2
        assert kind(R=0.5).inside_llm(scores, hidden).achieved == 3


def test_holitom_halves_one_after_the_other() -> None:
    hidden = torch.tensor([[1.0, 0.0], [4.0, 0.0], [8.0, 0.0], [0.0, 1.0]])
    arrays = {"A": np.array([0.9, 0.1, 0.2, 0.8]), "X": hidden.numpy()}
    released = replay("holitom-inner", arrays, R=0.5)
    assert released["keep"].tolist() == [0, 3]
    assert released["values"].tolist() == [[((1 + 4) / 2 + 8) / 2, 0], [0, 1]]
    assert replay("holitom-inner", arrays, R=0.5, fidelity="fixed")["values"][0, 0] == pytest.approx(13 / 3)


def test_holitom_decides_equal_similarities_in_order_of_attention() -> None:
    hidden = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    arrays = {"A": np.array([0.3, 0.4, 0.0, 0.1]), "X": hidden.numpy()}
    for fidelity, row in (("reference", 1), ("fixed", 0)):
        method = HoliTomInner(R=0.5, fidelity=fidelity)
        plan: MergePlan = method.inside_llm(torch.tensor(arrays["A"]), hidden).plan
        assert plan.keep.tolist() == [0, 1]
        assert plan.dense()[row, 2] > 0


def test_pyramiddrop_rounds_down_and_counts_positions_again() -> None:
    scores, hidden, _ = scene(1, 1, 15, seed=1)
    arrays = {"A": scores.numpy(), "X": hidden.numpy()}
    ratios = {"layer_list": (8, 16), "image_token_ratio_list": (0.5, 0.25)}
    assert len(replay("pyramiddrop", arrays, **ratios)["keep"]) == 3
    assert len(replay("pyramiddrop", arrays, **ratios, fidelity="fixed")["keep"]) == 4
    for fidelity, positions in (("fixed", "original"), ("reference", "contiguous")):
        cuts = PyramidDrop(**ratios, fidelity=fidelity).cuts
        assert [(cut.layer, cut.scored, cut.positions) for cut in cuts or ()] == [
            (8, (8,), positions),
            (16, (16,), positions),
        ]


def test_dycoke_decoding_reads_everything_where_attention_is_as_before() -> None:
    scores = np.array([[3.0, 1, 2, 0], [3, 1, 2, 0], [0, 1, 2, 3]])
    fixed = replay("dycoke-decoding", {"A": scores}, P=0.5, fidelity="fixed")["steps"]
    assert fixed.tolist() == [[True, False, True, False]] * 2 + [[False, False, True, True]]
    released = replay("dycoke-decoding", {"A": scores, "X": np.eye(4)}, P=0.5)
    assert released["steps"].tolist() == [[True, False, True, False], [True] * 4, [False, False, True, True]]
    assert released["values"].tolist() == np.eye(4)[2:].tolist()
    assert len(replay("dycoke-decoding", {"A": scores[:, :3]}, P=0.5)["keep"]) == 1  # rounds down
    assert len(replay("dycoke-decoding", {"A": scores[:, :3]}, P=0.5, fidelity="fixed")["keep"]) == 2
