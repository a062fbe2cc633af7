"""Orientation of a video from its headers: the first picture's SEI message, else the container's matrix."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from codecmeta.container.display_matrix import (
    Matrix,
    is_cut,
    read_display_orientation,
    read_picture_element,
    read_projection,
)
from codecmeta.container.packet_reader import read_payloads
from codecmeta.container.packets import PacketTable
from codecmeta.container.video import Video
from codecmeta.entropy.nal import remove_emulation_prevention, split_units
from codecmeta.entropy.sei import DISPLAY_ORIENTATION, split_messages
from codecmeta.errors import BitstreamError


def find_display_matrix(video: Video, packets: PacketTable) -> Matrix:
    """Find the display matrix of the first picture that can be decoded, as FFmpeg attaches it.

    Args:
        video: the opened video.
        packets: its packet table.
    """
    if video.codec in _SEI_UNITS:
        first = int(np.flatnonzero(packets.key)[0])
        payload = next(payload for _, payload in read_payloads(video, packets, [first]))
        for message in _orientation_messages(video, payload):
            try:
                matrix = read_display_orientation(message)
            except BitstreamError:
                continue
            if matrix is not None:
                return matrix
    if video.track is not None:
        return video.track.matrix
    return read_projection(_read_picture_element(video))


def is_cut_by_container(video: Video) -> bool:
    """Return whether the container asks players to cut rows or columns off the decoded pictures.

    That is a clean aperture (MP4, MOV) or PixelCrop (Matroska), in addition to the size that `Video` has.
    """
    if video.track is not None:
        return any(one.is_cut for one in video.track.descriptions)
    return is_cut(_read_picture_element(video))


def _read_picture_element(video: Video) -> bytes:
    """Read the payload of the Video element of a Matroska file; return b"" for other containers."""
    if "matroska" not in video.container.format.name:
        return b""
    place = [stream.index for stream in video.container.streams.video].index(video.stream.index)
    return read_picture_element(video.source, place)


def _orientation_messages(video: Video, payload: bytes) -> Iterator[bytes]:
    """Yield the display orientation messages of an access unit of H.264 or H.265."""
    extradata = bytes(video.stream.codec_context.extradata or b"")
    place, header, kinds = _SEI_UNITS[video.codec]
    length_size = (extradata[place] & 3) + 1 if len(extradata) > place and extradata[0] == 1 else 0
    try:
        for unit in split_units(payload, length_size):
            if unit[0] & kinds[0] == kinds[1]:
                for kind, message in split_messages(remove_emulation_prevention(unit[header:])):
                    if kind == DISPLAY_ORIENTATION:
                        yield message
    except BitstreamError:
        return


# offset of lengthSizeMinusOne in the configuration record (ISO/IEC 14496-15), bytes of a NAL unit's header, and which
# bits of its first byte mark an SEI message before the picture
_SEI_UNITS = {"h264": (4, 1, (0x1F, 6)), "hevc": (21, 2, (0x7E, 39 << 1))}
