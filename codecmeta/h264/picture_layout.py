"""Layout of macroblocks and coded blocks in the displayed picture, compiled."""

from __future__ import annotations

import numpy as np

from codecmeta.h264.transform import block_place
from codecmeta.simd.numba_compile import entry


@entry
def first_uncovered(mbs, first_number):
    """Return the address of the first macroblock that no slice of the picture coded, -1 if all are."""
    for mb in range(mbs.size):
        if mbs[mb].slice < first_number:
            return mb
    return -1


@entry
def fill_maps(mbs, order, mb_type, qp, cbp, bits):
    """Fill the maps of a picture from its macroblocks."""
    for y in range(order.shape[0]):
        for x in range(order.shape[1]):
            m = mbs[order[y, x]]
            mb_type[y, x] = m.kind
            qp[y, x] = m.qp
            cbp[y, x] = m.cbp
            bits[y, x] = min(max(m.bits, 0), 65535)


@entry
def fill_plane(plane, mbs, samples, source, across, down, width_mbs, mbaff, parity, top, left):
    """Copy the coded blocks of a colour plane to their display position; `plane` is zero elsewhere.

    Args:
        source: which entry of `coded` marks the blocks.
        across, down: 4x4 blocks per row and column of a macroblock.
        parity: -1 for frames; 0 or 1 to fill the lines of the top or bottom field.
        top, left: samples of the plane that are cropped.
    """
    height, width = plane.shape
    for mb in range(mbs.size):
        coded = np.int64(mbs[mb].coded[source])
        if coded == 0:
            continue
        step = 1
        if mbaff:
            pair = mb >> 1
            column = pair % width_mbs
            y0 = (pair // width_mbs) * 8 * down
            if mbs[mb].field:
                y0 += mb & 1
                step = 2
            else:
                y0 += (mb & 1) * 4 * down
        else:
            column = mb % width_mbs
            y0 = (mb // width_mbs) * 4 * down
            if parity >= 0:
                y0 = 2 * y0 + parity
                step = 2
        base = np.int64(mbs[mb].first[source]) - 16
        for block in range(across * down):
            if not (coded >> block) & 1:
                continue
            bx, by = block_place(block, across)
            x = column * 4 * across + bx * 4 - left
            y = y0 + by * 4 * step - top
            base += 16
            for dy in range(4):
                row = y + dy * step
                if row < 0 or row >= height:
                    continue
                for dx in range(4):
                    if 0 <= x + dx < width:
                        plane[row, x + dx] = samples[base + dy * 4 + dx]
