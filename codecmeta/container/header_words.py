"""Header words: reads the same syntax elements of many headers at once."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from codecmeta.entropy.nal import remove_emulation_prevention

Flags: TypeAlias = NDArray[np.bool_]
Ints: TypeAlias = NDArray[np.int64]

_WORD = 8
"""Bytes of each header that are read."""


def read_words(payload: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Read the first bits of some payloads, without emulation prevention bytes (7.3.1)."""
    words = np.ascontiguousarray(payload[:, :_WORD]).view(">u8")[:, 0].astype(np.uint64)
    prevents = np.zeros(words.size, np.bool_)
    for shift in range(0, 8 * (_WORD - 2), 8):
        prevents |= words >> np.uint64(shift) & np.uint64(0xFFFFFF) == 3
    for row in np.flatnonzero(prevents).tolist():
        rbsp = remove_emulation_prevention(payload[row].tobytes())
        words[row] = int.from_bytes(rbsp[:_WORD].ljust(_WORD, b"\0"), "big")
    return words


class HeaderBits:
    """Bit reader over many headers at once.

    Args:
        words: uint64 (n,), their first bits.
    """

    def __init__(self, words: NDArray[np.uint64]) -> None:
        self._words = words
        self._at = np.zeros(words.size, np.int64)
        self.sound = np.ones(words.size, np.bool_)

    def u(self, count: Ints | int) -> Ints:
        """Read `count` bits of each, at most 32; 0 where no bits are left."""
        wide = np.broadcast_to(np.asarray(count, np.int64), self._at.shape)
        rest = self._words << np.minimum(self._at, 63).astype(np.uint64)
        value = (rest >> np.uint64(32) >> (32 - wide).astype(np.uint64)).astype(np.int64)
        self._at = self._at + wide
        self.sound &= self._at <= 64
        return value

    def skip_ue(self) -> None:
        """Skip an Exp-Golomb code of any length up to 63 bits."""
        rest = self._words << np.minimum(self._at, 63).astype(np.uint64)
        self._at = self._at + 2 * _leading_zeros(rest) + 1
        self.sound &= self._at <= 64

    def ue(self, where: Flags | None = None) -> Ints:
        """Read an Exp-Golomb code of at most 31 bits, only from the headers selected by `where` if given."""
        rest = self._words << np.minimum(self._at, 63).astype(np.uint64)
        zeros = _leading_zeros(rest)
        taken = np.ones(zeros.size, np.bool_) if where is None else where
        self.sound &= ~taken | (zeros < 16)
        return self.u(np.where(taken, 2 * np.minimum(zeros, 15) + 1, 0)) - 1


def _leading_zeros(words: NDArray[np.uint64]) -> Ints:
    """Count the zeros before the first one bit in the upper halves of some words."""
    # a float64 holds 32 bits exactly, and its exponent is the position of the first one
    return 32 - np.frexp((words >> np.uint64(32)).astype(np.float64))[1].astype(np.int64)
