"""The verdict is about the file: the same whatever is asked for, or a weaker one, and it counts what was read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import pytest

from codecmeta import extract
from tests.codecmeta.make_video import write_video

OPTIONS: list[dict[str, Any]] = [
    {"residual": "none", "pixels": None},
    {"frames": "uniform:3", "pixels": None, "maps": ("innovation",)},
    {"frames": "keyframes", "residual": "none", "pixels": 32},
    {"frames": "all", "pixels": 32, "motion": True, "qp": True, "maps": ("innovation", "carried")},
]


@pytest.mark.parametrize(
    "name", ["event_h264.mp4", "cut_h264.mkv", "noise_mpeg4.avi", "pan_hevc.mp4", "objects_vp9.webm"]
)
def test_whole_files_are_complete_whatever_is_read(data: Path, name: str) -> None:
    verdicts = [extract(data / name, **options).info["verdict"] for options in OPTIONS]
    assert [verdict["state"] for verdict in verdicts] == ["complete"] * len(OPTIONS)
    assert verdicts[0]["checked"] == 0
    assert verdicts[3]["checked"] == verdicts[3]["frames"]
    assert 0 < verdicts[2]["checked"] < verdicts[3]["checked"]


def test_damage_that_was_read_is_told(tmp_path: Path) -> None:
    """Coded data that contradicts itself, in the middle of one picture."""
    source = write_video(tmp_path / "whole.mp4", frames=24, options={"bf": "0", "crf": "10", "g": "12"})
    with av.open(str(source)) as container:
        position, size = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size][5]
    content = bytearray(source.read_bytes())
    assert position is not None
    for at in range(position + size // 3, position + size):
        content[at] ^= 0x5A
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content)
    for options in ({"frames": [5]}, {"frames": "all", "pixels": None, "maps": ("innovation",)}, {"frames": "all"}):
        verdict = extract(path, **options).info["verdict"]
        assert verdict["state"] == "damaged", options
        assert verdict["unreadable_packets"] == 1
        assert "contradicts itself" in verdict["evidence"]


def test_a_file_whose_first_pictures_refer_to_what_is_cut_off(tmp_path: Path) -> None:
    """An open GoP without the one before it."""
    options = {"g": "12", "bf": "2", "sc_threshold": "1000000000"}
    source = write_video(tmp_path / "whole.mkv", codec="mpeg2video", frames=40, options=options)
    path = tmp_path / "cut.mkv"
    with av.open(str(source)) as reader, av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(reader.streams.video[0])
        keys = 0
        for packet in reader.demux(video=0):
            keys += packet.is_keyframe
            if packet.size and keys > 1:
                packet.stream = copy
                output.mux(packet)
    assert extract(source, frames="uniform:4").info["verdict"]["state"] == "complete"
    verdict = extract(path, frames="uniform:4").info["verdict"]
    assert verdict["leading"] == 2
    assert verdict["state"] == "truncated"
    assert "2 pictures at the start" in verdict["evidence"]


def transport_packets(content: bytes, *, pid: int) -> list[int]:
    """Places of the transport packets of one stream (ISO/IEC 13818-1, 2.4.3.2)."""
    return [
        at
        for at in range(0, len(content), 188)
        if int.from_bytes(content[at + 1 : at + 3], "big") & 0x1FFF == pid and content[at + 3] & 0x10
    ]


VIDEO_PID = 0x100


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Write a transport stream of constant rate."""
    path = tmp_path_factory.mktemp("ts") / "whole.ts"
    return write_video(path, frames=48, options={"g": "12", "bf": "2", "crf": "30"}).read_bytes()


def test_a_transport_stream_without_a_gap_is_complete_whatever_is_read(tmp_path: Path, stream: bytes) -> None:
    path = tmp_path / "whole.ts"
    path.write_bytes(stream)
    verdicts = [extract(path, **options).info["verdict"] for options in OPTIONS]
    assert [verdict["state"] for verdict in verdicts] == ["complete"] * len(OPTIONS)
    assert "48 frames at a constant rate" in verdicts[0]["evidence"]


def test_losses_that_continuity_counters_do_not_show(tmp_path: Path, stream: bytes) -> None:
    """Sixteen transport packets in a row: the four bits of the counter continue as if nothing was missing."""
    places = transport_packets(stream, pid=VIDEO_PID)
    lost = set(places[len(places) // 2 : len(places) // 2 + 16])
    path = tmp_path / "lost.ts"
    path.write_bytes(b"".join(stream[at : at + 188] for at in range(0, len(stream), 188) if at not in lost))
    for options in OPTIONS[:2]:
        verdict = extract(path, **options).info["verdict"]
        assert verdict["frames"] < 48
        assert verdict["state"] != "complete", options


def test_a_transport_stream_that_ends_in_zeros(tmp_path: Path, stream: bytes) -> None:
    """The second half is zeroed where a frame begins: what is left is whole by itself."""
    starts = [at for at in transport_packets(stream, pid=VIDEO_PID) if stream[at + 1] & 0x40]
    half = starts[len(starts) // 2]
    path = tmp_path / "zeros.ts"
    path.write_bytes(stream[:half] + bytes(len(stream) - half))
    for options in OPTIONS[:2]:
        assert extract(path, **options).info["verdict"]["state"] == "damaged", options


def test_a_transport_stream_of_varying_rate_stays_unknown(tmp_path: Path) -> None:
    path = write_video(tmp_path / "steady.mp4", frames=24, options={"bf": "0"})
    varying = tmp_path / "varying.ts"
    with av.open(str(path)) as reader, av.open(str(varying), "w") as output:
        copy = output.add_stream_from_template(reader.streams.video[0])
        for number, packet in enumerate(reader.demux(video=0)):
            if packet.size:
                packet.pts = packet.dts = int((packet.dts or 0) + (number // 5) * (packet.duration or 1))
                packet.stream = copy
                output.mux(packet)
    assert extract(varying, pixels=None).info["verdict"]["state"] == "unknown"
