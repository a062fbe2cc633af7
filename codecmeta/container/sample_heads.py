"""Sample heads at the positions that an index gives: a few bytes of each, read without the rest of the file."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from codecmeta.container.packet_heads import NAL_CODECS, Head, is_inner_slice, peek_head
from codecmeta.container.parameter_history import ParameterHistory
from codecmeta.storage.byte_source import ByteSource

_WINDOW = 64
"""Bytes that contain the head of most samples: a delimiter, a message and the beginning of a slice."""


class SampleHeads:
    """Reader of sample heads, which keeps the history of parameter sets up to date with decoding.

    Args:
        source: the file.
        history: receives the parameter sets that are found.
        position: int64 (n,), where each sample begins.
        size: int64 (n,), bytes.
        packet: int64 (n,), number of the packet that each sample belongs to.
    """

    def __init__(
        self,
        source: ByteSource,
        history: ParameterHistory,
        *,
        position: NDArray[np.int64],
        size: NDArray[np.int64],
        packet: NDArray[np.int64],
    ) -> None:
        self._source = source
        self._history = history
        self._position, self._size, self._packet = position, size, packet
        self._next, self._due = 0, -1
        self._heads: dict[int, Head] = {}
        self._rows: NDArray[np.int64] = np.arange(packet.size)
        self._row_packet = packet

    def read(self, rows: Iterable[int]) -> dict[int, Head]:
        """Return heads of some samples by row, reading each only once."""
        missing = [row for row in rows if row not in self._heads]
        if missing:
            self._read_missing(missing)
        return self._heads

    def restrict(self, rows: NDArray[np.int64]) -> None:
        """Limit the search for parameter sets to some samples, such as key samples where others must not hold any."""
        self._rows = rows
        self._row_packet = self._packet[rows]
        self._due = -1

    def reach(self, packet: int) -> None:
        """Record the parameter sets of all samples of earlier packets."""
        if packet <= self._due:
            return
        stop = int(np.searchsorted(self._row_packet, packet))
        self._due = int(self._row_packet[stop]) if stop < self._row_packet.size else sys.maxsize
        if stop <= self._next:
            return
        rows = self._rows[self._next : stop].tolist()
        self._next = stop
        heads = self.read(rows) if len(self._rows) < self._packet.size else self._find_sets(rows)
        for row in rows:
            if row in heads and heads[row].sets:
                self._history.note(int(self._packet[row]), heads[row].sets)

    def _read_missing(self, rows: list[int]) -> None:
        starts = self._source.read_each(self._position[rows].tolist(), _WINDOW)
        for row, start in zip(rows, starts, strict=True):
            self._heads[row] = self._peek(row, start)

    def _find_sets(self, rows: list[int]) -> dict[int, Head]:
        """Find heads of those samples that do not begin with an inner slice."""
        codec = self._history.codec
        if codec not in NAL_CODECS:
            return self.read(rows)
        read = self._source.read_at
        for row, position in zip(rows, self._position[rows].tolist(), strict=True):
            if row in self._heads:
                continue
            start = read(position, _WINDOW)
            length_size = self._history.packaging(int(self._packet[row]))
            if not is_inner_slice(codec, start, length_size=length_size):
                head = self._peek(row, start)
                if head.sets:
                    self._heads[row] = head
        return self._heads

    def _peek(self, row: int, start: bytes) -> Head:
        """Return the head of a sample from its first bytes, and more of it where they do not suffice."""
        size, position = int(self._size[row]), int(self._position[row])
        start = start[:size]

        def peek(begin: int, count: int) -> bytes:
            if begin + count <= len(start):
                return start[begin : begin + count]
            return self._source.read_at(position + begin, max(min(count, size - begin), 0))

        length_size = self._history.packaging(int(self._packet[row]))
        return peek_head(self._history.codec, peek, size, length_size=length_size)
