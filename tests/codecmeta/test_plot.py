"""Pictures of a record."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from codecmeta import UsageError, VideoMeta, extract
from codecmeta.plot import plot_meta
from tests.codecmeta.record.test_meta import record

pytest.importorskip("matplotlib")

from matplotlib.collections import LineCollection
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text


def test_plot_shows_what_the_record_holds(data: Path, tmp_path: Path) -> None:
    meta = extract(data / "event_h264.mp4", frames="uniform:6", motion=True, maps=("innovation", "carried"))
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
    for name in ("x", "x.xyz", "x.raw"):
        with pytest.raises(UsageError, match=r"choose from \.png, \.pdf, \.svg"):
            plot_meta(meta, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["hevc.png"]


@pytest.mark.parametrize("packets", [5, 0])
def test_a_record_without_frames_is_drawn(tmp_path: Path, packets: int) -> None:
    meta = record(0, packets)
    long_name = {**meta.info, "source": {"name": "x" * 100_000}}
    plot_meta(replace(meta, info=long_name), tmp_path / "x.png")
    picture = cv2.imread(str(tmp_path / "x.png"))
    assert picture is not None
    assert picture.shape[1] < 4000


def test_a_long_video_is_drawn_in_little(drawn: Callable[[VideoMeta], Figure]) -> None:
    """Bars and bands are no more than can be seen, and the highest bar is as high as the largest packet."""
    many = 45_000
    sizes = np.full(many, 100, np.uint32)
    sizes[[40_001, 40_002]] = 9000, 5000
    key = np.arange(many) % 2 == 0
    order = np.arange(many, dtype=np.int64)
    meta = replace(record(0, 0), packet_pts=order, packet_dts=order, packet_size=sizes, packet_key=key)
    axes = drawn(meta).axes[0]
    assert axes.get_ylabel() == "bytes, largest of 3 packets"
    assert len(axes.patches) == 0
    bars = [collection for collection in axes.collections if isinstance(collection, LineCollection)][:2]
    for collection, largest in zip(bars, (9000, 5000), strict=True):
        heights = [segment[1, 1] for segment in collection.get_segments()]
        assert len(heights) == many // 2 // 3
        assert max(heights) == largest


def test_a_picture_is_written_whole_or_not_at_all(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meta = extract(data / "still_h264.mp4", frames="0", residual="none", pixels=64)
    (tmp_path / "x.svg").write_text("the one before")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        plot_meta(meta, tmp_path / "x.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["x.svg"]
    assert (tmp_path / "x.svg").read_text() == "the one before"
    monkeypatch.undo()
    plot_meta(meta, tmp_path / "x.svg")
    assert "<svg" in (tmp_path / "x.svg").read_text()


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[VideoMeta], Figure]:
    """Draws a record and gives the figure instead of a file."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))

    def draw(meta: VideoMeta) -> Figure:
        plot_meta(meta, tmp_path / "empty.png")
        return figures[-1]

    return draw


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


MAPS = {"energy_carried": None, "range_carried": None, "energy_innovation": None, "range_innovation": None}


def test_colours_and_marks_are_explained(data: Path, drawn: Callable[[VideoMeta], Figure]) -> None:
    meta = extract(data / "event_h264.mp4", frames="uniform:6", motion=True, maps=("innovation", "carried"))
    full = drawn(meta)
    (legend,) = full.axes[0].findobj(Legend)
    explained = {
        text.get_text(): handle for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }
    packets, keys = full.axes[0].collections[-3:-1]
    assert same_color(explained["key packet"].get_color(), keys.get_color()[0])
    assert same_color(explained["other packet"].get_color(), packets.get_color()[0])
    assert len(keys.get_paths()) == len(meta.gops)
    for part in ("10 GoPs", "mean packet of the GoP", "sampled frame", "carried energy, source bitstream", "list 1"):
        assert part in texts(full), part
    assert "left clear" in texts(full)
    bare = texts(drawn(replace(meta, frames=None, mv=None, mv_offset=None)))
    assert "carried energy" in bare
    assert "left clear" not in bare
    assert "list 1" not in bare
    assert "energy" not in texts(drawn(replace(meta, **MAPS)))


def test_no_boxes_where_there_is_nothing_to_show(data: Path, drawn: Callable[[VideoMeta], Figure]) -> None:
    meta = extract(data / "event_h264.mp4", frames="uniform:6", motion=True, maps=("innovation", "carried"))
    nothing = {"frames": None, "mv": None, "mv_offset": None, **MAPS}
    empty = replace(meta, **nothing)
    assert len(drawn(empty).axes) == 1
    assert "frame 0" not in texts(drawn(empty))
    # six frames, and the bar where there is a map
    for name in ("frames", "mv"):
        kept = {key: value for key, value in nothing.items() if not key.startswith(name)}
        assert len(drawn(replace(meta, **kept)).axes) == 1 + 6
    assert len(drawn(replace(meta, frames=None, mv=None, mv_offset=None)).axes) == 1 + 6 + 1


def test_hostile_name_in_the_title(data: Path, tmp_path: Path) -> None:
    meta = extract(data / "still_h264.mp4", frames="0", residual="none", pixels=64)
    info = {**meta.info, "source": {**meta.info["source"], "name": "$x^{\udcff\n</b>.mp4"}}
    plot_meta(replace(meta, info=info), tmp_path / "odd.png")
    assert (tmp_path / "odd.png").stat().st_size > 1000
