"""The density of patches lies where the frames that are encoded show it, however a video is turned or scaled."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

import codecmeta
from compress.density import measure_density
from compress.encoders import SpectralEncoder
from compress.encoders.spectral import COVERED, GRID
from compress.metom import MeToM
from compress.models.session.signals import MetaSignals
from compress.video import compress_video
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
    assert noisy_corner(measure_density(meta, "innovation", GRID, covered=COVERED).mean(axis=0)) == corner
    assert noisy_corner(measure_density(meta, "texture", GRID, covered=COVERED).mean(axis=0)) == corner
    adapter: Any = SimpleNamespace(temporal=1, covered=1.0)
    for choice in ("innovation", "texture"):
        signals = MetaSignals(meta, adapter, choice)
        grid = (3, 4, 6) if abs(a) else (3, 6, 4)
        assert noisy_corner(signals.density(grid).mean(axis=0)) == corner
    result = compress_video(meta, MeToM(retention=0.3), encoder=SpectralEncoder())
    assert result.patches is not None and result.patches.plan.count_in == 3 * 27 * 27


def test_density_of_anamorphic_video(tmp_path: Path) -> None:
    """Wider samples change the frames' shape, not where on a grid the density lies."""
    source = write_video(tmp_path / "plain.mp4", frames=6)
    path = tmp_path / "wide.mp4"
    # the same coded pictures: two runs of an encoder need not give the same
    with av.open(str(source)) as reader, av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(reader.streams.video[0])
        widen = BitStreamFilterContext("h264_metadata=sample_aspect_ratio=2/1", reader.streams.video[0], copy)
        for packet in reader.demux(video=0):
            if packet.size:
                for widened in widen.filter(packet):
                    widened.stream = copy
                    output.mux(widened)
    plain, wide = (codecmeta.extract(one, frames="1,3") for one in (source, path))
    assert plain.frames is not None and wide.frames is not None
    assert wide.frames.shape[2] == 2 * plain.frames.shape[2]
    np.testing.assert_allclose(
        *(measure_density(one, "innovation", GRID, covered=COVERED) for one in (wide, plain)), atol=1e-5
    )
