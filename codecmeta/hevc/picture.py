"""Picture buffers while segments are read, and the planes and maps built from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codecmeta.hevc.picture_parameters import PictureParameters
from codecmeta.hevc.records import CELL, SLICE
from codecmeta.hevc.scaling_lists import scaling_factors
from codecmeta.hevc.sequence_parameters import SequenceParameters
from codecmeta.hevc.slice_header import SliceHeader
from codecmeta.hevc.tables import TABLES, tables
from codecmeta.record.picture_reading import PictureMaps, ResidualMoments, ResidualPlanes


@dataclass(frozen=True, kw_only=True)
class CodingUnitMaps(PictureMaps):
    """Maps of a picture from its headers and coding units; the bits of a unit of several cells are split evenly.

    Attributes:
        nal_type: nal_unit_type of its slices.
        temporal_id: TemporalId.
    """

    nal_type: int
    temporal_id: int


@dataclass(frozen=True, kw_only=True)
class PictureResidual(CodingUnitMaps, ResidualPlanes):
    """Picture with its residual samples."""


@dataclass(frozen=True, kw_only=True)
class PictureMoments(CodingUnitMaps, ResidualMoments):
    """Picture with block means of its residual."""


class Buffers:
    """Memory that compiled code reads and writes for pictures of one size; reused for every picture.

    Attributes:
        state: one record of type `SLICE`.
        planes: int16, Y, Cb and Cr of the coded size; only blocks marked in `marks` belong to the latest picture.
        marks: uint8 (3, ⌈height/8⌉, ⌈width/8⌉), 1 for each channel of an 8x8 luma block that has samples.
        cells: records of type `CELL`, (⌈height/16⌉, ⌈width/16⌉).
    """

    def __init__(self, sequence: SequenceParameters) -> None:
        width, height = sequence.width, sequence.height
        down, across = sequence.subsampling
        chroma = (height // down, width // across) if sequence.chroma_format_idc else (0, 0)
        self.state = np.zeros(1, SLICE)
        self.planes = tuple(np.zeros(shape, np.int16) for shape in ((height, width), chroma, chroma))
        self.marks = np.zeros((3, -(-height >> 3), -(-width >> 3)), np.uint8)
        self.cells = np.zeros((-(-height >> 4), -(-width >> 4)), CELL)
        rows, columns = sequence.size_in_ctbs
        self._ctb_slice = np.full(rows * columns, -1, np.int32)
        self._line = np.zeros(2 * (columns << (sequence.log2_ctb - 3)), np.uint8)
        self._coefficients, self._half = np.zeros(1024, np.int16), np.zeros(32, np.int16)
        self._layout: NDArray[np.int32] = np.zeros(0, np.int32)
        self._factors: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._parameters: PictureParameters | None = None
        self._place()
        self._fill_sequence(sequence)

    def _place(self) -> None:
        """Write the addresses of the arrays into the record."""
        state = self.state[0]
        state["cells"], state["cell_count"] = self.cells.ctypes.data, self.cells.size
        state["plane"] = [plane.ctypes.data for plane in self.planes]
        state["plane_size"] = [plane.size for plane in self.planes]
        state["marks"] = [marks.ctypes.data for marks in self.marks]
        state["mark_count"] = self.marks[0].size
        state["ctb_slice"] = self._ctb_slice.ctypes.data
        state["line"], state["line_size"] = self._line.ctypes.data, self._line.size
        state["coefficients"], state["half"] = self._coefficients.ctypes.data, self._half.ctypes.data
        address = tables().ctypes.data
        places: Mapping[str, Any] = TABLES.fields or {}
        for name in ("matrix_columns", "matrix_pairs"):
            state[name] = address + places[name][1]

    def _fill_sequence(self, sequence: SequenceParameters) -> None:
        state = self.state[0]
        chroma = sequence.chroma_format_idc
        state["chroma"] = chroma
        state["shift_y"], state["shift_x"] = (side - 1 for side in sequence.subsampling)
        state["width"], state["height"] = sequence.width, sequence.height
        state["depth"], state["qp_bd_offset"] = sequence.bit_depth, 6 * (sequence.bit_depth - 8)
        for name in ("log2_ctb", "log2_min_cb", "log2_min_tb", "log2_max_tb", "max_depth_inter", "max_depth_intra"):
            state[name] = getattr(sequence, name)
        state["height_ctbs"], state["width_ctbs"] = sequence.size_in_ctbs
        state["width_cells"], state["width_marks"] = self.cells.shape[1], self.marks.shape[2]
        state["amp"] = sequence.amp
        state["pcm"] = sequence.pcm is not None
        if sequence.pcm is not None:
            state["pcm_depth"] = sequence.pcm.depths
            state["pcm_log2_min"], state["pcm_log2_max"] = sequence.pcm.log2_min, sequence.pcm.log2_max
        extension = sequence.extension
        state["rotation"], state["skip_context"] = extension.transform_skip_rotation, extension.transform_skip_context
        state["implicit_rdpcm"], state["explicit_rdpcm"] = extension.implicit_rdpcm, extension.explicit_rdpcm
        state["persistent_rice"] = extension.persistent_rice

    def prepare(self, header: SliceHeader, number: int) -> None:
        """Copy the values of a slice's headers into the record.

        Args:
            header: of an independent slice segment.
            number: of the slice.
        """
        state = self.state[0]
        pps = header.parameters
        if pps is not self._parameters:
            self._fill_parameters(pps)
        state["number"] = number
        state["slice_type"] = header.slice_type
        initial = 2 - header.slice_type
        if initial and header.cabac_init_flag:
            initial = 3 - initial
        state["init_type"] = initial
        state["sao_luma"], state["sao_chroma"] = header.sao_luma, header.sao_chroma
        state["references"] = header.num_ref_idx_active
        state["mvd_l1_zero"] = header.mvd_l1_zero
        state["merge_candidates"] = header.max_merge_candidates
        state["slice_qp"] = header.slice_qp
        state["qp_offset"] = [a + b for a, b in zip(header.qp_offset, pps.qp_offset, strict=True)]
        state["chroma_offset_enabled"] = header.chroma_offset_enabled

    def _fill_parameters(self, pps: PictureParameters) -> None:
        self._parameters = pps
        state = self.state[0]
        bounds = [np.repeat(places[:-1], np.diff(places)) for places in (pps.columns, pps.rows)]
        ends = np.repeat(pps.columns[1:], np.diff(pps.columns))
        self._layout = np.concatenate([pps.tile_scan, bounds[0], ends, bounds[1]]).astype(np.int32)
        state["layout"], state["layout_size"] = self._layout.ctypes.data, self._layout.size
        state["scaling"] = pps.scaling is not None
        if pps.scaling is not None:
            self._factors = scaling_factors(pps.scaling)
            state["factors"] = self._factors.ctypes.data
        state["sign_hiding"] = pps.sign_data_hiding
        state["qp_delta_enabled"], state["log2_min_qp_delta"] = pps.cu_qp_delta, pps.log2_min_qp_delta
        state["bypass_enabled"] = pps.transquant_bypass
        state["tiles"], state["sync"] = pps.tiles, pps.entropy_coding_sync
        state["dependent_slices"] = pps.dependent_slices
        state["log2_max_skip"] = pps.log2_max_transform_skip
        state["cross_component"] = pps.cross_component_prediction
        state["offset_count"] = len(pps.chroma_offsets)
        for number, offsets in enumerate(pps.chroma_offsets):
            state["offset_list"][:, number] = offsets
        state["log2_min_chroma_offset"] = pps.log2_min_chroma_offset
