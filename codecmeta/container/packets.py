"""Packet table of a video, from the container's index or by demuxing once. Never decodes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from codecmeta.container.configurations import list_configurations
from codecmeta.container.packet_form import open_check
from codecmeta.container.packet_heads import (
    NAL_CODECS,
    begins_decoding,
    contains_sets,
    examines_heads,
    is_inner_slice,
    read_head,
)
from codecmeta.container.packet_pictures import PacketPictures, PictureCollector, from_slices
from codecmeta.container.parameter_history import ParameterHistory
from codecmeta.container.sample_heads import SampleHeads
from codecmeta.container.sample_table import SampleTable
from codecmeta.container.unit_table import read_units
from codecmeta.container.video import Video, demux
from codecmeta.errors import BitstreamError, SourceError
from codecmeta.h264.field_pairs import FieldPairs
from codecmeta.record.limits import Limits
from codecmeta.record.meta import MISSING

_PROBES = 50
_MOST_REMOTE_HEADS = 1000
"""Key packets whose heads are read of a file elsewhere, one request each."""


@dataclass(frozen=True, kw_only=True)
class PacketTable:
    """Packets of a video stream in decode order, P of them.

    The two fields of an H.264 frame count as one packet, even where each has its own: a packet is a frame.

    Attributes:
        pts: int64 (P,), MISSING where the packet has none; for two fields, like all columns below, that of the first.
        dts: int64 (P,), likewise.
        size: uint32 (P,), bytes.
        key: bool (P,), starts a GoP.
        shown: bool (P,), False for packets that an edit list discards or that carry no displayed picture.
        second: uint32 (P,), how many of these bytes are in a separate packet, the second field; mostly 0.
        corrupt: number of packets that the demuxer marked as corrupt, or whose units do not join.
        position: int64 (P,), where each packet's bytes begin in the file; None where the container's index does not
            give it.
        second_position: int64 (P,), likewise for the second field, where the frame has one.
        history: parameter sets in force at each packet.
        unscanned: packets may contain parameter sets that were not searched for.
        pictures: the pictures that headers describe; None where the table comes from an index, which reads no packets,
            and for codecs whose headers are not read.
    """

    pts: NDArray[np.int64]
    dts: NDArray[np.int64]
    size: NDArray[np.uint32]
    key: NDArray[np.bool_]
    shown: NDArray[np.bool_]
    second: NDArray[np.uint32]
    corrupt: int
    position: NDArray[np.int64] | None
    second_position: NDArray[np.int64] | None
    history: ParameterHistory
    unscanned: bool = False
    pictures: PacketPictures | None = None

    @property
    def origin(self) -> Literal["index", "demux"]:
        """Whether the table was read from the container's index or by demuxing the file."""
        return "demux" if self.position is None else "index"

    @property
    def restarted(self) -> NDArray[np.bool_]:
        """bool (P,), packets whose decode time does not exceed all earlier ones."""
        known = self.dts != MISSING
        latest = np.maximum.accumulate(self.dts)
        restarted = np.zeros(known.size, np.bool_)
        restarted[1:] = known[1:] & (self.dts[1:] <= latest[:-1])
        return restarted


def read_packets(video: Video, *, payloads: bool = True) -> PacketTable:
    """Read the packet table of the stream: from the MP4/MOV index where it is complete, else by demuxing once.

    Key flags are compared with the packets' heads. Of an index, only flagged packets are examined: all of them, or,
    where no payload is going to be read, a hundred, and all if one of these was flagged by mistake. All are examined
    where the parameter sets allow pictures that are never shown (H.265, output_flag_present_flag).

    Args:
        video: the opened video.
        payloads: whether packets are going to be read or decoded.

    Raises:
        SourceError: the stream has no packets, no key packet, or more than a video can have.
    """
    table = _from_index(video, payloads=payloads) or _from_demuxing(video)
    if table.size.size == 0:
        raise SourceError("no_frames", "the video stream has no packets")
    if not table.key.any():
        raise SourceError("no_key_frame", f"none of the {table.size.size} packets is a key frame")
    return table


def are_distinct(values: NDArray[np.int64]) -> bool:
    """Return whether no value occurs twice."""
    ordered = np.sort(values)
    return bool((ordered[1:] != ordered[:-1]).all())


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.frames:
        raise SourceError("limit_exceeded", f"{count} packets or more; allowed are {limits.frames}")


