"""Sequence and picture parameter sets (Rec. ITU-T H.264, 7.3.2.1, 7.3.2.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from codecmeta.entropy import chroma_format, parameter_sets
from codecmeta.entropy.bits import BitReader
from codecmeta.errors import BitstreamError
from codecmeta.h264.scaling import ScalingLists, default_lists, read_scaling_lists

MAX_LUMA_SAMPLES = 1 << 26
"""Largest picture that is read, in luma samples; the highest level, 6.2, allows about half, 139264 macroblocks."""

_WITH_CHROMA_FORMAT = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})


@dataclass(frozen=True, kw_only=True)
class SequenceParameters:
    """Fields of a sequence parameter set that residual and motion need; names as in 7.4.2.1.1.

    Attributes:
        gaps_allowed: gaps_in_frame_num_value_allowed_flag.
        order_offsets: offset_for_non_ref_pic and offset_for_top_to_bottom_field.
        order_cycle: offset_for_ref_frame of the frames of a cycle.
        crop: samples cut off at the left, right, top and bottom, in luma samples of the frame.
        scaling: the twelve scaling lists before any picture parameter set changes them.
        scaling_present: seq_scaling_matrix_present_flag, which selects the fall-back rule of picture parameter sets.
    """

    profile_idc: int
    chroma_format_idc: int
    separate_colour_plane: bool
    bit_depth_luma: int
    bit_depth_chroma: int
    transform_bypass: bool
    scaling: ScalingLists
    scaling_present: bool
    log2_max_frame_num: int
    pic_order_cnt_type: int
    log2_max_pic_order_cnt_lsb: int
    delta_pic_order_always_zero: bool
    order_offsets: tuple[int, int]
    order_cycle: tuple[int, ...]
    max_num_ref_frames: int
    gaps_allowed: bool
    width_mbs: int
    height_map_units: int
    frame_mbs_only: bool
    mb_adaptive_frame_field: bool
    direct_8x8_inference: bool
    crop: tuple[int, int, int, int]

    @property
    def chroma_array_type(self) -> int:
        """ChromaArrayType (7.4.2.1.1): 0 for monochrome and for separate colour planes."""
        return 0 if self.separate_colour_plane else self.chroma_format_idc

    @property
    def height_mbs(self) -> int:
        """FrameHeightInMbs."""
        return self.height_map_units if self.frame_mbs_only else 2 * self.height_map_units

    @cached_property
    def subsampling(self) -> tuple[int, int]:
        """SubHeightC and SubWidthC (Table 6-1); 1, 1 for monochrome."""
        return chroma_format.subsampling(self.chroma_format_idc)

    @cached_property
    def display_size(self) -> tuple[int, int]:
        """Height and width of the picture after cropping, in luma samples."""
        left, right, top, bottom = self.crop
        return self.height_mbs * 16 - top - bottom, self.width_mbs * 16 - left - right


@dataclass(frozen=True, kw_only=True)
class PictureParameters:
    """Fields of a picture parameter set that the residual needs; names as in 7.4.2.2."""

    sequence: SequenceParameters
    entropy_coding_mode: bool
    bottom_field_pic_order_in_frame_present: bool
    num_ref_idx_default: tuple[int, int]
    weighted_pred: bool
    weighted_bipred_idc: int
    pic_init_qp: int
    chroma_qp_index_offset: tuple[int, int]
    deblocking_filter_control_present: bool
    constrained_intra_pred: bool
    redundant_pic_cnt_present: bool
    transform_8x8_mode: bool
    scaling: ScalingLists


class ParameterSets(parameter_sets.ParameterSets[SequenceParameters, PictureParameters]):
    """Parameter sets of a stream, each parsed when a slice first needs it.

    Args:
        container_size: width and height that the container gives its pictures, see `crop_to_container`; None for
            streams without a container.
    """

    def __init__(self, *, container_size: tuple[int, int] | None = None) -> None:
        super().__init__(
            sequence_number=lambda rbsp: BitReader(rbsp[3:], "sequence parameter set").ue(31, "seq_parameter_set_id"),
            picture_number=picture_number,
            read_sequence=lambda rbsp: crop_to_container(read_sequence_parameters(rbsp), container_size),
            read_picture=read_picture_parameters,
        )


def picture_number(rbsp: bytes) -> int:
    """Return pic_parameter_set_id.

    Raises:
        BitstreamError: the data end before it.
    """
    return BitReader(rbsp, "picture parameter set").ue(255, "pic_parameter_set_id")


def crop_to_container(coded: SequenceParameters, size: tuple[int, int] | None) -> SequenceParameters:
    """Add the cropping of the container, as libavcodec does.

    The container decides within the last macroblock of rows and columns whose first samples are shown: a stream of
    864x480 without cropping in a container of 854x480 is shown as the latter.

    Args:
        coded: parameters as they are coded.
        size: width and height that the container gives its pictures.
    """
    left, _, top, _ = coded.crop
    if size is None or left or top:
        return coded
    height, width = coded.display_size
    fits = all(
        0 < want <= have and want > (have - 1) // 16 * 16 for want, have in zip(size, (width, height), strict=True)
    )
    if not fits:
        return coded
    return replace(coded, crop=(0, 16 * coded.width_mbs - size[0], 0, 16 * coded.height_mbs - size[1]))


def read_sequence_parameters(rbsp: bytes) -> SequenceParameters:
    """Parse seq_parameter_set_data (7.3.2.1.1) up to the VUI parameters, which are not needed.

    Raises:
        BitstreamError: a value is out of range, or the data end first.
    """
    reader = BitReader(rbsp, "sequence parameter set")
    profile = reader.u(8)
    reader.u(16)
    reader.ue(31, "seq_parameter_set_id")
    chroma_format, separate, depths, bypass = 1, False, (8, 8), False
    scaling, scaling_present = default_lists(flat=True), False
    if profile in _WITH_CHROMA_FORMAT:
        chroma_format = reader.ue(3, "chroma_format_idc")
        separate = chroma_format == 3 and reader.flag()
        depths = 8 + reader.ue(6, "bit_depth_luma_minus8"), 8 + reader.ue(6, "bit_depth_chroma_minus8")
        bypass = reader.flag()
        scaling_present = reader.flag()
        if scaling_present:
            count = 12 if chroma_format == 3 else 8
            scaling = read_scaling_lists(reader, count, default_lists(flat=False))
    log2_frame_num = 4 + reader.ue(12, "log2_max_frame_num_minus4")
    order_type = reader.ue(2, "pic_order_cnt_type")
    log2_order, order_zero, offsets = 0, False, (0, 0)
    cycle: tuple[int, ...] = ()
    if order_type == 0:
        log2_order = 4 + reader.ue(12, "log2_max_pic_order_cnt_lsb_minus4")
    elif order_type == 1:
        order_zero = reader.flag()
        offsets = reader.se(), reader.se()
        cycle = tuple(reader.se() for _ in range(reader.ue(255, "num_ref_frames_in_pic_order_cnt_cycle")))
    max_num_ref_frames = reader.ue(255, "max_num_ref_frames")
    gaps_allowed = reader.flag()
    width = 1 + reader.ue(1 << 16, "pic_width_in_mbs_minus1")
    height = 1 + reader.ue(1 << 16, "pic_height_in_map_units_minus1")
    frame_mbs_only = reader.flag()
    adaptive = not frame_mbs_only and reader.flag()
    direct_8x8 = reader.flag()
    parameters = SequenceParameters(
        profile_idc=profile,
        chroma_format_idc=chroma_format,
        separate_colour_plane=separate,
        bit_depth_luma=depths[0],
        bit_depth_chroma=depths[0] if separate else depths[1],
        transform_bypass=bypass,
        scaling=scaling,
        scaling_present=scaling_present,
        log2_max_frame_num=log2_frame_num,
        pic_order_cnt_type=order_type,
        log2_max_pic_order_cnt_lsb=log2_order,
        delta_pic_order_always_zero=order_zero,
        order_offsets=offsets,
        order_cycle=cycle,
        max_num_ref_frames=max_num_ref_frames,
        gaps_allowed=gaps_allowed,
        width_mbs=width,
        height_map_units=height,
        frame_mbs_only=frame_mbs_only,
        mb_adaptive_frame_field=adaptive,
        direct_8x8_inference=direct_8x8,
        crop=_read_crop(reader, chroma_format, separate, frame_mbs_only),
    )
    if parameters.width_mbs * parameters.height_mbs * 256 > MAX_LUMA_SAMPLES:
        raise BitstreamError(
            f"sequence parameter set: {width * 16}x{parameters.height_mbs * 16} samples exceed {MAX_LUMA_SAMPLES}"
        )
    if min(parameters.display_size) <= 0:
        raise BitstreamError("sequence parameter set: the cropping rectangle leaves nothing of the picture")
    return parameters


def _read_crop(
    reader: BitReader, chroma_format: int, separate: bool, frame_mbs_only: bool
) -> tuple[int, int, int, int]:
    if not reader.flag():
        return 0, 0, 0, 0
    unit_x = 2 if chroma_format in (1, 2) and not separate else 1
    unit_y = (2 if chroma_format == 1 else 1) * (1 if frame_mbs_only else 2)
    limit = 1 << 20
    left, right = (unit_x * reader.ue(limit, "a cropping offset") for _ in range(2))
    top, bottom = (unit_y * reader.ue(limit, "a cropping offset") for _ in range(2))
    return left, right, top, bottom


def read_picture_parameters(rbsp: bytes, sequence_of: Callable[[int], SequenceParameters]) -> PictureParameters:
    """Parse pic_parameter_set_rbsp (7.3.2.2).

    Args:
        rbsp: the parameter set's RBSP.
        sequence_of: returns the sequence parameter set of a number.

    Raises:
        BitstreamError: a value is out of range, the data end first, the sequence parameter set is missing, or
            the stream uses slice groups (`unsupported` names them).
    """
    reader = BitReader(rbsp, "picture parameter set")
    reader.ue(255, "pic_parameter_set_id")
    sequence = sequence_of(reader.ue(31, "seq_parameter_set_id"))
    entropy_coding_mode = reader.flag()
    order_present = reader.flag()
    if reader.ue(7, "num_slice_groups_minus1"):
        raise BitstreamError(
            "flexible macroblock ordering (several slice groups) is not supported",
            unsupported="flexible macroblock ordering",
        )
    references = 1 + reader.ue(31, "num_ref_idx_l0_default"), 1 + reader.ue(31, "num_ref_idx_l1_default")
    weighted_pred = reader.flag()
    weighted_bipred = reader.u(2)
    qp_offset = 6 * (sequence.bit_depth_luma - 8)
    init_qp = 26 + reader.se()
    if not -qp_offset <= init_qp <= 51:
        raise BitstreamError(f"picture parameter set: the initial QP {init_qp} is outside {-qp_offset}..51")
    reader.se()
    first = reader.se()
    deblocking, constrained_intra, redundant = reader.flag(), reader.flag(), reader.flag()
    transform_8x8, scaling, second = False, sequence.scaling, first
    if reader.more_rbsp_data():
        transform_8x8 = reader.flag()
        if reader.flag():
            fallback = sequence.scaling if sequence.scaling_present else default_lists(flat=False)
            count = 6 + (0 if not transform_8x8 else 6 if sequence.chroma_format_idc == 3 else 2)
            scaling = read_scaling_lists(reader, count, fallback)
        second = reader.se()
    for offset in (first, second):
        if not -12 <= offset <= 12:
            raise BitstreamError(f"picture parameter set: the chroma QP offset {offset} is outside -12..12")
    return PictureParameters(
        sequence=sequence,
        entropy_coding_mode=entropy_coding_mode,
        bottom_field_pic_order_in_frame_present=order_present,
        num_ref_idx_default=references,
        weighted_pred=weighted_pred,
        weighted_bipred_idc=weighted_bipred,
        pic_init_qp=init_qp,
        chroma_qp_index_offset=(first, second),
        deblocking_filter_control_present=deblocking,
        constrained_intra_pred=constrained_intra,
        redundant_pic_cnt_present=redundant,
        transform_8x8_mode=transform_8x8,
        scaling=scaling,
    )
