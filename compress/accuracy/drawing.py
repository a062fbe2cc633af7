"""Drawing of objects and backgrounds: masks and surfaces, drawn large and averaged down."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from compress.accuracy.scene import COLOURS, ICONS, SHAPES, SIDE, Shot, Thing

Picture = NDArray[np.float32]
Points = NDArray[np.float64]

OVER: Final = 8
"""Subpixels per pixel and side, along which outlines are averaged."""

RGB: Final[dict[str, tuple[int, int, int]]] = dict(
    zip(
        COLOURS,
        [(215, 35, 35), (245, 140, 25), (240, 225, 50), (45, 165, 55), (60, 205, 215), (45, 75, 220), (125, 50, 180),
         (250, 130, 190)],
        strict=True,
    )
)  # fmt: skip
PAPER: Final = (235, 235, 230)
INK: Final = (25, 25, 30)


def polygon(corners: int, *, turn: float = 0.0, inner: float | None = None) -> Points:
    """List corners on the unit circle, the first at the top; with `inner`, of a star."""
    count = corners if inner is None else 2 * corners
    angle = turn - math.pi / 2 + 2 * math.pi * np.arange(count) / count
    radius = np.ones(count) if inner is None else np.where(np.arange(count) % 2, inner, 1.0)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def box(width: float, height: float, x: float = 0.0, y: float = 0.0) -> Points:
    """List the corners of a rectangle by its half sides and centre."""
    corners = np.array([[-width, -height], [width, -height], [width, height], [-width, height]])
    return np.asarray(corners + np.array([x, y]), np.float64)


CROSS: Final = np.array(
    [[-0.32, -0.95], [0.32, -0.95], [0.32, -0.32], [0.95, -0.32], [0.95, 0.32], [0.32, 0.32], [0.32, 0.95],
     [-0.32, 0.95], [-0.32, 0.32], [-0.95, 0.32], [-0.95, -0.32], [-0.32, -0.32]]
)  # fmt: skip
BOLT: Final = np.array([[0.25, -1], [-0.65, 0.2], [-0.05, 0.2], [-0.3, 1], [0.65, -0.3], [0.05, -0.3]])
ARROW: Final = np.array([[0, -1], [0.8, -0.1], [0.28, -0.1], [0.28, 0.95], [-0.28, 0.95], [-0.28, -0.1], [-0.8, -0.1]])
HOURGLASS: Final = np.array([[-0.75, -0.9], [0.75, -0.9], [0.1, 0], [0.75, 0.9], [-0.75, 0.9], [-0.1, 0]])


STROKE: Final = 0.11
"""Half width of a stroke, in radii of the plate."""


def arc(x: float, y: float, width: float, height: float, start: float, stop: float) -> Points:
    """List points of a piece of an ellipse; angles in quarter turns, clockwise from the right."""
    angle = np.linspace(start, stop, 13) * math.pi / 2
    return np.stack([x + width * np.cos(angle), y + height * np.sin(angle)], axis=1)


def line(*points: tuple[float, float]) -> Points:
    """List points of a polyline."""
    return np.array(points, np.float64)


GLYPHS: Final[dict[str, tuple[Points, ...]]] = {
    "0": (arc(0, 0, 0.85, 1, 0, 4),),
    "1": (line((-0.5, -0.6), (0.1, -1), (0.1, 1)), line((-0.5, 1), (0.7, 1))),
    "2": (np.concatenate([arc(0, -0.45, 0.8, 0.55, -2, 0.4), line((-0.8, 1), (0.85, 1))]),),
    "3": (arc(-0.05, -0.5, 0.75, 0.5, -1.8, 1), arc(-0.05, 0.5, 0.85, 0.5, -1, 1.8)),
    "4": (line((0.4, 1), (0.4, -1), (-0.9, 0.4), (0.9, 0.4)),),
    "5": (np.concatenate([line((0.75, -1), (-0.65, -1), (-0.7, -0.1)), arc(-0.1, 0.4, 0.9, 0.6, -1.4, 1.7)]),),
    "6": (arc(0, 0.4, 0.8, 0.6, 0, 4), arc(0.45, 0.4, 1.25, 1.4, -2, -1)),
    "7": (line((-0.85, -1), (0.85, -1), (-0.2, 1)),),
    "8": (arc(0, -0.5, 0.7, 0.5, 0, 4), arc(0, 0.5, 0.85, 0.5, 0, 4)),
    "9": (arc(0, -0.4, 0.8, 0.6, 0, 4), arc(-0.45, -0.4, 1.25, 1.4, 0, 1)),
    "A": (line((-0.95, 1), (0, -1), (0.95, 1)), line((-0.55, 0.35), (0.55, 0.35))),
    "H": (line((-0.8, -1), (-0.8, 1)), line((0.8, -1), (0.8, 1)), line((-0.8, 0), (0.8, 0))),
    "K": (line((-0.75, -1), (-0.75, 1)), line((0.8, -1), (-0.75, 0.15), (0.85, 1))),
    "M": (line((-0.95, 1), (-0.95, -1), (0, 0.3), (0.95, -1), (0.95, 1)),),
    "T": (line((-0.9, -1), (0.9, -1)), line((0, -1), (0, 1))),
    "X": (line((-0.85, -1), (0.85, 1)), line((0.85, -1), (-0.85, 1))),
}
"""Characters as polylines, within 1 of the centre."""


class Mask:
    """A square field of subpixels on which figures in units of the radius are painted."""

    def __init__(self, radius: float, angle: float = 0.0) -> None:
        self.size = 2 * math.ceil(radius + 2)
        self.field = np.zeros((self.size * OVER, self.size * OVER), np.uint8)
        self.scale = radius * OVER
        self.turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])

    def fill(self, points: Points, value: int = 255) -> None:
        """Paint a polygon."""
        at = points @ self.turn.T * self.scale + self.size * OVER / 2
        cv2.fillPoly(self.field, [np.round(at * 16).astype(np.int32)], value, shift=4)

    def disc(self, radius: float, x: float = 0.0, y: float = 0.0, value: int = 255) -> None:
        """Paint a disc."""
        angle = 2 * math.pi * np.arange(48) / 48
        self.fill(np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1), value)

    def cover(self) -> Picture:
        """Return the covered share of every pixel, float32 (size, size)."""
        averaged = cv2.resize(self.field, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return np.asarray(averaged, np.float32) / np.float32(255)


def paint_shape(mask: Mask, name: str) -> None:
    """Draw one of `SHAPES`."""
    if name == "circle":
        mask.disc(0.9)
    elif name == "square":
        mask.fill(box(0.76, 0.76))
    elif name == "triangle":
        mask.fill(polygon(3) * 1.05 + (0, 0.2))
    elif name == "star":
        mask.fill(polygon(5, inner=0.42) * 1.05)
    elif name == "cross":
        mask.fill(CROSS)
    elif name == "ring":
        mask.disc(1.0)
        mask.disc(0.5, value=0)
    elif name == "moon":
        mask.disc(1.0)
        mask.disc(0.85, x=0.55, value=0)
    else:
        mask.fill(box(0.34, 1.0))


def paint_icon(mask: Mask, name: str) -> None:
    """Draw one of `ICONS`, in white on a dark disc."""
    if name == "bolt":
        mask.fill(BOLT * 0.85)
    elif name == "arrow":
        mask.fill(ARROW * 0.8)
    elif name == "flower":
        for x, y in ((0.42, 0), (-0.42, 0), (0, 0.42), (0, -0.42)):
            mask.disc(0.36, x, y)
        mask.disc(0.2, value=0)
    elif name == "fence":
        for x in (-0.5, 0.0, 0.5):
            mask.fill(box(0.12, 0.62, x))
        mask.fill(box(0.72, 0.12, 0, 0.25))
    elif name == "target":
        mask.disc(0.8)
        mask.disc(0.52, value=0)
        mask.disc(0.26)
    else:
        mask.fill(HOURGLASS * 0.75)


def paint_glyph(mask: Mask, name: str) -> None:
    """Draw one character as strokes with round ends."""
    for stroke in GLYPHS[name]:
        points = stroke * (0.4, 0.58)
        for start, end in pairwise(points):
            along = (end - start) / max(float(np.hypot(*(end - start))), 1e-9) * STROKE
            across = np.array([-along[1], along[0]])
            mask.fill(np.stack([start + across, end + across, end - across, start - across]))
        for x, y in points:
            mask.disc(STROKE, float(x), float(y))


@lru_cache(maxsize=256)
def sprite(thing: Thing) -> tuple[Picture, Picture]:
    """Draw an object: colour float32 (s, s, 3) and cover float32 (s, s), centred."""
    body = Mask(thing.radius, thing.angle)
    if thing.kind in ("shape", "count"):
        paint_shape(body, thing.name)
        cover = body.cover()
        paint = np.broadcast_to(np.array(RGB[thing.colour], np.float32), (*cover.shape, 3)).copy()
        if thing.ruled:
            y, x = np.mgrid[: cover.shape[0], : cover.shape[1]]
            paint *= np.where((x + y) % 6 < 3, 1.0, 0.72)[..., None].astype(np.float32)
        return paint, cover
    mark = Mask(thing.radius)
    if thing.kind == "event":
        body.disc(1.0)
        paint_icon(mark, thing.name)
        ground, figure = INK, (255, 255, 255)
    else:
        body.fill(box(0.85, 0.85))
        paint_glyph(mark, thing.name)
        ground, figure = PAPER, INK
    share = mark.cover()[..., None]
    paint = (1 - share) * np.array(ground, np.float32) + share * np.array(figure, np.float32)
    return paint.astype(np.float32), body.cover()


def lay(picture: Picture, thing: Thing, x: float, y: float) -> None:
    """Put an object into a picture, float32 (h, w, 3), with its centre at (x, y); parts outside are lost."""
    paint, cover = shifted(thing, x, y)
    rows, cols, inner = _window(cover.shape[0], x, y)
    share = cover[inner][..., None]
    picture[rows, cols] += share * (paint[inner] - picture[rows, cols])


def shifted(thing: Thing, x: float, y: float) -> tuple[Picture, Picture]:
    """Move a sprite by the fraction of a pixel that its centre has."""
    paint, cover = sprite(thing)
    move = np.array([[1, 0, x - math.floor(x)], [0, 1, y - math.floor(y)]], np.float64)
    size = (cover.shape[0] + 1,) * 2
    return (
        np.asarray(cv2.warpAffine(paint, move, size, borderMode=cv2.BORDER_REPLICATE), np.float32),
        np.asarray(cv2.warpAffine(cover, move, size), np.float32),
    )


def stamp(owners: NDArray[np.int8], thing: Thing, x: float, y: float, value: int) -> None:
    """Write a number where an object covers at least half of a pixel, int8 (h, w)."""
    _, cover = shifted(thing, x, y)
    rows, cols, inner = _window(cover.shape[0], x, y)
    owners[rows, cols][cover[inner] >= 0.5] = value


def _window(size: int, x: float, y: float) -> tuple[slice, slice, tuple[slice, slice]]:
    top, left = math.floor(y) - (size - 1) // 2, math.floor(x) - (size - 1) // 2
    rows = slice(max(top, 0), max(0, min(top + size, SIDE)))
    cols = slice(max(left, 0), max(0, min(left + size, SIDE)))
    return rows, cols, (slice(rows.start - top, rows.stop - top), slice(cols.start - left, cols.stop - left))


def backdrop(shot: Shot) -> Picture:
    """Draw the background of a shot, float32 (h, w, 3), large enough for its pan."""
    frames = shot.stop - shot.start
    width, height = (SIDE + 2 + math.ceil(abs(step) * frames) for step in shot.pan)
    rng = np.random.default_rng(shot.pattern)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    level = _pattern(shot.texture, x, y, shot.scale, rng)
    grey = shot.low + (shot.high - shot.low) * level
    return (grey[..., None] + np.array(shot.tint, np.float32)).astype(np.float32)


def _pattern(texture: str, x: Picture, y: Picture, scale: float, rng: np.random.Generator) -> Picture:
    shift = rng.uniform(0, scale, 2)
    u, v = (x + shift[0]) / scale, (y + shift[1]) / scale
    if texture == "plain":
        return np.full_like(x, rng.uniform(0.2, 0.8))
    if texture == "stripes":
        angle = rng.uniform(0, np.pi)
        return _edge(np.sin(2 * np.pi * (u * np.cos(angle) + v * np.sin(angle))), 3.0)
    if texture == "checker":
        return _edge(np.sin(np.pi * u) * np.sin(np.pi * v), 8.0)
    if texture == "dots":
        return _edge(0.3 - np.hypot(u % 1 - 0.5, v % 1 - 0.5), 12.0)
    if texture == "bricks":
        row = np.floor(2 * v)
        joint = np.minimum(np.abs((u + 0.5 * (row % 2)) % 1 - 0.5), 10)
        gap = np.minimum(0.5 - joint, np.minimum((2 * v) % 1, 1 - (2 * v) % 1) / 2)
        return _edge(gap - 0.07, 16.0)
    coarse = rng.uniform(0, 1, (int(y.max() / scale) + 4, int(x.max() / scale) + 4)).astype(np.float32)
    at = (u.astype(np.float32) + 1, v.astype(np.float32) + 1)
    soft = np.asarray(cv2.remap(coarse, *at, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT), np.float32)
    return np.clip(soft, 0, 1)


def _edge(value: Picture, steepness: float) -> Picture:
    """Return a step that is soft enough to move by fractions of a pixel."""
    return np.clip(0.5 + steepness * value / 2, 0, 1)


KINDS: Final = (*SHAPES, "digit", "letter", *ICONS)
"""What a cell can hold, as the labels number it."""
