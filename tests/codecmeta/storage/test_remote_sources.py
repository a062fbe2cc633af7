"""Videos by URL: the same records as from the file, by ranges where an index allows that, and few bytes of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

pytest.importorskip("fsspec", reason="fsspec is not installed: URLs were NOT tested")
pytest.importorskip("urllib3", reason="urllib3 is not installed: URLs were NOT tested")

from fsspec.implementations.memory import MemoryFileSystem

from bench.web_server import WebFolder, serve
from codecmeta import SourceError, UsageError, VideoMeta, extract
from codecmeta.container import pyav
from codecmeta.record.fields import FIELDS
from codecmeta.record.limits import Limits
from codecmeta.storage import remote_file, web
from codecmeta.storage.memory import MemoryStore
from codecmeta.storage.opening import open_source
from tests.codecmeta.make_video import write_audio, write_video

ACCESS = {"version", "access", "bytes_read", "requests"}
PIXELS: dict[str, Any] = {"residual": "none", "pixels": 64}
PACKETS: dict[str, Any] = {"residual": "none", "pixels": None}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an MP4 of ten GoPs."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    return write_video(path, frames=400, width=320, height=240, options={"g": "40", "sc_threshold": "0", "qp": "12"})


@pytest.fixture
def by_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is so small that it is copied."""
    monkeypatch.setattr(remote_file, "WHOLE_BYTES", 0)


@pytest.fixture
def web_folder(clip: Path) -> Iterator[WebFolder]:
    with serve(clip.parent) as served:
        yield served


def put(path: Path) -> str:
    MemoryFileSystem().pipe_file(f"/videos/{path.name}", path.read_bytes())
    return f"memory://videos/{path.name}"


def facts(meta: VideoMeta) -> dict[str, Any]:
    """Everything in a record, but when its source was written."""
    source = {name: value for name, value in meta.info["source"].items() if name not in {*ACCESS, "mtime_ns"}}
    arrays = {name: array.tobytes() for name in FIELDS if (array := getattr(meta, name)) is not None}
    return {"info": json.dumps(dict(meta.info) | {"source": source}), **arrays}


@pytest.mark.parametrize("name", ["event_h264.mp4", "cut_h264.mkv", "noise_mpeg4.avi", "objects_vp9.webm"])
def test_a_copied_file_has_the_record_of_the_local_one(data: Path, name: str) -> None:
    remote = extract(put(data / name), **PIXELS)
    assert facts(remote) == facts(extract(data / name, **PIXELS))
    assert remote.info["source"]["access"] == "copy"
    assert remote.info["source"]["bytes_read"] == (data / name).stat().st_size
    assert facts(remote) != facts(extract(data / name, frames="uniform:3", **PIXELS))


@pytest.mark.parametrize("options", [PACKETS, {"frames": "uniform:2", **PIXELS}])
def test_ranges_give_what_the_local_file_gives(clip: Path, by_ranges: None, options: dict[str, Any]) -> None:
    """What is not read is absent, with the reason, and nothing else differs."""
    remote, local = extract(put(clip), **options), extract(clip, **options)
    assert remote.info["source"]["access"] == "ranges"
    for name in FIELDS:
        there, here = getattr(remote, name), getattr(local, name)
        if name in ("packet_type", "packet_shown"):
            assert there is None
        else:
            assert (there is None and here is None) or np.array_equal(there, here)
    assert remote.info["verdict"] == local.info["verdict"]
    if "frames" in options:
        assert "by ranges" in remote.info["signals"]["packet_type"]["absent"]


def test_what_is_read_of_most_frames_is_the_whole_file(clip: Path, by_ranges: None) -> None:
    remote = extract(put(clip), frames="uniform:30", **PIXELS)
    assert remote.info["source"]["access"] == "copy"
    assert facts(remote) == facts(extract(clip, frames="uniform:30", **PIXELS))


