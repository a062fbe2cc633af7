"""Residual planes -> energy E_t -> block means (MeToM, RPM).

Per frame and channel the residual is standardised over the channel's own samples,
``r̃_c = (r_c - mean_c) / (std_c + 1e-6)``, and ``E = Σ_c r̃_c²`` on the luma grid, each chroma sample
standing for the luma samples it covers. A channel without variance contributes 0, so the mean of E is the
number of channels that vary.

The mean of E over a block follows from the block's means of r and r². Only the extremes of the picture need single
samples, and only those of blocks whose channels reach far enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codecmeta.simd.numba_cache import kernel

EPSILON = 1e-6
"""Added to a channel's standard deviation before dividing by it."""


Residual = tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]]
"""Residual of Y, Cb, Cr, shaped like the samples."""


@dataclass(frozen=True, kw_only=True)
class BlockEnergy:
    """What is kept of one picture's residual; block size b, h = ⌈H/b⌉ and w = ⌈W/b⌉ blocks.

    Attributes:
        energy: float32 (h, w), block means of E; a border block averages what lies inside the picture.
        power: float32 (3, h, w), block means of r² of Y, Cb, Cr, each over the block's own samples.
        mean: float32 (3, h, w), block means of r, likewise.
        range: float32 (2,), smallest and largest E of any pixel.
    """

    energy: NDArray[np.float32]
    power: NDArray[np.float32]
    mean: NDArray[np.float32]
    range: NDArray[np.float32]


@kernel()
def _standardise(total, square_total, samples):  # type: ignore[no-untyped-def]
    if samples == 0:
        return 0.0, 0.0
    mean = total / samples
    variance = square_total / samples - mean * mean
    if variance <= 1e-12:
        return mean, 0.0
    return mean, 1.0 / (variance**0.5 + EPSILON) ** 2


def standardisation(total: float, square_total: float, samples: int) -> tuple[float, float]:
    """Mean and weight of a channel: E gains ``weight * (r - mean)²`` for each of its samples.

    Args:
        total: sum of the channel's residual.
        square_total: sum of its squares.
        samples: number of samples, 0 for a channel that does not exist.

    Returns:
        The mean and ``1 / (std + EPSILON)²``, a weight of 0 where the channel has no variance.
    """
    mean, weight = _standardise(total, square_total, samples)
    return mean, weight


