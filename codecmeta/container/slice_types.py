"""Slice types of H.264 and HEVC pictures, and which pictures are shown, from the first bytes of their slices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from codecmeta.container.header_words import Flags, HeaderBits, Ints, read_words
from codecmeta.container.parameter_history import ParameterHistory
from codecmeta.entropy.nal import remove_emulation_prevention
from codecmeta.entropy.parameter_sets import ParameterSets
from codecmeta.errors import BitstreamError
from codecmeta.hevc import nal as hevc
from codecmeta.hevc.picture_parameters import PictureParameters, picture_number, read_picture_parameters
from codecmeta.hevc.sequence_parameters import SequenceParameters, read_sequence_parameters, sequence_number

_UNKNOWN = 3
_RANKS = np.array(["I", "P", "B", "?"], "<U1")
_H264_RANKS = np.array([1, 2, 0, 1, 0])
"""Types in order of generality, by H.264's slice_type modulo 5 (Table 7-6): P, B, I, SP, SI."""
_UNIFORM = 5
"""slice_type from which on all slices of the picture have the same type, modulo 5."""
_HEVC_RANKS = np.array([2, 1, 0])
"""The same for HEVC (Table 7-7): B, P, I."""
_H264_TYPED = (1, 2, 5)
"""Units that begin with a slice header: slices, partitions A, slices of IDR pictures."""

EOS = 36
"""nal_unit_type of the end of an HEVC sequence."""

_MOST_SETS = 64
_MOST_TABLES = 1 << 10
"""Limits: picture parameter sets by number, and different states of all of them in one stream."""


def has_slice_header(codec: str, header: int) -> bool:
    """Return whether `describe_slices` takes a NAL unit, by the first byte of its header."""
    if codec == "h264":
        return header & 31 in _H264_TYPED
    kind = header >> 1 & 63
    return kind < 32 or kind == EOS


def describe_slices(
    codec: str, history: ParameterHistory, *, packets: int, packet: Ints, start: NDArray[np.uint8]
) -> tuple[NDArray[np.str_], Flags, Flags]:
    """Find the types of the pictures of a stream, the most general of their slices, and whether each is shown.

    HEVC pictures are not shown where pic_output_flag is 0, nor those that refer to pictures before a random access
    point at which decoding begins (RASL, Rec. ITU-T H.265, 8.1.3).

    Args:
        codec: h264 or hevc.
        history: parameter sets by packet.
        packets: number of packets, P.
        packet: int64 (n,), the packet of each unit in stream order.
        start: uint8 (n, 16), first bytes of each unit.

    Returns:
        `<U1` (P,), ? where a packet has no readable slice; bool (P,), shown; bool (P,), pic_output_flag is 0.
    """
    if codec == "h264":
        kept = np.isin(start[:, 0] & 31, _H264_TYPED)
        rank, shown = _rank_h264(start[kept]), np.ones(np.count_nonzero(kept), np.bool_)
        output = shown
    else:
        kept, rank, shown, output = _read_hevc(history, packets, packet, start)
    types, pictured = np.zeros(packets, np.int64), np.zeros(packets, np.bool_)
    hidden, withheld = np.zeros(packets, np.bool_), np.zeros(packets, np.bool_)
    np.maximum.at(types, packet[kept], rank)
    pictured[packet[kept]] = True
    hidden[packet[kept][~shown]] = True
    withheld[packet[kept][~output]] = True
    types[~pictured] = _UNKNOWN
    return _RANKS[types], pictured & ~hidden, withheld


def is_uniform(start: NDArray[np.uint8]) -> Flags:
    """Return which H.264 units are slices that give the type of all slices of their picture (Table 7-6).

    Args:
        start: uint8 (n, 16), first bytes of each unit.
    """
    bits = HeaderBits(read_words(start[:, 1:]))
    bits.skip_ue()
    kind = bits.ue()
    unit = start[:, 0] & 31
    uniform: Flags = (unit == _H264_TYPED[0]) | (unit == _H264_TYPED[1]) | (unit == _H264_TYPED[2])
    uniform &= bits.sound & (kind >= _UNIFORM) & (kind < 2 * _UNIFORM)
    return uniform


def _rank_h264(start: NDArray[np.uint8]) -> Ints:
    """Rank slices by the generality of slice_type (Rec. ITU-T H.264, 7.3.3)."""
    bits = HeaderBits(read_words(start[:, 1:]))
    bits.skip_ue()
    kind = bits.ue()
    return np.where(bits.sound & (kind < 10), _H264_RANKS[kind % 5], _UNKNOWN)


