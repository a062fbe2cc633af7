"""Side data of a decoded picture: samples, motion vectors and quantisers.

The readers copy what they need, so nothing returned keeps a decoder buffer alive. Read vectors and quantisers only
from decoders without frame threading: FFmpeg fills the side data when a frame is output, and another thread may still
be writing it.
"""

from __future__ import annotations

import struct
from typing import Any, TypeAlias

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from numpy.typing import NDArray

from codecmeta.errors import UsageError
from codecmeta.simd.numba_cache import kernel

Samples: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
Planes: TypeAlias = tuple[Samples, Samples, Samples]
"""Y, Cb, Cr of one picture, C-contiguous; Cb and Cr are (0, 0) for monochrome."""

_PLANAR = {
    **dict.fromkeys(("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray"), 8),
    **{f"{name}{bits}le": bits for name in ("yuv420p", "yuv422p", "yuv444p", "gray") for bits in (9, 10, 12, 14)},
}
"""Pixel formats that `planes` reads, with their bit depth."""


def bit_depth(frame: av.VideoFrame) -> int:
    """Return the bits per sample of a decoded picture.

    Raises:
        UsageError: the pixel format has no separate Y, Cb and Cr planes.
    """
    depth = _PLANAR.get(frame.format.name)
    if depth is None:
        raise UsageError(
            f"pixel format {frame.format.name!r} has no planar Y, Cb, Cr samples; allowed: {', '.join(_PLANAR)}"
        )
    return depth


def views(frame: av.VideoFrame) -> Planes:
    """Return the samples of a decoded picture in the decoder's own buffer, to be read before the frame is released.

    Returns:
        Y (H, W), Cb, Cr: read-only, uint8 for 8 bit, else uint16; each row is contiguous, the rows may not be.

    Raises:
        UsageError: the pixel format is not planar YCbCr or gray.
    """
    depth = bit_depth(frame)
    dtype = np.dtype(np.uint8) if depth == 8 else np.dtype("<u2")
    read: list[Samples] = []
    for plane in frame.planes[:3]:
        lines: Any = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, plane.line_size // dtype.itemsize)
        lines.setflags(write=False)
        read.append(lines[:, : plane.width])
    while len(read) < 3:
        read.append(np.empty((0, 0), dtype))
    return read[0], read[1], read[2]


def planes(frame: av.VideoFrame) -> Planes:
    """Return a copy of the samples of a decoded picture.

    Returns:
        Y (H, W), Cb, Cr: as `views`, but contiguous copies, which may be kept while the decoder reuses its buffers.

    Raises:
        UsageError: the pixel format is not planar YCbCr or gray.
    """
    y, cb, cr = views(frame)
    return y.copy(), cb.copy(), cr.copy()


def _side_data(frame: av.VideoFrame) -> Any:
    """Return the side data that the decoder attached to a picture.

    Not ``frame.side_data``, which puts the frame in a reference cycle: hundreds of pictures would stay in memory until
    Python's garbage collector runs.
    """
    container: Any = SideDataContainer
    return container(frame)


def display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    """Return a decoded picture's display rotation and mirroring, see display_matrix.py; None without a matrix."""
    data = _side_data(frame).get("DISPLAYMATRIX")
    return None if data is None else struct.unpack("<9i", bytes(data))


def vectors(frame: av.VideoFrame) -> NDArray[np.int16] | None:
    """Return the motion vectors of a decoded picture, in decoder order (macroblock raster, list 0 before list 1).

    Returns:
        (n, 7) int16: x, y of the block's top-left luma sample in coded orientation, its w and h, dx and dy in
        quarter samples (the prediction lies at x + dx/4, y + dy/4), direction -1 for list 0 and +1 for list 1.
        A bi-predicted block has two rows, an intra block none. None when the decoder attached no vectors. A
        vector beyond int16 is clipped to it.

    FFmpeg gives block centres and a scale of 2, 4 or 8 steps per sample (libavutil/motion_vector.h). It exports
    H.264 partitions below 8x8 as one 8x8 block, no reference index, and, where a picture's 8x8, 16x8 or
    8x16 partitions use different lists, a zero vector for the list that a partition does not use.
    """
    data = _side_data(frame).get("MOTION_VECTORS")
    return None if data is None else parse_vectors(data.to_ndarray())


