"""Vector instructions that the compiler does not find by itself: lanes, and rows of samples in memory."""

from __future__ import annotations

from typing import Any, Literal

from llvmlite import ir
from numba.core import cgutils

ROWS = 4
"""Rows that are processed together."""

I16, I32, I64 = (ir.IntType(bits) for bits in (16, 32, 64))


def splat(kind: Any, value: int) -> Any:
    """Return a vector with a constant in every lane."""
    return ir.Constant(kind, [value] * kind.count)


def pick(builder: Any, first: Any, second: Any, lanes: list[int]) -> Any:
    """Return the given lanes of two vectors in their order; numbers of the second's continue those of the first."""
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(I32, len(lanes)), lanes))


def shuffle(builder: Any, vector: Any, lanes: list[int]) -> Any:
    """Return the given lanes in their order."""
    return pick(builder, vector, vector, lanes)


def join(builder: Any, first: Any, second: Any) -> Any:
    """Return the lanes of two vectors, one after the other."""
    return pick(builder, first, second, list(range(first.type.count + second.type.count)))


def spread(builder: Any, value: Any, vector: Any) -> Any:
    """Return a vector with an int64 in every lane."""
    element = builder.trunc(value, vector.element) if value.type != vector.element else value
    seed = builder.insert_element(ir.Constant(vector, ir.Undefined), element, ir.Constant(I32, 0))
    return shuffle(builder, seed, [0] * vector.count)


def clamp(builder: Any, value: Any, top: Any) -> Any:
    """Clip to 0..``top``, lane by lane."""
    zero = splat(value.type, 0)
    value = builder.select(builder.icmp_signed("<", value, zero), zero, value)
    return builder.select(builder.icmp_signed(">", value, top), top, value)


def saturate(builder: Any, value: Any) -> Any:
    """Clip to int16, lane by lane."""
    for limit, order in ((-32768, "<"), (32767, ">")):
        edge = splat(value.type, limit)
        value = builder.select(builder.icmp_signed(order, value, edge), edge, value)
    return builder.trunc(value, ir.VectorType(I16, value.type.count))


def reduce(builder: Any, operation: Literal["add", "or", "smin", "smax"], vector: Any) -> Any:
    """Reduce all lanes by an operation."""
    element = vector.type.element
    kind = ir.FunctionType(element, [vector.type])
    name = f"llvm.vector.reduce.{operation}.v{vector.type.count}i{element.width}"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [vector])


class Rows:
    """Rows of ``count`` samples of ``bits`` bits, ``stride`` samples apart, the first at an address."""

    def __init__(self, builder: Any, bits: int, address: Any, stride: Any, *, count: int) -> None:
        self._builder = builder
        self._stride = stride
        self._size = bits // 8
        self._first = builder.inttoptr(address, ir.IntType(bits).as_pointer())
        self.vector = ir.VectorType(ir.IntType(bits), count)

    def _place(self, row: int, ahead: Any) -> Any:
        builder = self._builder
        offset = builder.mul(self._stride, ir.Constant(I64, row))
        if ahead is not None:
            offset = builder.add(offset, ahead)
        return builder.bitcast(builder.gep(self._first, [offset]), self.vector.as_pointer())

    def load(self, row: int, ahead: Any = None) -> Any:
        """Load the samples of a row, from the one that is ``ahead`` samples after its first."""
        return self._builder.load(self._place(row, ahead), align=self._size)

    def store(self, value: Any, row: int) -> None:
        """Write the samples of a row."""
        self._builder.store(value, self._place(row, None), align=self._size)


class Lanes:
    """Array argument, read and written in rows of ``count`` samples."""

    def __init__(self, context: Any, builder: Any, kind: Any, array: Any, count: int) -> None:
        self._builder = builder
        self._data = cgutils.create_struct_proxy(kind)(context, builder, value=array).data
        self._size = kind.dtype.bitwidth // 8
        self.vector = ir.VectorType(ir.IntType(kind.dtype.bitwidth), count)

    def _address(self, start: Any, stride: Any, row: int) -> Any:
        builder = self._builder
        place = builder.add(start, builder.mul(stride, ir.Constant(I64, row)))
        return builder.bitcast(builder.gep(self._data, [place]), self.vector.as_pointer())

    def load(self, start: Any, stride: Any, row: int) -> Any:
        """Load the samples ``row`` rows after index ``start``."""
        return self._builder.load(self._address(start, stride, row), align=self._size)

    def store(self, value: Any, start: Any, stride: Any, row: int) -> None:
        """Write a row of samples."""
        self._builder.store(value, self._address(start, stride, row), align=self._size)
