"""Edit lists that hide frames which the track's header counts in."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from codecmeta import extract
from codecmeta.container import mp4_boxes
from codecmeta.storage.local_file import LocalFile
from tests.codecmeta.container.mp4_writer import rewrite, with_edits
from tests.codecmeta.make_video import write_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Twenty frames of 40 ms; the units of the movie are milliseconds."""
    path = write_video(tmp_path_factory.mktemp("edits") / "clip.mp4", options={"bf": "2"})
    return path.read_bytes()


def announce(duration: int) -> Callable[[bytes], bytes]:
    return lambda header: header[:20] + struct.pack(">I", duration) + header[24:]


def judge(path: Path, content: bytes) -> tuple[int, str, str]:
    """Return the frames, and the verdict with its evidence, of which a warning must say the same if it is a doubt."""
    path.write_bytes(content)
    meta = extract(path, frames=[0], pixels=None, maps=("innovation",))
    verdict = meta.info["verdict"]
    assert meta.info["extraction"]["warnings"] == ([verdict["evidence"]] if verdict["state"] == "unknown" else [])
    return verdict["frames"], verdict["state"], verdict["evidence"]


@pytest.mark.parametrize(
    ("edits", "announced", "frames", "hidden"),
    [
        ([(800, 1024)], 800, 20, 0),
        ([(400, 1024)], 400, 10, 0),
        ([(400, 1024)], 401, 10, 0),
        ([(400, 1024)], 800, 10, 10),
        ([(760, 1024)], 800, 19, 1),
        ([(80, -1), (800, 1024)], 880, 20, 0),
        ([(80, -1), (400, 1024)], 880, 10, 10),
        ([(400, 1024)], 0, 10, 0),
        ([(400, 1024)], 0xFFFFFFFF, 10, 0),
        ([(400, 6144)], 400, 10, 0),
    ],
)
def test_the_end_that_an_edit_hides(
    clip: bytes, tmp_path: Path, edits: list[tuple[int, int]], announced: int, frames: int, hidden: int
) -> None:
    path = tmp_path / "clip.mp4"
    content = rewrite(with_edits(clip, edits), {b"tkhd": announce(announced)})
    found, state, evidence = judge(path, content)
    assert found == frames
    assert state == ("unknown" if hidden else "complete")
    assert (f"hides {hidden} frames" in evidence) == bool(hidden)
    with LocalFile(path) as source:
        track = mp4_boxes.read_track(source, 1)
    assert track is not None and track.hidden_end == hidden
