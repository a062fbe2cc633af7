"""Slice headers (Rec. ITU-T H.264, 7.3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from codecmeta.entropy.bits import BitReader
from codecmeta.errors import BitstreamError
from codecmeta.h264.nal import IDR_SLICE
from codecmeta.h264.parameter_sets import ParameterSets, PictureParameters

P, B, I = 0, 1, 2  # noqa: E741  (the standard's own names)
"""Slice types (Table 7-6), reduced modulo 5."""

Operations: TypeAlias = tuple[tuple[int, ...], ...]
"""Operations with their values, in stream order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceHeader:
    """Fields of a slice header that residual and motion need; names as in 7.4.3.

    Attributes:
        slice_type: `P`, `B` or `I`.
        idr: the slice is of an IDR picture.
        structure: "frame", "top" or "bottom".
        order: pic_order_cnt_lsb and delta_pic_order_cnt_bottom, or the two delta_pic_order_cnt (7.3.3).
        direct_spatial: direct_spatial_mv_pred_flag.
        modifications: of reference lists 0 and 1, pairs of modification_of_pic_nums_idc and its value.
        marking: memory_management_control_operation and its values, a tuple each; None for a sliding window.
        long_term: long_term_reference_flag of an IDR picture.
        num_ref_idx_active: length of reference lists 0 and 1; 0 where the slice has none.
        slice_qp: SliceQPY.
        data_position: first bit of slice_data() in the RBSP.
    """

    parameters: PictureParameters
    ref_idc: int
    idr: bool
    first_mb: int
    slice_type: int
    colour_plane: int
    frame_num: int
    structure: str
    mbaff: bool
    order: tuple[int, int]
    direct_spatial: bool
    modifications: tuple[Operations, Operations]
    marking: Operations | None
    long_term: bool
    redundant_pic_cnt: int
    num_ref_idx_active: tuple[int, int]
    cabac_init_idc: int
    slice_qp: int
    data_position: int


class Field(NamedTuple):
    """Identity of the picture that a slice belongs to.

    Attributes:
        frame_num: frame_num, the same in both fields of a frame.
        structure: "frame", "top" or "bottom".
        idr: it is an IDR picture.
    """

    frame_num: int
    structure: str
    idr: bool


def read_field(rbsp: bytes, kind: int, sets: ParameterSets) -> Field:
    """Parse a slice header up to field_pic_flag and bottom_field_flag (7.3.3).

    Args:
        rbsp: the slice's RBSP, of which 32 bytes are enough.
        kind: nal_unit_type, 1 or 5.
        sets: parameter sets seen so far.

    Raises:
        BitstreamError: as `read_slice_header`.
    """
    start = _read_start(BitReader(rbsp, "slice header"), sets)
    return Field(start.frame_num, start.structure, kind == IDR_SLICE)


class _Start(NamedTuple):
    first_mb: int
    slice_type: int
    parameters: PictureParameters
    colour_plane: int
    frame_num: int
    structure: str


def _read_start(reader: BitReader, sets: ParameterSets) -> _Start:
    first_mb = reader.ue(1 << 20, "first_mb_in_slice")
    slice_type = reader.ue(9, "slice_type") % 5
    if slice_type > I:
        raise BitstreamError("switching slices (SP, SI) are not supported", unsupported="SP and SI slices")
    pps = sets.picture(reader.ue(255, "pic_parameter_set_id"))
    sps = pps.sequence
    colour_plane = reader.u(2) if sps.separate_colour_plane else 0
    if colour_plane > 2:
        raise BitstreamError("slice header: colour_plane_id is 3; at most 2 is allowed")
    frame_num = reader.u(sps.log2_max_frame_num)
    structure = "frame"
    if not sps.frame_mbs_only and reader.flag():
        structure = "bottom" if reader.flag() else "top"
    return _Start(first_mb, slice_type, pps, colour_plane, frame_num, structure)


