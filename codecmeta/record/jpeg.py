"""JPEG pictures as the cached frames of a record: encoding, decoding, and the sizes in their headers.

Coding follows Rec. ITU-T T.81 (libjpeg-turbo, as OpenCV brings it). The bytes may come from anywhere: only pictures
that begin as a JPEG and whose frame header states 8-bit samples of three components reach the decoder, and their size
is known from that header before memory is taken.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from codecmeta.record.options import JpegQuality

RUNGS = (
    (90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    (90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
    (85, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
    (80, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
    (75, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
)
"""Qualities and chroma formats of `auto`, best first: see docs/format.md for what they cost. Only pictures full of
noise or fine detail take so many bytes that they are coded in another than the first."""

MOST_BYTES = 70_000
"""Bytes of a picture of 683x384 or less that `auto` aims at; larger ones may take as many per pixel."""
_AREA = 683 * 384

_START = b"\xff\xd8\xff"
# SOF0, SOF1, SOF2 (table B.1): sequential and progressive pictures with Huffman codes
_FRAME_HEADERS = (0xC0, 0xC1, 0xC2)
_SCAN = 0xDA
_PREFIX = 0xFF
_COMPONENTS = 3


def encode_frames(
    frames: NDArray[np.uint8], *, quality: JpegQuality, most_bytes: int = MOST_BYTES
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Encode RGB frames.

    Args:
        frames: uint8 (T, h, w, 3).
        quality: 1 to 100, or `auto`.
        most_bytes: see `MOST_BYTES`.

    Returns:
        Their bytes one after the other, uint8 (n,), and where each begins and the last ends, int64 (T + 1,).
    """
    rungs = RUNGS if quality == "auto" else ((quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),)
    height, width = frames.shape[1:3]
    most = most_bytes * max(1.0, height * width / _AREA)
    coded: list[NDArray[Any]] = []
    for frame in frames:
        for one, sampling in rungs:
            options = [cv2.IMWRITE_JPEG_QUALITY, one, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
            done, data = cv2.imencode(".jpg", frame[..., ::-1], options)
            if not done:
                raise ValueError(f"a frame of {frame.shape} cannot be coded as a JPEG")
            if data.size <= most:
                break
        coded.append(data.reshape(-1))
    offset = np.cumsum([0, *(data.size for data in coded)], dtype=np.int64)
    return np.concatenate(coded).astype(np.uint8, copy=False), offset


def decode_frames(data: NDArray[np.uint8], offset: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Decode RGB frames that `frames_shape` has accepted.

    Returns:
        uint8 (T, h, w, 3).

    Raises:
        ValueError: one cannot be decoded.
    """
    frames = np.empty(frames_shape(data, offset), np.uint8)
    for number, frame in enumerate(frames):
        coded = data[offset[number] : offset[number + 1]]
        picture = cv2.imdecode(coded, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if picture is None or picture.shape != frame.shape:
            raise ValueError(f"picture {number} cannot be decoded")
        frame[:] = picture[..., ::-1]
    return frames


def frames_shape(data: NDArray[np.uint8], offset: NDArray[np.int64]) -> tuple[int, int, int, int]:
    """Return T, h, w and 3 of coded frames, from their headers.

    Raises:
        ValueError: the offsets do not divide the bytes, a header is not that of a JPEG, or the sizes differ.
    """
    if offset[0] != 0 or offset[-1] != data.size or (offset[1:] < offset[:-1]).any():
        raise ValueError(f"the offsets must rise from 0 to {data.size}")
    sizes = {read_size(data[begin:end].tobytes()) for begin, end in pairwise(offset.tolist())}
    if len(sizes) > 1:
        raise ValueError(f"the pictures have {len(sizes)} sizes")
    height, width = sizes.pop() if sizes else (1, 1)
    return offset.size - 1, height, width, _COMPONENTS


def read_size(picture: bytes) -> tuple[int, int]:
    """Read height and width from the frame header of a JPEG (clause B.2.2).

    Raises:
        ValueError: it is none, or not of three components of 8 bits.
    """
    if not picture.startswith(_START):
        raise ValueError("a picture is not a JPEG")
    at = 2
    while at + 4 <= len(picture) and picture[at] == _PREFIX:
        kind, length = picture[at + 1], int.from_bytes(picture[at + 2 : at + 4], "big")
        if kind in _FRAME_HEADERS and at + 10 <= len(picture):
            bits, height, width, components = struct.unpack_from(">BHHB", picture, at + 4)
            if bits == 8 and components == _COMPONENTS and height and width:
                return height, width
            break
        if kind == _SCAN or length < 2:
            break
        at += 2 + length
    raise ValueError("a JPEG has no frame header of three 8-bit components")
