"""Bit reader of an RBSP: syntax elements of parameter sets and headers (H.264 7.2, 9.1; H.265 7.2, 9.2)."""

from __future__ import annotations

from codecmeta.errors import BitstreamError


class BitReader:
    """Reader of the syntax elements of a parameter set or slice header in an RBSP.

    Attributes:
        position: next bit, counted from the first bit of the RBSP.
    """

    __slots__ = ("_chunk", "_chunk_end", "_end", "_rbsp", "_what", "position")

    def __init__(self, rbsp: bytes, what: str) -> None:
        self._rbsp = rbsp
        self._what = what
        self._end = len(rbsp) * 8
        self._chunk = 0
        self._chunk_end = -1
        self.position = 0

    def _load(self) -> None:
        """Load the 64 bytes from the current position on as one integer; beyond the data they are 0."""
        start = self.position >> 3
        self._chunk = int.from_bytes(self._rbsp[start : start + 64].ljust(64, b"\0"), "big")
        self._chunk_end = 8 * (start + 64)

    def _cut_short(self) -> BitstreamError:
        return BitstreamError(f"{self._what} is cut short after {len(self._rbsp)} bytes")

    def u(self, count: int) -> int:
        """Read an unsigned integer of `count` bits, at most 32."""
        after = self.position + count
        if after > self._chunk_end:
            self._load()
        if after > self._end:
            raise self._cut_short()
        self.position = after
        return (self._chunk >> (self._chunk_end - after)) & ((1 << count) - 1)

    def skip(self, count: int) -> None:
        """Skip `count` bits."""
        self.position += count
        if self.position > self._end:
            raise self._cut_short()

    def flag(self) -> bool:
        """Read one bit."""
        return self.u(1) == 1

    def ue(self, limit: int = 0xFFFFFFFE, name: str = "") -> int:
        """Read an Exp-Golomb coded integer (9.1) of at most `limit`.

        Raises:
            BitstreamError: the value is above `limit`, or the data end first.
        """
        if self.position + 64 > self._chunk_end:
            self._load()
        window = (self._chunk >> (self._chunk_end - self.position - 64)) & 0xFFFFFFFFFFFFFFFF
        zeros = 64 - window.bit_length()
        if zeros > 31:
            raise BitstreamError(f"{self._what}: an Exp-Golomb code has more than 31 leading zeros")
        self.position += 2 * zeros + 1
        if self.position > self._end:
            raise self._cut_short()
        value = (window >> (63 - 2 * zeros)) - 1
        if value > limit:
            raise BitstreamError(f"{self._what}: {name or 'a value'} is {value}; at most {limit} is allowed")
        return value

    def se(self) -> int:
        """Read a signed Exp-Golomb coded integer (9.1.1)."""
        code = self.ue()
        return (code + 1) >> 1 if code & 1 else -(code >> 1)

    def more_rbsp_data(self) -> bool:
        """Return whether syntax elements precede the trailing bits (7.2)."""
        return self.position < stop_bit(self._rbsp)


def stop_bit(rbsp: bytes) -> int:
    """Return the position of rbsp_stop_one_bit, the last 1 of the RBSP; -1 if it holds none (7.3.2.11)."""
    body = rbsp.rstrip(b"\0")
    if not body:
        return -1
    last = body[-1]
    return len(body) * 8 - (last & -last).bit_length()
