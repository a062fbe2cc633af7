"""Packet tables against plain demuxing, and refusal of what is not a video."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from codecmeta.container import packets
from codecmeta.container import video as container
from codecmeta.container.packet_reader import read_payloads
from codecmeta.container.sample_table import SampleTable
from codecmeta.errors import SourceError
from codecmeta.record.meta import MISSING
from tests.codecmeta.container.mp4_writer import with_edits
from tests.codecmeta.make_video import decode_all, write_audio, write_video

CLIPS = ["event_h264.mp4", "cut_h264.mkv", "noise_mpeg4.avi", "pan_hevc.mp4", "objects_vp9.webm", "still_h264.mp4"]


def demuxed(path: Path) -> tuple[list[tuple[int, int, int]], list[bool]]:
    with av.open(str(path)) as source:
        packets = [packet for packet in source.demux(source.streams.best("video")) if packet.size]
    stamps = [(MISSING if p.pts is None else p.pts, MISSING if p.dts is None else p.dts, p.size) for p in packets]
    return stamps, [p.is_keyframe for p in packets]


def check(path: Path) -> packets.PacketTable:
    with container.open_video(path) as video:
        table = packets.read_packets(video)
    stamps, key = demuxed(path)
    assert list(zip(table.pts.tolist(), table.dts.tolist(), table.size.tolist(), strict=True)) == stamps
    if table.origin == "demux":
        assert table.key.tolist() == key
    else:
        # the demuxer's parser adds key flags of pictures that the container's index does not list
        assert all(flag for listed, flag in zip(table.key.tolist(), key, strict=True) if listed)
    return table


@pytest.mark.parametrize("name", CLIPS)
def test_table_is_what_demuxing_gives(data: Path, name: str) -> None:
    table = check(data / name)
    assert table.origin == ("index" if name.endswith(".mp4") else "demux")


def test_index_positions_hold_the_packets(data: Path) -> None:
    path = data / "event_h264.mp4"
    with container.open_video(path) as video:
        table = packets.read_packets(video)
    assert table.position is not None
    content = path.read_bytes()
    with av.open(str(path)) as source:
        for packet, position in zip(source.demux(video=0), table.position.tolist(), strict=False):
            assert content[position : position + packet.size] == bytes(packet)


def test_real_clips(clips: Path) -> None:
    paths = sorted(path for path in clips.rglob("*.*") if path.suffix != ".md")
    assert len(paths) == 26
    origins = [check(path).origin for path in paths]
    assert origins.count("index") == 17


def test_edit_list_hides_packets(clips: Path) -> None:
    with container.open_video(clips / "edge" / "editlist_discard_first_keyframe_h264.mp4") as video:
        table = packets.read_packets(video)
    assert table.size.size == 30
    assert np.count_nonzero(table.shown) == 25
    assert table.pts.min() < 0


def test_the_display_matrix_comes_from_the_header(clips: Path) -> None:
    for name in ("tiny_rotated90_h264.mov", "rotated_bbb_h264.mp4"):
        with container.open_video(clips / "edge" / name) as video:
            assert video.track is not None
            assert video.track.matrix[:5] == (0, 1 << 16, 0, -1 << 16, 0)


def read_both_ways(path: Path) -> tuple[packets.PacketTable, container.PacketTable]:
    """Read the table with the help of the container's index, and without it."""
    with container.open_video(path) as video:
        listed = packets.read_packets(video)
        video.track = None
        demuxed = packets.read_packets(video)
    assert demuxed.origin == "demux"
    return listed, demuxed


def shift_some(samples: SampleTable) -> dict[str, Any]:
    return {"pts": samples.pts + 512 * (np.arange(samples.pts.size) == 2)}


def collide(samples: SampleTable) -> dict[str, Any]:
    return {"pts": np.where(np.arange(samples.pts.size) == 200, samples.pts[201], samples.pts)}


def move(samples: SampleTable) -> dict[str, Any]:
    return {"position": samples.position + 1}


def shift_all(samples: SampleTable) -> dict[str, Any]:
    return {"pts": samples.pts + 7, "dts": samples.dts - 5}


@pytest.mark.parametrize(
    ("lie", "origin"),
    [(shift_some, "demux"), (collide, "demux"), (move, "demux"), (shift_all, "index")],
    ids=["other than the first packets", "two samples at one time", "elsewhere in the file", "only shifted"],
)
def test_index_that_lies_is_not_believed(data: Path, lie: Callable[[SampleTable], dict[str, Any]], origin: str) -> None:
    """Tables that the packets do not bear out: demuxing decides. A constant shift is no lie."""
    path = data / "still_h264.mp4" if lie is shift_some else data / "event_h264.mp4"
    truth = check(path)
    assert truth.origin == "index"
    with container.open_video(path) as video:
        assert video.track is not None
        assert video.track.samples is not None
        lies = replace(video.track.samples, **lie(video.track.samples))
        video.track = replace(video.track, samples=lies)
        table = packets.read_packets(video)
    assert table.origin == origin
    for name in ("pts", "dts", "size", "shown"):
        assert np.array_equal(getattr(table, name), getattr(truth, name)), name