def parse_vectors(exported: NDArray[np.void]) -> NDArray[np.int16] | None:
    """Return `vectors` of an array of AVMotionVector records; None if it is empty."""
    if len(exported) == 0:
        return None
    table = np.empty((len(exported), 7), np.int16)
    _fill_vectors(exported, table)
    return table


@kernel()
def _fill_vectors(exported: Any, table: NDArray[np.int16]) -> None:
    least, most = np.int64(-(2**15)), np.int64(2**15 - 1)
    for i in range(len(exported)):
        one = exported[i]
        table[i, 0] = one.dst_x - (one.w >> 1)
        table[i, 1] = one.dst_y - (one.h >> 1)
        table[i, 2] = one.w
        table[i, 3] = one.h
        scale = max(np.int64(one.motion_scale), np.int64(1))
        table[i, 4] = min(max(np.int64(one.motion_x) * 4 // scale, least), most)
        table[i, 5] = min(max(np.int64(one.motion_y) * 4 // scale, least), most)
        table[i, 6] = -1 if one.source < 0 else 1


_PARAMETERS = struct.Struct("<IxxxxQQiiii")  # nb_blocks, blocks_offset, block_size, type, qp, delta_qp[0][0..1]


def quantisers(frame: av.VideoFrame, width: int, height: int) -> NDArray[np.int8] | None:
    """Return the luma quantiser of each macroblock (QP of H.264, quantiser_scale of the MPEG family).

    Args:
        frame: decoded picture.
        width: luma samples per row of the map.
        height: luma rows of the map.

    Returns:
        (⌈height/16⌉, ⌈width/16⌉) int8; None when the decoder gave no block table, or one that does not cover the
        picture in 16x16 blocks (VP9). Rows that MBAFF adds are dropped.
    """
    data = _side_data(frame).get("VIDEO_ENC_PARAMS")
    if data is None:
        return None
    buffer = np.frombuffer(data, np.uint8)
    return parse_quantisers(buffer, width=width, height=height)


def parse_quantisers(buffer: NDArray[np.uint8], *, width: int, height: int) -> NDArray[np.int8] | None:
    """Return `quantisers` of the bytes of an AVVideoEncParams (libavutil/video_enc_params.h, 64-bit layout)."""
    if len(buffer) < _PARAMETERS.size:
        return None
    count, offset, size, _, base, *_ = _PARAMETERS.unpack_from(buffer.data)
    rows, cols = -(-height // 16), -(-width // 16)
    if count < rows * cols or size < 20 or offset + count * size > len(buffer) or offset % 4 or size % 4:
        return None
    # AVVideoBlockParams: int src_x, src_y, w, h, delta_qp
    blocks = buffer[offset : offset + count * size].view(np.int32).reshape(count, size // 4)
    table = np.zeros((rows, cols), np.int8)
    known = np.zeros((rows, cols), np.bool_)
    return table if _fill_quantisers(blocks, base, table, known) and known.all() else None


@kernel()
def _fill_quantisers(blocks: NDArray[np.int32], base: int, table: NDArray[np.int8], known: NDArray[np.bool_]) -> bool:
    """Enter all whole 16x16 blocks; return False if the quantiser of one does not fit int8."""
    rows, cols = table.shape
    for i in range(len(blocks)):
        x, y = blocks[i, 0], blocks[i, 1]
        if blocks[i, 2] != 16 or blocks[i, 3] != 16 or (x | y) & 15 or not (0 <= y < rows * 16 and 0 <= x < cols * 16):
            continue
        value = np.int64(base) + np.int64(blocks[i, 4])
        if value < -128 or value > 127:
            return False
        table[y >> 4, x >> 4] = value
        known[y >> 4, x >> 4] = True
    return True
