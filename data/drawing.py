"""Drawing primitives with reproducible arithmetic: integer hashes, +, -, *, / and square roots only.

No library sine, no random generator whose stream may change: the pixels are the same on every machine.
Pictures are float64 (h, w, 3) RGB in 0..255; coordinates are pixel centres at integer positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]
Picture = NDArray[np.float64]
Samples = NDArray[np.uint8]
Colour = tuple[float, float, float]
Paint = Callable[[Plane, Plane], tuple[Picture, Plane]]
"""Local coordinates (x, y) -> RGB (..., 3) and signed distance to the outline (negative inside)."""


def coordinates(width: int, height: int) -> tuple[Plane, Plane]:
    """Return pixel coordinates x (1, w) and y (h, 1)."""
    return np.arange(width, dtype=np.float64)[None, :], np.arange(height, dtype=np.float64)[:, None]


def _hash(seed: int, *keys: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Mix integer coordinates into 32 well-distributed bits (multiply, xor-shift)."""
    state = np.full((1,), seed * 0x9E3779B1 & 0xFFFFFFFF, np.uint32)
    for key in keys:
        state = state ^ (key & 0xFFFFFFFF).astype(np.uint32)
        state = (state ^ (state >> np.uint32(16))) * np.uint32(0x7FEB352D)
        state = (state ^ (state >> np.uint32(15))) * np.uint32(0x846CA68B)
        state = state ^ (state >> np.uint32(16))
    return np.asarray(state)


def texture(x: Plane, y: Plane, *, seed: int, cell: float, octaves: int = 3) -> Plane:
    """Return value noise in [-1, 1] as a function of the plane: a shift by any fraction of a pixel is exact."""
    total = np.zeros(np.broadcast(x, y).shape)
    amplitude = 1.0
    for octave in range(octaves):
        u, v = x / cell, y / cell
        column, row = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
        fx, fy = u - column, v - row
        fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
        corner = [[_hash(seed + octave, row + dy, column + dx) / 2147483648.0 - 1 for dx in (0, 1)] for dy in (0, 1)]
        upper = corner[0][0] * (1 - fx) + corner[0][1] * fx
        lower = corner[1][0] * (1 - fx) + corner[1][1] * fx
        total += amplitude * (upper * (1 - fy) + lower * fy)
        amplitude *= 0.5
        cell /= 2
    return total / (2 - 2 * amplitude)


def camera_noise(width: int, height: int, *, seed: int, frame: int) -> Plane:
    """Return noise of mean 0 and standard deviation 1, independent in space and time (the sum of four bytes)."""
    rows, columns = np.arange(height, dtype=np.int64)[:, None], np.arange(width, dtype=np.int64)[None, :]
    bits = _hash(seed, np.asarray(frame, np.int64), rows, columns)
    total = sum((bits >> np.uint32(8 * k)) & np.uint32(255) for k in range(4))
    return (np.asarray(total, np.float64) - 510.0) / 147.8


def fill(colour: Colour, shape: tuple[int, ...]) -> Picture:
    """Return a surface of one colour."""
    return np.broadcast_to(np.asarray(colour, np.float64), (*shape, 3)).copy()


def shade(colour: Colour, amount: Plane) -> Picture:
    """Return a surface of one colour, lightened or darkened by `amount`."""
    return np.asarray(colour, np.float64) + amount[..., None]


def blend(picture: Picture, surface: Picture, distance: Plane) -> Picture:
    """Lay a surface over a picture where the signed distance is negative, with an edge one pixel wide."""
    cover = np.clip(0.5 - distance, 0.0, 1.0)[..., None]
    return np.asarray(picture * (1 - cover) + surface * cover)


def circle(x: Plane, y: Plane, radius: float) -> Plane:
    """Return the signed distance to a circle about the origin."""
    return np.asarray(np.sqrt(x * x + y * y) - radius)


