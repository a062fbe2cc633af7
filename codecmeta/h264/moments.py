"""Block means of the residual from the coded blocks only, without building planes.

The result equals that of `codecmeta.record.energy.measure_energy` on the planes. Two facts save the work on everything
that is not coded: a cell (b x b luma samples and their chroma) without coded blocks has the energy of a zero residual;
and the energy of any sample of a macroblock is bounded by the extremes of its channels, so that only macroblocks which
may contain the picture's extremes are examined sample by sample.
"""

from __future__ import annotations

import numpy as np

from codecmeta.h264.moment_kernels import fill_moments, measure
from codecmeta.h264.parameter_sets import SequenceParameters
from codecmeta.h264.picture import Buffers
from codecmeta.record.cell_moments import CellMoments
from codecmeta.record.energy import BlockEnergy


def measure_blocks(buffers: Buffers, sequence: SequenceParameters, *, block: int) -> BlockEnergy:
    """Reduce the coded blocks of a progressive frame to block means.

    Args:
        buffers: the frame's macroblocks and samples.
        sequence: its geometry; nothing may be cropped at the top or left.
        block: luma samples per block side, 4 or 8.
    """
    height, width = sequence.display_size
    moments = np.zeros((2, 3, -(-height // block), -(-width // block)), np.float32)
    energy = np.empty(moments.shape[2:], np.float32)
    extent = np.empty(2, np.float32)
    geometry = _geometry(sequence, block)
    measure(buffers.macroblocks, buffers.samples, geometry, buffers.coded, buffers.room, moments, energy, extent)
    return BlockEnergy(energy=energy, power=moments[0], mean=moments[1], range=extent)


def measure_moments(buffers: Buffers, sequence: SequenceParameters) -> CellMoments:
    """Measure block means of r² and r on 4x4 cells, without the energy of `measure_blocks`."""
    height, width = sequence.display_size
    moments = np.zeros((-(-height // 4), -(-width // 4), 2, 3), np.float32)
    geometry, by_channel = _geometry(sequence, 4), moments.transpose(2, 3, 0, 1)
    fill_moments(buffers.macroblocks, buffers.samples, geometry, buffers.coded, buffers.room, by_channel)
    return CellMoments(moments=moments)


def _geometry(sequence: SequenceParameters, block: int) -> tuple[int, int, int, int, int, int, int]:
    v, u = sequence.subsampling
    return (*sequence.display_size, sequence.width_mbs, block, v - 1, u - 1, int(sequence.chroma_format_idc != 0))
