"""Picture order counts of packets compared with their time stamps (Rec. ITU-T H.264, 8.2.1; H.265, 8.3.1).

Between two random access points, pictures are shown in the order of their counts, and no two have the same count. A
slice whose count is damaged makes a decoder drop pictures, also in packets that are not read; the first bytes of a
packet contain its count. Streams of an unusual structure are not compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from codecmeta.container.header_words import Flags, HeaderBits, Ints, read_words
from codecmeta.container.packet_heads import nal_type
from codecmeta.container.packets import PacketTable
from codecmeta.container.parameter_history import read_configuration
from codecmeta.container.unit_table import UnitTable
from codecmeta.container.video import Video
from codecmeta.entropy.nal import remove_emulation_prevention
from codecmeta.entropy.parameter_sets import ParameterSets
from codecmeta.errors import BitstreamError
from codecmeta.h264 import nal as h264
from codecmeta.h264 import parameter_sets as h264_sets
from codecmeta.h264.slice_header import read_slice_header
from codecmeta.hevc import nal as hevc
from codecmeta.hevc.picture_parameters import picture_number, read_picture_parameters
from codecmeta.hevc.sequence_parameters import read_sequence_parameters, sequence_number
from codecmeta.record.meta import MISSING
from codecmeta.storage.byte_source import ByteSource

_HEADER = 512
"""Bytes of an H.264 slice that contain its header."""

_LEAST_HABIT, _SHARE_HABIT = 2, 10
"""Contradictions, and pictures per contradiction, above which the encoder or container causes them, not damage."""

_HEADER_SIZE = {"h264": 1, "hevc": 2}
_SETS = {"h264": (h264.SPS, h264.PPS), "hevc": (hevc.VPS, hevc.SPS, hevc.PPS)}

Sets: TypeAlias = ParameterSets[Any, Any]


class _Form(NamedTuple):
    """Widths in slice headers: reserved bits and flag before the count (H.265), frame_num (H.264), and the count."""

    reserved: int
    output_flag: int
    frame_num: int
    order: int


def count_contradictions(video: Video, packets: PacketTable, units: UnitTable) -> int:
    """Count the places where the order of picture order counts contradicts that of the time stamps.

    Args:
        video: the opened video.
        packets: its packet table, with time stamps that come from the file.
        units: its NAL units.

    Returns:
        Their number, 0 as well where nothing is compared: parameter sets that change, interlaced streams, counts that
        follow from frame_num, time stamps that are missing or go back, and streams that contradict throughout.
    """
    if packets.second.any() or not packets.history.is_plain:
        return 0
    try:
        _, known = read_configuration(video.codec, bytes(video.stream.codec_context.extradata or b""))
        sets = _open_sets(video.codec, known)
        forms = set(_list_forms(video.codec, known, sets))
    except BitstreamError:
        return 0
    form = forms.pop() if len(forms) == 1 else None
    slices = np.flatnonzero(units.pictured)
    pictured, first = np.unique(units.packet[slices], return_index=True)
    if form is None or pictured.size < packets.size.size:
        return 0
    first = slices[first]
    if _brings_others(video.source, video.codec, units, first, known):
        return 0
    falls, group = _find_falls(video.codec, units.start[first], form, packets)
    if falls.size and video.codec == "h264":
        for number in np.unique(group[falls]).tolist():
            members = units.place[first[group == number]].tolist()
            if _restarts((video.source.read_at(place, _HEADER) for place in members), sets):
                falls = falls[group[falls] != number]
    return int(falls.size)


def _brings_others(source: ByteSource, codec: str, units: UnitTable, first: Ints, known: Iterable[bytes]) -> bool:
    """Return whether a parameter set that the container's header lacks precedes the first slice of a packet."""
    header = units.start[:, 0]
    kind = header & 31 if codec == "h264" else header >> 1 & 63
    places = np.flatnonzero(np.isin(kind, _SETS[codec]))
    places = places[places < first[units.packet[places]]]
    own = frozenset(unit.rstrip(b"\0") for unit in known)
    found = zip(units.place[places].tolist(), units.length[places].tolist(), strict=True)
    return any(source.read_at(place, length).rstrip(b"\0") not in own for place, length in found)


