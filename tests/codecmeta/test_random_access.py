"""A frame is what a linear reader has of it, whatever else is sampled and whatever the container claims."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codecmeta import VideoMeta, extract
from tests.codecmeta import spliced_video as spliced

KINDS: dict[str, Callable[[Path], Path]] = {
    "two sample descriptions": spliced.two_descriptions,
    "two packagings": lambda folder: spliced.two_descriptions(folder, length_size=2),
    "two sequence headers": spliced.two_sequence_headers,
    "a PPS that returns (MKV)": lambda folder: spliced.changing_picture_parameters(folder, "mkv", returns=True),
    "a PPS that stays (MKV)": lambda folder: spliced.changing_picture_parameters(folder, "mkv"),
    "a PPS that stays (avc1)": lambda folder: spliced.changing_picture_parameters(folder, "mp4"),
    "a PPS that stays (avc3)": lambda folder: spliced.changing_picture_parameters(folder, "mp4", entry=b"avc3"),
    "a PPS that changes (TS)": lambda folder: spliced.changing_picture_parameters(folder, "ts"),
    "packed planes": spliced.packed_planes,
    "all sync, MPEG-4": lambda folder: spliced.all_sync(folder, "mpeg4"),
    "all sync, H.264": lambda folder: spliced.all_sync(folder, "libx264"),
    "all sync, HEVC": lambda folder: spliced.all_sync(folder, "libx265"),
}
READ = {"pixels": 64, "qp": True, "motion": True}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, VideoMeta]]:
    """Make the file of a kind and the record of all its frames, each once."""
    known: dict[str, tuple[Path, VideoMeta]] = {}

    def make(kind: str) -> tuple[Path, VideoMeta]:
        if kind not in known:
            path = KINDS[kind](tmp_path_factory.mktemp("made"))
            known[kind] = path, extract(path, frames="all", **READ)
        return known[kind]

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_those_of_a_linear_decode(made: Callable[[str], tuple[Path, VideoMeta]], kind: str) -> None:
    path, meta = made(kind)
    pictures = spliced.linear_pictures(path)
    assert meta.info["verdict"]["state"] == "complete"
    assert meta.frames is not None
    assert len(meta.frames) == len(pictures)
    assert all(np.array_equal(frame, picture) for frame, picture in zip(meta.frames, pictures, strict=True))


choices = st.fixed_dictionaries(
    {
        "frames": st.one_of(
            st.lists(st.integers(0, 23), min_size=1, max_size=4, unique=True).map(sorted),
            st.sampled_from(["uniform:3", "keyframes", "fps:4"]),
        ),
        "maps": st.sampled_from([("innovation",), ("carried",), ("innovation", "carried")]),
        "residual": st.sampled_from(["auto", "auto", "none"]),
        "pixels": st.sampled_from([64, 64, None]),
        "motion": st.booleans(),
        "qp": st.booleans(),
    }
).filter(lambda chosen: chosen["residual"] != "none" or "carried" not in chosen["maps"])  # refused


@settings(max_examples=5, deadline=None)
@given(chosen=choices)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_depends_on_what_else_is_sampled(
    made: Callable[[str], tuple[Path, VideoMeta]], kind: str, chosen: dict[str, Any]
) -> None:
    path, whole = made(kind)
    part = extract(path, **chosen)
    rows = [whole.frame_packet.tolist().index(packet) for packet in part.frame_packet.tolist()]
    for name in ("frame_pts", "residual_power", "residual_mean", "mb_bits", "mb_type", "qp", "frames"):
        one, other = getattr(whole, name), getattr(part, name)
        if one is not None and other is not None:
            assert np.array_equal(one[rows], other), name
    assert np.array_equal(whole.packet_key, part.packet_key)
    assert whole.info["verdict"]["state"] == part.info["verdict"]["state"]


@pytest.mark.parametrize("kind", ["two sample descriptions", "two packagings", "two sequence headers"])
def test_one_frame_of_the_second_half(made: Callable[[str], tuple[Path, VideoMeta]], kind: str) -> None:
    """Its quantiser is that of its own parameter sets; with those of the first half it would be 16 lower."""
    path, _ = made(kind)
    part = extract(path, frames=[20], pixels=None, qp=True)
    assert part.qp is not None
    assert np.median(part.qp) == 36
    own = extract(path.with_name("two.mp4" if path.suffix == ".mp4" else "36.flv"), frames=[4], pixels=None)
    assert np.array_equal(part.residual_power, own.residual_power)


@pytest.mark.parametrize("codec", ["MPEG-4", "H.264", "HEVC"])
def test_key_packets_are_those_that_are(made: Callable[[str], tuple[Path, VideoMeta]], codec: str) -> None:
    path, whole = made(f"all sync, {codec}")
    assert np.flatnonzero(whole.packet_key).size <= 32 // 8
    packets_only = extract(path, frames=[0], residual="none", pixels=None)
    assert np.array_equal(packets_only.packet_key, whole.packet_key)
