"""Residual of HEVC pictures, exactly as coded in the bitstream (Rec. ITU-T H.265 | ISO/IEC 23008-2)."""

from codecmeta.hevc.picture import PictureMoments, PictureResidual
from codecmeta.hevc.reader import ResidualReader

__all__ = ["PictureMoments", "PictureResidual", "ResidualReader"]
