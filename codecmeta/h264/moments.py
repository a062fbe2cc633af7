"""Block means of the residual from the coded blocks alone, without making planes of it.

The result is that of `codecmeta.record.energy.measure_energy` on the planes. Two facts save the work on everything
that is not coded: a cell (b x b luma samples and the chroma that goes with them) without coded blocks has the energy
of a zero residual; and the energy of any sample of a macroblock is bounded by the extremes of its channels, so that
only macroblocks which may hold the picture's extremes are looked at sample by sample.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codecmeta.h264.moment_kernels import fill_moments, measure
from codecmeta.h264.parameter_sets import SequenceParameters
from codecmeta.h264.picture import Buffers
from codecmeta.record.energy import BlockEnergy


def measure_blocks(buffers: Buffers, sequence: SequenceParameters, *, block: int) -> BlockEnergy:
    """Reduce the coded blocks of a progressive frame to block means.

    Args:
        buffers: the frame's macroblocks and samples.
        sequence: its geometry; nothing may be cropped at the top or left.
        block: luma samples per block side, 4 or 8.
    """
    moments = _no_moments(sequence, block)
    energy = np.empty(moments.shape[2:], np.float32)
    extent = np.empty(2, np.float32)
    geometry = _geometry(sequence, block)
    measure(buffers.macroblocks, buffers.samples, geometry, buffers.coded, buffers.room, moments, energy, extent)
    return BlockEnergy(energy=energy, power=moments[0], mean=moments[1], range=extent)


def measure_moments(buffers: Buffers, sequence: SequenceParameters) -> NDArray[np.float32]:
    """Block means of r² and r alone: `power` and `mean` of `measure_blocks` on 4x4 cells, float32 (2, 3, h, w)."""
    moments = _no_moments(sequence, 4)
    geometry = _geometry(sequence, 4)
    fill_moments(buffers.macroblocks, buffers.samples, geometry, buffers.coded, buffers.room, moments)
    return moments


def _no_moments(sequence: SequenceParameters, block: int) -> NDArray[np.float32]:
    height, width = sequence.display_size
    return np.zeros((2, 3, -(-height // block), -(-width // block)), np.float32)


def _geometry(sequence: SequenceParameters, block: int) -> tuple[int, int, int, int, int, int, int]:
    v, u = sequence.subsampling
    return (*sequence.display_size, sequence.width_mbs, block, v - 1, u - 1, int(sequence.chroma_format_idc != 0))