def read_slice_header(rbsp: bytes, kind: int, ref_idc: int, sets: ParameterSets) -> SliceHeader:
    """Parse slice_header (7.3.3).

    Args:
        rbsp: the slice's RBSP.
        kind: nal_unit_type, 1 or 5.
        ref_idc: nal_ref_idc.
        sets: parameter sets seen so far.

    Raises:
        BitstreamError: a value is out of range, the data end first, a parameter set is missing, or the slice uses
            a tool that is not supported.
    """
    reader = BitReader(rbsp, "slice header")
    first_mb, slice_type, pps, colour_plane, frame_num, structure = _read_start(reader, sets)
    sps = pps.sequence
    if kind == IDR_SLICE:
        reader.ue(65535, "idr_pic_id")
    order = _read_picture_order(reader, pps, structure)
    redundant = reader.ue(127, "redundant_pic_cnt") if pps.redundant_pic_cnt_present else 0
    direct_spatial = slice_type == B and reader.flag()
    active = _read_active_references(reader, pps, slice_type, structure)
    first, second = (_read_list_modification(reader) if count else () for count in active)
    if (pps.weighted_pred and slice_type == P) or (pps.weighted_bipred_idc == 1 and slice_type == B):
        _skip_weight_table(reader, active, sps.chroma_array_type != 0)
    marking, long_term = None, False
    if ref_idc and kind == IDR_SLICE:
        reader.flag()
        long_term = reader.flag()
    elif ref_idc:
        marking = _read_reference_marking(reader)
    cabac_init_idc = reader.ue(2, "cabac_init_idc") if pps.entropy_coding_mode and slice_type != I else 0
    slice_qp = pps.pic_init_qp + reader.se()
    lowest = -6 * (sps.bit_depth_luma - 8)
    if not lowest <= slice_qp <= 51:
        raise BitstreamError(f"slice header: the slice QP {slice_qp} is outside {lowest}..51")
    if pps.deblocking_filter_control_present and reader.ue(2, "disable_deblocking_filter_idc") != 1:
        reader.se()
        reader.se()
    return SliceHeader(
        parameters=pps,
        ref_idc=ref_idc,
        idr=kind == IDR_SLICE,
        first_mb=first_mb,
        slice_type=slice_type,
        colour_plane=colour_plane,
        frame_num=frame_num,
        structure=structure,
        mbaff=sps.mb_adaptive_frame_field and structure == "frame",
        order=order,
        direct_spatial=direct_spatial,
        modifications=(first, second),
        marking=marking,
        long_term=long_term,
        redundant_pic_cnt=redundant,
        num_ref_idx_active=active,
        cabac_init_idc=cabac_init_idc,
        slice_qp=slice_qp,
        data_position=reader.position,
    )


def _read_picture_order(reader: BitReader, pps: PictureParameters, structure: str) -> tuple[int, int]:
    sps = pps.sequence
    both = pps.bottom_field_pic_order_in_frame_present and structure == "frame"
    if sps.pic_order_cnt_type == 0:
        return reader.u(sps.log2_max_pic_order_cnt_lsb), reader.se() if both else 0
    if sps.pic_order_cnt_type == 1 and not sps.delta_pic_order_always_zero:
        return reader.se(), reader.se() if both else 0
    return 0, 0


def _read_active_references(
    reader: BitReader, pps: PictureParameters, slice_type: int, structure: str
) -> tuple[int, int]:
    if slice_type == I:
        return 0, 0
    first, second = pps.num_ref_idx_default
    if reader.flag():
        first = 1 + reader.ue(31, "num_ref_idx_l0_active_minus1")
        if slice_type == B:
            second = 1 + reader.ue(31, "num_ref_idx_l1_active_minus1")
    if structure == "frame" and max(first, second if slice_type == B else 0) > 16:
        raise BitstreamError(f"slice header: {max(first, second)} active references; a frame has at most 16")
    return first, second if slice_type == B else 0


def _read_list_modification(reader: BitReader) -> Operations:
    """Read ref_pic_list_modification for one list (7.3.3.1)."""
    if not reader.flag():
        return ()
    operations: list[tuple[int, ...]] = []
    for _ in range(67):
        operation = reader.ue(3, "modification_of_pic_nums_idc")
        if operation == 3:
            return tuple(operations)
        operations.append((operation, reader.ue()))
    raise BitstreamError("slice header: the reference list modification does not end")


def _skip_weight_table(reader: BitReader, active: tuple[int, int], chroma: bool) -> None:
    """Skip pred_weight_table (7.3.3.2)."""
    reader.ue(7, "luma_log2_weight_denom")
    if chroma:
        reader.ue(7, "chroma_log2_weight_denom")
    for count in active:
        for _ in range(count):
            if reader.flag():
                reader.se()
                reader.se()
            if chroma and reader.flag():
                for _ in range(4):
                    reader.se()


def _read_reference_marking(reader: BitReader) -> Operations | None:
    """Read dec_ref_pic_marking of a non-IDR picture (7.3.3.3)."""
    if not reader.flag():
        return None
    operations: list[tuple[int, ...]] = []
    for _ in range(67):
        operation = reader.ue(6, "memory_management_control_operation")
        if operation == 0:
            return tuple(operations)
        values = () if operation == 5 else (reader.ue(), reader.ue()) if operation == 3 else (reader.ue(),)
        operations.append((operation, *values))
    raise BitstreamError("slice header: the reference marking does not end")
