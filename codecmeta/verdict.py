"""Verdict about a file: whether all of it is there and what was read of it is sound."""

from __future__ import annotations

from typing import Any

import numpy as np

from codecmeta.container.completeness import State
from codecmeta.container.packets import PacketTable
from codecmeta.container.timeline import Timeline
from codecmeta.frame_table import DecodeCounts
from codecmeta.record.gop import split_gops


def describe_verdict(
    state: State, evidence: str, packets: PacketTable, timeline: Timeline, decoding: DecodeCounts
) -> dict[str, Any]:
    """State the verdict for `info`.

    Args:
        state: of the file, by the structure of its container.
        evidence: the observation behind it.
        packets: the packet table.
        timeline: the frames in presentation order.
        decoding: what decoding showed.
    """
    damaged = packets.corrupt + decoding.errors + decoding.corrupt + decoding.missing > 0
    return {
        "state": "damaged" if damaged else state,
        "evidence": evidence,
        "packets": int(packets.size.size),
        "gops": len(split_gops(packets.size, packets.key)),
        "frames": int(timeline.packet.size),
        "leading": timeline.leading,
        "hidden": int(np.count_nonzero(~packets.shown)),
        "field_pairs": int(np.count_nonzero(packets.second)),
        "corrupt_packets": packets.corrupt,
        "pictures_decoded": decoding.pictures,
        "decode_errors": decoding.errors,
        "corrupt_pictures": decoding.corrupt,
        "missing_frames": decoding.missing,
    }
