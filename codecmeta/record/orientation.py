"""Orientation of a coded picture for display (rotation, mirroring), and its display size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

MAX_SAMPLE_ASPECT = 16
"""Ratio of width to height, or its inverse, above which a sample is taken as square."""

Array = TypeVar("Array", bound=NDArray[Any])
Numbers = TypeVar("Numbers", float, NDArray[np.float64])


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """One of the eight rotations and reflections of a rectangle.

    Attributes:
        transposed: rows of the coded picture are columns of the displayed one; applied first.
        mirrored: left and right of the displayed picture are exchanged, afterwards.
        flipped: likewise top and bottom.
    """

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False

    @classmethod
    def from_rotation(cls, degrees: int) -> Orientation:
        """Return the orientation of a picture rotated counter-clockwise by a multiple of 90 degrees."""
        quarter = degrees // 90 % 4
        return cls(transposed=quarter % 2 == 1, mirrored=quarter in (2, 3), flipped=quarter in (1, 2))

    @classmethod
    def from_display_matrix(cls, matrix: Sequence[int]) -> Orientation | None:
        """Return the orientation in which FFmpeg shows a picture with a display matrix.

        Args:
            matrix: a, b, u, c, d, v, x, y, w of ISO/IEC 14496-12 (6.2.2); scale and translation do not matter.

        Returns:
            None where FFmpeg rotates by anything but a multiple of 90 degrees.
        """
        a, b, _, c, d = matrix[:5]
        across, down = math.hypot(a, c), math.hypot(b, d)
        if not across or not down:
            return cls()
        angle = math.floor(math.degrees(math.atan2(b / down, a / across)) + 0.5) % 360
        if angle == 0:
            return cls(flipped=d < 0)
        if angle == 90:
            return cls(transposed=True, mirrored=c <= 0)
        if angle == 180:
            return cls(mirrored=a < 0, flipped=d < 0)
        if angle == 270:
            return cls(transposed=True, mirrored=c < 0, flipped=True)
        return None

    @classmethod
    def from_matrix(cls, matrix: object, *, width: int, height: int) -> Orientation:
        """Return the orientation that a record describes by `matrix`.

        Raises:
            ValueError: it is none of the eight matrices of a picture of this size.
        """
        for number in range(8):
            one = cls(transposed=bool(number & 1), mirrored=bool(number & 2), flipped=bool(number & 4))
            if matrix == one.matrix(width=width, height=height):
                return one
        raise ValueError(f"orientation is not one of the eight that rotate or mirror a picture of {width}x{height}")

    def matrix(self, *, width: int, height: int) -> list[list[int]]:
        """Return the 2x3 matrix that maps x, y, 1 of the coded picture to x, y of the displayed one, in samples.

        Args:
            width: of the coded picture.
            height: of the coded picture.
        """
        across, down = (height, width) if self.transposed else (width, height)
        x, y = -1 if self.mirrored else 1, -1 if self.flipped else 1
        shift = across * self.mirrored, down * self.flipped
        if self.transposed:
            return [[0, x, shift[0]], [y, 0, shift[1]]]
        return [[x, 0, shift[0]], [0, y, shift[1]]]

    def swap(self, across: int, down: int) -> tuple[int, int]:
        """Convert lengths along the axes of the coded picture to those of the displayed one, or back."""
        return (down, across) if self.transposed else (across, down)

    def turn(self, pictures: Array, *, rows: int = 0) -> Array:
        """Return coded pictures, or maps of them, as displayed; a view.

        Args:
            pictures: array with two neighbouring axes of rows and columns.
            rows: axis of the rows.
        """
        turned: Any = np.swapaxes(pictures, rows, rows + 1) if self.transposed else pictures
        axes = (rows,) * self.flipped + (rows + 1,) * self.mirrored
        turned = np.flip(turned, axes) if axes else turned
        return cast(Array, turned)

    def turn_points(self, x: Numbers, y: Numbers, *, width: float, height: float) -> tuple[Numbers, Numbers]:
        """Convert points in a coded picture of a size to the displayed one; directions for a size of 0."""
        across, down = (height, width) if self.transposed else (width, height)
        x, y = (y, x) if self.transposed else (x, y)
        return across - x if self.mirrored else x, down - y if self.flipped else y

    def coded_box(
        self, box: tuple[float, float, float, float], *, width: float, height: float
    ) -> tuple[float, float, float, float]:
        """Convert left, top, right, bottom of a region of the displayed picture to a coded picture of a size."""
        left, top, right, bottom = box
        across, down = (height, width) if self.transposed else (width, height)
        if self.mirrored:
            left, right = across - right, across - left
        if self.flipped:
            top, bottom = down - bottom, down - top
        return (top, left, bottom, right) if self.transposed else (left, top, right, bottom)


UPRIGHT = Orientation()
"""Orientation of pictures that are displayed as coded."""


def is_believable(sample_aspect: tuple[int, int]) -> bool:
    """Return whether width and height of a sample are positive and not too unequal."""
    wide, tall = sample_aspect
    return wide > 0 and tall > 0 and max(wide, tall) <= MAX_SAMPLE_ASPECT * min(wide, tall)


def display_aspect(
    width: int, height: int, *, orientation: Orientation, sample_aspect: tuple[int, int] | None
) -> tuple[int, int]:
    """Return width to height of the displayed picture, in lowest terms.

    Args:
        width: of the coded picture, in samples.
        height: of the coded picture, likewise.
        orientation: in which it is displayed.
        sample_aspect: width and height of a sample of the coded picture; None for square ones.
    """
    wide, tall = sample_aspect if sample_aspect is not None and is_believable(sample_aspect) else (1, 1)
    across, down = orientation.swap(width * wide, height * tall)
    common = math.gcd(across, down)
    return across // common, down // common


def display_size(
    width: int, height: int, *, orientation: Orientation, sample_aspect: tuple[int, int] | None
) -> tuple[int, int]:
    """Return width and height of the displayed picture in square pixels, keeping the coded height.

    Args:
        width: of the coded picture, in samples.
        height: of the coded picture, likewise.
        orientation: in which it is displayed.
        sample_aspect: width and height of a sample of the coded picture; None for square ones.
    """
    wide, tall = display_aspect(width, height, orientation=orientation, sample_aspect=sample_aspect)
    _, down = orientation.swap(width, height)
    return max(1, (2 * down * wide + tall) // (2 * tall)), down
