"""Sequence parameter sets (Rec. ITU-T H.265, 7.3.2.2)."""

from __future__ import annotations

from dataclasses import dataclass

from codecmeta.entropy import chroma_format
from codecmeta.entropy.bits import BitReader
from codecmeta.errors import BitstreamError
from codecmeta.hevc.reference_sets import ReferenceSet, read_reference_set
from codecmeta.hevc.scaling_lists import ScalingLists, default_lists, read_scaling_lists
from codecmeta.hevc.vui import skip_profile_tier_level, skip_vui

MAX_LUMA_SAMPLES = 1 << 26
"""Largest picture that is read, in luma samples; the highest level, 6.2, allows about half, 35651584 samples."""


@dataclass(frozen=True, kw_only=True)
class PcmParameters:
    """Sample depths of luma and chroma and range of block sizes of PCM coding units."""

    depths: tuple[int, int]
    log2_min: int
    log2_max: int


@dataclass(frozen=True, kw_only=True)
class RangeExtension:
    """Supported flags of sps_range_extension (7.3.2.2.2)."""

    transform_skip_rotation: bool = False
    transform_skip_context: bool = False
    implicit_rdpcm: bool = False
    explicit_rdpcm: bool = False
    persistent_rice: bool = False


@dataclass(frozen=True, kw_only=True)
class SequenceParameters:
    """Fields of a sequence parameter set that the residual needs; names as in 7.4.3.2.

    Attributes:
        crop: samples cut off at the left, right, top and bottom by the conformance window, in luma samples.
        scaling: scaling lists unless a picture parameter set has others; None if scaling is flat.
        long_term: lt_ref_pic_poc_lsb_sps entries, whether each is used by the current picture; None without long-term
            pictures.
        pcm: None without PCM coding units.
    """

    chroma_format_idc: int
    width: int
    height: int
    crop: tuple[int, int, int, int]
    bit_depth: int
    log2_max_poc_lsb: int
    log2_min_cb: int
    log2_ctb: int
    log2_min_tb: int
    log2_max_tb: int
    max_depth_inter: int
    max_depth_intra: int
    scaling: ScalingLists | None
    amp: bool
    sao: bool
    pcm: PcmParameters | None
    reference_sets: tuple[ReferenceSet, ...]
    long_term: tuple[bool, ...] | None
    temporal_mvp: bool
    extension: RangeExtension

    @property
    def subsampling(self) -> tuple[int, int]:
        """SubHeightC and SubWidthC (Table 6-1); 1, 1 for monochrome."""
        return chroma_format.subsampling(self.chroma_format_idc)

    @property
    def display_size(self) -> tuple[int, int]:
        """Height and width of the picture after cropping, in luma samples."""
        left, right, top, bottom = self.crop
        return self.height - top - bottom, self.width - left - right

    @property
    def size_in_ctbs(self) -> tuple[int, int]:
        """PicHeightInCtbsY and PicWidthInCtbsY."""
        return -(-self.height >> self.log2_ctb), -(-self.width >> self.log2_ctb)


def sequence_number(rbsp: bytes) -> int:
    """Return sps_seq_parameter_set_id.

    Raises:
        BitstreamError: the data end before it.
    """
    reader = BitReader(rbsp, "sequence parameter set")
    reader.skip(4)
    sub_layers = reader.u(3)
    reader.skip(1)
    skip_profile_tier_level(reader, sub_layers)
    return reader.ue(15, "sps_seq_parameter_set_id")


def read_sequence_parameters(rbsp: bytes) -> SequenceParameters:
    """Parse seq_parameter_set_rbsp (7.3.2.2.1).

    Raises:
        BitstreamError: a value is out of range, the data end first, or the stream uses a tool that is not
            supported (`unsupported` names it).
    """
    reader = BitReader(rbsp, "sequence parameter set")
    reader.skip(4)
    sub_layers = reader.u(3)
    reader.skip(1)
    skip_profile_tier_level(reader, sub_layers)
    reader.ue(15, "sps_seq_parameter_set_id")
    chroma_format, width, height, crop = _read_size(reader)
    depths = tuple(8 + reader.ue(8, f"bit_depth_{name}_minus8") for name in ("luma", "chroma"))
    log2_poc = 4 + reader.ue(12, "log2_max_pic_order_cnt_lsb_minus4")
    for _ in range(sub_layers + 1 if reader.flag() else 1):
        for _ in range(3):
            reader.ue()
    log2_min_cb, log2_ctb, log2_min_tb, log2_max_tb = _read_block_sizes(reader)
    deepest = log2_ctb - log2_min_tb
    depth_inter = reader.ue(deepest, "max_transform_hierarchy_depth_inter")
    depth_intra = reader.ue(deepest, "max_transform_hierarchy_depth_intra")
    scaling = None
    if reader.flag():
        scaling = read_scaling_lists(reader, chroma_32=chroma_format == 3) if reader.flag() else default_lists()
    amp, sao = reader.flag(), reader.flag()
    pcm = _read_pcm(reader, depths, log2_min_cb, min(log2_ctb, 5)) if reader.flag() else None
    sets: list[ReferenceSet] = []
    count = reader.ue(64, "num_short_term_ref_pic_sets")
    for index in range(count):
        sets.append(read_reference_set(reader, index, count, sets))
    long_term = None
    if reader.flag():
        long_term = tuple([reader.u(log2_poc + 1) & 1 == 1 for _ in range(reader.ue(32, "num_long_term_ref_pics_sps"))])
    temporal_mvp = reader.flag()
    reader.skip(1)
    if reader.flag():
        skip_vui(reader, sub_layers)
    extension = _read_extensions(reader)
    if depths[0] != depths[1] and chroma_format:
        tool = "different bit depths of luma and chroma"
        raise BitstreamError(f"{tool} ({depths[0]} and {depths[1]}) are not supported", unsupported=tool)
    if depths[0] > 12:
        tool = "bit depths above 12"
        raise BitstreamError(f"{tool} ({depths[0]}) are not supported", unsupported=tool)
    if width % (1 << log2_min_cb) or height % (1 << log2_min_cb):
        raise BitstreamError(f"sequence parameter set: {width}x{height} samples are not a multiple of coding blocks")
    parameters = SequenceParameters(
        chroma_format_idc=chroma_format,
        width=width,
        height=height,
        crop=crop,
        bit_depth=depths[0],
        log2_max_poc_lsb=log2_poc,
        log2_min_cb=log2_min_cb,
        log2_ctb=log2_ctb,
        log2_min_tb=log2_min_tb,
        log2_max_tb=log2_max_tb,
        max_depth_inter=depth_inter,
        max_depth_intra=depth_intra,
        scaling=scaling,
        amp=amp,
        sao=sao,
        pcm=pcm,
        reference_sets=tuple(sets),
        long_term=long_term,
        temporal_mvp=temporal_mvp,
        extension=extension,
    )
    if min(parameters.display_size) <= 0:
        raise BitstreamError("sequence parameter set: the conformance window leaves nothing of the picture")
    return parameters