def _from_index(video: Video, *, payloads: bool) -> PacketTable | None:
    track = video.track
    samples = None if track is None else track.samples
    if samples is None or track is None:
        return None
    # samples without bytes represent dropped frames, and are not packets
    samples = samples.select(samples.size > 0)
    _check_count(samples.size.size, video.limits)
    descriptions = track.descriptions
    if len({descriptions[number].format for number in np.unique(samples.description)}) > 1:
        return None
    shifts = _check_index(video, samples)
    if shifts is None or not are_distinct(samples.pts[samples.shown]):
        return None
    pts, dts = samples.pts + shifts[0], samples.dts + shifts[1]
    columns = np.stack([pts, dts, samples.size, samples.key, samples.shown, samples.position], axis=1)
    second = _find_second_fields(video, columns)
    packet = np.cumsum(~second) - 1
    history = _open_history(video)
    description = samples.description
    for row in np.flatnonzero(np.diff(description, prepend=0)).tolist():
        history.switch(int(packet[row]), descriptions[description[row]].record)
    heads = SampleHeads(video.source, history, position=samples.position, size=samples.size, packet=packet)
    history.scanner = heads
    keys = np.flatnonzero(samples.key)
    remote = not video.source.is_local
    payloads &= not remote or keys.size <= _MOST_REMOTE_HEADS
    columns[:, 3] = _check_keys(samples.key & ~second, heads, history, payloads=payloads)
    forbidden = descriptions[0].forbids_sets or history.codec not in NAL_CODECS
    examined = keys if payloads else _choose_probes(keys)
    restricted = (
        (payloads or remote)
        and forbidden
        and not any(contains_sets(history.codec, head) for head in heads.read(examined.tolist()).values())
    )
    if restricted or remote:
        heads.restrict(examined)
    table = replace(_as_table(columns, second, history, corrupt=0), unscanned=remote and not restricted)
    return _hide_withheld(video, table)


def _hide_withheld(video: Video, table: PacketTable) -> PacketTable:
    """Mark pictures of an indexed HEVC stream as not shown that say so themselves."""
    if not table.history.withholds_pictures:
        return table
    # the headers of all packets
    video.source.fetch_all()
    units = read_units(video, table)
    if units is None:
        return table
    count = table.size.size
    found = from_slices(video.codec, table.history, packets=count, packet=units.packet, start=units.start)
    return replace(table, shown=table.shown & ~found.withheld)


def _check_keys(
    flagged: NDArray[np.bool_], heads: SampleHeads, history: ParameterHistory, *, payloads: bool
) -> NDArray[np.bool_]:
    """Return which flagged samples of an index are random access points by their payload."""
    if not examines_heads(history.codec):
        return flagged
    rows = np.flatnonzero(flagged)
    probes = _choose_probes(rows)

    def verify(some: NDArray[np.int64]) -> list[bool]:
        found = heads.read(some.tolist())
        return [begins_decoding(found[row].access, flagged=True, one=history.refers_to_one) for row in some.tolist()]

    if not payloads and all(verify(probes)):
        return flagged
    key = np.zeros(flagged.size, np.bool_)
    key[rows] = verify(rows)
    if not key.any():
        # a stream that was cut before its first random access point is shown from its first intra picture on
        intra = [row for row in rows.tolist() if heads.read([row])[row].access == "intra"]
        key[intra[:1]] = True
    return key


