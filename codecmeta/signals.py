"""Signals of a record: the source of each, or the reason for its absence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codecmeta.container.packet_pictures import PacketPictures, reads_picture_headers
from codecmeta.container.packets import PacketTable
from codecmeta.frame_table import ARRAYS, Absent, Column, FrameTable, Held

_UNKNOWN_QP = -128
_MAX_REASONS = 100
_FILLED: dict[Column, int] = {"qp": _UNKNOWN_QP, "residual": 0, "innovation": 0}
"""Signals that may lack rows, and the fill value of those: a map without energy, which merges nothing."""


def describe_signals(
    table: FrameTable,
    packets: PacketTable,
    pictures: PacketPictures | None,
    *,
    codec: str,
    payloads: bool,
    scanned: bool,
) -> dict[str, dict[str, Any]]:
    """Describe the source of every signal of a record, or the reason for its absence.

    Args:
        table: the data read of the sampled frames.
        packets: the packet table.
        pictures: the packets' pictures as headers describe them.
        codec: libav's name.
        payloads: whether more than packets is requested.
        scanned: whether the headers of all packets were read.

    Returns:
        Per signal an object with `source` or `absent`.
    """
    signals: dict[str, dict[str, Any]] = {
        "packets": {"source": "container index" if packets.origin == "index" else "demuxing"},
        "packet_type": {"absent": _explain_no_types(codec, payloads=payloads, scanned=scanned)}
        if pictures is None
        else {"source": "headers"},
    }
    for column in ("frames", "innovation", "carried", "mb_bits", "mb_type", "motion", "qp"):
        signals[column] = _describe(table, column)
    for name in ("innovation", "carried"):
        if "source" in signals[name]:
            along = signals[name]
            signals[name] = _describe(table, "residual") | _list_reasons(table)
            if name == "carried":
                signals[name]["along"] = along
                if table.decoding.gaps:
                    signals[name]["pictures_not_read"] = table.decoding.gaps
    return signals


def _explain_no_types(codec: str, *, payloads: bool, scanned: bool) -> str:
    """Explain why the types of the packets' pictures, and which are shown, are unknown."""
    if not reads_picture_headers(codec):
        return f"{codec}: headers are read only of H.264, HEVC, VP8, VP9 and AV1"
    if not payloads:
        return "no payload is read where only packets of an index are requested"
    if not scanned:
        return "the file was read by ranges, without the headers of all packets; copy it to have them read"
    return "the index does not give the positions of the NAL units"


def _describe(table: FrameTable, column: Column) -> dict[str, Any]:
    """Describe the source of one column, or the reason for its absence."""
    cells = table.cells(column)
    absent = [cell for cell in cells if isinstance(cell, Absent)]
    held = [cell.origin for cell in cells if isinstance(cell, Held)]
    partial = column == "motion" or column in _FILLED
    if absent and not (held and partial):
        reason = absent[0].reason
        return {"absent": f"{reason} ({len(absent)} of {len(cells)} frames)" if held else reason}
    if column == "qp":
        return name_origin(held) | {"unknown_frames": len(absent)}
    unknown = [row for row, cell in enumerate(cells) if isinstance(cell, Absent)]
    signal = name_origin(held)
    if unknown and "per_frame" in signal:
        signal["per_frame"] = [cell.origin if isinstance(cell, Held) else "unknown" for cell in cells]
    return signal | ({"unknown_frames": unknown} if unknown else {})


def _list_reasons(table: FrameTable) -> dict[str, Any]:
    """List why sources refused to read some rows, if any did."""
    reasons: dict[str, list[int]] = {}
    for row, packet in enumerate(table.packets):
        for name, reason in table.refusals[packet].items():
            reasons.setdefault(f"{name}: {reason}", []).append(row)
    listed = [{"reason": reason, "frames": rows} for reason, rows in list(reasons.items())[:_MAX_REASONS]]
    return {"reasons": listed} if listed else {}


def name_origin(names: Sequence[str]) -> dict[str, Any]:
    """Return one source for all frames, or the source of each."""
    return {"source": names[0]} if len(set(names)) == 1 else {"source": "mixed", "per_frame": list(names)}


def list_arrays(table: FrameTable, signals: dict[str, dict[str, Any]]) -> dict[str, NDArray[Any]]:
    """List the optional arrays of all signals that are present.

    Args:
        table: the data read of the sampled frames.
        signals: of the same table.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for column in ARRAYS:
        arrays |= table.arrays(column, fill=_FILLED.get(column))
    if "source" in signals["motion"]:
        empty = np.zeros((0, 7), np.int16)
        vectors = [table.vectors.get(packet, empty) for packet in table.packets]
        arrays["mv_offset"] = np.concatenate([[0], np.cumsum([len(part) for part in vectors])]).astype(np.int64)
        arrays["mv"] = np.concatenate(vectors)
    return arrays
