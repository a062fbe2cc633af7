"""Picture parameter sets (Rec. ITU-T H.265, 7.3.2.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from codecmeta.entropy.bits import BitReader
from codecmeta.errors import BitstreamError
from codecmeta.hevc.scaling_lists import ScalingLists, read_scaling_lists
from codecmeta.hevc.sequence_parameters import SequenceParameters, has_range_extension


@dataclass(frozen=True, kw_only=True)
class PictureParameters:
    """Fields of a picture parameter set that the residual needs; names as in 7.4.3.3.

    Attributes:
        sequence: the sequence parameter set that it refers to.
        scaling: scaling lists in force; None if scaling is flat.
        columns, rows: where the tile columns and rows begin, in coding tree blocks, and the end of the last.
        log2_min_qp_delta: Log2MinCuQpDeltaSize.
        log2_max_transform_skip: Log2MaxTransformSkipSize; 0 without transform skip.
        qp_offset: pps_cb_qp_offset and pps_cr_qp_offset.
        chroma_offsets: cb_qp_offset_list and cr_qp_offset_list in pairs; empty without lists.
        log2_min_chroma_offset: Log2MinCuChromaQpOffsetSize.
    """

    sequence: SequenceParameters
    scaling: ScalingLists | None
    dependent_slices: bool
    output_flag_present: bool
    extra_slice_header_bits: int
    sign_data_hiding: bool
    cabac_init_present: bool
    num_ref_idx_default: tuple[int, int]
    init_qp: int
    cu_qp_delta: bool
    log2_min_qp_delta: int
    qp_offset: tuple[int, int]
    slice_chroma_qp_offsets_present: bool
    weighted_pred: bool
    weighted_bipred: bool
    transquant_bypass: bool
    tiles: bool
    entropy_coding_sync: bool
    columns: tuple[int, ...]
    rows: tuple[int, ...]
    loop_filter_across_slices: bool
    deblocking_override: bool
    deblocking_disabled: bool
    lists_modification_present: bool
    slice_header_extension_present: bool
    log2_max_transform_skip: int
    cross_component_prediction: bool
    chroma_offsets: tuple[tuple[int, int], ...]
    log2_min_chroma_offset: int

    @cached_property
    def tile_scan(self) -> NDArray[np.int32]:
        """CtbAddrTsToRs (6-9): int32, raster addresses of the coding tree blocks in decoding order."""
        width = self.columns[-1]
        tiles = [
            (np.arange(top, bottom)[:, None] * width + np.arange(left, right)).reshape(-1)
            for top, bottom in zip(self.rows, self.rows[1:], strict=False)
            for left, right in zip(self.columns, self.columns[1:], strict=False)
        ]
        return np.concatenate(tiles).astype(np.int32)

    @cached_property
    def places(self) -> list[int]:
        """CtbAddrRsToTs (6-8): index in decoding order by raster address."""
        return [int(place) for place in np.argsort(self.tile_scan)]


def picture_number(rbsp: bytes) -> int:
    """Return pps_pic_parameter_set_id.

    Raises:
        BitstreamError: the data end before it.
    """
    return BitReader(rbsp, "picture parameter set").ue(63, "pps_pic_parameter_set_id")


def read_picture_parameters(rbsp: bytes, sequence_of: Callable[[int], SequenceParameters]) -> PictureParameters:
    """Parse pic_parameter_set_rbsp (7.3.2.3.1).

    Args:
        rbsp: the parameter set's RBSP.
        sequence_of: returns the sequence parameter set of a number.

    Raises:
        BitstreamError: a value is out of range, the data end first, the sequence parameter set is missing, or the
            stream uses a tool that is not supported (`unsupported` names it).
    """
    reader = BitReader(rbsp, "picture parameter set")
    reader.ue(63, "pps_pic_parameter_set_id")
    sequence = sequence_of(reader.ue(15, "pps_seq_parameter_set_id"))
    dependent_slices, output_flag_present = reader.flag(), reader.flag()
    extra_bits = reader.u(3)
    sign_data_hiding, cabac_init_present = reader.flag(), reader.flag()
    active = 1 + reader.ue(14, "num_ref_idx_l0_default_active_minus1"), 1 + reader.ue(14, "num_ref_idx_l1_default")
    init_qp = 26 + reader.se()
    # constrained_intra_pred_flag only affects prediction
    reader.skip(1)
    transform_skip = reader.flag()
    cu_qp_delta = reader.flag()
    depth = reader.ue(sequence.log2_ctb - sequence.log2_min_cb, "diff_cu_qp_delta_depth") if cu_qp_delta else 0
    offsets = _read_chroma_offset(reader)
    slice_offsets, weighted_pred, weighted_bipred, bypass, tiles, sync = (reader.flag() for _ in range(6))
    if tiles and sync:
        tool = "tiles with wavefront synchronisation"
        raise BitstreamError(f"{tool} are not supported", unsupported=tool)
    height, width = sequence.size_in_ctbs
    columns, rows = _read_tiles(reader, width, height) if tiles else ((0, width), (0, height))
    across_slices = reader.flag()
    override, disabled = _read_deblocking(reader) if reader.flag() else (False, False)
    scaling = sequence.scaling
    if reader.flag():
        lists = read_scaling_lists(reader, chroma_32=sequence.chroma_format_idc == 3)
        scaling = lists if scaling is not None else None
    lists_modification = reader.flag()
    reader.ue(4, "log2_parallel_merge_level_minus2")
    header_extension = reader.flag()
    extension = _read_extensions(reader, sequence, transform_skip)
    return PictureParameters(
        sequence=sequence,
        scaling=scaling,
        dependent_slices=dependent_slices,
        output_flag_present=output_flag_present,
        extra_slice_header_bits=extra_bits,
        sign_data_hiding=sign_data_hiding,
        cabac_init_present=cabac_init_present,
        num_ref_idx_default=active,
        init_qp=init_qp,
        cu_qp_delta=cu_qp_delta,
        log2_min_qp_delta=sequence.log2_ctb - depth,
        qp_offset=offsets,
        slice_chroma_qp_offsets_present=slice_offsets,
        weighted_pred=weighted_pred,
        weighted_bipred=weighted_bipred,
        transquant_bypass=bypass,
        tiles=tiles,
        entropy_coding_sync=sync,
        columns=columns,
        rows=rows,
        loop_filter_across_slices=across_slices,
        deblocking_override=override,
        deblocking_disabled=disabled,
        lists_modification_present=lists_modification,
        slice_header_extension_present=header_extension,
        log2_max_transform_skip=extension[0],
        cross_component_prediction=extension[1],
        chroma_offsets=extension[2],
        log2_min_chroma_offset=extension[3],
    )


def _read_chroma_offset(reader: BitReader) -> tuple[int, int]:
    offsets = reader.se(), reader.se()
    for value in offsets:
        if not -12 <= value <= 12:
            raise BitstreamError(f"picture parameter set: a chroma QP offset is {value}; -12 to 12 are allowed")
    return offsets


def _read_tiles(reader: BitReader, width: int, height: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Read where tile columns and rows begin, and the end of the last (6-3, 6-4)."""
    counts = 1 + reader.ue(width - 1, "num_tile_columns_minus1"), 1 + reader.ue(height - 1, "num_tile_rows_minus1")
    uniform = reader.flag()
    bounds = []
    for count, size in zip(counts, (width, height), strict=True):
        if uniform:
            places = [size * number // count for number in range(count + 1)]
        else:
            places = [0]
            for _ in range(count - 1):
                places.append(places[-1] + 1 + reader.ue(size, "a tile size"))
            places.append(size)
            if places[-2] >= size:
                raise BitstreamError("picture parameter set: the tiles are larger than the picture")
        bounds.append(tuple(places))
    reader.skip(1)
    return bounds[0], bounds[1]


def _read_deblocking(reader: BitReader) -> tuple[bool, bool]:
    """Read deblocking_filter_override_enabled_flag and pps_deblocking_filter_disabled_flag."""
    override, disabled = reader.flag(), reader.flag()
    if not disabled:
        reader.se()
        reader.se()
    return override, disabled


def _read_extensions(
    reader: BitReader, sequence: SequenceParameters, transform_skip: bool
) -> tuple[int, bool, tuple[tuple[int, int], ...], int]:
    """Read Log2MaxTransformSkipSize, cross-component prediction, chroma QP offsets and their minimum (7.3.2.3.2)."""
    largest = 2 if transform_skip else 0
    if not has_range_extension(reader):
        return largest, False, (), 0
    if transform_skip:
        largest = 2 + reader.ue(3, "log2_max_transform_skip_block_size_minus2")
    cross_component = reader.flag()
    offsets: tuple[tuple[int, int], ...] = ()
    log2_size = 0
    if reader.flag():
        deepest = sequence.log2_ctb - sequence.log2_min_cb
        log2_size = sequence.log2_ctb - reader.ue(deepest, "diff_cu_chroma_qp_offset_depth")
        count = 1 + reader.ue(5, "chroma_qp_offset_list_len_minus1")
        offsets = tuple([_read_chroma_offset(reader) for _ in range(count)])
    return largest, cross_component and sequence.chroma_format_idc == 3, offsets, log2_size