def box(x: Plane, y: Plane, half_width: float, half_height: float, corner: float = 0.0) -> Plane:
    """Return the signed distance to a rectangle about the origin with rounded corners."""
    dx, dy = np.abs(x) - half_width + corner, np.abs(y) - half_height + corner
    outside = np.sqrt(np.maximum(dx, 0) ** 2 + np.maximum(dy, 0) ** 2)
    return np.asarray(outside + np.minimum(np.maximum(dx, dy), 0) - corner)


def stroke(x: Plane, y: Plane, points: tuple[tuple[float, float], ...], thickness: float) -> Plane:
    """Return the signed distance to a polyline of a given thickness with round ends."""
    nearest = np.full(np.broadcast(x, y).shape, np.inf)
    for (ax, ay), (bx, by) in pairwise(points):
        dx, dy = bx - ax, by - ay
        along = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
        nearest = np.minimum(nearest, np.sqrt((x - ax - along * dx) ** 2 + (y - ay - along * dy) ** 2))
    return nearest - thickness / 2


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Pose of a sprite: its centre in pixels, and the tangent of half its angle (rotation without sines)."""

    x: float
    y: float
    turn: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Sprite:
    """Object that moves or appears.

    Attributes:
        name: what it is.
        role: "object", or "event" for the short key event.
        frames: first frame and the one after the last in which it is visible.
        radius: of a circle about the centre that contains it, in pixels.
        pose: frame -> Pose.
        paint: its appearance.
    """

    name: str
    role: str
    frames: tuple[int, int]
    radius: float
    pose: Callable[[int], Pose]
    paint: Paint

    def bounds(self, frame: int, width: int, height: int) -> tuple[int, int, int, int] | None:
        """Return pixels x, y, w, h outside of which it leaves no trace, or None where it is not in the picture."""
        if not self.frames[0] <= frame < self.frames[1]:
            return None
        pose = self.pose(frame)
        reach = self.radius + 1
        left, top = max(int(np.floor(pose.x - reach)), 0), max(int(np.floor(pose.y - reach)), 0)
        right = min(int(np.ceil(pose.x + reach)) + 1, width)
        bottom = min(int(np.ceil(pose.y + reach)) + 1, height)
        return (left, top, right - left, bottom - top) if right > left and bottom > top else None

    def draw(self, picture: Picture, frame: int) -> None:
        """Draw it into the picture, in place, only inside its bounds."""
        bounds = self.bounds(frame, picture.shape[1], picture.shape[0])
        if bounds is None:
            return
        left, top, width, height = bounds
        pose = self.pose(frame)
        x = np.arange(left, left + width, dtype=np.float64)[None, :] - pose.x
        y = np.arange(top, top + height, dtype=np.float64)[:, None] - pose.y
        scale = 1 + pose.turn * pose.turn
        cosine, sine = (1 - pose.turn * pose.turn) / scale, 2 * pose.turn / scale
        surface, distance = self.paint(x * cosine + y * sine, y * cosine - x * sine)
        region = picture[top : top + height, left : left + width]
        region[:] = blend(region, surface, distance)


def to_yuv420(picture: Picture, noise: Plane) -> tuple[Samples, Samples, Samples]:
    """Convert RGB to limited-range YCbCr of ITU-R BT.601, chroma averaged over 2x2 pixels (edges repeated if odd).

    Args:
        picture: RGB, 0..255.
        noise: added to luma before rounding, in luma steps; broadcasts against (h, w).
    """
    red, green, blue = (picture[..., channel] / 255.0 for channel in range(3))
    luma = 16 + 65.481 * red + 128.553 * green + 24.966 * blue + noise
    cb = 128 - 37.797 * red - 74.203 * green + 112.0 * blue
    cr = 128 + 112.0 * red - 93.786 * green - 18.214 * blue

    def halve(plane: Plane) -> Plane:
        plane = np.pad(plane, ((0, plane.shape[0] % 2), (0, plane.shape[1] % 2)), mode="edge")
        return (plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]) / 4

    def quantise(plane: Plane) -> Samples:
        return np.clip(np.floor(plane + 0.5), 0, 255).astype(np.uint8)

    return quantise(luma), quantise(halve(cb)), quantise(halve(cr))
