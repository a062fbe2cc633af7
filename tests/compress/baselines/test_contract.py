"""What every method before the language model promises, whatever the video."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from compress.baselines.baseline import Baseline
from compress.compressor import Pipeline
from compress.errors import ConfigError, ShapeError
from compress.methods import METHODS, build
from compress.metom import MATM, RPM
from compress.plan import MergePlan
from compress.stage import BeforeEncoder, BeforeLLM, Compression, InsideLLM, PlansFrames, Signals
from tests.compress.baselines.scenes import PacketSizes, signals_for, video

VARIANTS: list[tuple[str, dict[str, str]]] = [
    ("random", {}),
    ("stride", {}),
    ("pool", {}),
    ("pool", {"over": "time"}),
    ("frames", {}),
    ("smaller", {}),
    ("evs", {}),
    ("dycoke", {}),
    ("vidcom2", {}),
    ("divprune", {}),
    ("cover", {}),
    ("cover", {"frame_budget": "packets"}),
    ("fastvid", {}),
    ("fastvid", {"budget": "onevision"}),
    ("holitom", {}),
    ("visionzip", {}),
    ("visionzip", {"form": "clip"}),
    ("flashvid", {}),
    ("flashvid", {"selection": "v1"}),
    ("tome-video", {}),
    ("tome-video", {"scope": "frame"}),
    ("sttm", {}),
    ("sttm", {"weighted": "yes", "root_level": "0"}),
    ("prunevid", {}),
    ("prunevid", {"runs": "all"}),
    ("unified-sttc", {}),
    ("unified-sttc", {"recycle": "rejected", "exhausted": "clusters", "distance": "plain"}),
    ("earlytom", {}),
    ("infomerge", {}),
    ("pool", {"frame_budget": "packets"}),
    ("smaller", {"frame_budget": "packets"}),
    ("vidcom2", {"frame_budget": "packets"}),
    ("fastvid", {"frame_budget": "packets"}),
    ("fastvid", {"frame_budget": "packets", "budget": "onevision"}),
    ("visionzip", {"frame_budget": "packets"}),
    ("flashvid", {"frame_budget": "packets"}),
]
every_method = pytest.mark.parametrize(
    ("name", "fields"), VARIANTS, ids=lambda value: value if isinstance(value, str) else "-".join(value.values())
)
SHAPES = ((16, (6, 6)), (13, (5, 7)), (5, (4, 4)), (2, (3, 3)), (1, (5, 5)), (4, (1, 1)))


def plan_of(name: str, fields: dict[str, str], tokens: torch.Tensor, retention: float, **given: Any) -> Compression:
    signals = given.pop("signals", None) or signals_for(tokens, **given)
    compression = build(name, retention=retention, settings=fields).before_llm(tokens, signals)
    assert isinstance(compression, Compression)
    return compression


def same(a: Compression, b: Compression) -> bool:
    arrays = ("keep", "crow", "col", "weight")
    return all(torch.equal(getattr(a.plan, one), getattr(b.plan, one)) for one in arrays)


def test_every_baseline_is_listed() -> None:
    before = {name for name, entry in METHODS.items() if "before_llm" in entry.stages}
    assert before - {"metom", "btm"} == {name for name, _ in VARIANTS}
    for name in before - {"metom", "btm", "infomerge"}:
        loaded = METHODS[name].load()
        assert issubclass(loaded, Baseline)
        assert loaded.name == name


@every_method
def test_counts_are_exact_and_places_sorted_and_unique(name: str, fields: dict[str, str]) -> None:
    for frames, grid in SHAPES:
        tokens = video(frames, grid, seed=frames)
        total = frames * grid[0] * grid[1]
        for retention in (0.05, 0.1, 0.25, 0.31, 0.5, 0.77, 0.97):
            wanted = math.floor(retention * total + 0.5 + 1e-9)
            if wanted < 1:
                with pytest.raises(ConfigError, match="leaves none"):
                    plan_of(name, fields, tokens, retention, grid=grid)
                continue
            result = plan_of(name, fields, tokens, retention, grid=grid)
            assert result.nominal == result.achieved == wanted, (frames, grid, retention)
            result.plan.check()  # sorted, unique, rows that sum to 1
            assert result.plan.stochastic
            if result.kind is not None:
                assert result.kind.shape == (wanted,)
                assert int(result.kind.max()) < len(result.kinds)
            if result.frame_budgets is not None:
                assert result.frame_budgets.sum() == wanted
            if result.segments:
                assert sum(s.salient + s.context for s in result.segments) == wanted
                assert sum(s.frames for s in result.segments) == frames


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (name, fields)
        for name, fields in VARIANTS
        if name in ("pool", "smaller", "vidcom2", "visionzip", "frames", "dycoke") and "over" not in fields
    ],
)
def test_budgets_of_frames_are_kept(name: str, fields: dict[str, str]) -> None:
    """Methods that neither cluster across frames nor move anchors give every frame what it was granted."""
    result = plan_of(name, fields, video(7, (5, 5), seed=2), 0.3, grid=(5, 5))
    assert result.frame_budgets is not None
    assert result.frame_counts.tolist() == result.frame_budgets.tolist()


@every_method
def test_all_tokens_are_the_identity(name: str, fields: dict[str, str]) -> None:
    tokens = video(6, (4, 4), seed=1)
    result = plan_of(name, fields, tokens, 1.0, grid=(4, 4))
    assert result.plan.keeps_all
    assert torch.equal(result.apply(tokens), tokens.flatten(0, 1))
    assert build(name, retention=1.0, settings=fields).signals == ()


@every_method
def test_the_same_input_gives_the_same_plan(name: str, fields: dict[str, str]) -> None:
    tokens = video(9, (5, 5), seed=3)
    first = plan_of(name, fields, tokens, 0.3, grid=(5, 5))
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    assert same(first, plan_of(name, fields, tokens.clone(), 0.3, grid=(5, 5)))


@every_method
@pytest.mark.parametrize("content", ["identical", "black", "grey"])
def test_videos_without_change(name: str, fields: dict[str, str], content: str) -> None:
    for frames in (1, 2, 9):
        tokens = video(1, (4, 4), seed=5).expand(frames, -1, -1).clone()
        if content != "identical":
            tokens = torch.zeros_like(tokens) if content == "black" else torch.full_like(tokens, 0.3)
        flat = torch.ones(frames, 16) if content != "identical" else None
        for retention in (0.13, 0.5):
            result = plan_of(name, fields, tokens, retention, grid=(4, 4), saliency=flat)
            assert result.achieved == math.floor(retention * frames * 16 + 0.5)
            result.plan.check()
            merged = result.apply(tokens)
            assert torch.isfinite(merged).all()
            if content != "identical":
                torch.testing.assert_close(merged, tokens[0, :1].expand_as(merged))


@every_method
def test_half_precision_is_planned_in_single(name: str, fields: dict[str, str]) -> None:
    tokens = video(9, (5, 5), seed=7).bfloat16()
    half = plan_of(name, fields, tokens, 0.3, signals=signals_for(tokens, grid=(5, 5)))
    wide = plan_of(name, fields, tokens.float(), 0.3, signals=signals_for(tokens, grid=(5, 5)))
    assert half.plan.keep.tolist() == wide.plan.keep.tolist()
    assert half.apply(tokens).dtype == torch.bfloat16


@pytest.fixture
def odd_defaults() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize(("name", "fields"), [variant for variant in VARIANTS if variant[0] != "infomerge"])
def test_planning_ignores_autocast_default_dtype_and_gradients(
    name: str, fields: dict[str, str], request: pytest.FixtureRequest
) -> None:
    tokens, signals = video(9, (5, 5), seed=8), signals_for(video(9, (5, 5), seed=8), grid=(5, 5))
    plain = plan_of(name, fields, tokens, 0.3, signals=signals)
    request.getfixturevalue("odd_defaults")
    tokens.requires_grad_()
    assert same(plain, plan_of(name, fields, tokens, 0.3, signals=signals))


@every_method
def test_missing_signals_have_named_fall_backs(name: str, fields: dict[str, str]) -> None:
    tokens = video(9, (4, 4), seed=9)
    result = plan_of(name, fields, tokens, 0.3, signals=Signals(grid=(4, 4)))
    assert result.achieved == result.nominal
    missing = set(METHODS[name].signals) & {"saliency", "frame_features", "keys"}
    assert missing <= set(result.sources)
    assert all("none given" in result.sources[signal] for signal in missing)
    if fields.get("frame_budget") == "packets":
        assert result.sources["packet_size"] == "uniform (none given)"
    if name in ("pool", "smaller"):
        result = plan_of(name, fields, tokens, 0.3, signals=Signals())
        assert result.sources["grid"] == "one row of 16 tokens (none given)"


@every_method
def test_bad_input_is_refused(name: str, fields: dict[str, str]) -> None:
    tokens = video(6, (4, 4), seed=10)
    tokens[2, 3, 0] = torch.nan
    if name in ("random", "stride", "frames", "pool", "smaller"):  # what tokens hold decides nothing
        assert plan_of(name, fields, tokens, 0.3, signals=Signals(grid=(4, 4))).achieved == 29
    else:
        with pytest.raises(ShapeError, match=r"NaN|not finite"):
            plan_of(name, fields, tokens, 0.3, signals=Signals(grid=(4, 4)))
    if "saliency" in METHODS[name].signals:
        with pytest.raises(ShapeError, match="saliency"):
            plan_of(name, fields, video(6, (4, 4), seed=10), 0.3, signals=Signals(saliency=torch.rand(6, 15)))
    with pytest.raises(ConfigError, match="retention"):
        build(name, retention=0.0)
    with pytest.raises(ConfigError, match="positions"):
        build(name, settings={"positions": "new"})


@every_method
def test_frame_budgets_come_from_packets(name: str, fields: dict[str, str]) -> None:
    method = build(name, retention=0.3, settings=fields)
    if not isinstance(method, PlansFrames):
        assert "plan_frames" not in METHODS[name].stages
        return
    if "over" in fields or (name in ("vidcom2", "cover") and not fields):
        with pytest.raises(ConfigError, match=r"frame_budget|budgets per frame"):
            method.plan_frames(PacketSizes([1.0, 2.0]), tokens_per_frame=20)
        return
    sizes = [100.0, 900.0, 400.0, 100.0]
    budgets = method.plan_frames(PacketSizes(sizes), tokens_per_frame=25)
    assert budgets.sum() == 30
    tokens = video(4, (5, 5), seed=11)
    signals = dataclasses.replace(signals_for(tokens, grid=(5, 5)), packet_size=sizes)
    granted = method.before_llm(tokens, signals).frame_budgets
    assert granted is not None
    assert granted.tolist() == budgets.tolist()
    if fields.get("frame_budget") == "packets":
        assert budgets.argmax() == 1
        assert "packet_size" in method.signals
    else:
        assert budgets.max() - budgets.min() <= 1
        assert "packet_size" not in method.signals


@every_method
def test_rpm_before_and_matm_after(name: str, fields: dict[str, str]) -> None:
    pipeline = Pipeline(RPM(), build(name, retention=0.3, settings=fields), MATM())
    for stage in (BeforeEncoder, BeforeLLM, InsideLLM):
        assert isinstance(pipeline, stage)
    assert pipeline.retention == 0.3
    tokens = video(5, (4, 4), seed=12)
    assert pipeline.before_llm(tokens, signals_for(tokens, grid=(4, 4))).achieved == 24


def test_what_does_not_average_is_said(tmp_path: Any) -> None:
    keep = torch.tensor([0])
    entries = (torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([1.0, 1.0]))
    with pytest.raises(ShapeError, match="sum to 1"):
        MergePlan.from_entries(*entries, keep=keep, count_in=2)
    plan = MergePlan.from_entries(*entries, keep=keep, count_in=2, stochastic=False)
    assert not (plan @ MergePlan.identity(2)).stochastic
    assert not plan.to("cpu").stochastic
    assert plan.apply(torch.tensor([[1.0], [2.0]])).tolist() == [[3.0]]
