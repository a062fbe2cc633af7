"""Scenes of the benchmark's clips: drawn once from a seed, before any pixel is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "val", "test", "stress", "gops"]
Difficulty = Literal["easy", "normal", "hard"]
Kind = Literal["shape", "count", "digit", "letter", "event"]

SIDE: Final = 128
"""Pixels per side of a picture."""
FPS: Final = 25
SAMPLED: Final = 16
"""Frames that a model sees of a clip."""
STAYS: Final = (7, 12)
"""Sampled frames in which a named shape is seen, at least and at most."""

SHAPES: Final = ("circle", "square", "triangle", "star", "cross", "ring", "moon", "bar")
COLOURS: Final = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
DIGITS: Final = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
LETTERS: Final = ("A", "H", "K", "M", "T", "X")
ICONS: Final = ("bolt", "arrow", "flower", "fence", "target", "hourglass")
TEXTURES: Final = ("plain", "stripes", "checker", "dots", "bricks", "clouds")
DIRECTIONS: Final = ("left", "right", "up", "down")
CORNERS: Final = ("nw", "ne", "sw", "se")

STEPS: Final = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
GAP: Final = 2.0
"""Pixels that objects keep between each other and from the border, beyond their radii."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Settings of libx264.

    Attributes:
        preset: as x264 names it.
        crf: constant rate factor.
        keyint: most pictures between key frames.
        bframes: most B pictures in a row.
    """

    preset: str
    crf: int
    keyint: int
    bframes: int


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A stretch with one background.

    Attributes:
        start: first frame.
        stop: the frame after its last.
        texture: one of `TEXTURES`.
        low: grey level of the darker parts, 0 to 255.
        high: of the lighter ones.
        tint: added to red, green and blue.
        scale: period of the texture, pixels.
        pan: shift per frame, pixels (x, y).
        pattern: seed of what is random in the texture.
    """

    start: int
    stop: int
    texture: str
    low: float
    high: float
    tint: tuple[float, float, float]
    scale: float
    pan: tuple[float, float]
    pattern: int


