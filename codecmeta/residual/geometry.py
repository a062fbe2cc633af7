"""Geometry of pictures that are read from their packets: that of the stream, or an error; it is never mixed."""

from __future__ import annotations

from typing import Protocol

from codecmeta.container.sample_form import CHROMA_FORMATS, SampleForm
from codecmeta.errors import SourceError


class Coded(Protocol):
    """What the headers of a picture say of its samples."""

    @property
    def bit_depth(self) -> tuple[int, int]:
        """Bits per luma and chroma sample."""
        ...

    @property
    def chroma_format(self) -> int:
        """chroma_format_idc."""
        ...


def check_geometry(
    picture: Coded, shape: tuple[int, ...], block: int, *, width: int, height: int, form: SampleForm | None
) -> None:
    """Refuse a picture that has another size or form than the stream.

    Args:
        picture: the picture.
        shape: rows and columns of its blocks.
        block: luma samples per block side.
        width, height: of the stream's pictures.
        form: of the stream's samples, None where it is not known.

    Raises:
        SourceError: the picture has another.
    """
    own = SampleForm(picture.bit_depth[0], CHROMA_FORMATS[picture.chroma_format])
    # decoders may show monochrome pictures with chroma planes
    chroma = form is None or own.chroma in (form.chroma, "4:0:0")
    if form is not None and (own.bits != form.bits or not chroma):
        raise SourceError("varying_geometry", f"a picture of {own} samples in a stream of {form} ones")
    if shape != (-(-height // block), -(-width // block)):
        blocks = "x".join(str(count) for count in shape[::-1])
        raise SourceError("varying_geometry", f"a picture of {blocks} blocks in a stream of {width}x{height}")
