"""Clips as packets in presentation order, with what FFmpeg says about each picture."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from codecmeta.h264 import PictureResidual

CLIPS = Path(__file__).resolve().parents[2] / "data" / "h264"


@dataclass(frozen=True)
class Picture:
    """A picture as FFmpeg shows it: its packet, type, QP (base + delta) per macroblock, and decoded frame."""

    packet: bytes
    kind: str
    qp: NDArray[np.int64]
    frame: av.VideoFrame


def extradata(path: Path) -> bytes:
    with av.open(str(path)) as container:
        return bytes(container.streams.video[0].codec_context.extradata or b"")


def packets(path: Path) -> list[bytes]:
    """Packets in decoding order."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def pictures(path: Path) -> list[Picture]:
    """Pictures in presentation order."""
    shown = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        context.thread_type = "NONE"
        context.thread_count = 1
        context.copy_opaque = True
        context.options = {"export_side_data": "venc_params"}
        data = {}
        by_pts = {}
        for number, packet in enumerate(container.demux(stream)):
            if packet.size:
                data[number] = by_pts[packet.pts] = bytes(packet)
                # a fresh object: PyAV keeps tags by identity, and small integers are shared between decoders
                packet.opaque = (number,)
            for frame in packet.decode():
                own = data[frame.opaque[0]] if frame.opaque is not None else by_pts[frame.pts]
                kind = "?IPB"[frame.pict_type]
                shown.append(Picture(own, kind, _qp(bytes(frame.side_data.get("VIDEO_ENC_PARAMS"))), frame))
    return shown


def _qp(buffer: bytes) -> NDArray[np.int64]:
    (count,) = struct.unpack_from("<I", buffer)
    offset, size = struct.unpack_from("<QQ", buffer, 8)
    (base,) = struct.unpack_from("<i", buffer, 28)
    blocks = np.frombuffer(buffer, np.uint8, count * size, offset).reshape(count, size)
    x, y, _, _, delta = blocks[:, :20].copy().view("<i4").T
    qp = np.zeros((y.max() // 16 + 1, x.max() // 16 + 1), np.int64)
    qp[y // 16, x // 16] = base + delta
    return qp


def clipped(picture: PictureResidual) -> list[NDArray[np.int16]]:
    """Return the planes as the expectations have them: clipped to the range of a sample around mid-grey."""
    half = 1 << (picture.bit_depth[0] - 1)
    planes = (picture.y, picture.cb, picture.cr)
    return [np.clip(plane, -half, half - 1) for plane in planes if plane.size]


def digests(picture: PictureResidual) -> list[str]:
    return [hashlib.sha256(np.ascontiguousarray(plane, "<i2").tobytes()).hexdigest()[:16] for plane in clipped(picture)]
