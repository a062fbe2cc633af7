"""Heads of packets: what they tell against what a decoder shows, and heads that are cut or noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codecmeta.container.packet_heads import begins_decoding, is_inner_slice, read_head
from codecmeta.container.parameter_history import read_configuration
from tests.codecmeta.make_video import write_video

CODECS = [
    ("libx264", "mp4", {"bf": "2"}),
    ("libx264", "ts", {"bf": "2"}),
    ("libx264", "mp4", {"x264-params": "slices=3:aud=1"}),
    ("libx265", "mp4", {"x265-params": "log-level=none:keyint=8:aud=1"}),
    ("libx265", "ts", {"x265-params": "log-level=none:keyint=8"}),
    ("mpeg1video", "mpg", {"bf": "2"}),
    ("mpeg2video", "ts", {"bf": "2"}),
    ("mpeg4", "avi", {"bf": "1"}),
    ("h263", "3gp", {}),
    ("flv", "flv", {}),
    ("libvpx", "webm", {"auto-alt-ref": "1", "lag-in-frames": "8"}),
    ("libvpx-vp9", "webm", {"auto-alt-ref": "1", "lag-in-frames": "8"}),
    ("libsvtav1", "mkv", {"svtav1-params": "keyint=8:pred-struct=1"}),
]


@pytest.mark.parametrize(("encoder", "suffix", "options"), CODECS)
def test_key_pictures_are_found(tmp_path: Path, encoder: str, suffix: str, options: dict[str, str]) -> None:
    """Of each packet, its head says whether the decoder calls its picture a key frame."""
    size = {"width": 176, "height": 144}
    path = write_video(tmp_path / f"clip.{suffix}", codec=encoder, frames=24, options=options, **size)
    said: list[bool] = []
    shown: dict[int, bool] = {}
    with av.open(str(path)) as source:
        stream = source.streams.video[0]
        context: Any = stream.codec_context
        context.thread_type, context.copy_opaque = "NONE", True
        codec = context.codec.canonical_name
        length_size = read_configuration(codec, bytes(context.extradata or b""))[0]
        for packet in source.demux(stream):
            if packet.size:
                head = read_head(codec, bytes(packet), length_size=length_size)
                said.append(begins_decoding(head.access, flagged=False, one=False))
                packet.opaque = (len(said) - 1,)
            for frame in context.decode(packet if packet.size else None):
                shown[frame.opaque[0]] = bool(frame.key_frame)
    assert sum(said) >= 2
    assert [number for number, key in shown.items() if key] == np.flatnonzero(said).tolist()
    assert len(shown) == 24


def start_code(*units: bytes) -> bytes:
    return b"".join(b"\0\0\0\1" + unit for unit in units)


def prefixed(*units: bytes) -> bytes:
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)


SPS, PPS, IDR = b"\x67\x64\x00\x0b\xac", b"\x68\xeb\xe3\xcb", b"\x65\x88\x84" + bytes(range(1, 40))
RECOVERY = b"\x06\x06\x01\xc4\x80"
INTRA, PREDICTED = b"\x41\x88\x86\x18", b"\x41\x9a\x24\x6c"


@pytest.mark.parametrize("pack", [start_code, prefixed])
def test_h264_heads(pack: Any) -> None:
    def access(*units: bytes) -> str:
        return read_head("h264", pack(*units), length_size=4 if pack is prefixed else 0).access

    head = read_head("h264", pack(b"\x09\xf0", SPS, PPS, IDR), length_size=4 if pack is prefixed else 0)
    assert head.sets == (SPS, PPS)
    assert head.access == "point"
    assert access(PREDICTED) == "none"
    assert access(RECOVERY, PREDICTED) == "recovery"
    assert access(INTRA) == "intra"
    assert access(b"\x01" + INTRA[1:]) == "none"  # nothing refers to it
    assert access(SPS) == "none"


@pytest.mark.parametrize("size", [1, 256, 300, 511, 512])
def test_a_length_is_no_start_code(size: int) -> None:
    """The length of a unit of 1 or of 256 to 511 bytes reads as a start code."""
    unit = (IDR + bytes([85]) * 600)[:size]
    assert read_head("h264", prefixed(unit, IDR), length_size=4).access == "point"
    assert read_head("h264", start_code(b"\x09\xf0", IDR), length_size=4).access == "point"


def test_claims_that_stand() -> None:
    assert not begins_decoding("none", flagged=True, one=True)
    assert begins_decoding("point", flagged=False, one=False)
    assert begins_decoding("recovery", flagged=True, one=False)
    assert not begins_decoding("recovery", flagged=False, one=False)
    assert begins_decoding("intra", flagged=True, one=True)
    assert not begins_decoding("intra", flagged=True, one=False)
    assert begins_decoding("unknown", flagged=True, one=False)


NAMES = [
    "h264",
    "hevc",
    "vvc",
    "mpeg1video",
    "mpeg2video",
    "mpeg4",
    "h263",
    "flv1",
    "vp8",
    "vp9",
    "theora",
    "av1",
    "dnxhd",
]


@given(
    codec=st.sampled_from(NAMES), payload=st.binary(max_size=200), length_size=st.integers(0, 4), coded=st.booleans()
)
def test_anything_is_a_head(codec: str, payload: bytes, length_size: int, coded: bool) -> None:
    payload = b"\0\0\1" + payload if coded else payload
    read_head(codec, payload, length_size=length_size)
    is_inner_slice(codec, payload, length_size=length_size)
