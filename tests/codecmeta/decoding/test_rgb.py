"""Conversion of decoded pictures."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from codecmeta import SourceError, extract
from codecmeta.decoding import rgb
from tests.codecmeta.make_video import write_video


def coloured(matrix: int) -> av.VideoFrame:
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
    frame.colorspace = matrix
    return frame


@pytest.mark.parametrize("matrix", [3, 18, 255])
def test_matrix_coefficients_without_a_meaning_are_as_none(matrix: int) -> None:
    plain = rgb.to_rgb(coloured(2), short_side=48)
    assert np.array_equal(rgb.to_rgb(coloured(matrix), short_side=48), plain)


def test_pictures_that_libav_cannot_convert(tmp_path: Path) -> None:
    """YCgCo has a meaning, and taking it for something else would give false colours."""
    with pytest.raises(SourceError, match="colour space 8") as caught:
        rgb.to_rgb(coloured(8), short_side=48)
    assert caught.value.code == "unreadable"
    path = write_video(tmp_path / "ycgco.mp4", frames=4, options={"x264-params": "colormatrix=YCgCo"})
    with pytest.raises(SourceError, match="cannot be converted to rgb24"):
        extract(path)
    assert extract(path, pixels=None).frames is None


@pytest.mark.parametrize(("matrix", "kr", "kb"), [(1, 0.2126, 0.0722), (5, 0.299, 0.114), (9, 0.2627, 0.0593)])
@pytest.mark.parametrize("full", [False, True])
def test_colours_are_those_of_the_matrix_and_range(matrix: int, kr: float, kb: float, full: bool) -> None:
    """Rec. ITU-T H.273, 8.3: whatever version of PyAV converts."""
    frame = av.VideoFrame(64, 64, "yuvj420p" if full else "yuv420p")
    y, cb, cr = 120, 110, 150
    for plane, value in zip(frame.planes, (y, cb, cr), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    luma = y / 255 if full else (y - 16) / 219
    blue, red = ((one - 128) / (255 if full else 224) for one in (cb, cr))
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    g = (luma - kr * r - kb * b) / (1 - kr - kb)
    shown = rgb.to_rgb(frame, short_side=64)[32, 32]
    assert np.abs(shown - 255 * np.array([r, g, b])).max() <= 2
