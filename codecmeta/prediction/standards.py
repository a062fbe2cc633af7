"""Standards whose motion compensation is known, and the codecs that follow them."""

from __future__ import annotations

from typing import Literal, TypeAlias

Standard: TypeAlias = Literal["h264", "mpeg1", "mpeg2", "mpeg4", "mpeg4_qpel", "h263"]
"""Whose interpolation and chroma vectors apply; mpeg4_qpel is MPEG-4 part 2 with quarter_sample = 1."""

STANDARDS: dict[str, Standard] = {
    "h264": "h264",
    "mpeg1video": "mpeg1",
    "mpeg2video": "mpeg2",
    "mpeg4": "mpeg4",
    "h263": "h263",
    "flv1": "h263",
}
"""Codecs whose decoders export motion vectors, and whose prediction is known."""
