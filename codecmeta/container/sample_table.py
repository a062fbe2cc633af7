"""Sample tables of an MP4/MOV track (ISO/IEC 14496-12, 8.5 to 8.7): position, times and description of each sample.

A table is read entirely and strictly, or not at all: contradicting counts, indices or sums leave it to the demuxer.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codecmeta.container.box import Box, child, children
from codecmeta.errors import SourceError

MOST_SAMPLES = 1 << 26
_MOST_CHUNKS = 1 << 26
_LONGEST = 1 << 31


@dataclass(frozen=True, kw_only=True)
class SampleTable:
    """Samples of a track in decode order, n of them.

    Attributes:
        size: int64 (n,), bytes.
        position: int64 (n,), where each begins in the file.
        dts: int64 (n,), decode time in units of the track's time scale, from 0.
        pts: int64 (n,), composition time, likewise.
        key: bool (n,), sync samples, partial sync samples and those of the group `rap `.
        description: int64 (n,), index of the sample description.
        shown: bool (n,), False for samples that the edit list omits, but a decoder needs.
    """

    size: NDArray[np.int64]
    position: NDArray[np.int64]
    dts: NDArray[np.int64]
    pts: NDArray[np.int64]
    key: NDArray[np.bool_]
    description: NDArray[np.int64]
    shown: NDArray[np.bool_]

    def select(self, rows: slice | NDArray[np.bool_]) -> SampleTable:
        """Return some of the samples."""
        return SampleTable(**{name: column[rows] for name, column in vars(self).items()})


def read_samples(
    moov: bytes, trak: Box, *, descriptions: int, file_size: int, most: int = MOST_SAMPLES
) -> SampleTable | None:
    """Read the sample tables of a track; its edit list is not applied.

    Args:
        moov: payload of the `moov` box.
        trak: the track's box in it.
        descriptions: number of its sample descriptions.
        file_size: length of the file in bytes, which bounds the table.
        most: samples that are allowed; checked before memory is taken for them.

    Returns:
        None where a table is absent, damaged, or needs a demuxer: negative durations.

    Raises:
        SourceError: more samples or bytes are listed than the file can hold, or than are allowed.
    """
    table = child(moov, trak, b"mdia", b"minf", b"stbl")
    scale = read_time_scale(moov, child(moov, trak, b"mdia", b"mdhd"))
    if table is None or not scale:
        return None
    size = _sizes(moov, table, file_size, most)
    if size is None or size.size == 0:
        return None
    places = _places(moov, table, size)
    dts = _decode_times(moov, table, size.size)
    offsets = _composition_offsets(moov, table, size.size)
    key = _sync_samples(moov, table, size.size)
    if places is None or dts is None or offsets is None or key is None:
        return None
    position, description = places
    if (description >= descriptions).any():
        return None
    return SampleTable(
        size=size,
        position=position,
        dts=dts,
        pts=dts + offsets,
        key=key,
        description=description,
        shown=np.ones(size.size, np.bool_),
    )


def _entries(moov: bytes, box: Box | None, fields: int, *, header: int = 4) -> NDArray[np.int64] | None:
    """Return the rows of a table of 32-bit fields preceded by their number; None where they do not fit the box."""
    if box is None or box.end - box.begin < header + 4:
        return None
    (count,) = struct.unpack_from(">I", moov, box.begin + header)
    begin = box.begin + header + 4
    if begin + 4 * fields * count > box.end:
        return None
    return np.frombuffer(moov, ">u4", fields * count, begin).astype(np.int64).reshape(count, fields)


def _sizes(moov: bytes, table: Box, file_size: int, most: int) -> NDArray[np.int64] | None:
    box = child(moov, table, b"stsz")
    compact = None if box else child(moov, table, b"stz2")
    box = box or compact
    if box is None or box.end - box.begin < 12:
        return None
    common, count = struct.unpack_from(">II", moov, box.begin + 4)
    # a sample has at least one byte: a few bytes of header may claim any number of them
    if count > file_size:
        raise SourceError("damaged", f"the index lists {count} packets; the file has {file_size} bytes")
    if count > most:
        raise SourceError("limit_exceeded", f"the index lists {count} packets; allowed are {most}")
    width = (common & 255) if compact else 32
    if common and not compact:
        sizes = np.full(count, common, np.int64)
    elif width not in (4, 8, 16, 32) or box.begin + 12 + -(-count * width // 8) > box.end:
        return None
    elif width == 4:
        pairs = np.frombuffer(moov, np.uint8, -(-count // 2), box.begin + 12)
        sizes = np.stack([pairs >> 4, pairs & 15], axis=1).reshape(-1)[:count].astype(np.int64)
    else:
        sizes = np.frombuffer(moov, f">u{width // 8}", count, box.begin + 12).astype(np.int64)
    if int(sizes.sum()) > file_size:
        raise SourceError("damaged", f"the index lists {sizes.sum()} bytes of packets; the file has {file_size}")
    return sizes


def _places(moov: bytes, table: Box, size: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Read position and description of each sample from the chunks (8.7.4, 8.7.5)."""
    short = child(moov, table, b"stco")
    if short is not None:
        offsets = _entries(moov, short, 1)
    else:
        wide = _entries(moov, child(moov, table, b"co64"), 2)
        offsets = None if wide is None else ((wide[:, :1] & (_LONGEST - 1)) << 32) + wide[:, 1:]
    runs = _entries(moov, child(moov, table, b"stsc"), 3)
    if offsets is None or runs is None or len(runs) == 0 or not 0 < len(offsets) <= _MOST_CHUNKS:
        return None
    first, per_chunk, description = runs.T
    chunks = np.diff(first, append=len(offsets) + 1)
    if first[0] != 1 or (chunks <= 0).any() or (description == 0).any():
        return None
    counts = np.repeat(per_chunk, chunks)
    if int(counts.sum()) != size.size:
        return None
    chunk = np.repeat(np.arange(len(offsets)), counts)
    before = np.cumsum(size) - size
    begin = (np.cumsum(counts) - counts)[chunk]
    position = offsets[:, 0][chunk] + before - before[begin]
    return position, np.repeat(description - 1, chunks)[chunk]


