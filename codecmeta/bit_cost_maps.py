"""Bit costs of sampled frames in the format that front ends of codec-trained models take."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from codecmeta import h264, hevc
from codecmeta.container.packet_reader import read_payloads
from codecmeta.container.packets import read_packets
from codecmeta.container.video import open_video
from codecmeta.decoding.presentation import order_frames
from codecmeta.errors import SourceError
from codecmeta.record.limits import Limits
from codecmeta.record.picture_bits import PictureBits
from codecmeta.record.sampling import choose_frames, parse_frames

_READERS = {"h264": h264.ResidualReader, "hevc": hevc.ResidualReader}


def bit_costs(
    source: str | os.PathLike[str], *, frames: str | Sequence[int] = "uniform:32", limits: Limits | None = None
) -> list[dict[str, Any]]:
    """Count the bits of macroblocks or coding tree units of some frames; nothing is decoded.

    The result has the keys that `codec_video_prep.cv_reader_fast.read_video_fast_selected` of codec-video-prep 0.2.5
    returns with `export_bitcost=1`. Its counts are in whole bytes; these are exact.

    Args:
        source: the file, H.264 or HEVC.
        frames: `uniform:N`, `fps:R`, `keyframes`, `all`, or indices in presentation order.
        limits: the largest demands that the video may make, None for the defaults of `Limits`.

    Returns:
        One object per frame, in presentation order: `frame_idx`, `pict_type` ("I", "P", "B"), `width`, `height`,
        `codec_name`, and `bitcost`. That has `sub_mb_bit_cost`, float32 bits of 4x4 blocks, spread evenly over 16x16
        samples, with `sub_width`, `sub_height`, `sub_stride`; for H.264 `mb_bit_cost`, int32 (mb_height, mb_stride),
        including a last column of zeros, with `mb_width`; for HEVC `ctu_bit_cost`, int32 (ctb_height, ctb_width), with
        `ctb_stride` and `log2_ctb_size`.

    Raises:
        UsageError: `frames` is not allowed or selects no frame.
        SourceError: the file cannot be read, is of another codec, or one of the pictures cannot be read.
    """
    wanted = parse_frames(frames)
    with open_video(source, limits or Limits()) as video:
        if video.codec not in _READERS:
            raise SourceError("no_signal", f"bit costs are read from {' and '.join(_READERS)}, not from {video.codec}")
        packets = read_packets(video)
        timeline = order_frames(video, packets)
        base = float(video.stream.time_base or 1)
        chosen = choose_frames(wanted, timeline.pts.astype(np.float64) * base, packets.key[timeline.packet])
        reader = _READERS[video.codec](bytes(video.stream.codec_context.extradata or b""))
        counted = {
            number: reader.count_bits(payload)
            for number, payload in read_payloads(video, packets, timeline.packet[chosen].tolist())
        }
        return [
            {
                "frame_idx": int(place),
                "pict_type": counted[int(packet)].type,
                "width": video.width,
                "height": video.height,
                "codec_name": video.codec,
                "bitcost": _lay_out(video.codec, counted[int(packet)]),
            }
            for place, packet in zip(chosen, timeline.packet[chosen], strict=True)
        ]


def _lay_out(codec: str, bits: PictureBits) -> dict[str, Any]:
    units, small = bits.units(), bits.small_blocks()
    rows, columns = units.shape
    shared = {
        "sub_mb_bit_cost": small,
        "sub_width": small.shape[1],
        "sub_height": small.shape[0],
        "sub_stride": small.shape[1],
    }
    if codec == "h264":
        padded = np.zeros((rows, columns + 1), np.int32)
        padded[:, :columns] = units
        return {"mb_bit_cost": padded, "mb_width": columns, "mb_height": rows, "mb_stride": columns + 1, **shared}
    return {
        "ctu_bit_cost": units,
        "ctb_width": columns,
        "ctb_height": rows,
        "ctb_stride": columns,
        "log2_ctb_size": bits.log2_unit,
        **shared,
    }