def _choose_probes(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Choose some of the key packets: the first ones, and others throughout."""
    return np.unique(np.concatenate([rows[:_PROBES], rows[:: max(rows.size // _PROBES, 1)]]))


def _open_history(video: Video) -> ParameterHistory:
    return ParameterHistory(video.codec, bytes(video.stream.codec_context.extradata or b""))


def _find_second_fields(video: Video, columns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Find packets of an index that are the second field of the frame before, by headers of interlaced streams."""
    second = np.zeros(len(columns), np.bool_)
    pairs = _open_pairs(video)
    if pairs is None:
        return second
    for number, (_, _, size, key, _, position) in enumerate(columns.tolist()):
        if pairs.needs_packet(key=bool(key)):
            if pairs.needs_packet(key=False):
                # interlaced: the headers of all packets
                video.source.fetch_all()
            second[number] = pairs.continues(pairs.read_headers(video.source.read_at, position, size))
    return second


def _open_pairs(video: Video) -> FieldPairs | None:
    if video.codec != "h264":
        return None
    try:
        pairs = FieldPairs(bytes(video.stream.codec_context.extradata or b""))
    except BitstreamError:
        return None
    return pairs if pairs.needs_packet(key=True) else None


def _as_table(
    columns: NDArray[np.int64],
    second: NDArray[np.bool_],
    history: ParameterHistory,
    *,
    corrupt: int,
    pictures: PacketPictures | None = None,
) -> PacketTable:
    """Join second fields to the packets before them.

    Args:
        columns: int64 (n, 5 or 6), one row per packet: pts, dts, size, key, shown, and position where it is known.
        second: bool (n,), never set twice in a row.
        history: the parameter sets.
        pictures: the pictures of the frames as headers describe them.
    """
    frames = columns[~second]
    place = np.cumsum(~second)[second] - 1
    own = np.zeros((len(frames), columns.shape[1]), np.int64)
    own[place] = columns[second]
    located = columns.shape[1] == 6
    return PacketTable(
        pts=frames[:, 0].copy(),
        dts=frames[:, 1].copy(),
        size=(frames[:, 2] + own[:, 2]).astype(np.uint32),
        key=frames[:, 3].astype(np.bool_),
        shown=frames[:, 4].astype(np.bool_) & (True if pictures is None else ~pictures.withheld),
        second=own[:, 2].astype(np.uint32),
        corrupt=corrupt,
        position=frames[:, 5].copy() if located else None,
        second_position=own[:, 5].copy() if located else None,
        history=history,
        pictures=pictures,
    )


def _check_index(video: Video, samples: SampleTable, *, probe: int = 4) -> tuple[int, int] | None:
    """Return what the demuxer adds to all pts and dts; None where the first packets contradict the table."""
    shifts: tuple[int, int] | None = None
    for number, packet in enumerate(demux(video)):
        if number == min(probe, samples.size.size) or packet.pts is None or packet.dts is None:
            break
        found = packet.pts - int(samples.pts[number]), packet.dts - int(samples.dts[number])
        shifts = found if shifts is None else shifts
        facts = packet.size, not packet.is_discard, packet.pos
        if found != shifts or facts != (samples.size[number], samples.shown[number], samples.position[number]):
            return None
    video.rewind()
    return shifts


def _from_demuxing(video: Video) -> PacketTable:
    video.source.fetch_all()
    rows: list[tuple[int, int, int, bool, bool]] = []
    second: list[bool] = []
    intra: list[int] = []
    corrupt = 0
    packet_number = -1
    codec = video.codec
    extradata = bytes(video.stream.codec_context.extradata or b"")
    pairs = _open_pairs(video)
    history = _open_history(video)
    length_size, checks = history.length_size, examines_heads(codec)
    check = open_check(codec, extradata)
    pictures = PictureCollector(codec, extradata)
    records = list_configurations(video)
    video.rewind()
    for packet in demux(video):
        shown, key = not packet.is_discard, packet.is_keyframe
        view = memoryview(packet)
        asked = pairs if pairs is not None and pairs.needs_packet(key=key) else None
        second.append(asked is not None and asked.continues(bytes(packet)))
        packet_number += not second[-1]
        if (record := records(packet)) is not None:
            history.switch(packet_number, record)
            length_size = history.packaging(packet_number)
        shown &= pictures.take(packet_number, view, length_size=length_size)
        if checks and (key or not is_inner_slice(codec, view, length_size=length_size)):
            head = read_head(codec, view, length_size=length_size)
            if head.sets:
                history.note(packet_number, head.sets)
            if key and head.access == "intra":
                intra.append(len(rows))
            key = begins_decoding(head.access, flagged=key, one=history.refers_to_one)
        rows.append(
            (
                MISSING if packet.pts is None else packet.pts,
                MISSING if packet.dts is None else packet.dts,
                packet.size,
                key,
                shown,
            )
        )
        malformed = check is not None and not check(partial(_part, view), packet.size, length_size)
        corrupt += packet.is_corrupt or malformed
        _check_count(len(rows), video.limits)
    columns = np.array(rows, np.int64).reshape(-1, 5)
    if intra and not columns[:, 3].any():
        columns[intra[0], 3] = True
    frames = packet_number + 1
    return _as_table(
        columns,
        np.array(second, np.bool_),
        history,
        corrupt=corrupt,
        pictures=pictures.close(frames, history) if frames else None,
    )


def _part(packet: memoryview, at: int, count: int) -> bytes:
    return bytes(packet[at : at + count])
