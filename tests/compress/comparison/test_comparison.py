"""Comparisons of small videos: every figure is there, and what fails or cannot be compared is said."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import codecmeta
from codecmeta import VideoMeta
from compress.baselines.baseline import Baseline
from compress.comparison import Job, VideoComparison, choose_methods, compare
from compress.comparison.page import render_comparison
from compress.comparison.reconstruction import reconstruct
from compress.comparison.summary import tabulate
from compress.comparison.watched import Watched
from compress.compressor import Pipeline
from compress.encoders import SpectralEncoder
from compress.errors import CompressError, ConfigError
from compress.flops import LanguageModel
from compress.methods import METHODS, STAGES, Method
from compress.metom import BTM, MATM, RPM, MeToM
from compress.stage import BeforeEncoder, BeforeLLM, InsideLLM, Signals
from compress.video import compress_video


class Failing(Baseline):
    """A method that fails on videos of two frames."""

    name: ClassVar[str] = "failing"

    def choose(self, tokens: Any, signals: Any, count: int) -> Any:
        if len(tokens) == 2:
            raise CompressError("two frames are\nnot enough")
        raise ZeroDivisionError("a bug")


@pytest.fixture(scope="module")
def records(data: Path) -> dict[int, VideoMeta]:
    return {count: codecmeta.extract(data / "cut_h264.mkv", frames=f"uniform:{count}") for count in (4, 2)}


@pytest.fixture
def meta(records: dict[int, VideoMeta], tmp_path: Path) -> Path:
    folder = tmp_path / "meta"
    (folder / "a").mkdir(parents=True)
    records[4].save(folder / "a" / "four.mp4.npz")
    records[2].save(folder / "two.mp4.npz")
    return folder


def run(meta: Path, methods: str, *retentions: float, **fields: Any) -> list[VideoComparison]:
    names, _ = choose_methods(methods, asked=False)
    return list(compare(meta, Job(methods=names, retentions=retentions, repeats=1, **fields)))


def test_figures_are_those_of_the_shortened_video(meta: Path, records: dict[int, VideoMeta]) -> None:
    seen: list[int] = []
    names, _ = choose_methods("metom,stride", asked=False)
    job = Job(methods=names, retentions=(1.0, 0.2), repeats=2)
    videos = list(compare(meta, job, progress=seen.append))
    assert [video.video for video in videos] == ["a/four.mp4", "two.mp4"]
    assert seen == list(range(1, 9))
    cells = {(cell.method, cell.retention): cell for cell in videos[0].cells}
    for name in names:
        whole, part = cells[name, 1.0], cells[name, 0.2]
        assert (whole.tokens_in, whole.tokens_out, part.tokens_out) == (784, 784, 157)
        assert (whole.assignment_error, whole.local_error, whole.linear_error) == (0, 0, 0)
        assert (whole.moving_coverage, whole.residual_coverage, whole.temporal_coverage) == (1, 1, 1)
        assert whole.sources["residual"] == "innovation (bitstream)"
        assert (whole.macs, whole.patches) == (whole.macs_full, 1.0)
        assert part.macs == float(LanguageModel().prefill(157))
        assert part.assignment_error is not None and part.assignment_error > 0
        assert part.seconds is not None and part.seconds > 0
        assert part.tokens_inner == 157
        assert part.kl == () and part.kl_summary["kl_mean"] is part.agreement is None
        assert part.sources["moving"] == "change between sampled frames"
        json.loads(part.to_json())
    assert cells["metom", 0.2].patches is not None and cells["metom", 0.2].patches < 1
    # against the run of one method by itself, whose patches merge too
    record = records[4]
    video = compress_video(record, MeToM(retention=0.2), encoder=SpectralEncoder())
    encoder = SpectralEncoder()
    assert record.frames is not None
    tokens = encoder.pool(encoder.encode(record.frames)).flatten(0, 1)
    expected = reconstruct(tokens, video.tokens, video.compression.plan.assign)
    assert cells["metom", 0.2].assignment_error == pytest.approx(expected.assignment)
    assert cells["metom", 0.2].local_error == pytest.approx(expected.local)
    assert expected.assignment != pytest.approx(cells["stride", 0.2].assignment_error, rel=0.01)


def test_a_method_that_fails_is_said_and_stops_nothing(meta: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Method(
        name="failing", target=f"{__name__}:Failing", stages=("before_llm",), signals=(), source="", summary=""
    )
    monkeypatch.setattr("compress.methods.METHODS", {**METHODS, "failing": entry})
    monkeypatch.setattr("compress.comparison.comparison.METHODS", {**METHODS, "failing": entry})
    videos = run(meta, "failing,random", 0.5)
    four, two = ({cell.method: cell for cell in video.cells} for video in videos)
    assert two["failing"].status == four["failing"].status == "failed"
    assert two["failing"].message == "two frames are not enough"
    assert four["failing"].message == "internal error, please report it: ZeroDivisionError: a bug"
    assert two["random"].status == "done"
    failed, done = tabulate(cell for video in videos for cell in video.cells)
    assert (failed.videos, len(failed.failures), failed.figures["tokens_out"]) == (0, 2, None)
    assert (done.videos, done.figures["tokens_out"]) == (2, (392 + 196) / 2)
    page = render_comparison(videos, (), title="t", about="")
    assert "two frames are not enough" in page and "failing 50 % failed on two.mp4" in page


def test_a_video_that_fails_stops_no_other(meta: Path, records: dict[int, VideoMeta]) -> None:
    (meta / "b.npz").write_bytes(b"no archive")
    replace(records[2], frames=None).save(meta / "c.npz")
    videos = run(meta, "random", 0.5)
    assert [video.pictures is None for video in videos] == [False, True, True, False]
    bad, blind = videos[1].cells[0], videos[2].cells[0]
    assert (bad.status, bad.method) == ("failed", None) and "b.npz" in bad.message
    assert "--pixels 384" in blind.message


def test_methods_that_need_a_model_are_left_out_or_refused() -> None:
    names, omitted = choose_methods("all", asked=False)
    assert set(names) | {cell.method for cell in omitted} == set(METHODS)
    assert {"rpm", "matm", "flashvid-inner"} <= {cell.method for cell in omitted}
    assert {cell.status for cell in omitted} == {"omitted"}
    assert all("--model" in cell.message for cell in omitted)
    assert {"metom", "infomerge", "random"} <= set(names)
    assert {"rpm", "matm"} <= set(choose_methods("all", asked=True)[0])
    for text, said in (("matm", "matm: it works inside a model only"), ("best", "unknown method 'best'")):
        with pytest.raises(ConfigError, match=said):
            choose_methods(text, asked=False)


def test_a_watched_method_has_the_stages_of_the_method() -> None:
    for method in (MeToM(layers=(1, 2)), BTM(), Pipeline(RPM(), MATM(layers=(2,)))):
        watched = Watched(method)
        for kind in (BeforeEncoder, InsideLLM):
            assert isinstance(watched, kind) == isinstance(method, kind)
        assert isinstance(watched, BeforeLLM)
        assert {stage for stage in STAGES if hasattr(method, stage)} <= {
            stage for stage in STAGES if hasattr(watched, stage)
        }
    assert Watched(MATM()).at_depth(6).layers == (2, 3, 4)
    assert Watched(BTM(gop="total")).gop == "total"


def test_the_log_composes_what_happens_before_and_inside() -> None:
    watched = Watched(Pipeline(BTM(retention=0.5), MATM(layers=(1,), merge_percent=75.0)), repeats=3)
    tokens = torch.randn(4, 9, 6, generator=torch.Generator().manual_seed(0))
    signals = Signals(density=np.random.default_rng(0).random((4, 9)), packet_size=[1, 2, 3, 4], grid=(3, 3))
    before = watched.before_llm(tokens, signals)
    for prompt in range(2):
        scores = torch.rand(1, 18, generator=torch.Generator().manual_seed(prompt))
        watched.inside_llm(scores, before.apply(tokens))
    one, other = watched.log.plans
    assert (one.count_in, one.count_out, other.count_out) == (36, 4, 4)
    assert not torch.equal(one.keep, other.keep)
    assert one.dense() @ tokens.flatten(0, 1) == pytest.approx(one.apply(tokens.flatten(0, 1)), abs=1e-5)
    assert [len(calls) for calls in watched.log.seconds.values()] == [3, 6]
    assert watched.log.cut_layers == (2,)


def test_a_comparison_without_a_model_needs_no_transformers() -> None:
    code = "import sys; sys.modules['transformers'] = None; import compress.comparison, compress.comparison.page"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
