"""Standards whose motion compensation is known, and the codecs that follow them."""

from __future__ import annotations

from typing import Literal, TypeAlias

from codecmeta.errors import UsageError

Standard: TypeAlias = Literal["h264", "mpeg1", "mpeg2", "mpeg4", "mpeg4_qpel", "h263"]
"""Standard whose interpolation and chroma vectors apply; mpeg4_qpel is MPEG-4 part 2 with quarter_sample = 1."""

STANDARDS: dict[str, Standard] = {
    "h264": "h264",
    "mpeg1video": "mpeg1",
    "mpeg2video": "mpeg2",
    "mpeg4": "mpeg4",
    "h263": "h263",
    "flv1": "h263",
}
"""Codecs whose decoders export motion vectors, and whose prediction is known."""

H264, MPEG2, H263, MPEG4_QPEL = range(4)
FILTERS: dict[str, int] = {
    "h264": H264,
    "mpeg1": MPEG2,
    "mpeg2": MPEG2,
    "mpeg4": H263,
    "h263": H263,
    "mpeg4_qpel": MPEG4_QPEL,
}


def filter_of(standard: str) -> int:
    """Return the filter code of a standard.

    Raises:
        UsageError: the standard is unknown.
    """
    if standard not in FILTERS:
        raise UsageError(f"unknown standard {standard!r}; choose from {', '.join(FILTERS)}")
    return FILTERS[standard]