def empty_sample(content: bytes, number: int) -> bytes:
    """Take the bytes of one sample out of an MP4 whose samples lie in one chunk before its header."""
    sizes = content.index(b"stsz") + 16
    (length,) = struct.unpack_from(">I", content, sizes + 4 * number)
    (begin,) = struct.unpack_from(">I", content, content.index(b"stco") + 12)
    begin += sum(struct.unpack_from(f">{number}I", content, sizes))
    changed = bytearray(content)
    struct.pack_into(">I", changed, sizes + 4 * number, 0)
    box = content.index(b"mdat") - 4
    assert box < begin < content.index(b"moov")
    struct.pack_into(">I", changed, box, struct.unpack_from(">I", content, box)[0] - length)
    del changed[begin : begin + length]
    return bytes(changed)


@pytest.mark.parametrize("number", [299, 150, 7])
def test_samples_without_bytes_are_no_packets(tmp_path: Path, data: Path, number: int) -> None:
    """They stand for dropped frames: neither the index nor demuxing counts them."""
    whole, _ = read_both_ways(data / "event_h264.mp4")
    path = tmp_path / "dropped.mp4"
    path.write_bytes(empty_sample((data / "event_h264.mp4").read_bytes(), number))
    listed, demuxed = read_both_ways(path)
    assert listed.origin == "index"
    for name in ("pts", "dts", "size", "key", "shown"):
        assert np.array_equal(getattr(listed, name), np.delete(getattr(whole, name), number)), name
        assert np.array_equal(getattr(demuxed, name), getattr(listed, name)), name
    with container.open_video(path) as video:
        by_position = dict(read_payloads(video, listed, range(299)))
        by_demuxing = dict(read_payloads(video, demuxed, range(299)))
    assert by_position == by_demuxing
    assert b"" not in by_position.values()


