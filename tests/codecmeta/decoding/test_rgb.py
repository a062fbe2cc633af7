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
