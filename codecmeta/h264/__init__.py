"""The exact residual and motion of H.264 pictures, from the bitstream (Rec. ITU-T H.264 | ISO/IEC 14496-10)."""

from codecmeta.h264.motion import MotionReader
from codecmeta.h264.picture import MB_TYPE_NAMES, PictureMoments, PictureResidual, is_intra
from codecmeta.h264.reader import ResidualReader

__all__ = ["MB_TYPE_NAMES", "MotionReader", "PictureMoments", "PictureResidual", "ResidualReader", "is_intra"]
