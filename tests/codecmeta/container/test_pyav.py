"""Differences between versions of PyAV."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from codecmeta.container.pyav import frame_of_rgb, reformat


@pytest.mark.parametrize("width", [1, 16, 241])
def test_rows_end_in_their_last_pixel(width: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, width, 3), dtype=np.uint8)
    frame = frame_of_rgb(picture)
    assert np.array_equal(frame.to_ndarray(format="rgb24"), picture)
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(5, plane.line_size)
    end = rows[:, 3 * width :][:, : (plane.line_size - 3 * width) // 3 * 3].reshape(5, -1, 3)
    assert (end == picture[:, -1:]).all()


def test_pictures_of_odd_width_are_converted_alike() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (161, 241, 3), dtype=np.uint8)
    first, *others = (
        frame_of_rgb(picture).reformat(width=240, height=160, format="yuv420p", interpolation="BICUBIC").to_ndarray()
        for _ in range(4)
    )
    assert all(np.array_equal(first, other) for other in others)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_conversion_starts_no_threads() -> None:
    """A run has one process per core: threads of each conversion would only wait for each other."""
    frame = av.VideoFrame(640, 480, "yuv420p")
    before = len(list(Path("/proc/self/task").iterdir()))
    kept = reformat(frame, width=320, height=240, pixel_format="rgb24")
    assert (kept.width, len(list(Path("/proc/self/task").iterdir()))) == (320, before)
