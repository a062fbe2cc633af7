"""Picture order counts of frames (Rec. ITU-T H.264, 8.2.1)."""

from __future__ import annotations

from codecmeta.errors import BitstreamError
from codecmeta.h264.slice_header import SliceHeader

_BEYOND = 1 << 31
"""Bound of the counts (8.2.1)."""


class PictureOrder:
    """Picture order counter of the frames of a stream, which are passed in decode order.

    Frames that are no references may be omitted.
    """

    def __init__(self) -> None:
        self._high = 0
        self._low = 0
        self._frame_num = 0
        self._offset = 0

    def count(self, header: SliceHeader) -> int:
        """Return PicOrderCnt of the frame that a slice begins (8-1).

        Raises:
            BitstreamError: it is beyond 32 bits.
        """
        kind = header.parameters.sequence.pic_order_cnt_type
        top, bottom = self._from_lsb(header) if kind == 0 else self._from_frame_num(header)
        count = min(top, bottom)
        if not -_BEYOND <= count < _BEYOND:
            raise BitstreamError(f"slice header: the picture order count {count} is beyond 32 bits")
        if any(operation[0] == 5 for operation in header.marking or ()):
            # the frame counts as one with frame_num 0 whose order starts again (8.2.1)
            self._high, self._low = 0, top - count
            self._frame_num = self._offset = 0
        return count

    def _from_lsb(self, header: SliceHeader) -> tuple[int, int]:
        """Derive TopFieldOrderCnt and BottomFieldOrderCnt by 8.2.1.1."""
        low, delta = header.order
        span = 1 << header.parameters.sequence.log2_max_pic_order_cnt_lsb
        before_high, before_low = (0, 0) if header.idr else (self._high, self._low)
        high = before_high
        if low < before_low and before_low - low >= span // 2:
            high += span
        elif low > before_low and low - before_low > span // 2:
            high -= span
        if header.ref_idc:
            self._high, self._low = high, low
        return high + low, high + low + delta

    def _from_frame_num(self, header: SliceHeader) -> tuple[int, int]:
        """Derive the same by 8.2.1.2 and 8.2.1.3."""
        sequence = header.parameters.sequence
        if header.idr:
            self._offset = 0
        elif self._frame_num > header.frame_num:
            self._offset += 1 << sequence.log2_max_frame_num
        self._frame_num = header.frame_num
        number = self._offset + header.frame_num
        if sequence.pic_order_cnt_type == 2:
            count = 2 * number - (0 if header.ref_idc else 1)
            return count, count
        cycle = sequence.order_cycle
        number = number if cycle else 0
        if not header.ref_idc and number > 0:
            number -= 1
        expected = 0
        if number > 0:
            whole, last = divmod(number - 1, len(cycle))
            expected = whole * sum(cycle) + sum(cycle[: last + 1])
        for_non_reference, for_bottom = sequence.order_offsets
        if not header.ref_idc:
            expected += for_non_reference
        top = expected + header.order[0]
        return top, top + for_bottom + header.order[1]
