"""NAL units of many packets are found as a plain walk through each finds them."""

from __future__ import annotations

import random
from pathlib import Path

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


@pytest.mark.parametrize(("codec", "slices"), [("libx264", {"slices": "3"}), ("libx265", {})])
def test_units_of_a_file(codec: str, slices: dict[str, str], tmp_path: Path) -> None:
    options = slices if codec == "libx264" else {"x265-params": "log-level=none:pools=none:frame-threads=1"}
    path = write_video(tmp_path / "clip.mp4", codec=codec, options=options)
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    with open_video(path) as video:
        found = read_units(video, read_packets(video))
    assert found is not None and found.malformed == 0
    expected = [(row, length) for row, packet in enumerate(packets) for _, length in walk(packet, 4)]
    assert list(zip(found.packet.tolist(), found.length.tolist(), strict=True)) == expected
    counts = np.bincount(found.packet[found.pictured])
    assert set(counts.tolist()) == ({3} if codec == "libx264" else {1})


def test_containers_without_an_index(tmp_path: Path) -> None:
    with open_video(write_video(tmp_path / "clip.mkv")) as video:
        assert read_units(video, read_packets(video)) is None
