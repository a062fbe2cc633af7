"""Frames in presentation order, from time stamps or from the decoder."""

from __future__ import annotations

import numpy as np

from codecmeta.container import timeline


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
