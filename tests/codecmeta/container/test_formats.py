"""Containers that are read, files that are refused with their reason, encryption, and files of several video tracks."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from codecmeta import SourceError, UsageError, extract
from codecmeta.container.formats import FORMATS, explain_refusal
from codecmeta.container.video import open_video
from tests.codecmeta.container.mp4_writer import box, rewrite
from tests.codecmeta.make_video import picture, write_video
from tests.codecmeta.spliced_video import linear_pictures

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [
        ("gif", "gif", "rgb8"),
        ("apng", "apng", "rgb24"),
        ("mxf", "mpeg2video", "yuv420p"),
        ("nut", "mpeg4", "yuv420p"),
        ("y4m", "wrapped_avframe", "yuv420p"),
    ],
)
def test_containers_beyond_the_usual(tmp_path: Path, suffix: str, codec: str, pix_fmt: str) -> None:
    path = write_video(tmp_path / f"clip.{suffix}", codec=codec, pix_fmt=pix_fmt, frames=9, options={})
    meta = extract(path, frames="all", pixels=64, residual="none")
    pictures = linear_pictures(path)
    assert meta.frames is not None
    assert len(pictures) == len(meta.frames) == 9
    assert all(np.array_equal(frame, shown) for frame, shown in zip(meta.frames, pictures, strict=True))
    alone = extract(path, frames=[5], pixels=64, residual="none")
    assert alone.frames is not None
    assert np.array_equal(alone.frames[0], meta.frames[5])


def write_webp(path: Path, *, animated: bool) -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libwebp_anim" if animated else "libwebp", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(5 if animated else 1):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            frame.pts = index
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        extract(path)
    assert caught.value.code == "format_refused", caught.value
    return str(caught.value)


def test_animated_webp(tmp_path: Path) -> None:
    assert "animated WebP" in refusal(write_webp(tmp_path / "a.webp", animated=True))


def test_still_pictures_are_no_videos(tmp_path: Path) -> None:
    assert "WebP picture" in refusal(write_webp(tmp_path / "still.webp", animated=False))
    for suffix, codec, pix_fmt in (("png", "png", "rgb24"), ("jpg", "mjpeg", "yuvj420p")):
        path = tmp_path / f"still.{suffix}"
        write_video(path, codec=codec, frames=1, pix_fmt=pix_fmt, options={"update": "1"}, container="image2")
        assert "picture, not a video" in refusal(path)


@pytest.mark.parametrize(
    ("head", "words"),
    [(b".RMF\0\0", "RealMedia"), (b"\0\0\0\x1cftypavif", "AVIF"), (b"PK\3\4", "zip"), (b"\0\0\0\x18ftypmp42", None)],
)
def test_other_files(head: bytes, words: str | None) -> None:
    reason = explain_refusal(head.ljust(32, b"\0"))
    assert reason is None if words is None else words in (reason or "")


def test_the_docs_list_every_container() -> None:
    page = (ROOT / "docs" / "format.md").read_text() + (ROOT / "README.md").read_text()
    for one in FORMATS:
        assert one.name in page or one.name == "sound", one.name
        assert all(name in page for name in one.extensions) or one.name == "elementary streams", one.name


def encrypt(content: bytes, scheme: bytes) -> bytes:
    """Call the sample entry of an MP4 encrypted; the samples stay as they are."""

    def protect(stsd: bytes) -> bytes:
        entry = stsd[8:]
        info = box(b"frma", entry[4:8]) + box(b"schm", bytes(4) + scheme + bytes([0, 1, 0, 0]))
        return stsd[:8] + box(b"encv", entry[8:] + box(b"sinf", info))

    return rewrite(content, {b"stsd": protect})


@pytest.mark.parametrize("scheme", [b"cenc", b"cbcs"])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_encrypted_tracks(tmp_path: Path, scheme: bytes, codec: str) -> None:
    path = write_video(tmp_path / "clip.mp4", codec=codec, options={"x265-params": "log-level=none"})
    path.write_bytes(encrypt(path.read_bytes(), scheme))
    for options in ({}, {"residual": "none", "pixels": None}):
        with pytest.raises(SourceError, match=rf"encrypted \({scheme.decode()}\)") as caught:
            extract(path, **options)
        assert caught.value.code == "encrypted"


@pytest.fixture
def two_tracks(tmp_path: Path) -> Path:
    """Write a file of two videos, the second of which is larger."""
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as output:
        streams = []
        for width, height in ((64, 48), (96, 64)):
            stream = output.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        for index in range(10):
            for stream in streams:
                rgb = picture(index, width=stream.width, height=stream.height)
                frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
                frame.pts = index
                output.mux(stream.encode(frame))
        for stream in streams:
            output.mux(stream.encode(None))
    return path


def test_the_track_that_is_asked_for(two_tracks: Path) -> None:
    with av.open(str(two_tracks)) as source:
        best = source.streams.best("video")
        assert best is not None
        index = best.index
    meta = extract(two_tracks, frames=[0])
    other = 1 - index
    assert meta.info["stream"]["index"] == index
    assert any(f"not read: {other} (mpeg4" in warning for warning in meta.info["extraction"]["warnings"])
    for track, size in ((0, (64, 48)), (1, (96, 64))):
        chosen = extract(two_tracks, frames=[3], track=track)
        stream = chosen.info["stream"]
        assert (stream["index"], stream["width"], stream["height"]) == (track, *size)
        assert not chosen.info["extraction"]["warnings"]
        assert chosen.frames is not None
        assert chosen.frames.shape[1:3] == size[::-1]


def test_a_track_that_is_none(two_tracks: Path) -> None:
    with pytest.raises(UsageError, match=r"choose from: 0 \(mpeg4 64x48\); 1 \(mpeg4 96x64\)"):
        extract(two_tracks, track=2)
    with pytest.raises(UsageError, match="track=-1"):
        extract(two_tracks, track=-1)
    with open_video(two_tracks, track=1) as video:
        video.reopen()
        assert video.stream.index == 1
