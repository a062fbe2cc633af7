"""The arrays of the picture, seen from the slice record, so that calls pass one pointer instead of whole arrays."""

from __future__ import annotations

import numpy as np

from codecmeta.h264.records import MACROBLOCK, MOTION
from codecmeta.simd.borrowed_array import array_at

macroblocks_at = array_at(MACROBLOCK)
"""(s.macroblocks, s.count) -> the picture's macroblocks by address: records of type `MACROBLOCK`."""

motion_at = array_at(MOTION)
"""(s.motion, s.count) -> their motion syntax: records of type `MOTION`."""

samples_at = array_at(np.int16)
"""(s.samples, s.sample_count) -> its residual samples: int16, see transform.py."""
