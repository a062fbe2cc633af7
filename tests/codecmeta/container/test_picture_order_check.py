"""A slice whose picture order count contradicts the time stamps is noticed, also where it is not read."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from codecmeta import extract
from codecmeta.container.packets import read_packets
from codecmeta.container.picture_order_check import count_contradictions
from codecmeta.container.unit_table import read_units
from codecmeta.container.video import open_video
from tests.codecmeta.make_video import decode_all, write_video

OPTIONS = {
    "libx264": {"g": "12", "bf": "2"},
    "libx265": {"g": "12", "x265-params": "log-level=none:pools=none:frame-threads=1"},
}
B_SLICE = {"libx264": (0x01, 1, "1001111", 4), "libx265": (0x00, 2, "111", 0)}
"""Of B pictures that nothing refers to: first byte and size of the NAL unit header, the bits after it, and how many
follow before the count. H.264: first_mb_in_slice 0, slice_type 6, pic_parameter_set_id 0, then frame_num; H.265:
first_slice_segment_in_pic_flag 1, slice_pic_parameter_set_id 0, slice_type 0."""


@pytest.fixture(scope="module", params=sorted(OPTIONS))
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    path = tmp_path_factory.mktemp("order") / f"{request.param}.mp4"
    return request.param, write_video(path, codec=request.param, frames=36, options=OPTIONS[request.param])


def judge(path: Path) -> tuple[str, str, int]:
    verdict = extract(path, frames=[0], pixels=None, maps=("innovation",)).info["verdict"]
    return verdict["state"], verdict["evidence"], verdict["checked"]


def list_counts(codec: str, path: Path) -> list[int]:
    """First bits of the counts of B pictures that nothing refers to."""
    first, size, start, more = B_SLICE[codec]
    places = []
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            content = bytes(packet)
            header = f"{content[4 + size]:08b}" if len(content) > 8 else ""
            if packet.pos is not None and header.startswith(start) and content[4] == first:
                places.append(8 * (packet.pos + 4 + size) + len(start) + more)
    return places


def list_times(path: Path) -> list[int | None]:
    """List the times of the pictures as decoded: some are lost, or, in FFmpeg 7, come out of order."""
    return [frame.pts for frame in decode_all(path)]


def flip(path: Path, copy: Path, bit: int) -> Path:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 0x80 >> bit % 8
    copy.write_bytes(content)
    return copy


def test_a_damaged_count_of_a_slice_that_is_not_read(source: tuple[str, Path], tmp_path: Path) -> None:
    codec, path = source
    state, evidence, checked = judge(path)
    assert (state, checked) == ("complete", 1), evidence
    places, whole, changed = list_counts(codec, path), list_times(path), 0
    assert len(places) > 4
    for place in places[1:4]:
        for bit in range(4):
            damaged = flip(path, tmp_path / "damaged.mp4", place + bit)
            state, evidence, checked = judge(damaged)
            assert (state, checked) == ("damaged", 1), (place, bit)
            assert "picture order counts" in evidence
            changed += list_times(damaged) != whole
    assert changed > 0


def test_a_container_that_shows_pictures_as_they_come(source: tuple[str, Path], tmp_path: Path) -> None:
    """Its time stamps contradict the counts throughout: no picture is damaged."""
    path = tmp_path / "order.mp4"
    with av.open(str(source[1])) as reader, av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(video=0):
            if packet.size:
                packet.pts = packet.dts
                packet.stream = copy
                output.mux(packet)
    with open_video(path) as video:
        packets = read_packets(video)
        units = read_units(video, packets)
        assert units is not None
        assert count_contradictions(video, packets, units) == 0