class _Form(NamedTuple):
    """Layout of HEVC slice headers by picture parameter set, int64 (64,): whether it is known, widths of dependent
    slice flags, addresses, reserved bits and the output flag."""

    known: Ints
    dependent: Ints
    address: Ints
    reserved: Ints
    output_flag: Ints


def _read_hevc(
    history: ParameterHistory, packets: int, packet: Ints, start: NDArray[np.uint8]
) -> tuple[Flags, Ints, Flags, Flags]:
    """Read the independent slices among some units: ranks of their types, whether shown, and pic_output_flag."""
    header = start[:, 0].astype(np.int64) << 8 | start[:, 1]
    kind, base = header >> 9, header >> 3 & 63 == 0
    kept = (kind <= hevc.LAST_IRAP) & base
    # leading pictures belong to a random access point: the first, after the end of a sequence, or after a break
    number = np.arange(kind.size)
    irap = kept & (kind >= hevc.FIRST_IRAP)
    point = np.maximum.accumulate(np.where(irap, number, -1))
    end = np.maximum.accumulate(np.where(kind == EOS, number, -1))
    fresh = irap & ((kind <= hevc.IDR_N_LP) | (end > np.concatenate([[-1], point[:-1]])))
    # further slices of the point itself do not follow the end of a sequence
    first = np.concatenate([[-1], packet[:-1]]) != packet
    fresh |= irap & (np.cumsum(irap & first) == 1)
    begun = np.maximum.accumulate(np.where(irap & first & fresh, number, -1))
    latest = np.maximum.accumulate(np.where(irap & first, number, -1))
    skipped = ((kind == hevc.RASL_N) | (kind == hevc.RASL_R)) & (begun == latest)
    rank, output, independent = _rank_hevc(history, packets, packet, start, kind)
    kept &= independent
    return kept, rank[kept], (output & ~skipped)[kept], output[kept]


def _rank_hevc(
    history: ParameterHistory, packets: int, packet: Ints, start: NDArray[np.uint8], kind: Ints
) -> tuple[Ints, Flags, Flags]:
    """Read rank of slice_type and pic_output_flag of slice segments, and which are independent (H.265, 7.3.6.1)."""
    bits = HeaderBits(read_words(start[:, 2:]))
    first = bits.u(1) == 1
    bits.u(((kind >= hevc.FIRST_IRAP) & (kind <= hevc.LAST_IRAP)).astype(np.int64))
    parameters = bits.ue()
    sound = bits.sound & (parameters < _MOST_SETS)
    parameters = np.where(sound, parameters, 0)
    form = [np.zeros(kind.size, np.int64) for _ in _Form._fields]
    tables: dict[tuple[bytes, ...], _Form] = {}
    for begin, end, units in history.list_stretches(packets):
        if units not in tables and len(tables) < _MOST_TABLES:
            tables[units] = _tabulate(units)
        rows = slice(*np.searchsorted(packet, (begin, end)).tolist())
        if units in tables:
            for values, table in zip(form, tables[units], strict=True):
                values[rows] = table[parameters[rows]]
    known, has_dependent, address, reserved, output_flag = form
    dependent = (bits.u(np.where(first, 0, has_dependent)) == 1) & ~first
    bits.u(np.where(first, 0, address))
    bits.u(reserved)
    kind = bits.ue()
    shown = bits.u(output_flag) == 1
    sound &= bits.sound & (known == 1) & (kind < 3)
    rank = np.where(sound, _HEVC_RANKS[np.minimum(np.maximum(kind, 0), 2)], _UNKNOWN)
    return rank, shown | (output_flag == 0) | ~sound, ~dependent


def _tabulate(units: Iterable[bytes]) -> _Form:
    sets: ParameterSets[SequenceParameters, PictureParameters] = ParameterSets(
        sequence_number=sequence_number,
        picture_number=picture_number,
        read_sequence=read_sequence_parameters,
        read_picture=read_picture_parameters,
    )
    numbers = []
    for unit in units:
        kind, rbsp = unit[0] >> 1 & 63, remove_emulation_prevention(unit[2:])
        try:
            if kind == hevc.SPS:
                sets.store_sequence(rbsp)
            elif kind == hevc.PPS:
                sets.store_picture(rbsp)
                numbers.append(picture_number(rbsp))
        except BitstreamError:
            continue
    form = _Form(*(np.zeros(_MOST_SETS, np.int64) for _ in _Form._fields))
    for number in numbers:
        try:
            pps = sets.picture(number)
        except BitstreamError:
            continue
        height, width = pps.sequence.size_in_ctbs
        values = 1, pps.dependent_slices, (width * height - 1).bit_length(), pps.extra_slice_header_bits
        for table, value in zip(form, (*values, pps.output_flag_present), strict=True):
            table[number] = value
    return form
