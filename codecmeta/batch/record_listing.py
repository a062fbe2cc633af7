"""Record listing: lengths and modification times of the records below a URL, by their places."""

from __future__ import annotations

from array import array
from bisect import bisect_left

import numpy as np


class RecordListing:
    """Records of a listing, in 24 bytes each: there may be millions."""

    def __init__(self) -> None:
        # hashes of places, not places
        self._columns = array("q"), array("q"), array("q")
        self._sorted = True

    def add(self, place: str, size: int, mtime_ns: int) -> None:
        """Add a record that is not in the listing yet."""
        for column, value in zip(self._columns, (hash(place), size, mtime_ns), strict=True):
            column.append(value)
        self._sorted = False

    def find(self, place: str) -> tuple[int, int] | None:
        """Return length and modification time in nanoseconds of a record; None where there is none."""
        if not self._sorted:
            self._sort()
        keys, sizes, times = self._columns
        key = hash(place)
        number = bisect_left(keys, key)
        return (sizes[number], times[number]) if number < len(keys) and keys[number] == key else None

    def _sort(self) -> None:
        columns = [np.frombuffer(column, np.int64) for column in self._columns]
        order = np.argsort(columns[0], kind="stable")
        first, second, third = (array("q", column[order].tobytes()) for column in columns)
        self._columns = first, second, third
        self._sorted = True
