"""Sample form of pictures: bit depth and chroma format."""

from __future__ import annotations

from typing import NamedTuple

import av

CHROMA_FORMATS = ("4:0:0", "4:2:0", "4:2:2", "4:4:4")
"""Names by chroma_format_idc (Rec. ITU-T H.264, 6.2)."""


class SampleForm(NamedTuple):
    """Format that all pictures of a record share, besides their size.

    Attributes:
        bits: of a luma sample.
        chroma: chroma format, such as 4:2:0; 4:0:0 for monochrome.
        colours: `YCbCr` or `RGB`.
    """

    bits: int
    chroma: str
    colours: str = "YCbCr"

    def __str__(self) -> str:
        return f"{self.bits}-bit {self.chroma} {self.colours}"


def read_form(pixels: av.VideoFormat) -> SampleForm:
    """Return the form of a pixel format of libav; ranges (yuvj420p) make no difference."""
    colours = "RGB" if pixels.is_rgb else "YCbCr"
    if len(pixels.components) < 3:
        return SampleForm(pixels.components[0].bits, "4:0:0", colours)
    subsampling = 16 // pixels.chroma_width(16), 16 // pixels.chroma_height(16)
    return SampleForm(pixels.components[0].bits, _CHROMA.get(subsampling, "unknown"), colours)


_CHROMA = {
    (1, 1): "4:4:4",
    (1, 2): "4:4:0",
    (2, 1): "4:2:2",
    (2, 2): "4:2:0",
    (4, 1): "4:1:1",
    (4, 4): "4:1:0",
}
"""Names by how many luma samples a chroma sample covers, horizontally and vertically."""
