"""Reference picture samples, continued beyond the edges (Rec. ITU-T H.264, 8.4.2.2.1; 14496-2, 7.6.4).

With a margin on every side, a block that a vector moves over the edge is read like any other: a block beyond the margin
consists of copies of border samples, and equals one `REACH` samples outside.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codecmeta.decoding.side_data import Planes, Samples
from codecmeta.prediction.h264_halfpel import BAND
from codecmeta.simd.numba_cache import kernel

MARGIN = 32
"""Samples added on every side of a plane."""
REACH = 24
"""Distance at which blocks further out are read; they and the taps of the longest filter fit the margin."""

READY = 4
"""Column of `ReferenceSamples.addresses` with the flags of computed bands."""


class ReferenceSamples:
    """Reference picture as the compiled prediction reads it.

    Attributes:
        shapes: rows and columns of Y, Cb and Cr, without margins.
        dtype: type of the samples.
        addresses: uintp (3, 5), per channel the addresses of its samples, half samples b, h and j (`h264_halfpel`), and
            the flags of their computed bands; the object must outlive their use.
    """

    def __init__(self, planes: Planes) -> None:
        """Copy a picture.

        Args:
            planes: Y, Cb, Cr, or views of a decoder's buffers.
        """
        self.shapes = tuple(plane.shape for plane in planes)
        self.dtype = planes[0].dtype
        self.addresses = np.zeros((3, 5), np.uintp)
        self._planes = [_with_margin(plane) if plane.size else plane for plane in planes]
        self._halves: list[NDArray[np.generic]] = []
        self._ready: list[NDArray[np.generic]] = []
        for channel, plane in enumerate(self._planes):
            self.addresses[channel, 0] = plane.ctypes.data
            if plane.size and plane.shape == self._planes[0].shape:
                self._make_room(channel, plane)
        self._copy(planes)

    def replace(self, planes: Planes) -> ReferenceSamples:
        """Replace this picture by another, which saves new memory where both are alike."""
        if tuple(plane.shape for plane in planes) != self.shapes or planes[0].dtype != self.dtype:
            return ReferenceSamples(planes)
        self._copy(planes)
        return self

    def _copy(self, planes: Planes) -> None:
        for plane, room in zip(planes, self._planes, strict=True):
            if plane.size:
                room[MARGIN : MARGIN + plane.shape[0], MARGIN : MARGIN + plane.shape[1]] = plane
                _fill_margin(room)
        for flags in self._ready:
            flags.fill(0)

    @property
    def planes(self) -> Planes:
        """Y, Cb, Cr without margins; views."""
        y, cb, cr = (
            plane[MARGIN : plane.shape[0] - MARGIN, MARGIN : plane.shape[1] - MARGIN] for plane in self._planes
        )
        return y, cb, cr

    def _make_room(self, channel: int, samples: NDArray[np.generic]) -> None:
        """Reserve half samples, which is free until they are computed (H.264, not for chroma of a smaller size)."""
        halves = np.empty((3, samples.size), samples.dtype)
        ready = np.empty((3, -(-samples.shape[0] // BAND)), samples.dtype)
        self._halves.append(halves)
        self._ready.append(ready)
        self.addresses[channel, 1:READY] = [half.ctypes.data for half in halves]
        self.addresses[channel, READY] = ready.ctypes.data


def _with_margin(plane: Samples) -> Samples:
    """Allocate a plane and its margin."""
    height, width = plane.shape
    return np.empty((height + 2 * MARGIN, width + 2 * MARGIN), plane.dtype)


@kernel()
def _fill_margin(samples: Samples) -> None:
    """Continue the border samples of the plane inside."""
    height, width = samples.shape
    for row in range(MARGIN, height - MARGIN):
        left, right = samples[row, MARGIN], samples[row, width - MARGIN - 1]
        for col in range(MARGIN):
            samples[row, col] = left
            samples[row, width - MARGIN + col] = right
    for row in range(MARGIN):
        samples[row] = samples[MARGIN]
        samples[height - MARGIN + row] = samples[height - MARGIN - 1]
