"""Packets are found by number, also where their time stamps come more than once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codecmeta import extract
from tests.codecmeta.make_video import decode_all, picture, write_video


@pytest.mark.parametrize("same", [True, False])
def test_segments_one_after_the_other(tmp_path: Path, same: bool) -> None:
    """Matroska files that were joined byte by byte: libav seeks the second where both have the time."""
    first = write_video(tmp_path / "first.mkv", frames=12)
    last = first if same else write_video(tmp_path / "last.mkv", frames=12, image=255 - picture(0))
    joined = tmp_path / "joined.mkv"
    joined.write_bytes(first.read_bytes() + last.read_bytes())
    pictures = [frame.to_ndarray(format="rgb24") for frame in decode_all(joined)]
    meta = extract(joined, frames="all", pixels=64)
    assert meta.frames is not None
    assert len(pictures) == 24
    np.testing.assert_array_equal(meta.frames, pictures)
    assert meta.info["verdict"]["state"] == "damaged"
    some = extract(joined, frames=[0, 5, 17], pixels=64)
    np.testing.assert_array_equal(some.frames, meta.frames[[0, 5, 17]])
