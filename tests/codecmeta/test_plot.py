"""Pictures of a record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from codecmeta import UsageError, extract
from codecmeta.plot import plot_meta

pytest.importorskip("matplotlib")


def test_plot_shows_what_the_record_holds(data: Path, tmp_path: Path) -> None:
    meta = extract(data / "event_h264.mp4", frames="uniform:6", motion=True)
    plot_meta(meta, tmp_path / "full.png")
    plot_meta(meta, tmp_path / "again.png")
    assert (tmp_path / "full.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    plot_meta(replace(meta, mv=None, mv_offset=None), tmp_path / "still.png")
    plot_meta(replace(meta, frames=None), tmp_path / "bare.png")
    plot_meta(
        replace(meta, energy_carried=None, range_carried=None, energy_innovation=None, range_innovation=None),
        tmp_path / "plain.png",
    )
    images = {path.stem: cv2.imread(str(path)) for path in tmp_path.glob("*.png")}
    assert all(image is not None and image.shape[1] > 1000 for image in images.values())
    for name in ("still", "bare", "plain"):
        assert images[name].shape != images["full"].shape or np.abs(images[name] - images["full"]).max() > 0


def test_plot_refuses(data: Path, tmp_path: Path) -> None:
    meta = extract(data / "pan_hevc.mp4", frames="uniform:2", residual="none", pixels=64)
    plot_meta(meta, tmp_path / "hevc.png")
    with pytest.raises(UsageError, match="--maps carried"):
        plot_meta(meta, tmp_path / "x.png", map="carried")
    with pytest.raises(UsageError, match="not supported"):
        plot_meta(meta, tmp_path / "x.xyz")


def test_hostile_name_in_the_title(data: Path, tmp_path: Path) -> None:
    meta = extract(data / "still_h264.mp4", frames="0", residual="none", pixels=64)
    info = {**meta.info, "source": {**meta.info["source"], "name": "$x^{\udcff\n</b>.mp4"}}
    plot_meta(replace(meta, info=info), tmp_path / "odd.png")
    assert (tmp_path / "odd.png").stat().st_size > 1000
