"""Codec metadata of requests: the record that travels with frames, and the signals that are read from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import codecmeta
from codecmeta import VideoMeta
from compress.density import MapChoice
from compress.errors import ConfigError, SignalError
from compress.models.adapters.adapter import Adapter, VideoTokens, adapt
from compress.models.inputs.random_weights import build_random
from compress.models.session.signals import MetaSignals
from compress.serving.vllm.codec import (
    TICKS,
    CodecSignals,
    decode_record,
    describe_frames,
    describe_video,
    encode_record,
)

CLIP = next((Path(__file__).resolve().parents[4] / "data" / "sprites").glob("*.mp4"))


@pytest.fixture(scope="module")
def meta() -> VideoMeta:
    return codecmeta.extract(CLIP, frames="uniform:8", pixels=64)


@pytest.fixture(scope="module")
def adapter() -> Adapter:
    return adapt(build_random("qwen2-vl-tiny"))


def test_the_record_survives_without_its_frames(meta: VideoMeta) -> None:
    assert meta.frames is not None
    again = decode_record(encode_record(meta))
    assert again.frames is None
    assert np.array_equal(again.packet_size, meta.packet_size)
    assert np.array_equal(again.gop_packet_size(), meta.gop_packet_size())


def test_name_and_date_of_the_file_make_no_other_video(meta: VideoMeta) -> None:
    other = replace(meta, info={**meta.info, "source": {**meta.info["source"], "name": "b.mp4", "mtime_ns": 5}})
    assert np.array_equal(encode_record(other)["record"], encode_record(meta)["record"])
    grown = replace(meta, packet_size=meta.packet_size + 1)
    assert not np.array_equal(encode_record(grown)["record"], encode_record(meta)["record"])


def test_times_are_those_of_the_record(meta: VideoMeta) -> None:
    described = describe_video(meta)
    seconds = np.array(described["frames_indices"]) / described["fps"]
    assert np.allclose(seconds, meta.frame_seconds - meta.frame_seconds[0], atol=1 / TICKS)
    sampled_fps = len(seconds) / described["total_num_frames"] * described["fps"]  # transformers' VideoMetadata
    assert 1 / sampled_fps == pytest.approx(np.diff(meta.frame_seconds).mean(), rel=1e-5)
    single = replace(meta, frame_packet=meta.frame_packet[:1], frame_pts=meta.frame_pts[:1])
    assert describe_video(replace(single, frame_type=meta.frame_type[:1], **_first(meta)))["duration"] == 1


def _first(meta: VideoMeta) -> dict[str, object]:
    optional = ("energy_innovation", "range_innovation", "residual_power", "residual_mean", "mb_bits", "mb_type")
    return {name: None if (array := getattr(meta, name)) is None else array[:1] for name in optional}


@pytest.mark.parametrize("choice", ["auto", "innovation", "texture"])
def test_signals_are_those_that_attach_measures(meta: VideoMeta, adapter: Adapter, choice: MapChoice) -> None:
    assert meta.frames is not None
    grid = (4, 8, 10)
    video = VideoTokens(row=0, frames=4, grid=(4, 5), patches=(8, 10), index=torch.arange(80), begin=0, stop=80)
    expected = MetaSignals(meta, adapter, choice)
    measured = CodecSignals.measure(
        decode_record(encode_record(meta)),
        adapter,
        grid,
        reads=("density", "packet_size"),
        gop="interval",
        choice=choice,
        pixels=meta.frames,
    )
    found = CodecSignals.read(adapter, *measured.tensors())
    assert found is not None
    assert found.known == ("packet_size", "density")
    assert found.maps.tokens == expected.maps.tokens
    assert np.array_equal(found.packet_size("interval"), expected.packet_size("interval"))
    assert np.array_equal(found.of_tokens(video), expected.of_tokens(video))
    with pytest.raises(SignalError, match="4"):
        found.check_frames(5)


def test_what_is_absent_stays_absent(meta: VideoMeta, adapter: Adapter) -> None:
    assert CodecSignals.read(adapter, *CodecSignals.absent()) is None
    record = decode_record(encode_record(meta))
    none = CodecSignals.measure(record, adapter, (4, 8, 10), reads=(), gop="mean", choice="auto", pixels=None)
    found = CodecSignals.read(adapter, *none.tensors())
    assert found is not None
    assert found.known == ()
    with pytest.raises(SignalError, match="did not come with the video"):
        found.packet_size("mean")
    with pytest.raises(SignalError, match="did not come with the video"):
        found.density((4, 8, 10))
    with pytest.raises(SignalError, match="the model sees 5 frames"):
        CodecSignals.measure(record, adapter, (5, 8, 10), reads=(), gop="mean", choice="auto", pixels=None)


def test_frames_without_metadata_have_their_texture(meta: VideoMeta, adapter: Adapter) -> None:
    assert meta.frames is not None
    made = CodecSignals.measure(
        describe_frames(meta.frames),
        adapter,
        (4, 8, 10),
        reads=("density", "packet_size"),
        gop="mean",
        choice="auto",
        pixels=meta.frames,
    )
    assert made.maps.tokens == "texture"
    assert made.packet_size("mean").tolist() == [1] * 4
    assert np.array_equal(made.density((4, 8, 10)), MetaSignals(meta, adapter, "texture").density((4, 8, 10)))
    with pytest.raises(SignalError, match="nor uint8 pixels"):
        describe_frames(None)


@pytest.mark.parametrize("value", [b"", {"record": b"x"}, {}, None, {"record": np.zeros(5, np.uint8)}])
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="codec"):
        decode_record(value)
