"""Streams that change under way: spliced, with other parameter sets, or with key flags that are not true."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from codecmeta.h264 import nal
from tests.codecmeta.container.mp4_writer import rewrite, table
from tests.codecmeta.make_video import write_video


def encode(path: Path, *, qp: int, frames: int = 16, codec: str = "libx264", first: int = 0) -> Path:
    """H.264 without B-frames, a key frame every eight, whose picture parameter set says `qp`."""
    options = {"g": "8", "bf": "0", "qp": str(qp), "x264-params": "scenecut=0:cabac=0"}
    return write_video(path, codec=codec, frames=frames, options=options, first_pts=first)


def read_stream(path: Path) -> tuple[bytes, list[bytes], list[bool]]:
    """Read configuration record, packets and key flags."""
    with av.open(str(path)) as source:
        stream = source.streams.video[0]
        packets = [packet for packet in source.demux(stream) if packet.size]
        return bytes(stream.codec_context.extradata), [bytes(p) for p in packets], [p.is_keyframe for p in packets]


def write_packets(path: Path, template: Path, packets: Sequence[bytes], keys: Iterable[int]) -> Path:
    """Mux packets at 25 per second, some of them flagged as key packets."""
    flagged = set(keys)
    with av.open(str(template)) as source, av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(source.streams.video[0])
        for number, payload in enumerate(packets):
            packet = av.Packet(payload)
            packet.pts = packet.dts = number
            packet.duration, packet.time_base = 1, Fraction(1, 25)
            packet.is_keyframe = number in flagged
            packet.stream = copy
            output.mux(packet)
    return path


def two_descriptions(folder: Path, *, length_size: int = 4) -> Path:
    """Write an MP4 whose second half has a sample entry of its own, with another initial quantiser.

    Args:
        folder: for the file and its parts.
        length_size: of the second half.
    """
    one, two = encode(folder / "one.mp4", qp=20), encode(folder / "two.mp4", qp=36)
    (_, first, _), (record, second, _) = read_stream(one), read_stream(two)
    if length_size != 4:
        record = record[:4] + bytes([record[4] & ~3 | length_size - 1]) + record[5:]
        units = [[bytes([u.ref_idc << 5 | u.kind]) + u.payload for u in nal.split(payload, 4)] for payload in second]
        second = [b"".join(len(unit).to_bytes(length_size, "big") + unit for unit in some) for some in units]
    keys = [number for number in range(32) if number % 8 == 0]
    path = write_packets(folder / "spliced.mp4", one, [*first, *second], keys)
    content = path.read_bytes()
    (begin,) = struct.unpack_from(">I", content, content.index(b"stco") + 12)
    entry = rewrite(two.read_bytes()[two.read_bytes().index(b"moov") - 4 :], {})
    at = entry.index(b"stsd") + 12
    (size,) = struct.unpack_from(">I", entry, at)
    other = entry[at : at + size]
    place = other.index(b"avcC") + 4
    other = other[:place] + record + other[place + len(record) :]
    changes = {
        b"stsd": lambda old: old[:4] + struct.pack(">I", 2) + old[8:] + other,
        b"stco": table((begin,), (begin + sum(map(len, first)),)),
        b"stsc": table((1, 16, 1), (2, 16, 2)),
    }
    path.write_bytes(rewrite(content, changes))
    return path


def two_sequence_headers(folder: Path) -> Path:
    """Write an FLV with a second sequence header before its second half."""
    parts = [encode(folder / f"{qp}.flv", qp=qp).read_bytes() for qp in (20, 36)]
    tags = [list(_split_tags(part)) for part in parts]
    joined = parts[0][:13] + b"".join(tag for tag in tags[0] if tag[0] == 9 and tag[12] != 2)
    for tag in tags[1]:
        if tag[0] == 9 and tag[12] != 2:
            time = int.from_bytes(tag[4:7], "big") + 640
            joined += tag[:4] + time.to_bytes(3, "big") + tag[7:]
    path = folder / "spliced.flv"
    path.write_bytes(joined)
    return path


def _split_tags(content: bytes) -> Iterable[bytes]:
    position = 13
    while position < len(content):
        end = position + 15 + int.from_bytes(content[position + 1 : position + 4], "big")
        yield content[position:end]
        position = end


def changing_picture_parameters(folder: Path, suffix: str, *, returns: bool = False, entry: bytes = b"avc1") -> Path:
    """Write a video with a picture parameter set that changes inside a GoP.

    Args:
        folder: for the file and its parts.
        suffix: chooses the container.
        returns: whether that before is in force again from the next key frame on.
        entry: sample entry of an MP4: `avc3` allows sets in samples, in `avc1` a key sample betrays that there are.
    """
    one, two = encode(folder / "one.mp4", qp=20, frames=24), encode(folder / "two.mp4", qp=36)
    (own, packets, _), (other, _, _) = read_stream(one), read_stream(two)
    sets = [
        next(bytes([u.ref_idc << 5 | u.kind]) + u.payload for u in nal.read_extradata(record)[1] if u.kind == nal.PPS)
        for record in (own, other)
    ]
    changes = {11: sets[1], **({16: sets[0]} if returns else {}), **({8: sets[0]} if entry == b"avc1" else {})}
    for place, unit in changes.items():
        packets[place] = len(unit).to_bytes(4, "big") + unit + packets[place]
    path = write_packets(folder / f"changing.{suffix}", one, packets, [0, 8, 16])
    if suffix == "mp4":
        path.write_bytes(rewrite(path.read_bytes(), {b"stsd": lambda old: old.replace(b"avc1", entry)}))
    return path


def packed_planes(folder: Path) -> Path:
    """Write an AVI of MPEG-4 whose B-planes are packed with the P-plane before, with placeholders in their place.

    As DivX 5 wrote it; its first packet says so, and no other.
    """
    source = write_video(folder / "plain.avi", codec="mpeg4", frames=33, options={"g": "12", "bf": "1"})
    _, packets, _ = read_stream(source)
    kinds = [payload[payload.index(b"\0\0\1\xb6") + 4] >> 6 for payload in packets]
    packed: list[bytes] = []
    for payload, kind in zip(packets, kinds, strict=True):
        if kind == 2:
            packed[-1] += payload
            packed.append(b"\x7f")
        else:
            packed.append(payload)
    plane = packed[0].index(b"\0\0\1\xb6")
    packed[0] = packed[0][:plane] + b"\0\0\1\xb2DivX503b1393p\0" + packed[0][plane:]
    # libavformat's writer flags what it likes; placeholders are flagged, too
    keys = [n for n, payload in enumerate(packed) if len(payload) == 1 or kinds[n] == 0]
    return write_packets(folder / "packed.avi", source, packed, keys)


def all_sync(folder: Path, codec: str) -> Path:
    """Write an MP4 without a list of sync samples, which says that all are sync samples."""
    options = {"g": "8", "x265-params": "log-level=none:keyint=8", "x264-params": "scenecut=0"}
    path = write_video(folder / "sync.mp4", codec=codec, frames=32, options=options)
    path.write_bytes(rewrite(path.read_bytes(), {b"stss": None}))
    return path


def linear_pictures(path: Path) -> list[np.ndarray]:
    """RGB of every frame by a plain linear decode, in the order of output."""
    with av.open(str(path)) as source:
        stream = source.streams.best("video")
        assert isinstance(stream, av.VideoStream)
        stream.thread_type = "NONE"
        return [frame.to_ndarray(format="rgb24") for frame in source.decode(stream)]