@dataclass(frozen=True, kw_only=True)
class Thing:
    """An object: a named shape, one of several copies, a plate with a digit or letter, or a flashing icon.

    Attributes:
        kind: what it is for.
        name: one of `SHAPES`, `DIGITS`, `LETTERS` or `ICONS`.
        colour: one of `COLOURS`; empty for plates and icons.
        radius: pixels.
        angle: radians.
        ruled: whether its surface is striped.
        start: first frame in which it is seen.
        stop: the frame after the last.
        x: of its centre when it appears, pixels.
        y: likewise.
        direction: where it moves; empty if it stays.
        distance: how far, pixels.
        leaves: frame in which it begins to move.
        arrives: frame in which it stands again.
    """

    kind: Kind
    name: str
    radius: float
    start: int
    stop: int
    x: float
    y: float
    colour: str = ""
    angle: float = 0.0
    ruled: bool = False
    direction: str = ""
    distance: float = 0.0
    leaves: int = 0
    arrives: int = 0

    def seen(self, frames: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether it is in these frames, bool (T,)."""
        return (frames >= self.start) & (frames < self.stop)

    def place(self, frames: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the centre in these frames, (x, y) in pixels, float64 (T, 2)."""
        here = np.broadcast_to(np.array([self.x, self.y]), (len(frames), 2))
        if not self.direction:
            return here
        way = np.clip((frames - self.leaves) / (self.arrives - self.leaves), 0.0, 1.0)
        return np.asarray(here + self.distance * way[:, None] * np.array(STEPS[self.direction]), np.float64)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A clip before it is drawn.

    Scenes are as likely as what they are when time runs backwards, so that a set of frames without its order cannot
    tell which way a shape moved or which of two came first.

    Attributes:
        seed: what it was made from, with the split.
        split: likewise.
        frames: number of frames.
        shots: in order; they cover all frames.
        things: objects, in drawing order.
        noise: standard deviation of the camera's noise, grey levels.
        grain: whether noise is coarse.
        fade: brightness at the last frame over that at the first; the middle of the clip has the normal one.
        encoding: how it is encoded.
    """

    seed: int
    split: Split
    frames: int
    shots: tuple[Shot, ...]
    things: tuple[Thing, ...]
    noise: float
    grain: bool
    fade: float
    encoding: Encoding

    @property
    def sampled(self) -> NDArray[np.int64]:
        """int64 (16,): the frames that a model sees, ``floor((i + 0.5) n / 16)``, as ``uniform:16``."""
        return sample_frames(self.frames)


@dataclass(frozen=True, kw_only=True)
class _Size:
    """Radii and rates of a difficulty."""

    shape: tuple[float, float]
    copy: float
    plate: float
    icon: float
    flash: tuple[int, int]


SIZES: Final[dict[Difficulty, _Size]] = {
    "easy": _Size(shape=(12, 16), copy=9, plate=14, icon=14, flash=(2, 3)),
    "normal": _Size(shape=(10, 14), copy=8, plate=12, icon=12, flash=(1, 2)),
    "hard": _Size(shape=(8, 11), copy=7, plate=10, icon=10, flash=(1, 1)),
}


def sample_frames(count: int, sampled: int = SAMPLED) -> NDArray[np.int64]:
    """Return the middle frame of each of so many equal stretches, int64 (sampled,)."""
    return np.floor((np.arange(sampled) + 0.5) * count / sampled).astype(np.int64)


def make_scene(seed: int, *, split: Split, difficulty: Difficulty = "normal") -> Scene:
    """Draw the scene of a seed.

    Training and the other splits differ in more than their seeds: tints, pan speeds, noise and the encoder's
    settings of the latter are never trained on. Shapes, colours and answers are drawn alike everywhere.

    Args:
        seed: any integer from 0 on.
        split: train; val and test; stress with coarse encoding and more noise; gops with short GoPs.
        difficulty: sizes and durations.
    """
    rng = np.random.default_rng([get_args(Split).index(split), seed])
    held_out = split != "train"
    count = int(rng.integers(100, 181))
    size = SIZES[difficulty]
    shots = _draw_shots(rng, count, held_out=held_out)
    stage = _Stage(rng, count, shots, size)
    # The copies come first, while there is room for any number of them; later they would more often be few.
    names = [SHAPES[index] for index in rng.permutation(len(SHAPES))]
    if rng.random() < 0.55:
        stage.add_copies(names.pop())
    for name in names[: int(rng.integers(2, 5))]:
        stage.add_shape(name)
    if rng.random() < 0.7:
        stage.add_plate("digit")
    if rng.random() < 0.6:
        stage.add_plate("letter")
    if rng.random() < 0.7:
        stage.add_flash()
    noise = float(rng.uniform(3.0, 4.0) if held_out else rng.uniform(1.0, 3.0))
    return Scene(
        seed=seed,
        split=split,
        frames=count,
        shots=shots,
        things=tuple(stage.things),
        noise=noise + (2.0 if split == "stress" else 0.0),
        grain=bool(rng.random() < 0.2),
        fade=float(rng.choice([0.7, 1.0 / 0.7])) if rng.random() < 0.2 else 1.0,
        encoding=_draw_encoding(rng, split),
    )


def _draw_encoding(rng: np.random.Generator, split: Split) -> Encoding:
    if split == "train":
        return Encoding(preset="veryfast", crf=int(rng.integers(23, 29)), keyint=250, bframes=3)
    if split == "stress":
        return Encoding(preset="medium", crf=32, keyint=48, bframes=0)
    return Encoding(
        preset="medium",
        crf=int(rng.integers(21, 27)),
        keyint=int(rng.integers(24, 49)) if split == "gops" else 250,
        bframes=3,
    )


def _draw_shots(rng: np.random.Generator, count: int, *, held_out: bool) -> tuple[Shot, ...]:
    number = int(rng.choice([1, 2, 3], p=[0.35, 0.4, 0.25]))
    while True:
        cuts = np.sort(rng.uniform(0, 1, number - 1)) * count
        edges = np.concatenate([[0], np.round(cuts), [count]]).astype(int)
        if np.diff(edges).min() >= 0.22 * count:
            break
    textures = rng.permutation(len(TEXTURES))[:number]
    shots = []
    for texture, start, stop in zip(textures, edges[:-1], edges[1:], strict=True):
        low = float(rng.uniform(70, 130))
        # Hues from 0.8 on, and pans of 14 to 20 pixels a second, are kept from training.
        hue = 2 * np.pi * (rng.uniform(0.8, 1.0) if held_out else rng.uniform(0.0, 0.8))
        tint = 18 * np.cos(hue + np.array([0, 2, 4]) * np.pi / 3)
        pan = (0.0, 0.0)
        if rng.random() < 0.45:
            speed = rng.uniform(14, 20) if held_out else rng.choice([rng.uniform(8, 14), rng.uniform(20, 30)])
            angle = rng.uniform(0, 2 * np.pi)
            pan = (float(speed * np.cos(angle)) / FPS, float(speed * np.sin(angle)) / FPS)
        shots.append(
            Shot(
                start=int(start),
                stop=int(stop),
                texture=TEXTURES[texture],
                low=low,
                high=low + float(rng.uniform(22, 45)),
                tint=(float(tint[0]), float(tint[1]), float(tint[2])),
                scale=float(rng.uniform(12, 20)),
                pan=pan,
                pattern=int(rng.integers(1 << 31)),
            )
        )
    return tuple(shots)


class _Stage:
    """Objects that never touch in a sampled frame; one that finds no place is left out."""

    tries = 40

    def __init__(self, rng: np.random.Generator, count: int, shots: tuple[Shot, ...], size: _Size) -> None:
        self.rng = rng
        self.count = count
        self.shots = shots
        self.size = size
        self.frames = sample_frames(count)
        self.step = count / SAMPLED
        self.things: list[Thing] = []

    def add_shape(self, name: str) -> None:
        """Add a sprite that comes and leaves again; most move."""
        rng = self.rng
        start, stop = self._stay(*STAYS)
        radius = float(rng.uniform(*self.size.shape))
        colour = COLOURS[rng.integers(len(COLOURS))]
        angle, ruled = float(rng.uniform(-0.25, 0.25)), bool(rng.random() < 0.3)
        moves = rng.random() < 0.7
        for _ in range(self.tries):
            direction, distance, leaves, arrives = "", 0.0, 0, 0
            if moves:
                direction = DIRECTIONS[rng.integers(4)]
                distance = float(rng.uniform(34, 64))
                leaves = start + int(rng.uniform(0.1, 0.3) * (stop - start))
                arrives = stop - int(rng.uniform(0.1, 0.3) * (stop - start))
            x, y = self._anywhere(radius)
            thing = Thing(kind="shape", name=name, colour=colour, radius=radius, angle=angle, ruled=ruled, start=start,
                          stop=stop, x=x, y=y, direction=direction, distance=distance, leaves=leaves,
                          arrives=arrives)  # fmt: skip
            if self._fits(thing):
                self.things.append(thing)
                return

    def add_copies(self, name: str) -> None:
        """Add one to four copies of a shape for one shot; all or none of them."""
        rng = self.rng
        colour = COLOURS[rng.integers(len(COLOURS))]
        shot = self.shots[rng.integers(len(self.shots))]
        wanted, before = int(rng.integers(1, 5)), len(self.things)
        for _ in range(wanted):
            for _ in range(self.tries):
                x, y = self._anywhere(self.size.copy)
                thing = Thing(kind="count", name=name, colour=colour, radius=self.size.copy, start=shot.start,
                              stop=shot.stop, x=x, y=y, angle=float(rng.uniform(-0.25, 0.25)))  # fmt: skip
                if self._fits(thing):
                    self.things.append(thing)
                    break
        if len(self.things) - before < wanted:
            del self.things[before:]

    def add_plate(self, kind: Literal["digit", "letter"]) -> None:
        """Add a plate in one quarter of the picture for two to five sampled frames."""
        rng = self.rng
        names = DIGITS if kind == "digit" else LETTERS
        name = names[rng.integers(len(names))]
        start, stop = self._stay(2, 5)
        for _ in range(self.tries):
            x, y = self._anywhere(self.size.plate)
            thing = Thing(kind=kind, name=name, radius=self.size.plate, start=start, stop=stop, x=x, y=y)
            off_centre = min(abs(x - SIDE / 2), abs(y - SIDE / 2))
            if off_centre > 10 and self._fits(thing):
                self.things.append(thing)
                return

    def add_flash(self) -> None:
        """Add an icon in one or two sampled frames."""
        rng = self.rng
        name = ICONS[rng.integers(len(ICONS))]
        start, stop = self._stay(*self.size.flash)
        for _ in range(self.tries):
            x, y = self._anywhere(self.size.icon)
            thing = Thing(kind="event", name=name, radius=self.size.icon, start=start, stop=stop, x=x, y=y)
            if self._fits(thing):
                self.things.append(thing)
                return

    def _stay(self, least: int, most: int) -> tuple[int, int]:
        """Draw the first frame and the one after the last of so many sampled frames, anywhere in the clip.

        The length is drawn before the place and nothing is cut off, so that the earlier of two is the longer one as
        often as the shorter one.
        """
        length = int(self.rng.integers(least, most + 1))
        first = int(self.rng.integers(0, SAMPLED - length + 1))
        return round(first * self.step), round((first + length) * self.step)

    def _anywhere(self, radius: float) -> tuple[float, float]:
        low, high = radius + GAP, SIDE - radius - GAP
        return float(self.rng.uniform(low, high)), float(self.rng.uniform(low, high))

    def _fits(self, thing: Thing) -> bool:
        seen = thing.seen(self.frames)
        if not seen.any():
            return False
        place = thing.place(self.frames)
        border = thing.radius + GAP
        if place.min() < border or place.max() > SIDE - border:
            return False
        for other in self.things:
            both = seen & other.seen(self.frames)
            apart = np.hypot(*(place - other.place(self.frames))[both].T)
            if both.any() and apart.min() < thing.radius + other.radius + GAP:
                return False
        return True
