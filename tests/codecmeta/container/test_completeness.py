"""Half files are distinguished from whole ones by their structure."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from codecmeta import SourceError, extract
from codecmeta.container.completeness import judge_file
from codecmeta.storage.local_file import LocalFile
from tests.codecmeta.make_video import write_video

FORMATS = [
    ("mp4", "libx264"),
    ("mov", "libx264"),
    ("mkv", "libx264"),
    ("webm", "libvpx-vp9"),
    ("avi", "mpeg4"),
    ("flv", "flv"),
    ("ivf", "libvpx-vp9"),
    ("wmv", "wmv2"),
]


def state(path: Path) -> str:
    with LocalFile(path) as source:
        return judge_file(source)[0]


def cut(path: Path, size: int) -> Path:
    part = path.with_name(f"part-{path.name}")
    part.write_bytes(path.read_bytes()[:size])
    return part


@pytest.mark.parametrize(("ending", "codec"), FORMATS)
def test_announced_lengths(tmp_path: Path, ending: str, codec: str) -> None:
    path = write_video(tmp_path / f"clip.{ending}", codec=codec)
    size = path.stat().st_size
    assert state(path) == "complete"
    # the last four bytes of an FLV are not missed
    for part in (size // 2, size * 9 // 10, size - 5):
        assert state(cut(path, part)) == "truncated", part


def test_recordings_that_were_not_finished(tmp_path: Path) -> None:
    """The lengths that a writer comes back to fill in are zero."""
    avi = write_video(tmp_path / "clip.avi", codec="mpeg4")
    content = bytearray(avi.read_bytes())
    content[4:8] = bytes(4)
    avi.write_bytes(content)
    assert state(avi) == "unknown"
    wmv = write_video(tmp_path / "clip.wmv", codec="wmv2")
    content = bytearray(wmv.read_bytes())
    data = content.index(bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c"))
    content[data + 16 : data + 24] = bytes(8)
    wmv.write_bytes(content)
    assert state(wmv) == "unknown"


def test_flv_with_something_behind_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.flv", codec="flv")
    with path.open("ab") as file:
        file.write(b"something else")
    assert state(path) == "unknown"
    # some writers omit the length after the last tag
    assert state(cut(path, path.stat().st_size - 18)) == "complete"


def remux(source: Path, path: Path, movflags: str) -> bytes:
    with av.open(str(source)) as reader, av.open(str(path), "w", options={"movflags": movflags}) as output:
        copy = output.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(video=0):
            if packet.size:
                packet.stream = copy
                output.mux(packet)
    return path.read_bytes()


@pytest.mark.parametrize(("ending", "codec"), [("mp4", "libx264"), ("flv", "flv")])
def test_files_that_were_joined_byte_by_byte(tmp_path: Path, ending: str, codec: str) -> None:
    """libav reads the first one, and says nothing of the second."""
    first = write_video(tmp_path / f"first.{ending}", codec=codec)
    last = write_video(tmp_path / f"last.{ending}", codec=codec, frames=9)
    joined = tmp_path / f"joined.{ending}"
    joined.write_bytes(first.read_bytes() + last.read_bytes())
    verdict = extract(joined, residual="none", pixels=None).info["verdict"]
    assert (verdict["state"], verdict["frames"]) == ("damaged", 20)
    with LocalFile(joined) as source:
        assert verdict["evidence"].startswith(judge_file(source)[1])


def test_headers_that_come_again_before_fragments(tmp_path: Path) -> None:
    """Segments of a stream that are stored one after the other, each with the same header."""
    source = write_video(tmp_path / "whole.mp4")
    content = remux(source, tmp_path / "clip.mp4", "frag_keyframe+empty_moov+default_base_moof")
    second = content.index(b"moof", content.index(b"moof") + 4) - 4
    header = content[: content.index(b"moof") - 4]
    again = tmp_path / "again.mp4"
    again.write_bytes(content[:second] + header + content[second:])
    assert state(again) == "complete"
    # a header of other samples is not the same
    again.write_bytes(content[:second] + header.replace(b"mvhd\0\0\0\0\0", b"mvhd\0\0\0\0\1") + content[second:])
    assert state(again) == "damaged"


def test_header_that_is_cut_says_so(tmp_path: Path) -> None:
    """libav opens such files, and finds no stream or no codec in them."""
    path = write_video(tmp_path / "clip.mp4", frames=2)
    content = path.read_bytes()
    begin = content.index(b"moov")
    codes = set()
    for size in range(begin + 8, len(content), 7):
        with pytest.raises(SourceError) as caught:
            extract(cut(path, size), residual="none", pixels=None)
        codes.add(caught.value.code)
    assert codes == {"truncated"}


def test_fragmented_mp4(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    remux(write_video(tmp_path / "whole.mp4"), path, "frag_keyframe+empty_moov")
    assert state(path) == "complete"
    assert state(cut(path, path.stat().st_size * 2 // 3)) == "truncated"


def test_program_stream(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mpg", codec="mpeg2video", frames=60)
    size = path.stat().st_size
    assert state(path) in ("complete", "unknown")
    assert state(cut(path, size * 2 // 3 + 100)) == "truncated"
    # cut between two packs, a program stream without an end code looks whole
    assert state(cut(path, size // 2048 // 2 * 2048)) == "unknown"


def test_transport_stream(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.ts")
    assert state(path) == "unknown"
    assert state(cut(path, path.stat().st_size // 2 // 188 * 188 + 77)) == "truncated"


def test_streams_without_a_container_say_nothing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.h264", container="h264")
    assert state(path) == "unknown"


def test_real_clips_halved(clips: Path, tmp_path: Path) -> None:
    for path in sorted(path for path in clips.rglob("*.*") if path.suffix != ".md"):
        assert state(path) != "truncated", path.name
        part = tmp_path / path.name
        part.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        # a raw stream has no structure: its last picture tells, see test_extraction
        assert state(part) == ("unknown" if path.suffix == ".264" else "truncated"), path.name
