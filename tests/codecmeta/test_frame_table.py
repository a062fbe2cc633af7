"""Cells of a frame table: what they hold, or which of four reasons they have to hold nothing."""

from __future__ import annotations

import numpy as np
import pytest

from codecmeta.frame_table import Absence, Absent, FrameTable, Held


@pytest.fixture
def table() -> FrameTable:
    return FrameTable([4, 2, 7], not_asked={"qp": "not asked for"})


def kinds(table: FrameTable, column: str) -> list[Absence | None]:
    return [cell.kind if isinstance(cell, Absent) else None for cell in table.cells(column)]


def test_four_kinds_of_absence(table: FrameTable) -> None:
    assert kinds(table, "qp") == [Absence.NOT_ASKED] * 3
    assert kinds(table, "residual") == [Absence.NOT_READ] * 3
    table.refuse(2, "bitstream", "cut short")
    table.hold(4, "residual", "motion", np.zeros(3), np.zeros(3))
    table.mark_absent("residual", "the decoder gave no picture")
    assert kinds(table, "residual") == [None, Absence.REFUSED, Absence.NOT_GIVEN]
    assert table.cells("residual")[0] == Held("motion")
    assert table.cells("residual")[1] == Absent(Absence.REFUSED, "bitstream: cut short")
    assert table.lacking("residual") == [2]


def test_what_was_refused_may_still_be_read(table: FrameTable) -> None:
    table.refuse(2, "bitstream", "cut short")
    table.hold(2, "residual", "proxy", np.zeros(3), np.zeros(3))
    table.refuse(2, "motion", "too late")
    assert table.holds(2, "residual")
    assert list(table.refusals[2]) == ["bitstream", "motion"]


def test_what_is_not_asked_for_is_not_kept(table: FrameTable) -> None:
    table.hold(4, "qp", "decoder", np.ones((2, 2)))
    table.mark_absent("qp", "nothing")
    assert kinds(table, "qp") == [Absence.NOT_ASKED] * 3
    assert table.arrays("qp") == {}
    assert not table.requests("qp") and table.requests("frames")


def test_arrays_follow_the_rows_that_stay(table: FrameTable) -> None:
    for packet in (7, 4):
        table.hold(packet, "frames", "decoder", np.full(2, packet))
    assert table.arrays("frames") == {}
    filled = table.arrays("frames", fill=-1)["frames"]
    assert filled.tolist() == [[4, 4], [-1, -1], [7, 7]]
    table.drop([2])
    whole = table.arrays("frames")["frames"]
    assert table.packets == [4, 7]
    assert whole.tolist() == [[4, 4], [7, 7]]


def test_no_vectors_and_unknown_vectors_differ(table: FrameTable) -> None:
    table.hold_vectors(4, "decoder", None)
    table.mark_absent("motion", "the decoder exports none", [2])
    assert table.vectors[4].shape == (0, 7)
    assert kinds(table, "motion") == [None, Absence.NOT_GIVEN, Absence.NOT_READ]
