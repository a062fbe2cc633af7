"""Labels of the cells of a frame, known from the scene: dense targets, and the basis of the oracle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from compress.accuracy.drawing import KINDS, stamp
from compress.accuracy.scene import COLOURS, DIGITS, SIDE, TEXTURES, Scene, Thing

GRID: Final = 7
"""Tokens per side of a frame."""
ENOUGH: Final = 24
"""Pixels of an object from which on a cell holds it."""
NOTHING: Final = -1

_CELL: Final = np.arange(SIDE) * GRID // SIDE


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """Contents of T x 7 x 7 cells.

    Attributes:
        kind: int8 (T, 7, 7), index into `drawing.KINDS` of the object that covers most of a cell, or -1.
        colour: int8 (T, 7, 7), of that object in `COLOURS`, or -1.
        digit: int8 (T, 7, 7), likewise in `DIGITS`.
        offset: float32 (T, 7, 7, 2), from the cell's centre to the object's, in cells (x, y); 0 in an empty cell.
        texture: int8 (T,), of the background in `TEXTURES`.
    """

    kind: NDArray[np.int8]
    colour: NDArray[np.int8]
    digit: NDArray[np.int8]
    offset: NDArray[np.float32]
    texture: NDArray[np.int8]

    @property
    def occupied(self) -> NDArray[np.bool_]:
        """bool (T, 7, 7): a cell holds an object."""
        return np.asarray(self.kind != NOTHING)


def kind_of(thing: Thing) -> int:
    """Return its index in `drawing.KINDS`."""
    return KINDS.index(thing.kind if thing.kind in ("digit", "letter") else thing.name)


def label(scene: Scene, frames: NDArray[np.int64]) -> Labels:
    """Return what the cells show in some frames, int64 (T,)."""
    things = scene.things
    parts = []
    for frame in frames.tolist():
        at = np.array([frame], np.int64)
        seen = [(thing, *thing.place(at)[0].tolist()) for thing in things if thing.start <= frame < thing.stop]
        parts.append(label_objects(seen))
    starts = np.array([shot.start for shot in scene.shots])
    shots = np.searchsorted(starts, frames, side="right") - 1
    texture = np.array([TEXTURES.index(scene.shots[shot].texture) for shot in shots], np.int8)
    kind, colour, digit, offset = (np.stack(arrays) for arrays in zip(*parts, strict=True))
    return Labels(kind=kind, colour=colour, digit=digit, offset=offset, texture=texture)


def label_objects(
    seen: list[tuple[Thing, float, float]],
) -> tuple[NDArray[np.int8], NDArray[np.int8], NDArray[np.int8], NDArray[np.float32]]:
    """Label the cells of one picture with these objects at (x, y): kind, colour, digit and offset."""
    owners = np.full((SIDE, SIDE), NOTHING, np.int8)
    for number, (thing, x, y) in enumerate(seen):
        stamp(owners, thing, x, y, number)
    kind = np.full((GRID, GRID), NOTHING, np.int8)
    colour, digit = kind.copy(), kind.copy()
    offset = np.zeros((GRID, GRID, 2), np.float32)
    most = np.full((GRID, GRID), ENOUGH - 1)
    for number, (thing, x, y) in enumerate(seen):
        rows, cols = np.nonzero(owners == number)
        covered = np.zeros((GRID, GRID), np.int64)
        np.add.at(covered, (_CELL[rows], _CELL[cols]), 1)
        mine = covered > most
        most[mine] = covered[mine]
        kind[mine] = kind_of(thing)
        colour[mine] = COLOURS.index(thing.colour) if thing.colour else NOTHING
        digit[mine] = DIGITS.index(thing.name) if thing.kind == "digit" else NOTHING
        at = np.array([x, y]) / SIDE * GRID - 0.5
        r, c = np.nonzero(mine)
        offset[r, c] = at - np.stack([c, r], axis=1)
    return kind, colour, digit, offset
