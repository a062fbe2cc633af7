"""Residual reader of single pictures, from their packets only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from codecmeta.entropy.slice_bits import PADDING
from codecmeta.errors import BitstreamError, UsageError
from codecmeta.h264 import faults, nal
from codecmeta.h264.encoder_build import find_x264_build
from codecmeta.h264.moments import measure_blocks, measure_moments
from codecmeta.h264.parameter_sets import ParameterSets, PictureParameters, SequenceParameters
from codecmeta.h264.picture import (
    Buffers,
    PictureMoments,
    PictureResidual,
    Structure,
    macroblock_order,
    subsampled,
)
from codecmeta.h264.picture_layout import fill_maps, fill_plane, first_uncovered
from codecmeta.h264.records import SLICE
from codecmeta.h264.scaling import level_scale
from codecmeta.h264.slice_data import read_slice
from codecmeta.h264.slice_header import I, SliceHeader, read_slice_header
from codecmeta.h264.tables import tables
from codecmeta.record.cell_moments import CellMoments, measure_cells
from codecmeta.record.energy import BlockEnergy, Residual, measure_energy
from codecmeta.record.picture_bits import PictureBits, picture_type


@dataclass(kw_only=True)
class CodedPicture:
    """Picture while its slices are read, and until the next one is.

    Attributes:
        header: of its first slice.
        structure: how its macroblocks are arranged.
        first_number: number of its first slice.
        slices: number and header of every slice.
        slice_types: types of the slices in order of first appearance.
        parts: its buffers, by (bottom field, colour plane).
        latest: where the latest slice began, likewise.
    """

    header: SliceHeader
    structure: Structure
    first_number: int
    slices: list[tuple[int, SliceHeader]] = field(default_factory=list)
    slice_types: list[str] = field(default_factory=list)
    parts: dict[tuple[bool, int], Buffers] = field(default_factory=dict)
    latest: dict[tuple[bool, int], int] = field(default_factory=dict)

    @property
    def sequence(self) -> SequenceParameters:
        """Its sequence parameter set."""
        return self.header.parameters.sequence

    @property
    def is_plain(self) -> bool:
        """Whether it is a progressive frame, shown from its first sample on, whose planes are coded together."""
        left, _, top, _ = self.sequence.crop
        return self.structure == "frame" and not (left or top or self.sequence.separate_colour_plane)


class ResidualReader:
    """Reader of the residual that an H.264 encoder wrote, one picture at a time, from that picture's packet only.

    No other picture is needed: entropy decoding, scaling and inverse transform of a picture depend only on its own
    slices and the parameter sets. Pictures may be read in any order. A reader serves one thread at a time.

    Args:
        extradata: the container's codec private data: an AVC configuration record, parameter sets with start
            codes, or nothing if the packets contain parameter sets.
        motion: keep the motion syntax of the pictures, for `MotionReader`.
        container_size: width and height that the container gives its pictures, which may crop them further.

    Attributes:
        length_size: bytes of the length before each NAL unit, see `codecmeta.entropy.nal.list_bounds`.
        sets: parameter sets seen so far.
        latest: the picture that was read last.
        x264_build: of the encoder, where it was seen to be stated. Streams of some old builds depart from the standard,
            and are read as they were meant.

    Raises:
        BitstreamError: `extradata` is corrupt.
    """

    def __init__(
        self, extradata: bytes = b"", *, motion: bool = False, container_size: tuple[int, int] | None = None
    ) -> None:
        self.sets = ParameterSets(container_size=container_size)
        self.latest: CodedPicture | None = None
        self.x264_build: int | None = None
        self._motion = motion
        self.length_size, units = nal.read_extradata(extradata)
        self._slice = np.zeros(1, SLICE)
        self._number = 0
        self._buffers: dict[tuple[bool, int], Buffers] = {}
        self._geometry: tuple[SequenceParameters, Structure] | None = None
        self._parameters: PictureParameters | None = None
        self._others: tuple[Structure, int, bool] | None = None
        self._tables = tables()
        self._orders: dict[Structure, NDArray[np.int32]] = {}
        self.store(units)

    def observe(self, packet: bytes) -> None:
        """Store the parameter sets of a packet whose picture is not read.

        Raises:
            BitstreamError: the packet is corrupt.
        """
        self.store(nal.split(packet, self.length_size, slice_bytes=0))

    def read(self, packet: bytes | Sequence[bytes]) -> PictureResidual:
        """Read a picture's residual planes.

        Args:
            packet: the picture's packet, or the two packets of its two fields.

        Raises:
            BitstreamError: the data are corrupt, cut short, do not cover the picture, or use a tool that is not
                supported.
        """
        picture = self.decode(packet)
        y, cb, cr = self._planes(picture)
        return PictureResidual(y=y, cb=cb, cr=cr, **self._maps(picture))

    def measure(
        self, packet: bytes | Sequence[bytes], *, block: Literal[4, 8] | None, cells: bool = False
    ) -> PictureMoments:
        """Read a picture and reduce its residual to block means.

        Args:
            packet: as for `read`.
            block: luma samples per block side of the energy; None omits it.
            cells: also measure the moments of 4x4 cells.

        Raises:
            BitstreamError: as `read`.
        """
        if block not in (4, 8, None):
            raise UsageError(f"block is {block!r}; choose from 4, 8, None")
        picture = self.decode(packet)
        return PictureMoments(
            energy=self._energy(picture, block) if block else None,
            cells=self._cells(picture) if cells else None,
            **self._maps(picture),
        )

    def count_bits(self, packet: bytes | Sequence[bytes]) -> PictureBits:
        """Read a picture and count the bits of its macroblocks.

        Args:
            packet: as for `read`.

        Raises:
            BitstreamError: as `read`.
        """
        picture = self.decode(packet)
        sequence = replace(picture.sequence, crop=(0, 0, 0, 0))
        order = macroblock_order(sequence, picture.structure)
        return PictureBits(
            type=picture_type(tuple(picture.slice_types)),
            size=sequence.display_size,
            log2_unit=4,
            cells=self._macroblocks(picture)["bits"][order],
        )

    def _macroblocks(self, picture: CodedPicture) -> NDArray[np.void]:
        """Return all macroblocks of a picture, those of a bottom field last."""
        mbs = picture.parts[False, 0].macroblocks
        return np.concatenate([mbs, picture.parts[True, 0].macroblocks]) if picture.structure == "field" else mbs

    def _energy(self, picture: CodedPicture, block: int) -> BlockEnergy:
        if picture.is_plain:
            return measure_blocks(picture.parts[False, 0], picture.sequence, block=block)
        return measure_energy(self._planes(picture), block=block)

    def _cells(self, picture: CodedPicture) -> CellMoments:
        if picture.is_plain:
            return measure_moments(picture.parts[False, 0], picture.sequence)
        return measure_cells(self._planes(picture))

    def store(self, units: Iterable[nal.NalUnit]) -> None:
        """Store the parameter sets among NAL units, and the build of the encoder."""
        for unit in units:
            if unit.kind == nal.SPS:
                self.sets.store_sequence(unit.rbsp())
            elif unit.kind == nal.PPS:
                self.sets.store_picture(unit.rbsp())
            elif unit.kind == nal.SEI and (build := find_x264_build(unit.rbsp())) is not None:
                self.x264_build = build

    def decode(self, packet: bytes | Sequence[bytes], *, learn: bool = True) -> CodedPicture:
        """Read the slices of a picture.

        Args:
            packet: as for `read`.
            learn: store its parameter sets; not if later packets have been seen, whose sets may have replaced them.

        Raises:
            BitstreamError: as `read`.
        """
        picture: CodedPicture | None = None
        index = 0
        for part in (packet,) if isinstance(packet, bytes | bytearray | memoryview) else packet:
            for unit in nal.split(bytes(part), self.length_size):
                if unit.kind in (nal.SLICE, nal.IDR_SLICE):
                    picture = self._decode_slice(unit, picture, index)
                    index += 1
                elif nal.PARTITION_A <= unit.kind <= nal.PARTITION_C:
                    raise BitstreamError("data partitioning is not supported", unsupported="data partitioning")
                elif learn:
                    self.store([unit])
        if picture is None:
            raise BitstreamError("the packet contains no slice of a picture")
        self._check_cover(picture)
        self.latest = picture
        return picture

    def _decode_slice(self, unit: nal.NalUnit, picture: CodedPicture | None, index: int) -> CodedPicture:
        rbsp = unit.rbsp()
        header = read_slice_header(rbsp, unit.kind, unit.ref_idc, self.sets)
        if header.redundant_pic_cnt:
            if picture is None:
                raise BitstreamError("a redundant coded picture has no primary picture", slice_index=index)
            return picture
        self._number += 1
        if picture is None:
            picture = self._begin(header)
        self._check_same_picture(header, picture, index)
        picture.slices.append((self._number, header))
        name = "PBI"[header.slice_type]
        if name not in picture.slice_types:
            picture.slice_types.append(name)
        key = (header.structure == "bottom", header.colour_plane)
        if key not in self._buffers:
            self._buffers[key] = Buffers(picture.sequence, picture.structure == "field", motion=self._motion)
        buffers = self._buffers[key]
        if key not in picture.parts:
            picture.parts[key] = buffers
            buffers.used = buffers.covered = 0
        first_mb = header.first_mb << header.mbaff
        if first_mb < picture.latest.get(key, 0):
            raise BitstreamError(
                f"slice {index} starts before the previous one: arbitrary slice order is not supported",
                slice_index=index,
                unsupported="arbitrary slice order",
            )
        picture.latest[key] = first_mb
        if first_mb >= buffers.count:
            raise BitstreamError(
                f"slice {index} starts at macroblock {first_mb}; the picture has {buffers.count}", slice_index=index
            )
        self._prepare(header, picture)
        values = (
            self._number,
            picture.first_number,
            first_mb,
            header.slice_type,
            header.slice_qp,
            0 if header.slice_type == I else 1 + header.cabac_init_idc,
            *header.num_ref_idx_active,
            header.data_position,
            buffers.used,
        )
        data = np.frombuffer(rbsp + bytes(PADDING), np.uint8)
        fault, mb, covered, buffers.used = read_slice(
            self._slice, buffers.macroblocks, buffers.motion, data, self._tables, buffers.samples, values
        )
        buffers.covered += covered
        if fault:
            raise BitstreamError(
                f"slice {index}, macroblock {mb}: {faults.MESSAGES[fault]}", slice_index=index, macroblock=mb
            )
        return picture

    def _begin(self, header: SliceHeader) -> CodedPicture:
        sequence = header.parameters.sequence
        structure: Structure = "mbaff" if header.mbaff else "frame" if header.structure == "frame" else "field"
        geometry = (sequence, structure)
        if geometry != self._geometry:
            self._buffers.clear()
            self._orders.clear()
            self._geometry = geometry
        return CodedPicture(header=header, structure=structure, first_number=self._number)

    def _check_same_picture(self, header: SliceHeader, picture: CodedPicture, index: int) -> None:
        first = picture.header
        if header.parameters.sequence is not first.parameters.sequence:
            raise BitstreamError(f"slice {index} uses another sequence parameter set than slice 0", slice_index=index)
        if (header.structure == "frame") != (first.structure == "frame") or header.frame_num != first.frame_num:
            raise BitstreamError(f"slice {index} belongs to another picture than slice 0", slice_index=index)

    def _prepare(self, header: SliceHeader, picture: CodedPicture) -> None:
        """Copy the parameter sets' values into the slice record, unless they are there already."""
        old_flags = self.x264_build is not None and self.x264_build < 151
        others = (picture.structure, header.colour_plane, old_flags)
        if header.parameters is self._parameters and others == self._others:
            return
        self._parameters, self._others = header.parameters, others
        state = self._slice[0]
        pps, sps = header.parameters, picture.sequence
        state["scale4"], state["scale8"] = level_scale(pps.scaling)
        state["cabac"] = pps.entropy_coding_mode
        state["mbaff"] = header.mbaff
        state["field_picture"] = picture.structure == "field"
        state["chroma"] = sps.chroma_array_type
        state["width"] = sps.width_mbs
        state["transform8x8_mode"] = pps.transform_8x8_mode
        state["direct8x8"] = sps.direct_8x8_inference
        state["constrained_intra"] = pps.constrained_intra_pred
        state["lossless"] = sps.transform_bypass
        state["depth_luma"] = sps.bit_depth_luma
        state["depth_chroma"] = sps.bit_depth_chroma
        state["qp_offset"] = (6 * (sps.bit_depth_luma - 8), *pps.chroma_qp_index_offset)
        state["scale_list"] = header.colour_plane
        state["old_8x8_flags"] = old_flags

    def _check_cover(self, picture: CodedPicture) -> None:
        fields = (False, True) if picture.structure == "field" else (False,)
        for bottom in fields:
            for plane in range(3 if picture.sequence.separate_colour_plane else 1):
                buffers = picture.parts.get((bottom, plane))
                if buffers is None or buffers.covered < buffers.count:
                    missing = first_uncovered(buffers.macroblocks, picture.first_number) if buffers else 0
                    which = ("bottom field, " if bottom else "top field, ") if len(fields) == 2 else ""
                    raise BitstreamError(
                        f"the slices of the packet do not cover the picture: {which}macroblock {missing} is missing",
                        macroblock=missing,
                    )

    def _planes(self, picture: CodedPicture) -> Residual:
        sequence = picture.sequence
        chroma_shape = subsampled(sequence.display_size, sequence.subsampling)
        if sequence.chroma_format_idc == 0:
            chroma_shape = (0, 0)
        planes = (
            np.zeros(sequence.display_size, np.int16),
            np.zeros(chroma_shape, np.int16),
            np.zeros(chroma_shape, np.int16),
        )
        for (bottom, colour_plane), buffers in picture.parts.items():
            for plane in range(3 if sequence.chroma_array_type else 1):
                v, u = sequence.subsampling if plane else (1, 1)
                fill_plane(
                    planes[plane or colour_plane],
                    buffers.macroblocks,
                    buffers.samples,
                    plane,
                    4 // u,
                    4 // v,
                    sequence.width_mbs,
                    picture.structure == "mbaff",
                    int(bottom) if picture.structure == "field" else -1,
                    sequence.crop[2] // v,
                    sequence.crop[0] // u,
                )
        return planes

    def _maps(self, picture: CodedPicture) -> dict[str, Any]:
        sequence = picture.sequence
        order = self._orders.get(picture.structure)
        if order is None:
            order = self._orders[picture.structure] = macroblock_order(sequence, picture.structure)
        mbs = self._macroblocks(picture)
        mb_type, qp = np.empty(order.shape, np.uint8), np.empty(order.shape, np.int8)
        cbp, bits = np.empty(order.shape, np.uint16), np.empty(order.shape, np.uint16)
        fill_maps(mbs, order, mb_type, qp, cbp, bits)
        return {
            "size": sequence.display_size,
            "slice_types": tuple(picture.slice_types),
            "bit_depth": (sequence.bit_depth_luma, sequence.bit_depth_chroma),
            "chroma_format": sequence.chroma_format_idc,
            "structure": picture.structure,
            "ref_idc": picture.header.ref_idc,
            "mb_type": mb_type,
            "qp": qp,
            "cbp": cbp,
            "mb_bits": bits,
        }
