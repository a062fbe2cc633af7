"""Slice data: macroblocks of a slice in order (Rec. ITU-T H.264, 7.3.4)."""

from __future__ import annotations

import numpy as np

from codecmeta.entropy.cabac import position, start_engine, terminate
from codecmeta.entropy.slice_bits import PADDING, find_stop_bit, load_be64, read_bits, read_ue
from codecmeta.h264 import cabac_syntax, faults
from codecmeta.h264.cabac import start_contexts
from codecmeta.h264.macroblock import read_macroblock
from codecmeta.h264.neighbours import inferred_field, locate
from codecmeta.h264.records import macroblocks_at
from codecmeta.h264.slice_header import B, I
from codecmeta.record.macroblock_types import B_SKIP, P_SKIP
from codecmeta.simd.numba_compile import compiled, entry, inlined


@entry
def read_slice(state, mbs, motion, data, tables, residual, header):
    """Read slice_data (7.3.4), all macroblocks of a slice.

    Args:
        state: one record of type `SLICE` with the values of the parameter sets.
        mbs: array of `MACROBLOCK`, one per address.
        motion: array of `MOTION`, likewise; empty if it is not to be kept.
        data: uint8, the RBSP and `PADDING` zero bytes.
        tables: one record of type `TABLES`.
        residual: int16, the picture's samples.
        header: integers: `number` and `first_number` of `SLICE`; address of the first macroblock; slice type;
            SliceQPY; which of `context_init` to start from; active references of lists 0 and 1; first bit of the slice
            data; place for the first sample.

    Returns:
        Fault (faults.py) and the macroblock where it occurred; macroblocks read; index after the last sample.
    """
    s = state[0]
    t = tables[0]
    s.data = data.ctypes.data
    s.end = data.size - PADDING
    s.macroblocks = mbs.ctypes.data
    s.motion = motion.ctypes.data if motion.size == mbs.size else 0
    s.count = mbs.size
    s.samples = residual.ctypes.data
    s.sample_count = residual.size
    s.number, s.first_number, first_mb, s.slice_type, slice_qp, init_table = header[:6]
    s.references[0], s.references[1], s.bit, s.cursor = header[6:]
    s.stop = find_stop_bit(data, s.end)
    s.fault = faults.NONE
    s.covered = 0
    s.mb = first_mb
    s.qp = slice_qp
    s.qp_changed = 0
    s.bypass = 0
    s.field = s.field_picture
    s.column = (first_mb >> 1 if s.mbaff else first_mb) % s.width
    if s.cabac:
        s.bit = (s.bit + 7) & ~7
        start_contexts(s, t, init_table, slice_qp)
        start_engine(s, s.bit >> 3)
        _read_arithmetic(s, t)
        # The last bit read is rbsp_stop_one_bit. The rest of its byte is ignored: x264 may set the last bit.
        end = position(s) - 1
        at_end = end >> 3 == s.stop >> 3 and load_be64(s.data + (end >> 3)) << np.uint64(end & 7) >> np.uint64(63) == 1
    else:
        _read_variable_length(s, t)
        at_end = s.bit == s.stop
    if not s.fault and not at_end:
        s.fault = faults.NOT_AT_END
    return s.fault, s.mb, s.covered, s.cursor


@compiled
def _read_arithmetic(s, t):
    mbs = macroblocks_at(s.macroblocks, s.count)
    skipped = False
    while not s.fault:
        if not _enter(s):
            return
        start = position(s)
        bottom = s.mbaff and s.mb & 1
        if s.mbaff and not bottom:
            s.field = inferred_field(s)
        locate(s)
        was_skipped = skipped
        skipped = s.slice_type != I and cabac_syntax.skip_flag(s, t) != 0
        if skipped:
            _skip(s)
        else:
            if s.mbaff and (not bottom or was_skipped):
                s.field = cabac_syntax.field_flag(s, t)
                _set_pair_field(s)
                locate(s)
            mbs[s.mb].field = s.field
            read_macroblock(s, t)
        last = False
        if not s.mbaff or bottom:
            last = terminate(s) != 0
        mbs[s.mb].bits = position(s) - start
        if not s.fault and position(s) > s.stop + 1:
            s.fault = faults.CUT_SHORT
        if s.fault or last:
            return
        _advance(s)


@compiled
def _read_variable_length(s, t):
    mbs = macroblocks_at(s.macroblocks, s.count)
    run = np.int64(-1)
    skipped = False
    while not s.fault and (s.bit < s.stop or run > 0):
        if not _enter(s):
            return
        start = s.bit
        bottom = s.mbaff and s.mb & 1
        if s.mbaff and not bottom:
            s.field = inferred_field(s)
        if s.slice_type != I and run < 0:
            run = read_ue(s)
            if run > s.count - s.mb:
                s.fault = faults.SKIP_RUN
                return
        was_skipped = skipped
        skipped = run > 0
        if skipped:
            _skip(s)
            run -= 1
            mbs[s.mb].bits = s.bit - start
            if run == 0 and s.bit >= s.stop:
                return
        else:
            run = -1
            if s.mbaff and (not bottom or was_skipped):
                s.field = read_bits(s, 1)
                _set_pair_field(s)
            mbs[s.mb].field = s.field
            locate(s)
            read_macroblock(s, t)
            mbs[s.mb].bits = s.bit - start
            if not s.fault and s.bit > s.stop:
                s.fault = faults.CUT_SHORT
            if s.fault or s.bit == s.stop:
                return
        _advance(s)


@inlined
def _enter(s):
    """Claim the current macroblock for the slice, unless the picture ends or another slice has it."""
    mbs = macroblocks_at(s.macroblocks, s.count)
    if s.mb >= s.count:
        s.fault = faults.BEYOND_PICTURE
        return False
    if mbs[s.mb].slice >= s.first_number:
        s.fault = faults.CODED_TWICE
        return False
    mbs[s.mb].slice = s.number
    s.covered += 1
    return True


@inlined
def _advance(s):
    s.mb += 1
    if not s.mbaff or s.mb & 1 == 0:
        s.column += 1
        if s.column == s.width:
            s.column = 0


@inlined
def _skip(s):
    """Record P_Skip or B_Skip, which have no residual."""
    mbs = macroblocks_at(s.macroblocks, s.count)
    m = mbs[s.mb]
    m.kind = B_SKIP if s.slice_type == B else P_SKIP
    m.field = s.field
    m.qp = s.qp
    m.cbp = 0
    m.dc = 0
    m.transform8x8 = 0
    m.chroma_mode = 0
    m.coded[0] = m.coded[1] = m.coded[2] = 0
    s.qp_changed = 0


@inlined
def _set_pair_field(s):
    # a skipped top macroblock shares the flag that its pair's bottom macroblock codes (7.4.4)
    mbs = macroblocks_at(s.macroblocks, s.count)
    mbs[s.mb & ~1].field = s.field
