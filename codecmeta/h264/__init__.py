"""Residual and motion of H.264 pictures, exactly as coded in the bitstream (Rec. ITU-T H.264 | ISO/IEC 14496-10)."""

from codecmeta.h264.motion import MotionReader
from codecmeta.h264.picture import PictureMoments, PictureResidual
from codecmeta.h264.reader import ResidualReader
from codecmeta.record.macroblock_types import MB_TYPE_NAMES, is_intra

__all__ = ["MB_TYPE_NAMES", "MotionReader", "PictureMoments", "PictureResidual", "ResidualReader", "is_intra"]