@pytest.mark.parametrize("moov", ["front", "end"])
def test_packets_of_an_mp4_cost_its_index(tmp_path: Path, by_ranges: None, moov: str) -> None:
    """What the server sent is less than a fifth of the file, though its first and last MiB identify it."""
    path = tmp_path / "clip.mp4"
    flags = {"movflags": "faststart"} if moov == "front" else {}
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=flags) as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.options = {
            "g": "4",
            "x264-params": "filler=1:nal-hrd=cbr:vbv-maxrate=60000:vbv-bufsize=12000:bitrate=60000",
        }
        for _ in range(60):
            image = rng.integers(0, 255, (64, 96, 3)).astype(np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(stream.encode(None))
    size = path.stat().st_size
    assert size > 12 << 20
    with serve(tmp_path) as served:
        meta = extract(served.url("clip.mp4"), **PACKETS)
    assert meta.info["source"]["access"] == "ranges"
    assert meta.info["source"]["bytes_read"] <= served.sent < 0.4 * size
    assert np.array_equal(meta.packet_size, extract(path, **PACKETS).packet_size)


def test_a_web_server(web_folder: WebFolder, clip: Path, by_ranges: None) -> None:
    meta = extract(web_folder.url("clip.mp4?token=secret"), **PACKETS)
    assert facts(meta) == facts(extract(clip, **PACKETS))
    assert "secret" not in json.dumps(meta.info)


@pytest.mark.parametrize("fault", ["short answers", "busy once"])
def test_servers_that_are_only_odd(web_folder: WebFolder, clip: Path, by_ranges: None, fault: str) -> None:
    web_folder.fault = fault
    assert facts(extract(web_folder.url("clip.mp4"), **PACKETS)) == facts(extract(clip, **PACKETS))


@pytest.mark.parametrize("fault", ["no ranges", "no length", "no validators"])
def test_servers_without_safe_ranges_send_the_whole_file(web_folder: WebFolder, clip: Path, fault: str) -> None:
    web_folder.fault = fault
    meta = extract(web_folder.url("clip.mp4"), **PIXELS)
    assert meta.info["source"]["access"] == "copy"
    assert facts(meta) == facts(extract(clip, **PIXELS))
    with pytest.raises(SourceError, match="bytes") as caught:
        extract(web_folder.url("clip.mp4"), limits=Limits(copied=10_000), **PIXELS)
    assert caught.value.code == "limit_exceeded"


@pytest.mark.parametrize("fault", ["", "no ranges"])
def test_a_copy_is_whole_where_writes_are_short(
    web_folder: WebFolder, clip: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Like the last write to a disk that becomes full, which takes what fits and reports no error."""
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: write(file, bytes(data[:10_000]), at))
    web_folder.fault = fault
    with open_source(web_folder.url("clip.mp4")) as source:
        source.fetch_all()
        assert source.read_at(0, source.size) == clip.read_bytes()


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("changes", "changed_while_reading"),
        ("other length", "changed_while_reading"),
        ("other range", "network"),
        ("ranges once", "network"),
        ("stops", "network"),
        ("long body", "network"),
        ("announces too much", "network"),
        ("busy", "network"),
        ("hangs", "network"),
        ("slow", "network"),
        ("redirects for ever", "network"),
        ("redirect file:///etc/passwd", "network"),
        ("redirect ftp://127.0.0.1/clip.mp4", "network"),
        ("redirect http://127.0.0.1:1/clip.mp4?again", "network"),
    ],
)
def test_servers_that_lie(
    web_folder: WebFolder, by_ranges: None, monkeypatch: pytest.MonkeyPatch, fault: str, code: str
) -> None:
    web_folder.fault = fault
    monkeypatch.setattr(web, "READ_SECONDS", 0.5)
    if fault == "slow":
        monkeypatch.setattr(web, "seconds_for", lambda length: 0.3)
    with pytest.raises(SourceError) as caught:
        extract(web_folder.url("clip.mp4"), **PIXELS)
    assert caught.value.code == code


def test_files_that_are_not_there(web_folder: WebFolder) -> None:
    for url in (web_folder.url("other.mp4"), "memory://videos/other.mp4"):
        with pytest.raises(SourceError) as caught:
            extract(url)
        assert caught.value.code == "not_a_file"
    with pytest.raises(SourceError) as caught:
        extract("http://127.0.0.1:1/clip.mp4")
    assert caught.value.code == "network"
    for url in ("ftp://host/clip.mp4", "s3://", "hf://datasets/clip.mp4"):
        with pytest.raises(UsageError):
            extract(url)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    monkeypatch.delitem(__import__("sys").modules, "codecmeta.storage.s3", raising=False)
    with pytest.raises(UsageError, match=r"pip install 'codecmeta\[cloud\]'"):
        extract("s3://bucket/clip.mp4")


def test_what_is_no_video_is_refused_alike(tmp_path: Path, by_ranges: None) -> None:
    """With the code of the local file, without a second file or a connection of libav."""
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/a.ts\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.txt").write_text("ffconcat version 1.0\nfile /etc/passwd\n")
    (tmp_path / "half.mp4").write_bytes(write_video(tmp_path / "whole.mp4").read_bytes()[:2000])
    write_audio(tmp_path / "sound.mp4")
    for name in ("text.mp4", "list.m3u8", "list.txt", "half.mp4", "sound.mp4"):
        codes = []
        for source in (tmp_path / name, put(tmp_path / name)):
            with pytest.raises(SourceError) as caught:
                extract(source, **PACKETS)
            codes.append(caught.value.code)
        assert codes[0] == codes[1], name


def test_playlists_by_url_open_no_connection(tmp_path: Path, clip: Path, by_ranges: None) -> None:
    """What names other files is refused before any of them is opened; its server counts."""
    with serve(clip.parent) as served:
        target = served.url("clip.mp4")
        playlists = {
            "a.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
            "a.mpd": f"<MPD><Period><BaseURL>{target}</BaseURL></Period></MPD>",
            "a.txt": f"ffconcat version 1.0\nfile {target}\n",
            "a.sdp": f"v=0\nu={target}\nm=video 5004 RTP/AVP 96\nc=IN IP4 127.0.0.1\n",
        }
        for name, text in playlists.items():
            (tmp_path / name).write_text(text)
            with pytest.raises(SourceError) as caught:
                extract(put(tmp_path / name), **PACKETS)
            assert caught.value.code in ("format_refused", "unreadable")
        assert served.requests == 0


def test_libav_opens_nothing_by_itself(clip: Path, by_ranges: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demuxer is given a file object, the list of allowed formats, and no protocol."""
    given: list[Any] = []
    original = pyav.open_input
    monkeypatch.setattr(
        "codecmeta.container.video.pyav.open_input",
        lambda name, options: given.append((name, options)) or original(name, options),
    )
    extract(put(clip), **PACKETS)
    for name, options in given:
        assert not isinstance(name, str)
        assert options["protocol_whitelist"] == "none"
        assert "mov" in options["format_whitelist"]
        assert "hls" not in options["format_whitelist"]


def test_whichever_read_fails_that_is_the_error(
    clip: Path, by_ranges: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Libav takes a failed read for the end of the file."""
    url, calls, last = put(clip), 0, 0
    original = MemoryStore.read

    def fail(self: MemoryStore, *arguments: Any) -> bytes:
        nonlocal calls
        calls += 1
        if calls == last:
            raise SourceError("network", "the connection was lost")
        return original(self, *arguments)

    monkeypatch.setattr(MemoryStore, "read", fail)
    extract(url, frames="uniform:2", **PIXELS)
    for number in range(1, calls + 1):
        calls, last = 0, number
        with pytest.raises(SourceError, match="the connection was lost") as caught:
            extract(url, frames="uniform:2", **PIXELS)
        assert caught.value.code == "network"
    assert capfd.readouterr().err == ""
    assert calls >= 3


def test_reads_beyond_the_ends(clip: Path, by_ranges: None) -> None:
    with open_source(put(clip)) as source:
        size = source.size
        content = clip.read_bytes()
        assert source.read_at(size - 3, 100) == content[-3:]
        assert source.read_at(size, 1) == source.read_at(-1, 5) == source.read_at(10, 0) == b""
        assert source.read_each([0, 5000, size - 2], 8) == [content[:8], content[5000:5008], content[-2:]]
        source.fetch_all()
        assert source.is_local
        assert source.read_at(5000, 8) == content[5000:5008]
