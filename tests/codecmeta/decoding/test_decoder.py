"""Frames by seeking against frames by decoding from the start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from codecmeta import extract
from codecmeta.container import timeline
from codecmeta.container.packet_reader import read_payloads
from codecmeta.container.packets import PacketTable, read_packets
from codecmeta.container.video import open_video
from codecmeta.decoding import decoder as decode
from codecmeta.decoding import rgb, side_data
from codecmeta.errors import SourceError
from codecmeta.record.orientation import Orientation
from tests.codecmeta.make_video import decode_all, write_video


def line_up(video: object, packets: PacketTable) -> timeline.Timeline:
    if timeline.has_usable_pts(packets):
        return timeline.from_pts(packets)
    order = decode.presentation_order(video, packets).packet
    return timeline.from_decoder(order, packets=packets.size.size, ticks=1)


def sought(path: Path, places: list[int], *, short_side: int = 10_000) -> dict[int, np.ndarray]:
    """RGB of frames by their place in presentation order."""
    with open_video(path) as video:
        packets = read_packets(video)
        line = line_up(video, packets)
        targets = [int(line.packet[place]) for place in places]
        place_of = dict(zip(targets, places, strict=True))
        decoder = decode.Decoder(video, packets)
        found = {}
        for run in decode.plan_runs(packets, line.rank, targets):
            for shown in decoder.decode(run):
                if shown.packet in place_of:
                    found[place_of[shown.packet]] = rgb.to_rgb(shown.frame, short_side=short_side)
        assert decoder.errors == decoder.corrupt == 0
    return found


def compare(path: Path, *, step: int = 1) -> int:
    expected = decode_all(path)
    places = list(range(0, len(expected), step))
    found = sought(path, places)
    assert sorted(found) == places
    for place in places:
        plain = rgb.to_rgb(expected[place], short_side=10_000)
        assert np.array_equal(found[place], plain), (path.name, place)
    if len(expected) > 1 and not np.array_equal(found[0], found[places[-1]]):
        other = rgb.to_rgb(expected[places[-1]], short_side=10_000)
        assert not np.array_equal(found[0], other)
    return len(expected)


@pytest.mark.parametrize(
    "name", ["cut_h264.mkv", "noise_mpeg4.avi", "pan_hevc.mp4", "objects_vp9.webm", "still_h264.mp4"]
)
def test_every_frame_of_own_clips(data: Path, name: str) -> None:
    compare(data / name, step=5)


PYRAMID = {"bf": "3", "refs": "4", "g": "12", "b-pyramid": "normal"}


@pytest.mark.parametrize("step", [1, 3, 7])
def test_b_pyramid(tmp_path: Path, step: int) -> None:
    path = write_video(
        tmp_path / "b.mp4", frames=40, options={"bf": "3", "refs": "4", "g": "12", "b-pyramid": "normal"}
    )
    assert compare(path, step=step) == 40


def test_open_gop(tmp_path: Path) -> None:
    """Pictures shown before the key picture they follow in the stream need the GoP before."""
    path = write_video(
        tmp_path / "open.mp4", codec="libx264", frames=40, options={"g": "10", "bf": "3", "x264-params": "open-gop=1"}
    )
    with open_video(path) as video:
        packets = read_packets(video)
        line = timeline.from_pts(packets)
    keys = np.flatnonzero(packets.key)
    led = [p for p in range(packets.size.size) for k in keys if k < p and line.rank[p] < line.rank[k]]
    assert led, "the clip has no leading pictures"
    assert compare(path) == 40
    assert compare(path, step=3) == 40
    leading = [int(line.rank[p]) for p in led]
    assert sorted(sought(path, leading)) == sorted(leading)


@pytest.mark.parametrize("ending", ["ts", "h264"])
def test_streams_that_cannot_be_sought_by_index(tmp_path: Path, ending: str) -> None:
    path = write_video(tmp_path / f"clip.{ending}", frames=30, options={"bf": "2"})
    assert compare(path, step=4) == 30


def test_real_clips(clips: Path) -> None:
    for path in sorted(path for path in clips.rglob("*.*") if path.suffix != ".md"):
        if path.stat().st_size < 1_000_000:
            compare(path, step=17)


def test_only_what_is_needed_is_decoded(data: Path) -> None:
    with open_video(data / "event_h264.mp4") as video:
        packets = read_packets(video)
        line = timeline.from_pts(packets)
        runs = decode.plan_runs(packets, line.rank, [int(line.packet[place]) for place in (0, 1, 151, 299)])
    assert [run.start for run in runs] == [0, 150, 270]
    assert sum(run.stop - run.start for run in runs) < 60


@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video", "mpeg4"])
def test_the_last_pictures_of_a_run_have_vectors_and_quantisers(tmp_path: Path, codec: str) -> None:
    """These decoders attach nothing to a picture that is output because no further packet comes."""
    path = write_video(tmp_path / "clip.mkv", codec=codec, frames=20, options={"bf": "2"})
    with open_video(path) as video:
        packets = read_packets(video)
        line = timeline.from_pts(packets)
        decoder = decode.Decoder(video, packets, vectors=True, quantisers=True)
        for target in line.packet.tolist():
            (run,) = decode.plan_runs(packets, line.rank, [target])
            shown = {one.packet: one for one in decoder.decode(run)}
            assert target in shown
            for one in shown.values():
                assert not one.flushed
                assert side_data.quantisers(one.frame, 96, 64) is not None, (target, one)
                assert one.type == "I" or side_data.vectors(one.frame) is not None, (target, one)
        assert decoder.errors == decoder.corrupt == 0


def test_transport_stream_that_starts_inside_a_gop(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.ts", frames=30, options={"g": "10", "bf": "2"})
    with av.open(str(whole)) as source:
        packets = [packet for packet in source.demux(video=0) if packet.size]
    content = whole.read_bytes()
    part = tmp_path / "part.ts"
    begin = (packets[4].pos or 0) // 188 * 188
    part.write_bytes(content[: 188 * 3] + content[begin:])
    with open_video(part) as video:
        table = read_packets(video)
        line = timeline.from_pts(table)
        first_key = int(np.flatnonzero(table.key)[0])
    assert first_key > 0
    assert line.leading >= first_key
    assert line.packet.min() >= first_key
    frames = sought(part, list(range(line.packet.size)))
    tail = decode_all(whole)[-len(frames) :]
    for place, frame in frames.items():
        assert np.array_equal(frame, rgb.to_rgb(tail[place], short_side=10_000))


def test_geometry_that_changes_is_refused(tmp_path: Path) -> None:
    small = write_video(tmp_path / "small.ts", frames=12)
    large = write_video(tmp_path / "large.ts", frames=12, width=128, height=96, first_pts=12)
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(SourceError) as caught, open_video(both) as video:
        packets = read_packets(video)
        line_up(video, packets)
    assert caught.value.code == "varying_geometry"


@pytest.mark.parametrize("size", [(128, 96), (112, 64), (80, 64)])
@pytest.mark.parametrize("ending", ["m2v", "ts"])
def test_geometry_that_changes_under_an_mpeg_decoder(tmp_path: Path, ending: str, size: tuple[int, int]) -> None:
    """Its own size changes with the pictures, which then still fit it."""
    parts = [write_video(tmp_path / f"a.{ending}", codec="mpeg2video", frames=12)]
    width, height = size
    parts.append(
        write_video(tmp_path / f"b.{ending}", codec="mpeg2video", frames=12, width=width, height=height, first_pts=12)
    )
    both = tmp_path / f"both.{ending}"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    for options in ({"motion": True, "qp": True}, {"pixels": None, "maps": ("innovation",)}):
        with pytest.raises(SourceError) as caught:
            extract(both, frames="all", **options)
        assert caught.value.code == "varying_geometry"


@pytest.mark.parametrize(
    ("pix_fmt", "options"),
    [
        ("yuv420p", {}),
        ("yuv444p", {}),
        ("yuv422p", {}),
        ("yuvj420p", {}),
        ("yuv420p10le", {"profile": "high10"}),
    ],
)
def test_rgb_is_right_whatever_the_source(tmp_path: Path, pix_fmt: str, options: dict[str, str]) -> None:
    """Grey levels survive range, depth and subsampling."""
    ramp = np.repeat(np.repeat(np.linspace(0, 255, 12).astype(np.uint8)[None], 64, 0), 8, 1)
    image = np.repeat(ramp[..., None], 3, -1)
    path = write_video(tmp_path / "ramp.mp4", frames=3, pix_fmt=pix_fmt, image=image, options={"crf": "1", **options})
    rgb = sought(path, [1])[1]
    assert rgb.shape == (64, 96, 3)
    assert rgb.dtype == np.uint8
    assert np.abs(rgb.astype(int) - image).max() <= 4


def test_size_and_orientation() -> None:
    assert rgb.scaled_size(1920, 1080, short_side=384) == (683, 384)
    assert rgb.scaled_size(1080, 1920, short_side=384) == (384, 683)
    assert rgb.scaled_size(320, 240, short_side=384) == (320, 240)
    image = np.zeros((32, 48, 3), np.uint8)
    image[:8, :8] = 255
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    turned = rgb.to_rgb(frame, short_side=100, orientation=Orientation.from_rotation(-90))
    assert turned.shape == (48, 32, 3)
    assert turned[:8, -8:].min() == 255, "clockwise: the top left corner goes to the top right"
    assert turned[-8:, :8].max() == 0


def test_payloads_are_the_packets(data: Path) -> None:
    for name in ("event_h264.mp4", "cut_h264.mkv", "noise_mpeg4.avi"):
        with av.open(str(data / name)) as source:
            expected = [bytes(packet) for packet in source.demux(video=0) if packet.size]
        with open_video(data / name) as video:
            packets = read_packets(video)
            found = dict(read_payloads(video, packets, [55, 3, 3, 40]))
        assert found == {number: expected[number] for number in (3, 40, 55)}


def test_payloads_of_a_raw_stream(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.h264", frames=30)
    with av.open(str(path)) as source:
        expected = [bytes(packet) for packet in source.demux(video=0) if packet.size]
    with open_video(path) as video:
        found = dict(read_payloads(video, read_packets(video), [29, 9]))
    assert found == {number: expected[number] for number in (9, 29)}


def test_vectors_do_not_depend_on_the_loop_filter(data: Path) -> None:
    """An H.264 decoder that nobody asks for samples leaves its loop filter out."""
    read = {}
    for samples in (True, False):
        with open_video(data / "event_h264.mp4") as video:
            packets = read_packets(video)
            decoder = decode.Decoder(video, packets, vectors=True, quantisers=True, samples=samples)
            run = decode.Run(start=0, stop=packets.size.size, targets=tuple(range(packets.size.size)))
            read[samples] = [
                (
                    shown.vectors,
                    side_data.quantisers(shown.frame, video.width, video.height),
                    side_data.planes(shown.frame)[0],
                )
                for shown in decoder.decode(run)
            ]
    assert any(vectors is not None for vectors, _, _ in read[True])
    for (vectors, quantisers, _), (same, same_quantisers, _) in zip(read[True], read[False], strict=True):
        np.testing.assert_array_equal(vectors, same)
        np.testing.assert_array_equal(quantisers, same_quantisers)
    assert any(not np.array_equal(luma, other) for (*_, luma), (*_, other) in zip(read[True], read[False], strict=True))


SHORT_OF_MEMORY = """\
import resource, sys
from pathlib import Path
from codecmeta.container.packets import read_packets
from codecmeta.container.video import open_video
from codecmeta.decoding.decoder import Decoder, Run
with open_video(sys.argv[1]) as video:
    packets = read_packets(video)
    decoder = Decoder(video, packets)
    if sys.argv[2] == "short":
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (20 << 20),) * 2)
    try:
        print(len(list(decoder.decode(Run(start=0, stop=2, targets=(0, 1))))), decoder.errors)
    except MemoryError:
        print("MemoryError", decoder.errors)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux, which says how large a process is")
def test_want_of_memory_is_no_damage(tmp_path: Path) -> None:
    """The decoder says that the data are invalid in both cases."""
    path = tmp_path / "large.mp4"
    large = np.zeros((4000, 5600, 3), np.uint8)
    write_video(path, codec="mpeg4", frames=2, width=5600, height=4000, image=large, options={"g": "1"})
    for memory, expected in (("short", "MemoryError 0"), ("plenty", "2 0")):
        command = [sys.executable, "-c", SHORT_OF_MEMORY, str(path), memory]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        assert ran.stdout.strip() == expected