def _read_size(reader: BitReader) -> tuple[int, int, int, tuple[int, int, int, int]]:
    """Read chroma_format_idc, picture size and conformance window, all in luma samples."""
    chroma_format = reader.ue(3, "chroma_format_idc")
    if chroma_format == 3 and reader.flag():
        raise BitstreamError("separate colour planes are not supported", unsupported="separate colour planes")
    width, height = (reader.ue(1 << 16, f"pic_{name}_in_luma_samples") for name in ("width", "height"))
    if not 0 < width * height <= MAX_LUMA_SAMPLES:
        raise BitstreamError(f"sequence parameter set: {width}x{height} samples; 1 to {MAX_LUMA_SAMPLES} are allowed")
    crop = (0, 0, 0, 0)
    if reader.flag():
        unit_x, unit_y = 1 + (chroma_format in (1, 2)), 1 + (chroma_format == 1)
        left, right = (unit_x * reader.ue(width, "a conformance window offset") for _ in range(2))
        top, bottom = (unit_y * reader.ue(height, "a conformance window offset") for _ in range(2))
        crop = left, right, top, bottom
    return chroma_format, width, height, crop


def _read_block_sizes(reader: BitReader) -> tuple[int, int, int, int]:
    """Read log2 sizes of the smallest coding block, the coding tree block, the smallest and largest transform block."""
    min_cb = 3 + reader.ue(3, "log2_min_luma_coding_block_size_minus3")
    ctb = min_cb + reader.ue(3, "log2_diff_max_min_luma_coding_block_size")
    min_tb = 2 + reader.ue(3, "log2_min_luma_transform_block_size_minus2")
    max_tb = min_tb + reader.ue(3, "log2_diff_max_min_luma_transform_block_size")
    if not (4 <= ctb <= 6 and min_tb < min_cb and max_tb <= min(ctb, 5)):
        raise BitstreamError(
            f"sequence parameter set: coding blocks of 2^{min_cb} to 2^{ctb} with transform blocks of 2^{min_tb} to "
            f"2^{max_tb} are not allowed"
        )
    return min_cb, ctb, min_tb, max_tb


def _read_pcm(reader: BitReader, depths: tuple[int, ...], log2_min_cb: int, largest: int) -> PcmParameters:
    luma, chroma = 1 + reader.u(4), 1 + reader.u(4)
    log2_min = 3 + reader.ue(2, "log2_min_pcm_luma_coding_block_size_minus3")
    log2_max = log2_min + reader.ue(2, "log2_diff_max_min_pcm_luma_coding_block_size")
    reader.skip(1)
    if luma > depths[0] or chroma > depths[1] or log2_max > largest:
        raise BitstreamError(
            f"sequence parameter set: PCM samples of {luma} and {chroma} bits in blocks of up to 2^{log2_max} are not "
            f"allowed at {depths[0]} and {depths[1]} bits and blocks of up to 2^{largest}"
        )
    return PcmParameters(depths=(luma, chroma), log2_min=max(log2_min, log2_min_cb), log2_max=log2_max)


def has_range_extension(reader: BitReader) -> bool:
    """Read the extension flags of a parameter set (7.3.2.2.1, 7.3.2.3.1); return whether its range extension follows.

    The data of other extensions come last and are not needed.

    Raises:
        BitstreamError: the screen content extension is used.
    """
    if not reader.flag():
        return False
    present = reader.flag()
    reader.skip(2)
    if reader.flag():
        raise BitstreamError("screen content coding is not supported", unsupported="screen content coding")
    reader.skip(4)
    return present


def _read_extensions(reader: BitReader) -> RangeExtension:
    """Read the extension flags and sps_range_extension."""
    if not has_range_extension(reader):
        return RangeExtension()
    rotation, context, implicit, explicit, extended = (reader.flag() for _ in range(5))
    # intra_smoothing_disabled_flag and high_precision_offsets_enabled_flag only affect prediction
    reader.skip(2)
    rice, alignment = reader.flag(), reader.flag()
    for present, tool in ((extended, "extended precision processing"), (alignment, "CABAC bypass alignment")):
        if present:
            raise BitstreamError(f"{tool} is not supported", unsupported=tool)
    return RangeExtension(
        transform_skip_rotation=rotation,
        transform_skip_context=context,
        implicit_rdpcm=implicit,
        explicit_rdpcm=explicit,
        persistent_rice=rice,
    )
