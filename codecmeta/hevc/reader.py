"""Residual reader of single pictures, from their packets only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from codecmeta.entropy.parameter_sets import ParameterSets
from codecmeta.entropy.slice_bits import PADDING
from codecmeta.errors import BitstreamError, UsageError
from codecmeta.hevc import faults, nal
from codecmeta.hevc.picture import Buffers, PictureMoments, PictureResidual
from codecmeta.hevc.picture_parameters import picture_number, read_picture_parameters
from codecmeta.hevc.sequence_parameters import SequenceParameters, read_sequence_parameters, sequence_number
from codecmeta.hevc.slice_data import read_segment
from codecmeta.hevc.slice_header import SliceHeader, read_slice_header
from codecmeta.hevc.tables import tables
from codecmeta.record.cell_moments import CellMoments
from codecmeta.record.energy import BlockEnergy, Residual, measure_energy
from codecmeta.record.picture_bits import PictureBits, picture_type


@dataclass(kw_only=True)
class CodedPicture:
    """Picture while its slice segments are read, and until the next one is.

    Attributes:
        header: of the latest segment.
        kind: nal_unit_type of its segments.
        temporal_id: TemporalId.
        buffers: its memory.
        covered: number of coding tree units coded by the segments read so far.
        slice_types: types of the slices in order of first appearance.
    """

    header: SliceHeader
    kind: int
    temporal_id: int
    buffers: Buffers
    covered: int = 0
    slice_types: list[str] = field(default_factory=list)

    @property
    def sequence(self) -> SequenceParameters:
        """Its sequence parameter set."""
        return self.header.parameters.sequence


class ResidualReader:
    """Reader of the residual that an HEVC encoder wrote, one picture at a time, from that picture's packet only.

    No other picture is needed: entropy decoding, scaling and inverse transform of a picture depend only on its own
    slice segments and the parameter sets. Pictures may be read in any order. A reader serves one thread at a time.

    Args:
        extradata: the container's codec private data: an HEVC configuration record, parameter sets with start codes,
            or nothing if the packets contain parameter sets.

    Attributes:
        length_size: bytes of the length before each NAL unit, see `codecmeta.entropy.nal.list_bounds`.
        sets: parameter sets seen so far.

    Raises:
        BitstreamError: `extradata` is corrupt.
    """

    def __init__(self, extradata: bytes = b"") -> None:
        self.sets = ParameterSets(
            sequence_number=sequence_number,
            picture_number=picture_number,
            read_sequence=read_sequence_parameters,
            read_picture=read_picture_parameters,
        )
        self.length_size, units = nal.read_extradata(extradata)
        self._number = 0
        self._buffers: Buffers | None = None
        self._sequence: SequenceParameters | None = None
        self._tables = tables()
        self.store(units)

    def observe(self, packet: bytes) -> None:
        """Store the parameter sets of a packet whose picture is not read.

        Raises:
            BitstreamError: the packet is corrupt.
        """
        self.store(nal.split(packet, self.length_size, slices=False))

    def store(self, units: Iterable[nal.NalUnit]) -> None:
        """Store the parameter sets among NAL units."""
        for unit in units:
            if unit.layer == 0 and unit.kind == nal.SPS:
                self.sets.store_sequence(unit.rbsp())
            elif unit.layer == 0 and unit.kind == nal.PPS:
                self.sets.store_picture(unit.rbsp())

    def read(self, packet: bytes) -> PictureResidual:
        """Read a picture's residual planes.

        Raises:
            BitstreamError: the data are corrupt, cut short, do not cover the picture, or use a tool that is not
                supported.
        """
        picture = self.decode(packet)
        y, cb, cr = self._planes(picture)
        return PictureResidual(y=y, cb=cb, cr=cr, **self._maps(picture))

    def measure(self, packet: bytes, *, block: Literal[4, 8] | None, cells: bool = False) -> PictureMoments:
        """Read a picture and reduce its residual to block means.

        Args:
            packet: the picture's packet.
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
            cells=CellMoments.from_energy(self._energy(picture, 4)) if cells else None,
            **self._maps(picture),
        )

    def count_bits(self, packet: bytes) -> PictureBits:
        """Read a picture and count the bits of its coding tree units.

        Raises:
            BitstreamError: as `read`.
        """
        picture = self.decode(packet)
        return PictureBits(
            type=picture_type(tuple(picture.slice_types)),
            size=(picture.sequence.height, picture.sequence.width),
            log2_unit=picture.sequence.log2_ctb,
            cells=picture.buffers.cells["bits"].astype(np.int32),
        )

    def _energy(self, picture: CodedPicture, block: int) -> BlockEnergy:
        """Measure block means, from the coded blocks if nothing is cropped left or above, else from the planes."""
        sequence = picture.sequence
        left, _, top, _ = sequence.crop
        if left or top:
            return measure_energy(self._planes(picture), block=block)
        (height, width), (v, u) = sequence.display_size, sequence.subsampling
        luma, cb, cr = picture.buffers.planes
        tall, wide = -(-height // v), -(-width // u)
        marks = np.ascontiguousarray(picture.buffers.marks[:, : -(-height // 8), : -(-width // 8)])
        return measure_energy((luma[:height, :width], cb[:tall, :wide], cr[:tall, :wide]), block=block, coded=marks)

    def decode(self, packet: bytes, *, learn: bool = True) -> CodedPicture:
        """Read the slice segments of a picture.

        Args:
            packet: the picture's packet.
            learn: store its parameter sets; not if later packets have been seen, whose sets may have replaced them.

        Raises:
            BitstreamError: as `read`.
        """
        picture: CodedPicture | None = None
        index = 0
        for unit in nal.split(bytes(packet), self.length_size):
            if unit.layer:
                continue
            if unit.is_slice:
                picture = self._decode_segment(unit, picture, index)
                index += 1
            elif learn:
                self.store([unit])
        if picture is None:
            raise BitstreamError("the packet contains no slice of a picture")
        height, width = picture.sequence.size_in_ctbs
        if picture.covered < height * width:
            raise BitstreamError(
                f"the slices of the packet do not cover the picture: {picture.covered} of {height * width} coding tree "
                "units are coded",
                macroblock=picture.covered,
            )
        return picture

    def _decode_segment(self, unit: nal.NalUnit, picture: CodedPicture | None, index: int) -> CodedPicture:
        rbsp = unit.rbsp()
        header = read_slice_header(rbsp, unit.kind, self.sets.picture, picture.header if picture else None)
        if picture is None:
            if not header.first:
                raise BitstreamError(f"slice segment 0 starts at coding tree unit {header.address}; 0 is expected")
            picture = self._begin(unit, header)
        elif header.first:
            raise BitstreamError(f"slice segment {index} begins another picture", slice_index=index)
        first = header.parameters.places[header.address]
        if first != picture.covered:
            raise BitstreamError(
                f"slice segment {index} starts at coding tree unit {first} in decoding order, {picture.covered} is "
                "expected",
                slice_index=index,
            )
        if header.parameters.sequence is not picture.sequence or unit.kind != picture.kind:
            raise BitstreamError(f"slice segment {index} belongs to another picture than segment 0", slice_index=index)
        if not header.dependent:
            self._number += 1
            picture.buffers.prepare(header, self._number)
            name = "BPI"[header.slice_type]
            if name not in picture.slice_types:
                picture.slice_types.append(name)
        picture.header = header
        data = np.frombuffer(rbsp + bytes(PADDING), np.uint8)
        fault, count, ctb = read_segment(
            picture.buffers.state, self._tables, data, first, header.data_position, int(header.dependent)
        )
        picture.covered += count
        if fault:
            raise BitstreamError(
                f"slice segment {index}, coding tree unit {ctb}: {faults.MESSAGES[fault]}",
                slice_index=index,
                macroblock=ctb,
            )
        return picture

    def _begin(self, unit: nal.NalUnit, header: SliceHeader) -> CodedPicture:
        sequence = header.parameters.sequence
        if self._buffers is None or sequence is not self._sequence:
            self._buffers = Buffers(sequence)
            self._sequence = sequence
        self._buffers.marks[:] = 0
        return CodedPicture(header=header, kind=unit.kind, temporal_id=unit.temporal_id, buffers=self._buffers)

    def _planes(self, picture: CodedPicture) -> Residual:
        sequence = picture.sequence
        left, _, top, _ = sequence.crop
        height, width = sequence.display_size
        planes = []
        for number, plane in enumerate(picture.buffers.planes):
            v, u = sequence.subsampling if number else (1, 1)
            marks = picture.buffers.marks[number].repeat(8 // v, 0).repeat(8 // u, 1)
            whole = np.where(marks[: plane.shape[0], : plane.shape[1]], plane, 0)
            shown = whole[top // v : -(-(top + height) // v), left // u : -(-(left + width) // u)]
            planes.append(np.ascontiguousarray(shown, np.int16))
        return planes[0], planes[1], planes[2]

    def _maps(self, picture: CodedPicture) -> dict[str, Any]:
        sequence = picture.sequence
        left, _, top, _ = sequence.crop
        height, width = sequence.display_size
        cells = picture.buffers.cells[top >> 4 :, left >> 4 :][: -(-height >> 4), : -(-width >> 4)]
        return {
            "size": sequence.display_size,
            "slice_types": tuple(picture.slice_types),
            "bit_depth": (sequence.bit_depth, sequence.bit_depth),
            "chroma_format": sequence.chroma_format_idc,
            "nal_type": picture.kind,
            "temporal_id": picture.temporal_id,
            "mb_type": cells["kind"].copy(),
            "qp": cells["qp"].copy(),
            "mb_bits": np.minimum(cells["bits"], 65535).astype(np.uint16),
        }