def measure_energy(
    planes: Residual,
    *,
    block: int,
    coded: NDArray[np.uint8] | None = None,
) -> BlockEnergy:
    """Reduce the residual planes of a picture to block means.

    Args:
        planes: Y (H, W), Cb and Cr (each (⌈H/v⌉, ⌈W/u⌉) for subsampling v, u of 1 or 2; (0, 0) for monochrome), int16.
        block: luma samples per block side, 4 or 8.
        coded: uint8 (3, ⌈H/8⌉, ⌈W/8⌉), 0 for each channel of an 8x8 luma block that is 0 whatever its samples say; None
            if samples are to be read everywhere.

    Returns:
        The block means; power and mean of a missing chroma channel are 0.

    Raises:
        ValueError: the planes do not fit together.
    """
    y, cb, cr = (np.ascontiguousarray(plane) for plane in planes)
    height, width = y.shape
    shift_y, shift_x = _subsampling(y.shape, cb.shape) if cb.size else (0, 0)
    if cr.shape != cb.shape:
        raise ValueError(f"chroma planes of shapes {cb.shape} and {cr.shape} do not go together")
    rows, cols = -(-height // block), -(-width // block)
    if coded is None:
        coded = np.ones((3, -(-height // 8), -(-width // 8)), np.uint8)
    elif coded.shape != (3, -(-height // 8), -(-width // 8)):
        raise ValueError(f"coded has shape {coded.shape}, {height} x {width} samples need one value per 8x8 block")
    energy = np.empty((rows, cols), np.float32)
    power, mean = np.zeros((3, rows, cols), np.float32), np.zeros((3, rows, cols), np.float32)
    extent = np.empty(2, np.float32)
    _reduce((y, cb, cr), (shift_y, shift_x), block, coded, energy, power, mean, extent)
    return BlockEnergy(energy=energy, power=power, mean=mean, range=extent)


def _subsampling(luma: tuple[int, ...], chroma: tuple[int, ...]) -> tuple[int, int]:
    shifts = []
    for full, part in zip(luma, chroma, strict=True):
        if part == full:
            shifts.append(0)
        elif part == (full + 1) // 2:
            shifts.append(1)
        else:
            raise ValueError(f"a chroma plane of shape {chroma} does not go with luma {luma}")
    return shifts[0], shifts[1]


_FITS = 23170
"""Largest residual of which eight squares fit 32 bits."""


@kernel(_nrt=False)
def _add_line(line, sums, squares, least, most):  # type: ignore[no-untyped-def]
    """Add a line of samples to the sums and extremes of its columns; squares may wrap around."""
    for x in range(line.size):
        r = line[x]
        sums[x] = np.int32(sums[x] + np.int32(r))
        squares[x] = np.int32(squares[x] + np.int32(np.int32(r) * np.int32(r)))
        least[x] = min(least[x], r)
        most[x] = max(most[x], r)


@kernel(_nrt=False, inline="always")
def _fold(columns, first, last, side, height, moments, limits, row):  # type: ignore[no-untyped-def]
    """Block moments and extremes from those of the columns; returns the sums and the extremes of the row of blocks.

    The number of columns per block, ``side``, has to be a literal for this to become vector code.
    """
    sums, squares, least, most = columns
    samples = height * side
    total = np.int64(0)
    square_total = np.int64(0)
    lowest = np.int16(32767)
    highest = np.int16(-32768)
    for col in range(first, last):
        s = np.int32(0)
        q = np.uint64(0)
        low = np.int16(32767)
        high = np.int16(-32768)
        for k in range(side):
            x = np.uintp((col - first) * side + k)
            s = np.int32(s + sums[x])
            q += np.uint64(np.uint32(squares[x]))
            low = min(low, least[x])
            high = max(high, most[x])
        moments[0, row, col] = np.int64(q) / samples
        moments[1, row, col] = s / samples
        limits[0, row, col] = low
        limits[1, row, col] = high
        total += np.int64(s)
        square_total += np.int64(q)
        lowest = min(lowest, low)
        highest = max(highest, high)
    return total, square_total, lowest, highest


@kernel(_nrt=False)
def _measure_block(plane, y0, y1, x0, x1, moments, limits, row, col):  # type: ignore[no-untyped-def]
    """Moments and extremes of one block from its samples; returns its sums."""
    s = np.int64(0)
    q = np.int64(0)
    low = np.int16(32767)
    high = np.int16(-32768)
    for y in range(y0, y1):
        for x in range(x0, x1):
            r = plane[y, x]
            s += np.int64(r)
            q += np.int64(r) * np.int64(r)
            low = min(low, r)
            high = max(high, r)
    samples = (y1 - y0) * (x1 - x0)
    moments[0, row, col] = q / samples
    moments[1, row, col] = s / samples
    limits[0, row, col] = low
    limits[1, row, col] = high
    return s, q


@kernel(_nrt=False)
def _block_moments(plane, block_h, block_w, coded, shift, columns, moments, limits):  # type: ignore[no-untyped-def]
    """Means of r² and r and extremes of r of each block; returns the sums of r and r² over the plane.

    A block of a cell that is not coded is 0. ``shift`` is log2 of the blocks per cell side, ``columns`` scratch.
    """
    height, width = plane.shape
    whole = width // block_w
    total = np.int64(0)
    square_total = np.int64(0)
    moments[:] = 0.0
    limits[:] = 0
    for row in range(moments.shape[1]):
        y0, y1 = row * block_h, min(row * block_h + block_h, height)
        marks = coded[row >> shift]
        first = 0
        while first < moments.shape[2]:
            if marks[first >> shift] == 0:
                first += 1
                continue
            last = first + 1
            while last < whole and marks[last >> shift]:
                last += 1
            run = (y0, y1, first, last)
            if first < whole:
                s, q = _measure_run(plane, run, block_w, columns, moments, limits, row)
            else:
                s, q = _measure_block(plane, y0, y1, first * block_w, width, moments, limits, row, first)
            total += s
            square_total += q
            first = last
    return total, square_total


@kernel(_nrt=False)
def _measure_run(plane, run, block_w, columns, moments, limits, row):  # type: ignore[no-untyped-def]
    """Moments and extremes of blocks side by side; returns their sums."""
    y0, y1, first, last = run
    sums, squares, least, most = columns
    x0, count = first * block_w, (last - first) * block_w
    sums[:count] = 0
    squares[:count] = 0
    least[:count] = 32767
    most[:count] = -32768
    for y in range(y0, y1):
        _add_line(plane[y, x0 : x0 + count], sums, squares, least, most)
    if block_w == 8:
        s, q, low, high = _fold(columns, first, last, 8, y1 - y0, moments, limits, row)
    elif block_w == 4:
        s, q, low, high = _fold(columns, first, last, 4, y1 - y0, moments, limits, row)
    else:
        s, q, low, high = _fold(columns, first, last, 2, y1 - y0, moments, limits, row)
    if low >= -_FITS and high <= _FITS:
        return s, q
    s, q = np.int64(0), np.int64(0)
    for col in range(first, last):
        left = col * block_w
        part, square_part = _measure_block(plane, y0, y1, left, left + block_w, moments, limits, row, col)
        s += part
        q += square_part
    return s, q


@kernel(_nrt=False, inline="always")
def _term(r, mean, weight):  # type: ignore[no-untyped-def]
    d = r - mean
    return weight * d * d


@kernel(_nrt=False)
def _add_channel(moments, limits, mean, weight, energy, floor, ceiling):  # type: ignore[no-untyped-def]
    """Add a channel's part to the mean of E of each block, and to the least and the most that a sample may have."""
    nearest = np.rint(mean)
    for row in range(energy.shape[0]):
        for col in range(energy.shape[1]):
            power, average = moments[0, row, col], moments[1, row, col]
            low, high = np.float64(limits[0, row, col]), np.float64(limits[1, row, col])
            energy[row, col] += weight * max(power - 2.0 * average * mean + mean * mean, 0.0)
            floor[row, col] += _term(min(max(nearest, low), high), mean, weight)
            ceiling[row, col] += max(_term(low, mean, weight), _term(high, mean, weight))


@kernel()
def _reduce(planes, shifts, block, coded, energy, power, mean, extent):  # type: ignore[no-untyped-def]
    """Fill in what is kept of a picture."""
    luma, cb, cr = planes
    rows, cols = energy.shape
    shift = 0 if block == 8 else 1
    columns = (
        np.empty(luma.shape[1], np.int32),
        np.empty(luma.shape[1], np.int32),
        np.empty(luma.shape[1], np.int16),
        np.empty(luma.shape[1], np.int16),
    )
    moments = np.empty((2, rows, cols))
    limits = np.empty((2, rows, cols), np.int16)
    total, floor, ceiling = np.zeros((rows, cols)), np.zeros((rows, cols)), np.zeros((rows, cols))
    means = np.zeros(3)
    weights = np.zeros(3)
    for channel in range(3 if cb.size else 1):
        plane = luma if channel == 0 else cb if channel == 1 else cr
        tall, wide = (block >> shifts[0], block >> shifts[1]) if channel else (block, block)
        s, q = _block_moments(plane, tall, wide, coded[channel], shift, columns, moments, limits)
        means[channel], weights[channel] = _standardise(s, q, plane.size)
        _add_channel(moments, limits, means[channel], weights[channel], total, floor, ceiling)
        power[channel] = moments[0]
        mean[channel] = moments[1]
    _find_extremes(luma, cb, cr, shifts, block, coded, means, weights, total, floor, ceiling, extent)
    energy[:] = total


@kernel(_nrt=False)
def _scan(planes, shifts, block, coded, row, col, means, weights):  # type: ignore[no-untyped-def]
    """Mean, smallest and largest E of the samples of one block."""
    luma, cb, cr = planes
    shift_y, shift_x = shifts
    y0, x0 = row * block >> 3, col * block >> 3
    in0, in1, in2 = coded[0, y0, x0], coded[1, y0, x0], coded[2, y0, x0]
    bottom, right = min(row * block + block, luma.shape[0]), min(col * block + block, luma.shape[1])
    total = 0.0
    low = np.inf
    high = -np.inf
    for y in range(row * block, bottom):
        for x in range(col * block, right):
            e = _term(luma[y, x] if in0 else np.int16(0), means[0], weights[0])
            if cb.size:
                e += _term(cb[y >> shift_y, x >> shift_x] if in1 else np.int16(0), means[1], weights[1])
                e += _term(cr[y >> shift_y, x >> shift_x] if in2 else np.int16(0), means[2], weights[2])
            total += e
            low = min(low, e)
            high = max(high, e)
    return total / ((bottom - row * block) * (right - col * block)), low, high


@kernel(_nrt=False)
def _find_extremes(luma, cb, cr, shifts, block, coded, means, weights, energy, floor, ceiling, extent):  # type: ignore[no-untyped-def]
    """Smallest and largest E of the picture, from the samples of the blocks that may have it.

    A chroma sample at an odd edge stands for fewer luma samples than the others, so that blocks there get their mean
    from the samples, too.
    """
    planes = (luma, cb, cr)
    rows, cols = energy.shape
    last_row = rows - 1 if cb.size and shifts[0] and luma.shape[0] & 1 else rows
    last_col = cols - 1 if cb.size and shifts[1] and luma.shape[1] & 1 else cols
    top = np.argmax(ceiling)
    _, low, high = _scan(planes, shifts, block, coded, top // cols, top % cols, means, weights)
    for row in range(rows):
        for col in range(cols):
            odd = row == last_row or col == last_col
            if odd or floor[row, col] < low or ceiling[row, col] > high:
                mean, least, most = _scan(planes, shifts, block, coded, row, col, means, weights)
                low, high = min(low, least), max(high, most)
                if odd:
                    energy[row, col] = mean
    extent[0] = low
    extent[1] = high
