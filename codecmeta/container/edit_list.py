"""Edit list of an MP4/MOV track (ISO/IEC 14496-12, 8.6.6): which stretch of its samples is presented."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from codecmeta.container.box import Box, child
from codecmeta.container.sample_table import SampleTable, read_time_scale

_EMPTY = -1
_RATE_ONE = 1 << 16
_MOST_EDITS = 64


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Edit list entry of the one stretch of a track that is presented, in units of the track's time scale.

    Attributes:
        begin: composition time of its first sample.
        duration: its length.
        announced: its least length by the duration in the track's header, which is the sum of all edits (8.3.2); None
            where that is unknown.
    """

    begin: int
    duration: int
    announced: int | None = None


_FAR = 1 << 60
_WHOLE = Edit(begin=-_FAR, duration=2 * _FAR)


def read_edit(moov: bytes, trak: Box, movie: Box | None) -> Edit | None:
    """Read the one edit of a track.

    Args:
        moov: payload of the `moov` box.
        trak: the track's box in it.
        movie: the `mvhd` box, if the file has one.

    Returns:
        None for lists that are left to the demuxer: several pieces, another speed, impossible times.
    """
    movie_scale, scale = read_time_scale(moov, movie), read_time_scale(moov, child(moov, trak, b"mdia", b"mdhd"))
    box = child(moov, trak, b"edts", b"elst")
    if box is None or box.end - box.begin < 8:
        return _WHOLE
    (count,) = struct.unpack_from(">I", moov, box.begin + 4)
    row = struct.Struct(">Qqi" if moov[box.begin] == 1 else ">Iii")
    if not count:
        return _WHOLE
    if count > _MOST_EDITS or box.begin + 8 + row.size * count > box.end or not movie_scale:
        return None
    edits = [row.unpack_from(moov, box.begin + 8 + row.size * place) for place in range(count)]
    empty = 0
    while edits and edits[0][1] == _EMPTY:
        empty += edits.pop(0)[0]
    if len(edits) != 1 or edits[0][2] != _RATE_ONE:
        return None
    length, begin, _ = edits[0]
    # to the nearest unit, halves away from zero
    duration = (length * scale + movie_scale // 2) // movie_scale
    if not (0 <= begin < _FAR and 0 < duration < _FAR):
        return None
    announced = _read_duration(moov, child(moov, trak, b"tkhd"))
    # both durations are rounded to the movie's units
    longest = None if announced is None else (announced - empty - 2) * scale // movie_scale
    return Edit(begin=begin, duration=duration, announced=longest)


def apply_edit(samples: SampleTable, edit: Edit) -> SampleTable | None:
    """Select the samples that an edit presents, and those needed to decode them, as libavformat does.

    They begin at the last key sample that is neither decoded nor shown after the edit's begin, and end at the
    first key sample that reaches the edit's end, or, where samples are reordered, at the second: leading pictures of
    the first may still belong to the edit. Returns None where the edit presents no sample.
    """
    end = edit.begin + edit.duration
    starts = np.flatnonzero(samples.key & (samples.dts <= edit.begin) & (samples.pts <= edit.begin))
    first = int(starts[-1]) if starts.size else 0
    length = np.diff(samples.dts, append=samples.dts[-1] + edit.duration)
    reaches = np.flatnonzero(samples.key & (samples.pts + length >= end))
    reaches = reaches[reaches >= first]
    patience = int(not np.array_equal(samples.pts, samples.dts))
    stop = int(reaches[patience]) + 1 if reaches.size > patience else samples.size.size
    shown = (samples.pts >= edit.begin) & (samples.pts < end)
    if not shown.any():
        return None
    return SampleTable(**(vars(samples) | {"shown": shown})).select(slice(first, stop))


def count_hidden_end(samples: SampleTable, edit: Edit) -> int:
    """Count the samples after the end of an edit that the track's header counts in: one of the two is wrong."""
    if edit.announced is None:
        return 0
    after = samples.pts - edit.begin
    return int(np.count_nonzero((after >= edit.duration) & (after < edit.announced)))


def _read_duration(moov: bytes, header: Box | None) -> int | None:
    """Read the duration in a `tkhd` box, in units of the movie; None where it is unknown."""
    if header is None or header.end <= header.begin:
        return None
    wide = moov[header.begin] == 1
    at, size = header.begin + (28 if wide else 20), 8 if wide else 4
    duration = int.from_bytes(moov[at : at + size], "big")
    return None if at + size > header.end or duration in (0, (1 << 8 * size) - 1) else duration
