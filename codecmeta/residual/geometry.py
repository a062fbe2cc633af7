"""Geometry checks of pictures that are read from their packets: all must have the geometry of the stream."""

from __future__ import annotations

from codecmeta.container.sample_form import CHROMA_FORMATS, SampleForm
from codecmeta.errors import SourceError
from codecmeta.record.picture_reading import PictureMaps


def check_geometry(picture: PictureMaps, block: int, *, width: int, height: int, form: SampleForm | None) -> None:
    """Refuse a picture that has another size or form than the stream.

    Args:
        picture: the picture.
        block: luma samples per block side: sizes with the same blocks count as equal.
        width, height: of the stream's pictures.
        form: of the stream's samples, None where it is unknown.

    Raises:
        SourceError: the picture's geometry differs.
    """
    own = SampleForm(picture.bit_depth[0], CHROMA_FORMATS[picture.chroma_format])
    # decoders may show monochrome pictures with chroma planes
    chroma = form is None or own.chroma in (form.chroma, "4:0:0")
    if form is not None and (own.bits != form.bits or not chroma):
        raise SourceError("varying_geometry", f"a picture of {own} samples in a stream of {form} ones")
    tall, wide = picture.size
    if (-(-tall // block), -(-wide // block)) != (-(-height // block), -(-width // block)):
        raise SourceError("varying_geometry", f"a picture of {wide}x{tall} in a stream of {width}x{height}")
