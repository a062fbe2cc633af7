"""Bits of slice data, read by compiled code (H.264 7.2, 9.1; H.265 7.2, 9.2).

Compiled functions take the record `s` of the slice being read: `data` and `end`, address and size of the RBSP, which is
followed by `PADDING` zero bytes; `bit`, the current position; `fault`, see faults.py.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from codecmeta.entropy import faults
from codecmeta.simd.numba_compile import compiled, inlined

PADDING = 16
"""Zero bytes that follow every RBSP passed to compiled code, so that a 64-bit load stays inside."""


@intrinsic
def load_be64(typingctx, address):
    """Return the eight bytes at an address, the first most significant."""

    def codegen(context, builder, signature, args):
        word = builder.load(builder.inttoptr(args[0], ir.IntType(64).as_pointer()), align=1)
        return builder.bswap(word)

    return types.uint64(types.int64), codegen


@intrinsic
def leading_zeros(typingctx, word):
    """Count the 0 bits above the most significant 1 of a uint64; 64 for 0."""

    def codegen(context, builder, signature, args):
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), codegen


@intrinsic
def set_bits(typingctx, word):
    """Count the 1 bits of a uint64."""

    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


@intrinsic
def settled(typingctx, word):
    """Return the uint64 itself, as a value opaque to the compiler.

    A choice between two loads, both settled, stays a choice between two values; otherwise the compiler turns it into
    one load from a chosen address, which must wait for the choice.
    """

    def codegen(context, builder, signature, args):
        word = ir.IntType(64)
        return builder.asm(ir.FunctionType(word, [word]), "", "=r,0", args, side_effect=False)

    return types.uint64(types.uint64), codegen


@inlined
def peek_at(s, bit):
    """Return the bits from a position on, the first bit topmost; 57 or more of the 64 are valid."""
    return load_be64(s.data + min(bit >> 3, s.end + 8)) << np.uint64(bit & 7)


@inlined
def peek(s):
    """Return the bits from the current position on, like `peek_at`."""
    return peek_at(s, s.bit)


@compiled
def read_bits(s, count):
    """Read u(count), 1 <= count <= 32."""
    value = np.int64(peek(s) >> np.uint64(64 - count))
    s.bit += count
    return value


@compiled
def read_ue(s):
    """Read ue(v) of up to 28 leading zeros (9.1); longer codes set the fault and return 0."""
    window = peek(s)
    zeros = np.int64(leading_zeros(window))
    if zeros > 28:
        s.fault = faults.EXP_GOLOMB
        return 0
    s.bit += 2 * zeros + 1
    return np.int64(window >> np.uint64(63 - 2 * zeros)) - 1


@compiled
def read_se(s):
    """Read se(v) (9.1.1)."""
    code = read_ue(s)
    return (code + 1) >> 1 if code & 1 else -(code >> 1)


@compiled
def read_te(s, largest):
    """Read te(v) for values of 0 to `largest` (9.1)."""
    if largest > 1:
        return read_ue(s)
    return 1 - read_bits(s, 1)


@compiled
def find_stop_bit(data, end):
    """Return the position of rbsp_stop_one_bit, the last 1 of the RBSP; -1 if it holds none (7.3.2.11)."""
    last = end - 1
    while last >= 0 and data[last] == 0:
        last -= 1
    if last < 0:
        return np.int64(-1)
    byte = np.uint64(data[last])
    return last * 8 + np.int64(leading_zeros(byte & (np.uint64(0) - byte))) - 56