def test_edit_list_that_shows_samples_again(tmp_path: Path) -> None:
    """As many entries in libav's index as there are samples, but not the same ones."""
    path = tmp_path / "again.mp4"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.options = {"g": "10", "bf": "0", "x264-params": "scenecut=0"}
        for index in range(20):
            image = rng.integers(0, 256, (64, 96, 3), np.uint8) if index >= 10 else np.zeros((64, 96, 3), np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(stream.encode(None))
    path.write_bytes(with_edits(path.read_bytes(), [(400, 5120), (400, 5120)]))
    listed, demuxed = read_both_ways(path)
    assert listed.origin == "demux"
    assert listed.size.tolist() == [*listed.size[:10], *listed.size[:10]]
    assert np.array_equal(listed.pts, demuxed.pts)
    assert int(listed.shown.sum()) == len(decode_all(path)) == 20


class Broken:
    """A demuxer that fails when its packets have come."""

    def __init__(self, container: Any, error: Exception) -> None:
        self.container = container
        self._error = error

    def demux(self, stream: Any) -> Iterator[Any]:
        yield from self.container.demux(stream)
        raise self._error


def read_sizes(path: Path, error: Exception | None) -> list[int]:
    with container.open_video(path) as video:
        plain = video.container
        if error is not None:
            video.container = Broken(plain, error)
        try:
            return [packet.size for packet in container.demux(video)]
        finally:
            video.container = plain


def test_streams_that_appear_while_the_file_is_read(data: Path) -> None:
    """PyAV stumbles over them when there are no more packets."""
    path = data / "noise_mpeg4.avi"
    assert read_sizes(path, IndexError("list index out of range")) == read_sizes(path, None)


def test_a_sample_too_large_for_memory_is_damage(data: Path) -> None:
    error = av.error.MemoryError(12, "Cannot allocate memory", "file:a.mp4")
    with pytest.raises(SourceError, match=r"to the end \(Cannot allocate memory\)") as caught:
        read_sizes(data / "noise_mpeg4.avi", error)
    assert caught.value.code == "damaged"


def test_permission_is_that_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Demuxers say EPERM of contents that they do not take."""

    def refuse(*_: object, **__: object) -> None:
        raise av.error.PermissionError(1, "Operation not permitted", "file:a.wmv")

    (tmp_path / "a.wmv").write_bytes(b"anything")
    monkeypatch.setattr(av, "open", refuse)
    assert "Operation not permitted; it begins with" in expect("unreadable", tmp_path / "a.wmv")
    monkeypatch.setattr(os, "open", refuse)
    expect("permission_denied", tmp_path / "a.wmv")


def expect(code: str, path: Path) -> str:
    with pytest.raises(SourceError) as caught, container.open_video(path) as video:
        packets.read_packets(video)
    assert caught.value.code == code, caught.value
    return str(caught.value)


def test_what_is_not_a_video(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    assert "empty" in expect("unreadable", tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("not a video\n" * 50)
    assert "not a video" in expect("unreadable", tmp_path / "text.mp4")
    (tmp_path / "page.mp4").write_text("<html><body>404</body></html>")
    assert "HTML" in expect("format_refused", tmp_path / "page.mp4")
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    expect("unreadable", tmp_path / "noise.mp4")
    expect("not_a_file", tmp_path / "missing.mp4")
    expect("not_a_file", tmp_path)
    expect("not_a_file", Path("/dev/zero"))
    os.mkfifo(tmp_path / "pipe.mp4")
    expect("not_a_file", tmp_path / "pipe.mp4")


def test_audio_only(tmp_path: Path) -> None:
    assert "audio" in expect("no_video_stream", write_audio(tmp_path / "sound.m4a"))


def test_cover_art_is_not_a_video(tmp_path: Path) -> None:
    path = tmp_path / "cover.mp4"
    with av.open(str(path), "w") as output:
        sound = output.add_stream("aac", rate=8000)
        sound.layout = "mono"
        art = output.add_stream("mjpeg", rate=1)
        art.width, art.height, art.pix_fmt = 64, 64, "yuvj420p"
        flag: Any = av.stream.Disposition.attached_pic
        art.disposition = getattr(flag, "value", flag)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 8000
        image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        output.mux(art.encode(image.reformat(format="yuvj420p")))
        output.mux(art.encode(None))
        output.mux(sound.encode(samples))
        output.mux(sound.encode(None))
    expect("no_video_stream", path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("concat.mp4", "ffconcat version 1.0\nfile 'other.mp4'\n"),
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nother.mp4\n#EXT-X-ENDLIST\n"),
        ("list.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nother.mp4\n#EXT-X-ENDLIST\n"),
    ],
)
def test_playlists_open_no_second_file(tmp_path: Path, data: Path, name: str, text: str) -> None:
    (tmp_path / "other.mp4").write_bytes((data / "still_h264.mp4").read_bytes())
    (tmp_path / name).write_text(text)
    expect("format_refused", tmp_path / name)


def test_only_the_given_file_is_opened(tmp_path: Path, data: Path) -> None:
    """Python's own view of open and connect while a video is read."""
    path = tmp_path / "clip.mp4"
    path.write_bytes((data / "still_h264.mp4").read_bytes())
    seen: list[str] = []
    active = True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if active and event in ("open", "socket.connect"):
            seen.append(str(arguments[0]))

    sys.addaudithook(watch)
    with container.open_video(path) as video:
        packets.read_packets(video)
    active = False
    assert set(seen) <= {str(path)}


def test_resolution_bomb_is_refused_from_the_header(tmp_path: Path) -> None:
    still = np.zeros((8000, 8000, 3), np.uint8)
    path = write_video(
        tmp_path / "bomb.mp4", codec="mpeg4", frames=1, width=8000, height=8000, image=still, options={"g": "1"}
    )
    assert path.stat().st_size < 1_000_000
    assert "8000x8000" in expect("limit_exceeded", path)


@pytest.mark.parametrize(
    "name",
    [
        "two words.mp4",
        "clip:01.mp4",
        "http:x.mp4",
        "file:z.mp4",
        "new\nline.mp4",
        "-dash.mp4",
        "%03d.mp4",
        "ü.mp4",
        "*.mp4",
    ],
)
def test_hostile_names(tmp_path: Path, data: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes((data / "still_h264.mp4").read_bytes())
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / name, Path(name)):
        with container.open_video(path) as video:
            assert packets.read_packets(video).size.size == 50


def test_name_that_is_not_utf8(tmp_path: Path, data: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.mp4"))
    path.write_bytes((data / "still_h264.mp4").read_bytes())
    with container.open_video(path) as video:
        assert packets.read_packets(video).size.size == 50


def test_stream_without_a_key_packet(tmp_path: Path, data: Path) -> None:
    """The one key packet left out: nothing can be decoded from."""
    path = tmp_path / "headless.mkv"
    with av.open(str(data / "still_h264.mp4")) as source, av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size and not packet.is_keyframe:
                packet.stream = copy
                output.mux(packet)
    assert "none of the 49 packets" in expect("no_key_frame", path)


def test_truncation_sweep_never_escapes_the_error_tree(tmp_path: Path, data: Path) -> None:
    for name in ("still_h264.mp4", "cut_h264.mkv", "noise_mpeg4.avi", "objects_vp9.webm"):
        content = (data / name).read_bytes()
        for cut in np.linspace(1, len(content) - 1, 40).astype(int).tolist():
            path = tmp_path / name
            path.write_bytes(content[:cut])
            try:
                with container.open_video(path) as video:
                    packets.read_packets(video)
            except SourceError:
                pass


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "data").glob("*/*.ts")), ids=lambda path: path.name
)
def test_a_transport_stream_begins_again_with_its_first_packet(path: Path) -> None:
    with av.open(str(path)) as opened:
        plain = [bytes(packet) for packet in opened.demux(video=0) if packet.size]
    with container.open_video(path) as video:
        assert [bytes(packet) for packet in container.demux(video)] == plain
        video.rewind()
        assert [bytes(packet) for packet in container.demux(video)] == plain
