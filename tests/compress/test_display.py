"""The density of patches lies where the frames that are encoded show it, however a video is turned or scaled."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import codecmeta
from compress.encoders import SpectralEncoder
from compress.metom import MeToM
from compress.models.session.signals import MetaSignals
from compress.video import compress_video, measure_density
from tests.codecmeta.make_video import write_video
from tests.codecmeta.test_display import TURNS, noisy_corner, set_matrices, write_corner


def corner_of_frames(meta: codecmeta.VideoMeta) -> tuple[bool, bool]:
    assert meta.frames is not None
    return noisy_corner(np.abs(np.diff(meta.frames.astype(np.float64), axis=0)).mean(axis=(0, 3)))


@pytest.mark.parametrize("turn", TURNS)
def test_density_lines_up_with_frames(tmp_path: Path, turn: tuple[int, int, int, int]) -> None:
    path = set_matrices(write_corner(tmp_path / "clip.mp4"), track=TURNS[turn])
    meta = codecmeta.extract(path, frames="1,4,7")
    corner = corner_of_frames(meta)
    # what is noise at the upper left of the coded picture is where the matrix takes it
    a, b, c, d = turn
    assert corner == (b + d < 0, a + c < 0)
    assert noisy_corner(measure_density(meta, "innovation").mean(axis=0)) == corner
    assert noisy_corner(measure_density(meta, "texture").mean(axis=0)) == corner
    adapter: Any = SimpleNamespace(temporal=1, covered=1.0)
    for choice in ("innovation", "texture"):
        signals = MetaSignals(meta, adapter, choice)  # type: ignore[arg-type]
        grid = (3, 4, 6) if abs(a) else (3, 6, 4)
        assert noisy_corner(signals.density(grid).mean(axis=0)) == corner
    result = compress_video(meta, MeToM(retention=0.3), encoder=SpectralEncoder())
    assert result.density.shape == (3, 27, 27)


def test_density_of_anamorphic_video(tmp_path: Path) -> None:
    """Wider samples change the frames' shape, not where on a grid the density lies."""
    plain = codecmeta.extract(write_video(tmp_path / "plain.mp4", frames=6), frames="1,3")
    path = write_video(tmp_path / "wide.mp4", frames=6, options={"x264-params": "sar=2/1"})
    wide = codecmeta.extract(path, frames="1,3")
    assert plain.frames is not None and wide.frames is not None
    assert wide.frames.shape[2] == 2 * plain.frames.shape[2]
    np.testing.assert_allclose(measure_density(wide, "innovation"), measure_density(plain, "innovation"), atol=1e-5)
