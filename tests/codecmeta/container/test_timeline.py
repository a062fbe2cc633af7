"""Frames in presentation order, from time stamps or from the decoder."""

from __future__ import annotations

import numpy as np

from codecmeta.container import timeline
from codecmeta.container.packets import PacketTable
from codecmeta.container.parameter_history import ParameterHistory
from codecmeta.record.meta import MISSING


def test_frames_of_any_length_have_rising_times() -> None:
    """A frame rate near zero over a fine time base."""
    for ticks in (-5, 0, 1, 3600, 2**62, 10**30):
        line = timeline.from_decoder(np.array([0, 2, 1], np.int64), packets=3, ticks=ticks)
        assert (np.diff(line.pts) > 0).all(), ticks
        assert line.rank.tolist() == [0, 2, 1]
        assert line.synthetic
    assert timeline.from_decoder(np.arange(3), packets=3, ticks=3600).pts.tolist() == [0, 3600, 7200]


def test_a_packet_of_several_pictures_is_one_frame() -> None:
    line = timeline.from_decoder(np.array([0, 2, 2, 1, 0], np.int64), packets=4, ticks=10)
    assert line.packet.tolist() == [0, 2, 1]
    assert line.pts.tolist() == [0, 10, 20]
    assert line.rank.tolist() == [0, 2, 1, -1]


def table(pts: list[int]) -> PacketTable:
    count = len(pts)
    return PacketTable(
        pts=np.array(pts, np.int64),
        dts=np.arange(count, dtype=np.int64),
        size=np.ones(count, np.uint32),
        key=np.arange(count) == 0,
        shown=np.ones(count, np.bool_),
        second=np.zeros(count, np.uint32),
        corrupt=0,
        position=None,
        second_position=None,
        history=ParameterHistory("h264", b""),
    )


def test_a_stamp_that_is_missing_or_repeated_is_mended_where_it_is() -> None:
    good = [0, 10, 20, 25, 90, 100, 110, 120, 130, 140, 150, 160]
    for place, value, mended in ((5, 90, 100), (5, MISSING, 100), (0, MISSING, 10), (3, 20, 55), (11, 150, 160)):
        pts = good.copy()
        pts[place] = value
        line = timeline.mend_pts(table(pts), np.arange(12))
        assert line is not None
        assert line.mended == 1 and not line.synthetic
        others = [index for index in range(12) if index != place]
        assert line.pts[others].tolist() == [good[index] for index in others]
        assert line.pts[place] == mended if place else line.pts[place] == good[1] - 10


def test_many_useless_stamps_are_not_mended() -> None:
    assert timeline.mend_pts(table([0, 10, 10, 10, 20, 30]), np.arange(6)) is None
    assert timeline.mend_pts(table([0, 1, 1, 2, 3, 4]), np.arange(6)) is None
    assert timeline.mend_pts(table([*range(12), *range(12)]), np.arange(24)) is None


def test_a_reordering_stream_is_mended_along_the_order_of_its_decoder() -> None:
    pts = [0, 30, 10, 20, 60, 40, 40]
    line = timeline.mend_pts(table(pts), np.array([0, 2, 3, 1, 5, 6, 4]))
    assert line is not None
    assert line.packet.tolist() == [0, 2, 3, 1, 5, 6, 4]
    assert line.pts.tolist() == [0, 10, 20, 30, 40, 50, 60]
