"""PCM samples of a coding unit (Rec. ITU-T H.265, 7.3.8.7, 8.4.4.1)."""

from __future__ import annotations

import numpy as np

from codecmeta.entropy.cabac import position, start_engine
from codecmeta.entropy.slice_bits import read_bits
from codecmeta.hevc.records import samples_at
from codecmeta.hevc.transform import mark, plane_width
from codecmeta.simd.numba_compile import compiled


@compiled
def read_pcm(s):
    """Read pcm_alignment_zero_bit and pcm_sample; store the samples minus mid-grey, since nothing predicts them."""
    s.bit = (position(s) + 7) & ~7
    for plane in range(3 if s.chroma else 1):
        x, y, size_x, size_y = s.cu_x, s.cu_y, 1 << s.cu_log2, 1 << s.cu_log2
        depth = s.pcm_depth[0]
        if plane:
            x, y, size_x, size_y = x >> s.shift_x, y >> s.shift_y, size_x >> s.shift_x, size_y >> s.shift_y
            depth = s.pcm_depth[1]
        log2 = s.cu_log2 - (s.shift_x if plane else 0)
        for part in range(size_y // size_x):
            mark(s, plane, x, y + part * size_x, log2)
        samples = samples_at(s.plane[plane], s.plane_size[plane])
        stride = plane_width(s, plane)
        grey = 1 << (s.depth - 1)
        for row in range(size_y):
            at = (y + row) * stride + x
            for column in range(size_x):
                samples[at + column] = np.int16((read_bits(s, depth) << (s.depth - depth)) - grey)
    start_engine(s, s.bit >> 3)
