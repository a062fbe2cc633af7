"""Chroma formats (H.264 and H.265, Table 6-1)."""

from __future__ import annotations


def subsampling(chroma_format_idc: int) -> tuple[int, int]:
    """Return SubHeightC and SubWidthC; 1, 1 for monochrome."""
    return ((1, 1), (2, 2), (1, 2), (1, 1))[chroma_format_idc]
