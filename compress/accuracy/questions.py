"""Questions about a scene with balanced answers; each is answered with one word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from compress.accuracy.scene import (
    COLOURS,
    CORNERS,
    DIGITS,
    DIRECTIONS,
    ICONS,
    SHAPES,
    SIDE,
    TEXTURES,
    Scene,
    Thing,
)

NUMBERS: Final = ("one", "two", "three", "four")

FAMILIES: Final = ("colour", "motion", "order", "count", "digit", "place", "event", "scene")
"""What is asked about; accuracy is averaged over them."""

STEPS: Final = ("whereabouts", "presence")
"""Asked in training only: the look-ups that motion and order are made of."""

CHANCE: Final = {family: 0.5 if family == "order" else 0.25 for family in FAMILIES}
"""Accuracy of guessing among the options."""

APART: Final = 2
"""Sampled frames between two shapes' entries, and between their exits, from which on it is asked which came first."""

_ASKING: Final = """
    what colour is was the ? where did move which came first last : or how many were there digit shown in corner
    flashed briefly background at start middle end letter yes no answer
"""

WORDS: Final = tuple(
    dict.fromkeys(
        ("<pad>", "<bos>", "<video>", "<eos>", *_ASKING.split(), *SHAPES, *COLOURS, *DIGITS, *ICONS, *TEXTURES,
         *DIRECTIONS, *CORNERS, *NUMBERS)
    )
)  # fmt: skip
"""The vocabulary; a word's id is its place."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question with its options.

    Attributes:
        family: one of `FAMILIES`, or of `STEPS`.
        text: words with blanks between them.
        options: words among which the answer is chosen, the right one at a random place.
        answer: the right one.
    """

    family: str
    text: str
    options: tuple[str, ...]
    answer: str


def ask(scene: Scene, frames: NDArray[np.int64]) -> list[Question]:
    """List every question that these frames, int64 (T,), can answer."""
    rng = np.random.default_rng([scene.seed, 2])
    return [_offer(rng, *found) for found in _ask_all(scene, frames, rng)]


def ask_steps(scene: Scene, frames: NDArray[np.int64]) -> list[Question]:
    """List the intermediate questions of the training."""
    rng = np.random.default_rng([scene.seed, 3])
    return [_offer(rng, *found) for found in _ask_steps(scene, frames)]


Found = tuple[str, str, str, Sequence[str], Sequence[str]]
"""Family, text, answer, all answers of the family, and wrong ones that the clip suggests."""


def _ask_all(scene: Scene, frames: NDArray[np.int64], rng: np.random.Generator) -> Iterator[Found]:
    shapes = [thing for thing in scene.things if thing.kind == "shape" and thing.seen(frames).sum() >= 2]
    worn = [thing.colour for thing in scene.things if thing.colour]
    for thing in shapes:
        yield "colour", f"what colour is the {thing.name} ?", thing.colour, COLOURS, worn
        if _moves(thing, frames):
            yield "motion", f"where did the {thing.name} move ?", thing.direction, DIRECTIONS, ()
    for pair in combinations(shapes, 2):
        early, late = sorted(pair, key=lambda thing: thing.start)
        if not _passes(early, late, frames):
            continue
        a, b = (pair[index].name for index in rng.permutation(2))
        for word, right in (("first", early), ("last", late)):
            yield "order", f"which came {word} : {a} or {b} ?", right.name, (a, b), ()
    copies = [thing for thing in scene.things if thing.kind == "count"]
    if copies and copies[0].seen(frames).any():
        yield "count", f"how many {copies[0].name} were there ?", NUMBERS[len(copies) - 1], NUMBERS, ()
    for thing in scene.things:
        if not thing.seen(frames).any():
            continue
        if thing.kind == "digit":
            yield "digit", "which digit was shown ?", thing.name, DIGITS, ()
            yield "place", "in which corner was the digit ?", _corner(thing.x, thing.y), CORNERS, ()
        elif thing.kind == "event":
            yield "event", "what flashed briefly ?", thing.name, ICONS, ()
    textures = [shot.texture for shot in scene.shots if ((frames >= shot.start) & (frames < shot.stop)).any()]
    for word, texture in _moments(textures):
        yield "scene", f"what was the background at the {word} ?", texture, TEXTURES, textures


def _ask_steps(scene: Scene, frames: NDArray[np.int64]) -> Iterator[Found]:
    margin = 8
    for thing in scene.things:
        seen = thing.seen(frames)
        if thing.kind != "shape" or not seen.any():
            continue
        yield "presence", f"was the {thing.name} there at the start ?", "yes" if seen[0] else "no", ("yes", "no"), ()
        for word, place in (("start", thing.place(frames[seen])[0]), ("end", thing.place(frames[seen])[-1])):
            x, y = place.tolist()
            if min(abs(x - SIDE / 2), abs(y - SIDE / 2)) > margin:
                text = f"in which corner was the {thing.name} at the {word} ?"
                yield "whereabouts", text, _corner(x, y), CORNERS, ()


def _moments(textures: list[str]) -> Iterator[tuple[str, str]]:
    yield "start", textures[0]
    if len(textures) > 1:
        yield "end", textures[-1]
    if len(textures) > 2:
        yield "middle", textures[1]


def _moves(thing: Thing, frames: NDArray[np.int64]) -> bool:
    """Return whether most of its way lies between the first and the last of these frames in which it is seen."""
    if not thing.direction:
        return False
    place = thing.place(frames[thing.seen(frames)])
    return bool(np.abs(place[-1] - place[0]).max() >= 0.7 * thing.distance)


def _passes(early: Thing, late: Thing, frames: NDArray[np.int64]) -> bool:
    """Return whether one comes before the other and leaves before it.

    Of a shape that is there before another and after it, the frames in any order tell that it came first.
    """
    first, second = (np.flatnonzero(thing.seen(frames))[[0, -1]] for thing in (early, late))
    return bool((second - first).min() >= APART)


def _corner(x: float, y: float) -> str:
    return CORNERS[2 * (y > SIDE / 2) + (x > SIDE / 2)]


def _offer(
    rng: np.random.Generator, family: str, text: str, answer: str, answers: Sequence[str], near: Sequence[str]
) -> Question:
    """Choose four options at most, the clip's own before others, in random order."""
    others = [word for word in dict.fromkeys((*near, *rng.permutation(answers).tolist())) if word != answer]
    options = [answer, *others[:3]]
    shuffled = tuple(options[index] for index in rng.permutation(len(options)))
    return Question(family=family, text=text, options=shuffled, answer=answer)
