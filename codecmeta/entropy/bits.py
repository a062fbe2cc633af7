"""Bits of an RBSP: parameter sets and headers in Python, slice data in compiled code (H.264 7.2, 9.1; H.265 7.2, 9.2).

Compiled functions take the record `s` of the slice being read: `data` and `end`, address and size of the RBSP, which
`PADDING` zero bytes follow; `bit`, the current position; `fault`, see faults.py.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from codecmeta.entropy import faults
from codecmeta.errors import BitstreamError
from codecmeta.simd.numba_compile import compiled, inlined

PADDING = 16
"""Zero bytes that follow every RBSP handed to compiled code, so that a 64-bit load is always inside."""


class BitReader:
    """Reads syntax elements of a parameter set or slice header from an RBSP.

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
        """Take the 64 bytes from the current position on as one integer; beyond the data they are 0."""
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
        """Pass over `count` bits."""
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
            raise BitstreamError(f"{self._what}: an Exp-Golomb code of more than 31 leading zeros")
        self.position += 2 * zeros + 1
        if self.position > self._end:
            raise self._cut_short()
        value = (window >> (63 - 2 * zeros)) - 1
        if value > limit:
            raise BitstreamError(f"{self._what}: {name or 'a value'} is {value}, at most {limit} is allowed")
        return value

    def se(self) -> int:
        """Read a signed Exp-Golomb coded integer (9.1.1)."""
        code = self.ue()
        return (code + 1) >> 1 if code & 1 else -(code >> 1)

    def more_rbsp_data(self) -> bool:
        """Whether syntax elements precede the trailing bits (7.2)."""
        return self.position < stop_bit(self._rbsp)


def stop_bit(rbsp: bytes) -> int:
    """Position of rbsp_stop_one_bit, the last 1 of the RBSP; -1 if it holds none (7.3.2.11)."""
    body = rbsp.rstrip(b"\0")
    if not body:
        return -1
    last = body[-1]
    return len(body) * 8 - (last & -last).bit_length()


@intrinsic
def load_be64(typingctx, address):  # type: ignore[no-untyped-def]
    """The eight bytes at an address, the first in the most significant place."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        word = builder.load(builder.inttoptr(args[0], ir.IntType(64).as_pointer()), align=1)
        return builder.bswap(word)

    return types.uint64(types.int64), codegen


@intrinsic
def leading_zeros(typingctx, word):  # type: ignore[no-untyped-def]
    """Number of 0 bits above the most significant 1 of a uint64, 64 for 0."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), codegen


@intrinsic
def set_bits(typingctx, word):  # type: ignore[no-untyped-def]
    """Number of 1 bits of a uint64."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


@intrinsic
def settled(typingctx, word):  # type: ignore[no-untyped-def]
    """The uint64 itself, as a value that the compiler knows nothing of.

    A choice between two loads, both settled, is a choice between two values; it would become one load from a chosen
    address, which waits for the choice.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        word = ir.IntType(64)
        return builder.asm(ir.FunctionType(word, [word]), "", "=r,0", args, side_effect=False)

    return types.uint64(types.uint64), codegen


@inlined
def peek_at(s, bit):  # type: ignore[no-untyped-def]
    """The bits from a position on, first bit topmost; 57 or more of the 64 are valid."""
    return load_be64(s.data + min(bit >> 3, s.end + 8)) << np.uint64(bit & 7)


@inlined
def peek(s):  # type: ignore[no-untyped-def]
    """The bits from the current position on, like `peek_at`."""
    return peek_at(s, s.bit)


@compiled
def read_bits(s, count):  # type: ignore[no-untyped-def]
    """u(count), 1 <= count <= 32."""
    value = np.int64(peek(s) >> np.uint64(64 - count))
    s.bit += count
    return value


@compiled
def read_ue(s):  # type: ignore[no-untyped-def]
    """ue(v) of up to 28 leading zeros (9.1); longer codes set the fault and return 0."""
    window = peek(s)
    zeros = np.int64(leading_zeros(window))
    if zeros > 28:
        s.fault = faults.EXP_GOLOMB
        return 0
    s.bit += 2 * zeros + 1
    return np.int64(window >> np.uint64(63 - 2 * zeros)) - 1


@compiled
def read_se(s):  # type: ignore[no-untyped-def]
    """se(v) (9.1.1)."""
    code = read_ue(s)
    return (code + 1) >> 1 if code & 1 else -(code >> 1)


@compiled
def read_te(s, largest):  # type: ignore[no-untyped-def]
    """te(v) for values of 0 to `largest` (9.1)."""
    if largest > 1:
        return read_ue(s)
    return 1 - read_bits(s, 1)


@compiled
def find_stop_bit(data, end):  # type: ignore[no-untyped-def]
    """Position of rbsp_stop_one_bit, the last 1 of the RBSP; -1 if it holds none (7.3.2.11)."""
    last = end - 1
    while last >= 0 and data[last] == 0:
        last -= 1
    if last < 0:
        return np.int64(-1)
    byte = np.uint64(data[last])
    return last * 8 + np.int64(leading_zeros(byte & (np.uint64(0) - byte))) - 56
