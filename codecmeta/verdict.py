"""Verdict on a file: whether it is complete and what was read of it is sound."""

from __future__ import annotations

from typing import Any

import numpy as np

from codecmeta.container.announced import count_malformed, find_continuity, find_doubt, find_missing
from codecmeta.container.completeness import State
from codecmeta.container.packet_pictures import PacketPictures
from codecmeta.container.packets import PacketTable
from codecmeta.container.picture_order_check import count_contradictions
from codecmeta.container.timeline import Timeline
from codecmeta.container.unit_table import UnitTable
from codecmeta.container.video import Video
from codecmeta.frame_table import FrameTable
from codecmeta.record.gop import split_gops


def describe_verdict(
    state: State,
    evidence: str,
    video: Video,
    packets: PacketTable,
    units: UnitTable | None,
    pictures: PacketPictures | None,
    timeline: Timeline,
    table: FrameTable,
    *,
    payloads: bool,
) -> dict[str, Any]:
    """Describe the verdict for `info`.

    A file is `complete` if no packet is missing and nothing that was read is damaged, whatever was requested.

    Args:
        state: of the file, according to the length that its container announces.
        evidence: the observation that supports it.
        video: the opened video.
        packets: its packet table.
        units: its NAL units, where payload is read and the units are known.
        pictures: what the headers of the packets say, where they were read.
        timeline: the frames in presentation order.
        table: the data read of them.
        payloads: whether more than packets is requested, even if the codec has nothing of it: the form of all packets
            is checked then.
    """
    decoding = table.decoding
    corrupt = packets.corrupt
    # decoding everything for the order meets all errors, including those of the frames
    errors, corrupt_pictures = max(decoding.errors, timeline.errors), max(decoding.corrupt, timeline.corrupt)
    contradictions = 0
    if payloads:
        corrupt += count_malformed(video, packets, units)
        if units is not None and not (timeline.synthetic or timeline.mended):
            contradictions = count_contradictions(video, packets, units)
    counts = {
        "corrupt packets": corrupt,
        "packets whose data contradicts itself": len(decoding.unreadable),
        "packets that the decoder refused": errors,
        "corrupt pictures": corrupt_pictures,
        "contradictions between picture order counts and time stamps": contradictions,
        "frames without a picture": decoding.missing + timeline.unplaced,
    }
    missing = find_missing(video, packets, pictures) if state != "unknown" else None
    damage = [evidence] if state == "damaged" else []
    damage += ([] if missing is None else [missing]) + [f"{count} {name}" for name, count in counts.items() if count]
    if damage:
        state, evidence = "damaged", "; ".join(damage)
    elif state == "unknown" and (continuity := find_continuity(video, packets)):
        state, evidence = "complete", continuity
    elif state == "complete" and (doubt := find_doubt(video)):
        state, evidence = "unknown", doubt
    if not damage and timeline.leading and state == "complete":
        state = "truncated"
        evidence = f"{timeline.leading} pictures at the start refer to pictures that are not in the file"
    return {
        "state": state,
        "evidence": evidence,
        "checked": len(decoding.checked),
        "packets": int(packets.size.size),
        "gops": len(split_gops(packets.size, packets.key)),
        "frames": int(timeline.packet.size),
        "leading": timeline.leading,
        "hidden": int(np.count_nonzero(~packets.shown)),
        "field_pairs": int(np.count_nonzero(packets.second)),
        "corrupt_packets": corrupt,
        "unreadable_packets": len(decoding.unreadable),
        "pictures_decoded": decoding.pictures,
        "decode_errors": errors,
        "corrupt_pictures": corrupt_pictures,
        "missing_frames": decoding.missing,
    }