def _decode_times(moov: bytes, table: Box, count: int) -> NDArray[np.int64] | None:
    runs = _entries(moov, child(moov, table, b"stts"), 2)
    if runs is None or int(runs[:, 0].sum()) != count or (runs[:, 1] >= _LONGEST).any():
        return None
    length = np.repeat(runs[:, 1], runs[:, 0])
    return np.cumsum(length) - length


def _composition_offsets(moov: bytes, table: Box, count: int) -> NDArray[np.int64] | None:
    box = child(moov, table, b"ctts")
    if box is None:
        return np.zeros(count, np.int64)
    runs = _entries(moov, box, 2)
    if runs is None or int(runs[:, 0].sum()) != count:
        return None
    # signed in version 1, and in practice in version 0, too
    return np.repeat(runs[:, 1] - ((runs[:, 1] >= _LONGEST) << 32), runs[:, 0])


def _sync_samples(moov: bytes, table: Box, count: int) -> NDArray[np.bool_] | None:
    """Return the sync samples: all without a list (8.6.2); the first where the list is empty."""
    listed = [child(moov, table, kind) for kind in (b"stss", b"stps")]
    numbers = [_entries(moov, box, 1) for box in listed if box is not None]
    if any(rows is None for rows in numbers):
        return None
    known = [rows[:, 0] for rows in numbers if rows is not None and len(rows)]
    group = _random_access_group(moov, table, count)
    if not known and group is None:
        return np.ones(count, np.bool_) if listed[0] is None else np.arange(count) == 0
    key = np.zeros(count, np.bool_) if group is None else group
    for rows in known:
        # some writers count from 0
        places = rows - (known[0][0] > 0)
        key[places[(places >= 0) & (places < count)]] = True
    return key


def _random_access_group(moov: bytes, table: Box, count: int) -> NDArray[np.bool_] | None:
    """Return the samples of the group `rap `: open random access points (10.4)."""
    for box in children(moov, table.begin, table.end):
        if box.type == b"sbgp" and moov[box.begin + 4 : box.begin + 8] == b"rap ":
            rows = _entries(moov, box, 2, header=12 if moov[box.begin] == 1 else 8)
            if rows is None or int(rows[:, 0].sum()) > count:
                return None
            group = np.repeat(rows[:, 1] > 0, rows[:, 0])
            return np.concatenate([group, np.zeros(count - group.size, np.bool_)])
    return None


def read_time_scale(moov: bytes, header: Box | None) -> int:
    """Read the time units per second of an `mdhd` or `mvhd` box, 0 where it is damaged."""
    if header is None or header.end - header.begin < 24:
        return 0
    return int(struct.unpack_from(">I", moov, header.begin + (20 if moov[header.begin] == 1 else 12))[0])
