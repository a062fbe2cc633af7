"""Range cache: bytes of an object that were read, by position."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict


class RangeCache:
    """Bytes of an object in pieces that do not overlap; the oldest are dropped where they become too many.

    Args:
        most_bytes: of all pieces.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._begins: list[int] = []
        self._pieces: OrderedDict[int, bytes] = OrderedDict()
        self._bytes = 0

    def find(self, position: int, length: int) -> memoryview:
        """Return the bytes from a position on that one piece has, at most so many; none where it is not there."""
        place = bisect_right(self._begins, position) - 1
        if place < 0:
            return memoryview(b"")
        begin = self._begins[place]
        piece = self._pieces[begin]
        return memoryview(piece)[position - begin : position - begin + length]

    def list_gaps(self, begin: int, end: int) -> list[tuple[int, int]]:
        """Return the parts between two positions that are not there."""
        gaps: list[tuple[int, int]] = []
        place = max(bisect_right(self._begins, begin) - 1, 0)
        for start in self._begins[place:]:
            if start >= end:
                break
            if start > begin:
                gaps.append((begin, start))
            begin = max(begin, start + len(self._pieces[start]))
        if begin < end:
            gaps.append((begin, end))
        return gaps

    def add(self, begin: int, data: bytes) -> None:
        """Keep the bytes of a gap."""
        if not data or len(data) > self._most:
            return
        insort(self._begins, begin)
        self._pieces[begin] = data
        self._bytes += len(data)
        while self._bytes > self._most:
            first, piece = self._pieces.popitem(last=False)
            self._begins.remove(first)
            self._bytes -= len(piece)
