"""Types of packets' pictures, and whether they are shown, against what FFmpeg decodes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from codecmeta import VideoMeta, extract
from codecmeta.container.av1_frames import Av1Frames
from codecmeta.container.packet_pictures import PictureCollector, open_frame_reader
from codecmeta.container.parameter_history import ParameterHistory
from codecmeta.container.vpx_frames import Vp9Frames
from tests.codecmeta.entropy.bit_writer import BitWriter
from tests.codecmeta.make_video import write_video

X265 = "log-level=none:pools=none:frame-threads=1"
CASES = [
    ("libx264", "mp4", {"bf": "2", "slices": "3"}),
    ("libx264", "ts", {"bf": "2", "slices": "3"}),
    ("libx264", "mkv", {"bf": "2"}),
    ("libx264", "mp4", {"bf": "2", "flags": "+ildct", "x264-params": "tff=1"}),
    ("libx265", "mp4", {"x265-params": f"{X265}:bframes=3"}),
    ("libx265", "ts", {"x265-params": f"{X265}:bframes=3:open-gop=1"}),
    ("libvpx", "webm", {}),
    ("libvpx-vp9", "mp4", {"auto-alt-ref": "1", "lag-in-frames": "16"}),
    ("libvpx-vp9", "webm", {"auto-alt-ref": "1", "lag-in-frames": "16"}),
    ("libsvtav1", "mp4", {"preset": "10"}),
    ("libsvtav1", "mkv", {"preset": "10"}),
]
TYPES = {1: "I", 2: "P", 3: "B"}


def decode_types(path: Path) -> dict[int, str]:
    """FFmpeg's type of the picture of each packet that shows one."""
    types: dict[int, str] = {}
    with av.open(str(path)) as source:
        context: Any = source.streams.video[0].codec_context
        context.thread_type, context.copy_opaque = "NONE", True
        number = -1
        for packet in source.demux(video=0):
            if packet.size:
                number += 1
                packet.opaque = (number,)
            for frame in context.decode(packet if packet.size else None):
                types[frame.opaque[0]] = TYPES.get(int(frame.pict_type), "?")
    return types


def describe(meta: VideoMeta) -> dict[int, str]:
    """Return the same as the record has it."""
    assert meta.packet_type is not None
    assert meta.packet_shown is not None
    assert meta.info["signals"]["packet_type"] == {"source": "headers"}
    return {int(packet): str(meta.packet_type[packet]) for packet in np.flatnonzero(meta.packet_shown)}


@pytest.mark.parametrize(("encoder", "suffix", "options"), CASES)
def test_types_are_those_of_decoded_pictures(
    tmp_path: Path, encoder: str, suffix: str, options: dict[str, str]
) -> None:
    path = write_video(tmp_path / f"clip.{suffix}", codec=encoder, frames=26, width=176, height=144, options=options)
    meta = extract(path, frames="uniform:3", residual="none", pixels=32)
    found, decoded = describe(meta), decode_types(path)
    assert found == decoded
    assert len(decoded) == 26
    assert {"I", "P"} <= set(found.values())
    assert ("B" in found.values()) == encoder.startswith("libx26")
    assert meta.frame_type.tolist() == [found[int(packet)] for packet in meta.frame_packet]


