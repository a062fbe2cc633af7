"""MPEG-4 planes that are not coded: pictures that show the one before again, not damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from codecmeta import extract
from tests.codecmeta.make_video import write_uncoded, write_video


def decode_by_time(path: Path) -> dict[int, np.ndarray]:
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        frames = list(container.decode(video=0))
    return {frame.pts: frame.to_ndarray(format="rgb24", interpolation="BICUBIC") for frame in frames}


@pytest.fixture(params=["avi", "mp4", "mkv"])
def clip(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[int]]:
    source = write_video(tmp_path / "whole.mkv", codec="mpeg4", frames=36, options={"g": "12", "bf": "0"})
    path = tmp_path / f"clip.{request.param}"
    return path, write_uncoded(path, source)


@pytest.mark.parametrize("options", [{}, {"residual": "proxy", "maps": ("innovation",)}, {"residual": "none"}])
def test_a_plane_that_is_not_coded_shows_the_picture_before(
    clip: tuple[Path, list[int]], options: dict[str, Any]
) -> None:
    path, uncoded = clip
    meta = extract(path, frames="all", **options)
    assert len(uncoded) >= 4
    assert meta.info["verdict"]["state"] == "complete"
    assert len(meta.frame_pts) == 36
    assert meta.frames is not None
    plain = decode_by_time(path)
    shown_before = None
    for row, (packet, pts) in enumerate(zip(meta.frame_packet.tolist(), meta.frame_pts.tolist(), strict=True)):
        if packet in uncoded:
            assert np.array_equal(meta.frames[row], shown_before)
            assert meta.frame_type[row] == "P"
        else:
            assert np.array_equal(meta.frames[row], plain[pts]), row
        shown_before = meta.frames[row] if meta.frame_type[row] != "B" else shown_before
    assert len(plain) < 36


def test_alone_it_is_what_it_is_among_all(clip: tuple[Path, list[int]]) -> None:
    path, uncoded = clip
    every = extract(path, frames="all", motion=True, maps=("innovation", "carried"))
    assert every.frames is not None and every.energy_carried is not None and every.residual_power is not None
    for row in np.flatnonzero(np.isin(every.frame_packet, uncoded))[:3].tolist():
        alone = extract(path, frames=[row], motion=True, maps=("innovation", "carried"))
        for name in ("frames", "energy_innovation", "residual_power"):
            assert np.array_equal(getattr(alone, name)[0], getattr(every, name)[row]), name
        assert not every.residual_power[row].any()
        assert alone.mv is not None and not alone.mv[:, 4:6].any()
        assert alone.mv[:, 2:4].prod(axis=1, dtype=np.int64).sum() == 96 * 64
    for row in np.flatnonzero(~np.isin(every.frame_packet, uncoded))[1:3].tolist():
        assert every.residual_power[row].any()
