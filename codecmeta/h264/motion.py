"""Motion of frames from their packets, decoding only what the vectors depend on.

The vectors of a P frame depend on its own packet, those of a B frame also on the motion of one reference frame. Headers
identify that frame, so that frames in between are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from codecmeta.errors import BitstreamError
from codecmeta.h264 import faults, nal
from codecmeta.h264.motion_vectors import derive_motion
from codecmeta.h264.picture_order import PictureOrder
from codecmeta.h264.reader import CodedPicture, ResidualReader
from codecmeta.h264.reference_pictures import ReferencePicture, ReferencePictures
from codecmeta.h264.slice_header import B, SliceHeader, read_slice_header
from codecmeta.h264.vector_prediction import MOTION_SLICE
from codecmeta.h264.vector_table import MOST_ROWS, fill_table

_HEADER_BYTES = 4096
"""Bytes of a slice that contain any header."""

_MOST_WAITING = 8
"""Frames in a chain that may wait to be read for one another."""


@dataclass(frozen=True, kw_only=True)
class MotionArrays:
    """Motion of a frame by list and 4x4 block in raster order, n blocks in all.

    Attributes:
        reference: int8 (2, n), reference index, -1 where the list is not used.
        vector: int32 (2, n), in quarter samples, x in the lower and y in the upper half; 0 where the list is not used.
        picture: int32 (2, n / 4), number of the frame that an 8x8 block is predicted from, -1 where the list is not
            used or the frame is not known.
    """

    reference: NDArray[np.int8]
    vector: NDArray[np.int32]
    picture: NDArray[np.int32]

    @classmethod
    def empty(cls, blocks: int) -> MotionArrays:
        """Return a frame of so many 4x4 blocks that is not predicted from others."""
        return cls(
            reference=np.full((2, blocks), -1, np.int8),
            vector=np.zeros((2, blocks), np.int32),
            picture=np.full((2, blocks // 4), -1, np.int32),
        )


@dataclass(kw_only=True, eq=False)
class FrameMotion:
    """Frame whose references are known, and its motion once it has been read.

    Attributes:
        number: index among the frames that were followed.
        order: PicOrderCnt.
        headers: of its slices.
        states: the record `MOTION_SLICE` of each slice: its reference lists when it was followed.
        co_located: first frame of list 1 of each slice, the source of direct prediction; no other frame is kept, so
            that frames which are no longer references can be freed.
        packet: its bytes, until it was read or found to be unreadable.
        arrays: its motion; None before it was read.
        waits: frames that must be read first, in order.
    """

    number: int
    order: int
    headers: list[SliceHeader]
    states: list[NDArray[np.void]] = field(default_factory=list)
    co_located: list[FrameMotion | None] = field(default_factory=list)
    packet: bytes = b""
    arrays: MotionArrays | None = None
    waits: int = 0

    @property
    def is_waiting(self) -> bool:
        """Whether it can still be read."""
        return self.arrays is None and bool(self.packet)

    def known(self) -> MotionArrays:
        """Return its motion once it is no longer waiting.

        Raises:
            BitstreamError: it could not be read.
        """
        if self.arrays is None:
            raise BitstreamError("its motion, or that of a frame it depends on, could not be read before")
        return self.arrays

    def settle(self, arrays: MotionArrays | None) -> None:
        """Store its motion, None if it cannot be read, and release the data needed to read it."""
        self.arrays, self.packet, self.states, self.co_located, self.waits = arrays, b"", [], [], 0


_References = Sequence[ReferencePicture[FrameMotion] | None]
_NOWHERE = MotionArrays.empty(0)


class MotionReader:
    """Reader of the motion of frames of one stream; all packets are passed in decode order.

    Packets of frames that are no references may be omitted, unless their motion is requested.

    Args:
        reader: reads the packets; opened with `motion`.
    """

    def __init__(self, reader: ResidualReader) -> None:
        self._reader = reader
        self._number = 0
        self._room = np.empty((0, 7), np.int16)
        self.restart()

    def restart(self) -> None:
        """Forget all frames: the next packet need not follow the last one."""
        self._order = PictureOrder()
        self._references: ReferencePictures[FrameMotion] = ReferencePictures()
        self._lost = False

    @property
    def references(self) -> set[int]:
        """Return the numbers of the frames that later ones may refer to."""
        return {one.content.number for one in self._references if one.content is not None}

    def follow(self, packet: bytes) -> FrameMotion:
        """Determine what a frame may refer to, and make it available to later ones.

        Raises:
            BitstreamError: a header is corrupt, or the picture is not a frame of frame macroblocks. Until the next IDR
                picture, B frames cannot be followed; the same holds where a gap in frame_num shows that frames are
                missing.
        """
        try:
            headers = self._read_headers(packet)
            first = headers[0]
            gap = not first.parameters.sequence.gaps_allowed and self._references.missing(first)
            self._lost = not first.idr and (self._lost or bool(gap))
            if self._lost and any(header.slice_type == B for header in headers):
                raise BitstreamError("earlier frames, which it may refer to, are unknown")
            order = self._order.count(first)
        except BitstreamError:
            self._lost = True
            raise
        self._number += 1
        frame = FrameMotion(number=self._number, order=order, headers=headers, packet=packet)
        self._references.begin(first)
        for header in headers:
            lists = self._references.lists(header, order)
            later = lists[1][0] if lists[1] else None
            frame.states.append(_describe(header, lists, order, self._reader.x264_build))
            frame.co_located.append(None if later is None else later.content)
        frame.waits = max((1 + one.waits for one in frame.co_located if one and one.is_waiting), default=0)
        self._references.end(first, order, frame)
        if frame.waits > _MOST_WAITING:
            with suppress(BitstreamError):
                self.read(frame)
        return frame

    def prepare(self, frame: FrameMotion) -> None:
        """Read the frames whose motion that of a frame depends on.

        Raises:
            BitstreamError: one of them is corrupt.
        """
        for one in frame.co_located:
            if one is not None and one.arrays is None:
                self.read(one)

    def read(self, frame: FrameMotion) -> MotionArrays:
        """Read the motion of a frame from its packet.

        Raises:
            BitstreamError: the packet, or one that it depends on, is corrupt.
        """
        if not frame.is_waiting:
            return frame.known()
        try:
            self.prepare(frame)
            return self.derive(frame, self._reader.decode(frame.packet, learn=False))
        except BitstreamError:
            frame.settle(None)
            raise

    def derive(self, frame: FrameMotion, coded: CodedPicture) -> MotionArrays:
        """Derive the motion of a prepared frame from its macroblocks.

        Raises:
            BitstreamError: the picture is not the frame that was followed, or takes motion from a missing one.
        """
        if not frame.is_waiting:
            return frame.known()
        buffers = coded.parts[False, 0]
        same = len(coded.slices) == len(frame.headers) and coded.header.parameters is frame.headers[0].parameters
        if not same or not coded.is_plain:
            raise BitstreamError("its motion cannot be followed: parameter sets have changed, or it begins elsewhere")
        arrays = MotionArrays.empty(16 * buffers.count)
        for (number, _), state, co_located in zip(coded.slices, frame.states, frame.co_located, strict=True):
            state["number"] = number
            col = (co_located and co_located.arrays) or _NOWHERE
            fault, mb = derive_motion(
                buffers.macroblocks,
                buffers.motion,
                state,
                arrays.reference,
                arrays.vector,
                arrays.picture,
                (col.reference, col.vector, col.picture),
            )
            if fault:
                raise BitstreamError(f"macroblock {mb}: {faults.MESSAGES[fault]}", macroblock=mb)
        frame.settle(arrays)
        return arrays

    def list_vectors(self, arrays: MotionArrays, coded: CodedPicture) -> NDArray[np.int16]:
        """List the vectors of a picture as a table.

        Args:
            arrays: its motion.
            coded: its macroblocks.

        Returns:
            int16 (n, 7): x, y of the block's upper left luma sample, its w and h, dx and dy in quarter samples,
            direction -1 for list 0 and 1 for list 1. Macroblocks in raster order, list 0 before list 1 in each.
        """
        buffers = coded.parts[False, 0]
        if len(self._room) < MOST_ROWS * buffers.count:
            self._room = np.empty((MOST_ROWS * buffers.count, 7), np.int16)
        width = coded.sequence.width_mbs
        rows = fill_table(buffers.macroblocks, buffers.motion, arrays.reference, arrays.vector, width, self._room)
        return self._room[:rows].copy()

    def _read_headers(self, packet: bytes) -> list[SliceHeader]:
        """Read the headers of all slices except redundant ones."""
        headers: list[SliceHeader] = []
        for unit in nal.split(packet, self._reader.length_size, slice_bytes=_HEADER_BYTES):
            if unit.kind in (nal.SLICE, nal.IDR_SLICE):
                header = read_slice_header(unit.rbsp(), unit.kind, unit.ref_idc, self._reader.sets)
                if header.structure != "frame" or header.mbaff:
                    raise BitstreamError("motion of fields is not supported", unsupported="interlaced motion")
                if not header.redundant_pic_cnt:
                    headers.append(header)
            else:
                self._reader.store([unit])
        if not headers:
            raise BitstreamError("the packet contains no slice of a picture")
        return headers


def _describe(
    header: SliceHeader, lists: tuple[_References, _References], order: int, x264_build: int | None
) -> NDArray[np.void]:
    """Return the record `MOTION_SLICE` of a slice, without its number."""
    state = np.zeros(1, MOTION_SLICE)
    record = state[0]
    sequence = header.parameters.sequence
    record["first_mb"], record["order"] = header.first_mb, order
    record["spatial"], record["direct8x8"] = header.direct_spatial, sequence.direct_8x8_inference
    record["old_direct"] = x264_build is not None and x264_build <= 33
    record["width"] = sequence.width_mbs
    record["picture"] = -1
    for index, pictures in enumerate(lists):
        for place, picture in enumerate(pictures):
            if picture is not None:
                record["picture"][index, place] = picture.content.number if picture.content else -1
                record["picture_order"][index, place] = picture.order
                record["long_term"][index, place] = picture.long_term is not None
    return state
