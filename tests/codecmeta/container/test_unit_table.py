"""NAL units of many packets are found as a plain walk through each finds them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from codecmeta.container.packets import read_packets
from codecmeta.container.unit_table import START, find_units, read_units
from codecmeta.container.video import open_video
from codecmeta.storage.local_file import LocalFile
from tests.codecmeta.make_video import write_video


def walk(packet: bytes, width: int) -> list[tuple[int, int]]:
    """Place and length of each unit, up to the first that does not join."""
    units = []
    at = 0
    while len(packet) - at > width:
        length = int.from_bytes(packet[at : at + width], "big")
        at += width
        if not length or at + length > len(packet) or packet[at] & 0x80:
            break
        units.append((at, length))
        at += length
    return units


def make_packet(rng: random.Random, width: int) -> bytes:
    """Units of many sizes, sometimes a great many, sometimes damaged."""
    count = rng.choice((0, 1, 2, 5, 30, 3000))
    sizes = [rng.choice((1, 2, 5, 20, 63, 64, 65, 200)) for _ in range(count)]
    units = [bytes([rng.choice((1, 5, 6, 9, 0x41))]) + rng.randbytes(size - 1) for size in sizes]
    packet = bytearray(b"".join(len(unit).to_bytes(width, "big") + unit for unit in units) + rng.choice((b"", b"\0\0")))
    if rng.random() < 0.3 and packet:
        packet[rng.randrange(len(packet))] ^= 1 << rng.randrange(8)
    return bytes(packet)


@pytest.mark.parametrize("seed", range(3))
def test_units_are_those_of_a_plain_walk(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    widths = [rng.choice((1, 2, 4)) for _ in range(60)]
    packets = [make_packet(rng, width) for width in widths]
    gaps = [rng.randbytes(rng.randrange(9)) for _ in packets]
    path = tmp_path / "packets"
    content = b"".join(gap + packet for gap, packet in zip(gaps, packets, strict=True))
    path.write_bytes(content)
    size = np.array([len(packet) for packet in packets])
    position = np.cumsum([len(gap) for gap in gaps]) + np.cumsum(size) - size
    with LocalFile(path) as source:
        found = find_units(source, "h264", position=position, size=size, width=np.array(widths))
    expected = [
        (row, int(position[row]) + at, length)
        for row, packet in enumerate(packets)
        for at, length in walk(packet, widths[row])
    ]
    assert list(zip(found.packet.tolist(), found.place.tolist(), found.length.tolist(), strict=True)) == expected
    starts = [content[place : place + START].ljust(START, b"\0") for _, place, _ in expected]
    assert [bytes(start) for start in found.start] == starts
    pictured = {row for row, place, _ in expected if 1 <= content[place] & 31 <= 5}
    assert {int(row) for row in found.packet[found.pictured]} == pictured
    assert found.malformed == len(packets) - len(pictured) > 0


X265 = {"x265-params": "log-level=none:pools=none:frame-threads=1"}


INTERLACED = {"slices": "2", "flags": "+ildct", "x264-params": "tff=1"}


@pytest.mark.parametrize(
    ("codec", "options", "slices"),
    [("libx264", {"slices": "2"}, 1), ("libx264", INTERLACED, 2), ("libx265", X265, 1)],
    ids=["progressive", "interlaced", "hevc"],
)
def test_units_of_a_file(codec: str, options: dict[str, str], slices: int, tmp_path: Path) -> None:
    """Of a progressive H.264 picture whose first slice gives the type of all, only that slice is needed."""
    path = write_video(tmp_path / "clip.mp4", codec=codec, width=320, height=256, options=options)
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    with open_video(path) as video:
        found = read_units(video, read_packets(video))
    assert found is not None and found.malformed == 0
    expected = [(row, at, length) for row, packet in enumerate(packets) for at, length in walk(packet, 4)]
    if codec == "libx264" and slices == 1:
        first = {row: at for row, at, _ in reversed(expected) if packets[row][at] & 31 in (1, 5)}
        expected = [unit for unit in expected if unit[1] <= first[unit[0]]]
    assert list(zip(found.packet.tolist(), found.length.tolist(), strict=True)) == [
        (row, size) for row, _, size in expected
    ]
    assert set(np.bincount(found.packet[found.pictured]).tolist()) == {slices}


def test_another_parameter_set_in_a_packet_brings_all_units(tmp_path: Path) -> None:
    """A stream that its header calls progressive may have fields after a set within a packet."""
    path = write_video(tmp_path / "clip.mp4", codec="libx264", options={"slices": "2"})
    with open_video(path) as video:
        packets = read_packets(video)
        short, record = read_units(video, packets), bytes(video.stream.codec_context.extradata or b"")
        assert packets.position is not None
        place, size = int(packets.position[1]), int(packets.size[1])
    length = int.from_bytes(record[6:8], "big")
    content = bytearray(path.read_bytes())
    with_set = [record[8 : 8 + length], bytes([0x67, *range(1, 30)])]
    counts = []
    for unit in with_set:
        # in place of the first packet's picture, which is not read
        content[place : place + 4 + len(unit)] = len(unit).to_bytes(4, "big") + unit
        rest = size - 8 - len(unit)
        content[place + 4 + len(unit) : place + 8 + len(unit)] = rest.to_bytes(4, "big")
        content[place + 8 + len(unit)] = 0x41
        path.write_bytes(content)
        with open_video(path) as video:
            units = read_units(video, packets)
            assert units is not None
            counts.append(np.bincount(units.packet[units.pictured])[2:].tolist())
    assert short is not None and set(np.bincount(short.packet[short.pictured]).tolist()) == {1}
    assert set(counts[0]) == {1} and set(counts[1]) == {2}


def _ends(start: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return start[:, 0] == 5


@pytest.mark.parametrize("seed", range(3))
def test_units_after_the_last_wanted_one_are_omitted(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    packets = [make_packet(rng, 4) for _ in range(60)]
    path = tmp_path / "packets"
    path.write_bytes(b"".join(packets))
    size = np.array([len(packet) for packet in packets])
    position = np.cumsum(size) - size
    with LocalFile(path) as source:
        found = find_units(source, "h264", position=position, size=size, width=np.full(size.size, 4), ends=_ends)
    expected = []
    for row, packet in enumerate(packets):
        for at, _ in walk(packet, 4):
            expected.append((row, int(position[row]) + at))
            # a packet of very many units is read whole
            if packet[at] == 5 and len(walk(packet, 4)) < 1000:
                break
    got = list(zip(found.packet.tolist(), found.place.tolist(), strict=True))
    few = {row for row, packet in enumerate(packets) if len(walk(packet, 4)) < 1000}
    assert [unit for unit in got if unit[0] in few] == [unit for unit in expected if unit[0] in few]
    assert len(few) < len(packets) and len(got) < sum(len(walk(packet, 4)) for packet in packets)


def test_containers_without_an_index(tmp_path: Path) -> None:
    with open_video(write_video(tmp_path / "clip.mkv")) as video:
        assert read_units(video, read_packets(video)) is None