def test_a_changed_slice_type_shows(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", frames=20, options={"bf": "2"})
    whole = describe(extract(path, frames=[0], residual="none", pixels=32))
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as source:
        places = [packet.pos for packet in source.demux(video=0) if packet.size]
    number = next(number for number, kind in whole.items() if kind == "B")
    at = places[number]
    assert at is not None
    # first_mb_in_slice 0, slice_type 6 (B) or 5 (P)
    assert content[at + 5] >> 2 == 0b100111
    content[at + 5] ^= 0b100
    path.write_bytes(content)
    assert describe(extract(path, frames=[0], residual="none", pixels=32)) == whole | {number: "P"}


def test_a_first_slice_that_is_not_like_the_others(tmp_path: Path) -> None:
    """A slice_type below 5 says nothing of the other slices (H.264, Table 7-6)."""
    path = write_video(tmp_path / "clip.mp4", frames=20, height=128, options={"bf": "2", "slices": "2"})
    whole = describe(extract(path, frames=[0], residual="none", pixels=32))
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as source:
        places = [packet.pos for packet in source.demux(video=0) if packet.size]
    for number, kind in whole.items():
        at = places[number]
        if kind == "B" and at is not None:
            assert content[at + 5] >> 2 == 0b100111
            # first_mb_in_slice 0, slice_type 0 (P); the second slice remains of type 6 (B)
            content[at + 5] = 0b11000000
    path.write_bytes(content)
    assert describe(extract(path, frames=[0], residual="none", pixels=32)) == whole


def test_leading_pictures_of_an_open_start_are_not_shown(tmp_path: Path) -> None:
    """RASL pictures after the random access point where a file begins are not decoded."""
    options = {"x265-params": f"{X265}:bframes=3:open-gop=1:keyint=10:min-keyint=10:scenecut=0", "g": "10"}
    path = write_video(tmp_path / "clip.ts", codec="libx265", frames=40, width=176, height=144, options=options)
    with av.open(str(path)) as source:
        packets = [(bytes(packet), packet.is_keyframe) for packet in source.demux(video=0) if packet.size]
    points = [number for number, (_, key) in enumerate(packets) if key and number]
    cut = tmp_path / "cut.h265"
    cut.write_bytes(b"".join(packet for packet, _ in packets[points[0] :]))
    meta = extract(cut, frames="uniform:3", residual="none", pixels=32)
    found = describe(meta)
    assert found == decode_types(cut)
    assert 0 < meta.packet_size.size - len(found) < 5
    # those of later points are shown
    assert len(points) > 1


def test_where_nothing_tells(tmp_path: Path) -> None:
    """Packets of an index only, and other codecs; what is demuxed passes by anyway."""
    path = write_video(tmp_path / "clip.mp4")
    packets_only = extract(path, residual="none", pixels=None)
    assert packets_only.packet_type is None and packets_only.packet_shown is None
    assert "no payload is read" in packets_only.info["signals"]["packet_type"]["absent"]
    assert packets_only.shown_packet_size().tolist() == packets_only.packet_size.tolist()
    demuxed = extract(write_video(tmp_path / "clip.mkv"), residual="none", pixels=None)
    assert describe(demuxed) == describe(extract(path, frames=[0], pixels=None, maps=("innovation",)))
    other = extract(write_video(tmp_path / "clip.avi", codec="mpeg4"), frames=[0], residual="none", pixels=32)
    assert other.packet_type is None
    assert other.info["signals"]["packet_type"]["absent"].startswith("mpeg4: ")
    demuxed.save(tmp_path / "clip.npz")


def obu(kind: int, bits: BitWriter, *, extension: int | None = None) -> bytes:
    """Write an OBU with its size (AV1 specification, 5.3), of less than 128 bytes."""
    bits.u(1, 1).align_zero()
    payload = int(bits.bits, 2).to_bytes(len(bits.bits) // 8, "big")
    header = bytes([kind << 3 | (extension is not None) << 2 | 2]) + bytes([extension] if extension is not None else [])
    return header + bytes([len(payload)]) + payload


@pytest.mark.parametrize("seed", range(6))
def test_frame_headers_of_av1_with_all_optional_fields(seed: int) -> None:
    """Sequence and frame headers as the specification lists their fields (5.5 and 5.9.2)."""
    rng = random.Random(seed)
    model, ids, order, tools = (rng.random() < 0.7 for _ in range(4))
    equal, points = rng.random() < 0.3, rng.randrange(1, 4)
    removal, presentation, id_bits, order_bits = rng.randrange(1, 33), rng.randrange(1, 33), 9, rng.randrange(1, 9)
    sequence = BitWriter().u(0, 3).u(0, 1).u(0, 1)
    sequence.u(model, 1)
    if model:
        sequence.u(1, 32).u(25, 32).u(equal, 1)
        if equal:
            sequence.ue(4)
        sequence.u(1, 1).u(15, 5).u(1, 32).u(removal - 1, 5).u(presentation - 1, 5)
    sequence.u(1, 1).u(points - 1, 5)
    timed = [model and rng.random() < 0.5 for _ in range(points)]
    for has_times in timed:
        level = rng.choice((4, 9))
        sequence.u(0, 12).u(level, 5).u(0, int(level > 7))
        if model:
            sequence.u(has_times, 1)
        sequence.u(0, 33 if has_times else 0).u(1, 1).u(3, 4)
    sequence.u(7, 4).u(7, 4).u(175, 8).u(143, 8).u(ids, 1)
    if ids:
        sequence.u(3, 4).u(3, 3)
    sequence.u(5, 3).u(9, 4).u(order, 1).u(0, 2 * order).u(tools, 1)
    if not tools:
        sequence.u(1, 1)
    sequence.u(1, 1)
    if order:
        sequence.u(order_bits - 1, 3)

    reader = Av1Frames(obu(1, sequence))
    slots = ["?"] * 8
    for number in range(60):
        stamp = presentation if model and not equal else 0
        kind = 0 if number == 0 else rng.choice((0, 1, 1, 1, 2, 3))
        shown = number == 0 or rng.random() < 0.5
        if number and rng.random() < 0.2:
            slot = rng.randrange(8)
            existing = obu(3, BitWriter().u(1, 1).u(slot, 3).u(0, stamp).u(0, id_bits * ids))
            expected = slots[slot].upper(), True
            slots = ["I"] * 8 if slots[slot] == "i" else slots
            unit = existing
        else:
            header = BitWriter().u(0, 1).u(kind, 2).u(shown, 1).u(0, stamp if shown else 1)
            whole = kind == 3 or (kind == 0 and shown)
            resilient = whole or rng.random() < 0.5
            header.u(resilient, 0 if whole else 1).u(0, 1)
            allowed = rng.random() < 0.5
            # chosen per picture, or allowed throughout
            header.u(allowed, int(tools)).u(0, int(allowed or not tools)).u(0, id_bits * ids)
            header.u(0, int(kind != 3)).u(0, order_bits * order).u(0, 0 if kind in (0, 2) or resilient else 3)
            if model:
                header.u(1, 1).u(0, removal * sum(timed))
            flags = 255 if whole else rng.randrange(256)
            header.u(flags, 0 if whole else 8).u(0x155, 9)
            name = "i" if kind == 0 and not shown else "I" if kind in (0, 2) else "P"
            slots = [name if flags >> slot & 1 else old for slot, old in enumerate(slots)]
            expected, unit = (name.upper(), shown), obu(6, header)
        packet = b"\x12\0" + unit
        assert reader.read(lambda begin, count, packet=packet: packet[begin : begin + count], len(packet)) == expected
    assert len(set(slots)) > 1 or "?" not in slots


@pytest.mark.parametrize("profile", range(4))
def test_frame_headers_of_vp9(profile: int) -> None:
    """Every frame is shown again from its slots (VP9 bitstream specification, 6.2)."""
    rng = random.Random(profile)
    reader, slots = Vp9Frames(), ["?"] * 8

    def start() -> BitWriter:
        return BitWriter().u(2, 2).u(profile & 1, 1).u(profile >> 1, 1).u(0, int(profile == 3))

    def read(bits: BitWriter) -> tuple[str, bool]:
        bits.u(1, 8).align_zero()
        packet = int(bits.bits, 2).to_bytes(len(bits.bits) // 8, "big")
        return reader.read(lambda begin, count: packet[begin : begin + count], len(packet))

    for number in range(60):
        inter = number > 0 and rng.random() < 0.8
        shown, resilient, intra = rng.random() < 0.5, rng.random() < 0.5, rng.random() < 0.5
        header = start().u(0, 1).u(inter, 1).u(shown, 1).u(resilient, 1)
        flags = 255
        if inter:
            header.u(intra, 0 if shown else 1).u(0, 0 if resilient else 2)
            if intra and not shown:
                header.u(0x498342, 24)
                space = rng.choice((2, 7))
                if profile:
                    header.u(0, int(profile >= 2)).u(space, 3)
                    header.u(0, (int(profile & 1) if space == 7 else 4 if profile & 1 else 1))
            flags = rng.randrange(256)
            header.u(flags, 8)
        kind = "I" if not inter or (intra and not shown) else "P"
        assert read(header) == (kind, shown)
        slots = [kind if flags >> slot & 1 else old for slot, old in enumerate(slots)]
        slot = rng.randrange(8)
        assert read(start().u(1, 1).u(slot, 3)) == (slots[slot], True)


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp8", "vp9", "av1"])
def test_noise(codec: str) -> None:
    """Whatever the bytes, types are types."""
    rng = random.Random(5)
    seeds = (b"\0\0\1", b"\0\0\0\5", b"\x12\0\x0a\x0b", b"\x32\x20\x10", b"\xc1\1\2\xc1", b"\x82\x49\x83\x42")
    for width in (0, 4):
        collector = PictureCollector(codec, rng.randbytes(40))
        for number in range(1500):
            packet = b"".join(rng.choice(seeds) + rng.randbytes(rng.randrange(12)) for _ in range(rng.randrange(5)))
            collector.take(number, memoryview(packet), length_size=width)
        pictures = collector.close(1500, ParameterHistory(codec, b""))
        assert pictures is not None
        assert pictures.type.shape == pictures.shown.shape == (1500,)
        assert set(pictures.type.tolist()) <= {"I", "P", "B", "?"}
    assert open_frame_reader("mpeg4", b"") is None
