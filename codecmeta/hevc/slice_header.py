"""Slice segment headers (Rec. ITU-T H.265, 7.3.6)."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

from codecmeta.entropy.bits import BitReader
from codecmeta.errors import BitstreamError
from codecmeta.hevc.nal import FIRST_IRAP, IDR_N_LP, IDR_W_RADL, LAST_IRAP
from codecmeta.hevc.picture_parameters import PictureParameters
from codecmeta.hevc.reference_sets import read_reference_set

B, P, I = 0, 1, 2  # noqa: E741
"""slice_type (Table 7-7)."""


@dataclass(kw_only=True)
class SliceHeader:
    """Fields of a slice segment header that the residual needs; names as in 7.4.7.1.

    Attributes:
        first: first_slice_segment_in_pic_flag.
        dependent: all fields except `address` and `data_position` are those of the previous segment.
        address: slice_segment_address.
        order_lsb: slice_pic_order_cnt_lsb.
        slice_qp: SliceQpY.
        qp_offset: slice_cb_qp_offset and slice_cr_qp_offset.
        data_position: first byte of the slice segment data in the RBSP.
    """

    parameters: PictureParameters
    first: bool
    dependent: bool
    address: int
    data_position: int
    slice_type: int = I
    order_lsb: int = 0
    sao_luma: bool = False
    sao_chroma: bool = False
    num_ref_idx_active: tuple[int, int] = (0, 0)
    mvd_l1_zero: bool = False
    cabac_init_flag: bool = False
    max_merge_candidates: int = 0
    slice_qp: int = 0
    qp_offset: tuple[int, int] = (0, 0)
    chroma_offset_enabled: bool = False


def read_slice_header(
    rbsp: bytes, kind: int, picture_of: Callable[[int], PictureParameters], previous: SliceHeader | None
) -> SliceHeader:
    """Parse slice_segment_header (7.3.6.1).

    Args:
        rbsp: the slice segment's RBSP.
        kind: nal_unit_type.
        picture_of: returns the picture parameter set of a number.
        previous: header of the previous segment of the picture; None for the first.

    Raises:
        BitstreamError: a value is out of range, the data end first, a parameter set is missing, or the slice uses
            a tool that is not supported.
    """
    reader = BitReader(rbsp, "slice segment header")
    first = reader.flag()
    if FIRST_IRAP <= kind <= LAST_IRAP:
        reader.skip(1)
    pps = picture_of(reader.ue(63, "slice_pic_parameter_set_id"))
    dependent, address = False, 0
    if not first:
        dependent = pps.dependent_slices and reader.flag()
        height, width = pps.sequence.size_in_ctbs
        address = reader.u((width * height - 1).bit_length())
        if not 0 < address < width * height:
            raise BitstreamError(f"slice segment header: address {address} exceeds the {width * height} blocks")
    if dependent:
        if previous is None:
            raise BitstreamError("a dependent slice segment has no preceding slice to depend on")
        header = copy(previous)
        header.first, header.dependent, header.address = False, True, address
        if previous.parameters is not pps:
            raise BitstreamError("a dependent slice segment uses another parameter set than its slice")
    else:
        header = _read_independent(reader, kind, pps, first, address)
    if pps.tiles or pps.entropy_coding_sync:
        _skip_entry_points(reader, pps)
    if pps.slice_header_extension_present:
        reader.skip(8 * reader.ue(256, "slice_segment_header_extension_length"))
    if not reader.flag():
        raise BitstreamError("slice segment header: there is no 1 bit before the slice segment data")
    header.data_position = (reader.position + 7) // 8
    return header


def _skip_entry_points(reader: BitReader, pps: PictureParameters) -> None:
    height, width = pps.sequence.size_in_ctbs
    count = reader.ue(width * height, "num_entry_point_offsets")
    if count:
        reader.skip(count * (1 + reader.ue(31, "offset_len_minus1")))


def _read_independent(reader: BitReader, kind: int, pps: PictureParameters, first: bool, address: int) -> SliceHeader:
    sps = pps.sequence
    reader.skip(pps.extra_slice_header_bits)
    slice_type = reader.ue(2, "slice_type")
    if pps.output_flag_present:
        reader.skip(1)
    order_lsb, total, temporal_mvp = 0, 0, False
    if kind not in (IDR_W_RADL, IDR_N_LP):
        order_lsb = reader.u(sps.log2_max_poc_lsb)
        total = _read_references(reader, pps)
        temporal_mvp = sps.temporal_mvp and reader.flag()
    sao_luma = sps.sao and reader.flag()
    sao_chroma = sps.sao and sps.chroma_format_idc != 0 and reader.flag()
    active, l1_zero, cabac_init, candidates = (0, 0), False, False, 0
    if slice_type != I:
        active = _read_active(reader, pps, slice_type)
        if pps.lists_modification_present and total > 1:
            for count in active:
                if count and reader.flag():
                    reader.skip(count * (total - 1).bit_length())
        l1_zero = slice_type == B and reader.flag()
        cabac_init = pps.cabac_init_present and reader.flag()
        if temporal_mvp:
            from_l0 = slice_type == P or reader.flag()
            if active[0 if from_l0 else 1] > 1:
                reader.ue(active[0 if from_l0 else 1] - 1, "collocated_ref_idx")
        if (pps.weighted_pred and slice_type == P) or (pps.weighted_bipred and slice_type == B):
            _skip_weight_table(reader, active, sps.chroma_format_idc != 0)
        candidates = 5 - reader.ue(4, "five_minus_max_num_merge_cand")
    slice_qp = pps.init_qp + reader.se()
    lowest = -6 * (sps.bit_depth - 8)
    if not lowest <= slice_qp <= 51:
        raise BitstreamError(f"slice segment header: the slice QP {slice_qp} is outside {lowest}..51")
    offset = (reader.se(), reader.se()) if pps.slice_chroma_qp_offsets_present else (0, 0)
    for value, base in zip(offset, pps.qp_offset, strict=True):
        if not -12 <= value + base <= 12:
            raise BitstreamError(f"slice segment header: a chroma QP offset is {value + base}; -12 to 12 are allowed")
    chroma_offset = bool(pps.chroma_offsets) and reader.flag()
    disabled = pps.deblocking_disabled
    if pps.deblocking_override and reader.flag():
        disabled = reader.flag()
        if not disabled:
            reader.se()
            reader.se()
    if pps.loop_filter_across_slices and (sao_luma or sao_chroma or not disabled):
        reader.skip(1)
    return SliceHeader(
        parameters=pps,
        first=first,
        dependent=False,
        address=address,
        data_position=0,
        slice_type=slice_type,
        order_lsb=order_lsb,
        sao_luma=sao_luma,
        sao_chroma=sao_chroma,
        num_ref_idx_active=active,
        mvd_l1_zero=l1_zero,
        cabac_init_flag=cabac_init,
        max_merge_candidates=candidates,
        slice_qp=slice_qp,
        qp_offset=offset,
        chroma_offset_enabled=chroma_offset,
    )


def _read_references(reader: BitReader, pps: PictureParameters) -> int:
    """Read the reference picture set of a picture; return NumPicTotalCurr (7-55)."""
    sps = pps.sequence
    count = len(sps.reference_sets)
    if not reader.flag():
        used = read_reference_set(reader, count, count, sps.reference_sets).used
    else:
        number = reader.u((count - 1).bit_length()) if count > 1 else 0
        if number >= count:
            raise BitstreamError(f"slice segment header: reference picture set {number} exceeds the {count} sets")
        used = sps.reference_sets[number].used
    if sps.long_term is None:
        return used
    known = len(sps.long_term)
    from_sequence = reader.ue(known, "num_long_term_sps") if known else 0
    own = reader.ue(32, "num_long_term_pics")
    for number in range(from_sequence + own):
        if number < from_sequence:
            index = reader.u((known - 1).bit_length()) if known > 1 else 0
            if index >= known:
                raise BitstreamError(f"slice segment header: long-term picture {index} exceeds the {known} pictures")
            used += sps.long_term[index]
        else:
            reader.skip(sps.log2_max_poc_lsb)
            used += reader.flag()
        if reader.flag():
            reader.ue(name="delta_poc_msb_cycle_lt")
    return used


def _read_active(reader: BitReader, pps: PictureParameters, slice_type: int) -> tuple[int, int]:
    """Read the numbers of active references of lists 0 and 1."""
    first, second = pps.num_ref_idx_default
    if reader.flag():
        first = 1 + reader.ue(14, "num_ref_idx_l0_active_minus1")
        if slice_type == B:
            second = 1 + reader.ue(14, "num_ref_idx_l1_active_minus1")
    return first, second if slice_type == B else 0


def _skip_weight_table(reader: BitReader, active: tuple[int, int], chroma: bool) -> None:
    """Skip pred_weight_table (7.3.6.3)."""
    reader.ue(7, "luma_log2_weight_denom")
    if chroma:
        reader.se()
    for count in active:
        luma_flags = [reader.flag() for _ in range(count)]
        chroma_flags = [chroma and reader.flag() for _ in range(count)]
        for luma_flag, chroma_flag in zip(luma_flags, chroma_flags, strict=True):
            for _ in range(2 * luma_flag + 4 * chroma_flag):
                reader.se()
