"""GoPs and MeToM's c_t."""

from __future__ import annotations

import numpy as np
import pytest

from codecmeta.record.gop import frame_packet_size, shown_packet_size, split_gops

SIZE = np.array([100, 10, 20, 30, 200, 40, 60], np.uint32)
KEY = np.array([1, 0, 0, 0, 1, 0, 0], bool)
FRAMES = np.array([0, 3, 4, 6], np.int32)


def test_gops_run_from_key_to_key_in_decode_order() -> None:
    assert [(g.start, g.packets, g.bytes) for g in split_gops(SIZE, KEY)] == [(0, 4, 160), (4, 3, 300)]


def test_packets_before_the_first_key_form_a_gop() -> None:
    key = KEY.copy()
    key[0] = False
    assert [(g.start, g.packets) for g in split_gops(SIZE, key)] == [(0, 4), (4, 3)]
    assert [(g.start, g.packets) for g in split_gops(SIZE, np.zeros(7, bool))] == [(0, 7)]
    assert split_gops(SIZE[:0], KEY[:0]) == ()


def test_kinds() -> None:
    assert frame_packet_size(SIZE, KEY, FRAMES).tolist() == [40, 40, 100, 100]
    assert frame_packet_size(SIZE, KEY, FRAMES, kind="total").tolist() == [160, 160, 300, 300]
    assert frame_packet_size(SIZE, KEY, FRAMES, kind="packet").tolist() == [100, 30, 200, 60]
    assert frame_packet_size(SIZE, KEY, FRAMES, kind="interval").tolist() == [100, 20, 200, 50]


def test_interval_of_a_picture_decoded_early_is_its_own_packet() -> None:
    sizes = frame_packet_size(SIZE, KEY, np.array([3, 2, 4], np.int32), kind="interval")
    assert sizes.tolist() == [40, 20, 200]


def test_packets_that_show_no_picture_count_to_the_next_that_does() -> None:
    shown = np.array([1, 0, 0, 1, 1, 1, 0], bool)
    assert shown_packet_size(SIZE, shown).tolist() == [100, 0, 0, 60, 200, 100, 0]
    assert shown_packet_size(SIZE, np.zeros(7, bool)).tolist() == SIZE.tolist()
    frames = np.array([0, 3, 4, 5], np.int32)
    assert frame_packet_size(SIZE, KEY, frames, shown=shown).tolist() == [80, 80, 150, 150]
    assert frame_packet_size(SIZE, KEY, frames, shown=shown, kind="total").tolist() == [160, 160, 300, 300]
    assert frame_packet_size(SIZE, KEY, frames, shown=shown, kind="packet").tolist() == [100, 60, 200, 100]
    assert frame_packet_size(SIZE, KEY, frames, shown=shown, kind="interval").tolist() == [100, 60, 200, 100]


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="mean, total, packet, interval"):
        frame_packet_size(SIZE, KEY, FRAMES, kind="median")
