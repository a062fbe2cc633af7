"""One video in memory: what the method's fields make of its signals."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch

import codecmeta
from codecmeta import VideoMeta
from compress.encoders import SpectralEncoder
from compress.methods import build
from compress.metom import BTM
from compress.stage import GopKind
from compress.video import PACKET_SIZES, compress_video


@pytest.fixture(scope="module")
def meta(data: Path) -> VideoMeta:
    return codecmeta.extract(data / "cut_h264.mkv", frames="uniform:8", pixels=96)


@pytest.mark.parametrize("gop", get_args(GopKind))
def test_budgets_follow_the_packets_that_the_method_names(meta: VideoMeta, gop: GopKind) -> None:
    method = BTM(retention=0.3, gop=gop)
    video = compress_video(meta, method, encoder=SpectralEncoder())
    assert video.compression.frame_budgets is not None
    assert video.compression.frame_budgets.tolist() == method.plan_frames(meta, tokens_per_frame=196).tolist()
    assert video.packet_size.tolist() == meta.gop_packet_size(kind=gop).tolist()
    assert video.sources["packet_size"] == PACKET_SIZES[gop]


@pytest.mark.parametrize(
    ("name", "settings", "signals"),
    [
        ("fastvid", {}, {"saliency": "distance to the frame's mean token", "frame_features": "given"}),
        ("holitom", {}, {"saliency": "distance to the frame's mean token"}),
        ("flashvid", {}, {"saliency": "distance to the frame's mean token"}),
        ("visionzip", {}, {"saliency": "distance to the frame's mean token", "keys": "tokens (none given)"}),
        ("visionzip", {"form": "clip"}, {"saliency": "distance to the frame's mean token (no class token)"}),
    ],
)
def test_what_the_embedded_encoder_lacks_is_named(
    meta: VideoMeta, name: str, settings: dict[str, str], signals: dict[str, str]
) -> None:
    video = compress_video(meta, build(name, retention=0.2, settings=settings), encoder=SpectralEncoder())
    assert len(video.tokens) == round(0.2 * 8 * 196)
    assert signals.items() <= video.sources.items()


def test_the_embedded_encoder_computes_every_patch(meta: VideoMeta) -> None:
    plain, reused = (
        compress_video(meta, build("cover", retention=0.2, settings=settings), encoder=SpectralEncoder())
        for settings in ({}, {"reuse": "6"})
    )
    assert reused.sources["reuse"] == "skipped: the embedded encoder has no blocks"
    assert "reuse" not in plain.sources
    assert reused.patches is None
    assert torch.equal(reused.tokens, plain.tokens)


def test_packets_share_the_budget_of_any_method_with_frame_budgets(meta: VideoMeta) -> None:
    for name in ("pool", "smaller", "vidcom2", "fastvid", "visionzip", "flashvid", "cover"):
        method = build(name, retention=0.2, settings={"frame_budget": "packets"})
        video = compress_video(meta, method, encoder=SpectralEncoder())
        assert video.compression.frame_budgets is not None
        assert video.compression.frame_budgets.tolist() == method.plan_frames(meta, tokens_per_frame=196).tolist()
        assert len(set(video.compression.frame_budgets.tolist())) > 1
