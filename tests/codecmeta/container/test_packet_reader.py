"""Packets are found by number, also where their time stamps come more than once."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest

from codecmeta import extract
from tests.codecmeta.make_video import decode_all, picture, write_video


@pytest.mark.parametrize("same", [True, False])
def test_segments_one_after_the_other(tmp_path: Path, same: bool) -> None:
    """Matroska files that were joined byte by byte: libav seeks the second where both have the time."""
    first = write_video(tmp_path / "first.mkv", frames=12)
    last = first if same else write_video(tmp_path / "last.mkv", frames=12, image=255 - picture(0))
    joined = tmp_path / "joined.mkv"
    joined.write_bytes(first.read_bytes() + last.read_bytes())
    pictures = [frame.to_ndarray(format="rgb24") for frame in decode_all(joined)]
    meta = extract(joined, frames="all", pixels=64)
    assert meta.frames is not None
    assert len(pictures) == 24
    np.testing.assert_array_equal(meta.frames, pictures)
    assert meta.info["verdict"]["state"] == "damaged"
    some = extract(joined, frames=[0, 5, 17], pixels=64)
    np.testing.assert_array_equal(some.frames, meta.frames[[0, 5, 17]])


def split_superframe(packet: bytes) -> list[bytes]:
    """Split a VP9 packet into its frames (VP9 bitstream specification, Annex B)."""
    last = packet[-1]
    width, count = 1 + (last >> 3 & 3), 1 + (last & 7)
    index = packet[-2 - width * count :]
    if last >> 5 != 6 or index[0] != last:
        return [packet]
    sizes = [int.from_bytes(index[1 + at * width :][:width], "little") for at in range(count)]
    return [packet[sum(sizes[:at]) :][:size] for at, size in enumerate(sizes)]


def test_frames_of_vp9_that_are_not_shown(tmp_path: Path) -> None:
    """Frames that others only refer to, each in a packet of its own instead of a superframe."""
    options = {
        "deadline": "realtime",
        "cpu-used": "5",
        "lag-in-frames": "25",
        "auto-alt-ref": "1",
        "b": "60k",
        "g": "60",
    }
    whole = write_video(tmp_path / "whole.webm", codec="libvpx-vp9", frames=40, options=options)
    with av.open(str(whole)) as source:
        packets = [split_superframe(bytes(packet)) for packet in source.demux(video=0) if packet.size]
    frames = [
        (4 * at + 4 - len(parts) + nth, part) for at, parts in enumerate(packets) for nth, part in enumerate(parts)
    ]
    assert len(packets) < len(frames)
    path = tmp_path / "split.ivf"
    header = struct.pack("<4sHH4sHHIII4x", b"DKIF", 0, 32, b"VP90", 96, 64, 100, 1, len(frames))
    path.write_bytes(header + b"".join(struct.pack("<IQ", len(part), time) + part for time, part in frames))
    pictures = [frame.to_ndarray(format="rgb24") for frame in decode_all(path)]
    meta = extract(path, frames="all", pixels=64)
    verdict = meta.info["verdict"]
    assert (verdict["state"], verdict["hidden"]) == ("complete", len(frames) - len(packets))
    assert len(pictures) == len(packets)
    np.testing.assert_array_equal(meta.frames, pictures)
    assert len(extract(path, frames="uniform:8", pixels=64).frame_pts) == 8
    # a picture has the bytes of all frames that came with it
    assert meta.packet_shown is not None
    assert np.count_nonzero(meta.packet_shown) == len(packets)
    sizes = meta.shown_packet_size()
    assert sizes[meta.packet_shown].tolist() == [sum(map(len, parts)) for parts in packets]
    assert not sizes[~meta.packet_shown].any()
    assert meta.gop_packet_size(kind="packet").tolist() == sizes[meta.frame_packet].tolist()
    # a picture that should be shown takes its time
    frames[20] = frames[20][0], bytes([frames[20][1][0] & ~2]) + frames[20][1][1:]
    path.write_bytes(header + b"".join(struct.pack("<IQ", len(part), time) + part for time, part in frames))
    assert extract(path, residual="none", pixels=None).info["verdict"]["state"] == "damaged"