def _find_falls(codec: str, start: NDArray[np.uint8], form: _Form, packets: PacketTable) -> tuple[Ints, Ints]:
    """Find packets whose count does not exceed the one shown before, and the number of the access point of each."""
    words = read_words(start[:, _HEADER_SIZE[codec] :])
    header = start[:, 0].astype(np.int64)
    if codec == "hevc":
        header = header << 8 | start[:, 1]
    if codec == "h264":
        kind = header & 31
        begins, anchor = kind == h264.IDR_SLICE, header >> 5 & 3 > 0
        lsb, sound = _read_h264(words, kind, form)
    else:
        kind = header >> 9
        begins = (kind >= hevc.FIRST_IRAP) & (kind <= hevc.LAST_IRAP)
        # prevTid0Pic (8.3.1): no RASL, RADL or sub-layer non-reference picture
        refers = (kind & 1 == 1) & (kind != hevc.RADL_R) & (kind != hevc.RASL_R)
        anchor = (header & 7 == 1) & (begins | refers)
        lsb, sound = _read_hevc(words, kind, begins, form)
    begins = begins | packets.key
    group = np.cumsum(begins)
    sound &= (packets.pts != MISSING) & (packets.dts != MISSING) & ~packets.restarted
    sound &= (anchor | ~begins) & (group > 0)
    sound = np.bincount(group, ~sound)[group] == 0
    counts = _unwrap(lsb, anchor, begins, form.order)
    order = np.lexsort((packets.pts, group))
    order = order[sound[order]]
    falls = order[1:][(np.diff(group[order]) == 0) & (np.diff(counts[order]) <= 0)]
    habit = falls.size > max(_LEAST_HABIT, order.size // _SHARE_HABIT)
    return falls[: 0 if habit else None], group


def _unwrap(lsb: Ints, anchor: Flags, begins: Flags, bits: int) -> Ints:
    """Return counts relative to the previous access point: each lies within half a period of its anchor's."""
    half = 1 << (bits - 1)
    latest = np.maximum.accumulate(np.where(anchor, np.arange(lsb.size), 0))
    before = np.concatenate([[0], latest[:-1]])
    step = (lsb - lsb[before] + half - 1) % (2 * half) - half + 1
    step[begins] = 0
    total = np.cumsum(np.where(anchor, step, 0))
    return np.where(anchor, total, total + step)


def _read_h264(words: NDArray[np.uint64], kind: Ints, form: _Form) -> tuple[Ints, Flags]:
    """Read pic_order_cnt_lsb (H.264, 7.3.3), and where it could be read in the first slice of a picture."""
    bits = HeaderBits(words)
    first = bits.ue() == 0
    bits.ue()
    bits.ue()
    bits.u(form.frame_num)
    bits.ue(kind == h264.IDR_SLICE)
    lsb = bits.u(form.order)
    return lsb, bits.sound & first


def _read_hevc(words: NDArray[np.uint64], kind: Ints, irap: Flags, form: _Form) -> tuple[Ints, Flags]:
    """Read slice_pic_order_cnt_lsb (H.265, 7.3.6.1), 0 for IDR pictures, and where a first slice contains it."""
    bits = HeaderBits(words)
    first = bits.u(1) == 1
    bits.u(irap.astype(np.int64))
    bits.ue()
    bits.u(form.reserved)
    bits.ue()
    bits.u(form.output_flag)
    idr = (kind == hevc.IDR_W_RADL) | (kind == hevc.IDR_N_LP)
    lsb = bits.u(np.where(idr, 0, form.order))
    return lsb, bits.sound & first


def _open_sets(codec: str, units: Iterable[bytes]) -> Sets:
    """Return the parameter sets of a container's header."""
    sets: Sets = (
        h264_sets.ParameterSets()
        if codec == "h264"
        else ParameterSets(
            sequence_number=sequence_number,
            picture_number=picture_number,
            read_sequence=read_sequence_parameters,
            read_picture=read_picture_parameters,
        )
    )
    kinds = (h264.SPS, h264.PPS) if codec == "h264" else (hevc.SPS, hevc.PPS)
    for unit in units:
        rbsp = remove_emulation_prevention(unit[_HEADER_SIZE[codec] :])
        if nal_type(codec, unit) == kinds[0]:
            sets.store_sequence(rbsp)
        elif nal_type(codec, unit) == kinds[1]:
            sets.store_picture(rbsp)
    return sets


def _list_forms(codec: str, units: Iterable[bytes], sets: Sets) -> Iterator[_Form | None]:
    """Yield the slice header widths for each picture parameter set; None for one whose counts are not compared."""
    for unit in units:
        rbsp = remove_emulation_prevention(unit[_HEADER_SIZE[codec] :])
        if codec == "h264" and nal_type(codec, unit) == h264.PPS:
            sps = sets.picture(h264_sets.picture_number(rbsp)).sequence
            plain = sps.pic_order_cnt_type == 0 and sps.frame_mbs_only and not sps.separate_colour_plane
            yield _Form(0, 0, sps.log2_max_frame_num, sps.log2_max_pic_order_cnt_lsb) if plain else None
        elif codec == "hevc" and nal_type(codec, unit) == hevc.PPS:
            pps = sets.picture(picture_number(rbsp))
            yield _Form(pps.extra_slice_header_bits, int(pps.output_flag_present), 0, pps.sequence.log2_max_poc_lsb)


def _restarts(heads: Iterable[bytes], sets: Sets) -> bool:
    """Return whether counts restart at one of some H.264 pictures (memory_management_control_operation 5, 8.2.1)."""
    for head in heads:
        rbsp = remove_emulation_prevention(head[1:])
        try:
            marking = read_slice_header(
                rbsp, head[0] & 31, head[0] >> 5 & 3, cast(h264_sets.ParameterSets, sets)
            ).marking
        except BitstreamError:
            return True
        if any(operation[0] == 5 for operation in marking or ()):
            return True
    return False
