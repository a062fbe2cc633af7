"""HEVC clips as packets in presentation order."""

from __future__ import annotations

from pathlib import Path

import av

CLIPS = Path(__file__).resolve().parents[2] / "data" / "hevc"


def shown_packets(path: Path) -> list[bytes]:
    """Return the packets of the pictures that FFmpeg shows, in presentation order."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        context.thread_type = "NONE"
        context.thread_count = 1
        context.copy_opaque = True
        data: dict[int, bytes] = {}
        by_pts: dict[int | None, bytes] = {}
        shown = []
        for number, packet in enumerate(container.demux(stream)):
            if packet.size:
                # a fresh object: PyAV keeps tags by identity, and small integers are shared between decoders
                packet.opaque = (number,)
                data[number] = by_pts[packet.pts] = bytes(packet)
            for frame in packet.decode():
                shown.append(data[frame.opaque[0]] if frame.opaque is not None else by_pts[frame.pts])
    return shown
