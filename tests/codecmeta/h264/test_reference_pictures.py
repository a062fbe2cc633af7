"""Reference lists and their marking, on sequences worked out by hand from 8.2.4 and 8.2.5."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from codecmeta.errors import BitstreamError
from codecmeta.h264 import nal
from codecmeta.h264.parameter_sets import ParameterSets
from codecmeta.h264.picture_order import PictureOrder
from codecmeta.h264.reference_pictures import MAX_REFERENCES, ReferencePictures
from codecmeta.h264.slice_header import B, P, SliceHeader, read_slice_header
from tests.codecmeta.h264.streams import CLIPS, extradata, packets


@cache
def template() -> SliceHeader:
    path, sets = CLIPS / "high_default.mp4", ParameterSets()
    length_size, units = nal.read_extradata(extradata(path))
    for unit in units:
        (sets.store_sequence if unit.kind == nal.SPS else sets.store_picture)(unit.rbsp())
    units = [unit for unit in nal.split(packets(path)[0], length_size) if unit.kind == nal.IDR_SLICE]
    return read_slice_header(units[0].rbsp(), units[0].kind, units[0].ref_idc, sets)


def header(frame_num: int, *, most: int = 4, sequence: dict[str, Any] | None = None, **values: Any) -> SliceHeader:
    """Return a slice of a reference frame in a stream of 16 frame numbers."""
    base = template()
    stream = replace(base.parameters.sequence, log2_max_frame_num=4, max_num_ref_frames=most, **(sequence or {}))
    parameters = replace(base.parameters, sequence=stream)
    usual: dict[str, Any] = {"idr": False, "ref_idc": 1, "slice_type": P, "num_ref_idx_active": (8, 0)}
    return replace(base, **(usual | {"parameters": parameters, "frame_num": frame_num} | values))


class Stream:
    """Frames named by letters, decoded one after the other."""

    def __init__(self) -> None:
        self.references: ReferencePictures[str] = ReferencePictures()

    def add(self, name: str, head: SliceHeader, order: int = 0) -> None:
        self.references.begin(head)
        self.references.end(head, order, name)

    def lists(self, head: SliceHeader, order: int = 0) -> tuple[str, str]:
        """Return the names of both lists; - for a frame inferred from a gap, . for an unknown one."""
        self.references.begin(head)
        first, second = (
            "".join("." if one is None else one.content or "-" for one in part).rstrip(".")
            for part in self.references.lists(head, order)
        )
        return first, second


def start(*names: str, most: int = 4) -> Stream:
    stream = Stream()
    for number, name in enumerate(names):
        stream.add(name, header(number, idr=number == 0, most=most), 2 * number)
    return stream


def test_p_lists_go_back_in_decode_order_and_the_window_slides() -> None:
    assert start("a", "b", "c").lists(header(3)) == ("cba", "")
    assert start(*"abcdef").lists(header(6)) == ("fedc", "")
    assert start(*"abcdef", most=2).lists(header(6, most=2)) == ("fe", "")
    assert start(*"abcdef").lists(header(6, num_ref_idx_active=(2, 0))) == ("fe", "")


def test_numbers_wrap() -> None:
    stream = start("a")
    for number in range(1, 18):
        stream.add("abcdefghijklmnopqrstuvwxyz"[number], header(number % 16), number)
    assert stream.lists(header(2)) == ("rqpo", "")


def test_b_lists_go_both_ways_in_display_order() -> None:
    stream = Stream()
    stream.add("a", header(0, idr=True), 0)
    for number, (name, order) in enumerate((("e", 8), ("c", 4), ("b", 2)), 1):
        stream.add(name, header(number), order)
    both = header(4, slice_type=B, num_ref_idx_active=(4, 4))
    assert stream.lists(both, 6) == ("cbae", "ecba")
    assert stream.lists(both, 3) == ("bace", "ceba")
    # all before: list 1 would be list 0, so that its first two change places
    assert stream.lists(both, 10) == ("ecba", "ceba")
    assert start("a").lists(header(1, slice_type=B, num_ref_idx_active=(1, 1)), 2) == ("a", "a")


def test_modifications_move_frames_to_the_front() -> None:
    stream = start(*"abcd")
    assert stream.lists(header(4, modifications=(((0, 2),), ()))) == ("bdca", "")
    assert stream.lists(header(4, modifications=(((0, 3), (1, 1)), ()))) == ("acdb", "")
    twice = header(4, modifications=(((0, 0), (0, 15)), ()), num_ref_idx_active=(3, 0))
    assert stream.lists(twice) == ("ddc", "")
    assert stream.lists(header(4, modifications=(((0, 8),), ())))[0] == ".dcba"


def test_long_term_frames_stand_behind_and_stay() -> None:
    stream = start(*"abc")
    # b becomes long-term frame 0, then the next frame itself becomes long-term frame 1
    stream.add("d", header(3, marking=((4, 2), (3, 1, 0), (6, 1))), 6)
    assert stream.lists(header(4)) == ("cabd", "")
    for number, name in enumerate("efgh", 4):
        stream.add(name, header(number), 2 * number)
    assert stream.lists(header(8)) == ("hgbd", "")
    assert stream.lists(header(8, modifications=(((2, 1),), ()))) == ("dhgb", "")
    stream.add("i", header(8, marking=((2, 0),)), 16)
    assert stream.lists(header(9)) == ("ihgd", "")
    stream.add("j", header(9, marking=((4, 0), (1, 0))), 18)
    assert stream.lists(header(10)) == ("jhg", "")


def test_an_idr_picture_or_operation_5_ends_all() -> None:
    stream = start(*"abc")
    stream.add("d", header(3, marking=((5,),)), 6)
    assert stream.lists(header(1)) == ("d", "")
    stream.add("e", header(0, idr=True, long_term=True), 0)
    stream.add("f", header(1), 2)
    assert stream.lists(header(2)) == ("fe", "")
    for number in range(2, 9):
        stream.add("x", header(number), 2 * number)
    assert stream.lists(header(9)) == ("xxxe", "")


def test_a_gap_stands_for_frames_that_never_came() -> None:
    stream = start(*"abc")
    assert stream.lists(header(5)) == ("--cb", "")
    assert stream.lists(header(12)) == ("----", "")
    assert start(*"abc").lists(header(5, slice_type=B, num_ref_idx_active=(4, 4)), 3) == ("bc", "cb")


def test_a_stream_entered_anywhere_has_no_gap() -> None:
    stream = Stream()
    stream.add("k", header(9), 0)
    stream.add("l", header(10), 2)
    assert stream.lists(header(11)) == ("lk", "")


def test_what_is_not_there_is_passed_over_and_marks_do_not_pile_up() -> None:
    stream = start(*"ab")
    stream.add("c", header(2, marking=((1, 9), (2, 3), (3, 7, 1))), 4)
    assert stream.lists(header(3)) == ("cba", "")
    for number in range(3, 60):
        stream.add("x", header(number % 16, marking=()), number)
    first, _ = stream.references.lists(header(12, num_ref_idx_active=(32, 0)), 0)
    assert sum(one is not None for one in first) == MAX_REFERENCES


def order_of(*headers: SliceHeader) -> list[int]:
    order = PictureOrder()
    return [order.count(one) for one in headers]


def test_order_by_its_lower_bits() -> None:
    """8.2.1.1 with counts modulo 16."""
    low = {"pic_order_cnt_type": 0, "log2_max_pic_order_cnt_lsb": 4}
    counts = [(0, True), (8, False), (4, False), (12, False), (4, False), (10, False), (2, False)]
    heads = [header(0, idr=idr, order=(value, 0), sequence=low) for value, idr in counts]
    assert order_of(*heads) == [0, 8, 4, 12, 20, 26, 34]
    # the lower field counts if it comes first; a frame that nothing refers to leaves no mark
    assert order_of(heads[0], header(1, order=(6, -3), sequence=low)) == [0, 3]
    assert order_of(heads[0], header(1, order=(15, 0), ref_idc=0, sequence=low), heads[1]) == [0, -1, 8]
    reset = header(2, order=(10, 0), marking=((5,),), sequence=low)
    assert order_of(heads[0], heads[1], reset, header(1, order=(2, 0), sequence=low)) == [0, 8, 10, 2]


@pytest.mark.parametrize("kind", [1, 2])
def test_order_by_number(kind: int) -> None:
    """8.2.1.2 with two frames of 3 and 5 in a cycle, and 8.2.1.3."""
    sequence = {"pic_order_cnt_type": kind, "order_offsets": (-1, 2), "order_cycle": (3, 5)}
    heads = [header(0, idr=True, order=(0, 0), sequence=sequence)]
    heads += [header(number % 16, order=(0, 0), sequence=sequence) for number in (1, 2, 3, 14, 15, 16, 17)]
    aside = header(2, order=(0, 0), ref_idc=0, sequence=sequence)
    if kind == 1:
        assert order_of(*heads) == [0, 3, 8, 11, 56, 59, 64, 67]
        assert order_of(*heads[:2], aside) == [0, 3, 2]
        assert order_of(heads[0], header(1, order=(1, -9), sequence=sequence)) == [0, -3]
    else:
        assert order_of(*heads) == [0, 2, 4, 6, 28, 30, 32, 34]
        assert order_of(*heads[:2], aside) == [0, 2, 3]


def test_orders_that_the_standard_does_not_allow_are_refused() -> None:
    sequence = {"pic_order_cnt_type": 1, "order_offsets": (0, 0), "order_cycle": (1 << 30,)}
    first, second, third = (header(number, order=(0, 0), idr=not number, sequence=sequence) for number in range(3))
    order = PictureOrder()
    assert [order.count(first), order.count(second)] == [0, 1 << 30]
    with pytest.raises(BitstreamError, match="beyond 32 bits"):
        order.count(third)
