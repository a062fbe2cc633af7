"""Half samples of whole reference pictures (Rec. ITU-T H.264, 8.4.2.2.1), computed in bands of rows on first use.

A quarter sample is the mean of two whole or half samples, so that every prediction can be read from the half samples;
and each of them is computed only once, however many blocks and pictures refer to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from codecmeta.decoding.side_data import Samples
from codecmeta.simd.numba_cache import kernel
from codecmeta.simd.vector_ir import Lanes, clamp, splat, spread

BAND = 16
"""Rows that are computed together."""

B, H, J = 1, 2, 3
"""Planes of half samples, named as in Figure 8-4: between columns, between rows, between both; 0 is the samples."""


_LANES = 32
"""Columns that are computed at a time."""


def _six_tap(builder: Any, taps: Sequence[Any]) -> Any:
    """Return ``A - 5B + 20C + 20D - 5E + F``, lane by lane (8-241, 8-242); 5 and 20 as sums of powers of two."""
    a, b, c, d, e, f = taps
    vector = a.type
    four = builder.sub(builder.shl(builder.add(c, d), splat(vector, 2)), builder.add(b, e))
    return builder.add(builder.add(a, f), builder.add(four, builder.shl(four, splat(vector, 2))))


def _round(builder: Any, total: Any, bits: int, top: Any, samples: Lanes) -> Any:
    """Return ``(total + half) >> bits`` clipped to 0..``top``, as samples."""
    kind = total.type
    value = builder.ashr(builder.add(total, splat(kind, 1 << (bits - 1))), splat(kind, bits))
    return builder.trunc(clamp(builder, value, spread(builder, top, kind)), samples.vector)


def _wide(samples: Any) -> Any:
    """Return lanes that hold a sum of six weighted samples: 16 bits for 8-bit samples."""
    return ir.VectorType(ir.IntType(16 if samples.dtype.bitwidth == 8 else 32), _LANES)


@intrinsic
def _put_half(typingctx: Any, samples: Any, at: Any, step: Any, top: Any, out: Any, o: Any) -> Any:
    """Store half samples b (``step`` 1) or h (``step`` a row); sample A of the first is at index ``at``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, target = (Lanes(context, builder, signature.args[k], args[k], _LANES) for k in (0, 4))
        taps = [builder.zext(source.load(args[1], args[2], k), _wide(signature.args[0])) for k in range(6)]
        value = _round(builder, _six_tap(builder, taps), 5, args[3], target)
        target.store(value, args[5], args[2], 0)
        return context.get_dummy_value()

    place = types.int64
    return types.void(samples, place, place, place, out, place), codegen


@intrinsic
def _put_sums(typingctx: Any, samples: Any, at: Any, sums: Any, s: Any) -> Any:
    """Store unrounded sums along a row."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, target = (Lanes(context, builder, signature.args[k], args[k], _LANES) for k in (0, 2))
        one = ir.Constant(ir.IntType(64), 1)
        taps = [builder.zext(source.load(args[1], one, k), target.vector) for k in range(6)]
        target.store(_six_tap(builder, taps), args[3], one, 0)
        return context.get_dummy_value()

    return types.void(samples, types.int64, sums, types.int64), codegen


@intrinsic
def _put_centre(typingctx: Any, sums: Any, s: Any, stride: Any, top: Any, out: Any, o: Any) -> Any:
    """Store half samples j from six rows of sums (8-245, 8-247)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, target = (Lanes(context, builder, signature.args[k], args[k], _LANES) for k in (0, 4))
        wide = ir.VectorType(ir.IntType(32), _LANES)
        taps = [source.load(args[1], args[2], k) for k in range(6)]
        taps = [value if value.type == wide else builder.sext(value, wide) for value in taps]
        target.store(_round(builder, _six_tap(builder, taps), 10, args[3], target), args[5], args[2], 0)
        return context.get_dummy_value()

    place = types.int64
    return types.void(sums, place, place, place, out, place), codegen


@kernel(_nrt=False, error_model="numpy")
def compute_band(
    samples: Samples, shape: tuple[int, int], plane: int, band: int, top: int, out: Samples, sums: NDArray[Any]
) -> None:
    """Compute the half samples of one band, except the outermost rows and columns, whose taps leave the picture.

    Args:
        samples: flat samples of the picture with its margin.
        shape: its rows and columns.
        plane: `B`, `H` or `J`.
        band: which band.
        top: largest sample value.
        out: flat samples of that plane, to write.
        sums: scratch of BAND + 5 rows, int16 for uint8 samples, int32 for uint16.
    """
    height, stride = shape
    first, last = max(band * BAND, 2), min(band * BAND + BAND, height - 3)
    end = stride - 3 - _LANES
    if plane == J:
        for row in range(first - 2, last + 3):
            for col in range(2, end + _LANES, _LANES):
                x = min(col, end)
                _put_sums(samples, row * stride + x - 2, sums, (row - first + 2) * stride + x)
        for row in range(first, last):
            for col in range(2, end + _LANES, _LANES):
                x = min(col, end)
                _put_centre(sums, (row - first) * stride + x, stride, top, out, row * stride + x)
        return
    step = 1 if plane == B else stride
    for row in range(first, last):
        for col in range(2, end + _LANES, _LANES):
            at = row * stride + min(col, end)
            _put_half(samples, at - 2 * step, step, top, out, at)
