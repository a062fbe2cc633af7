"""Whole clips for training: every token of every sampled frame, the questions these frames answer, dense targets.

A clip of fewer frames is a whole clip too: some of its sampled frames, all tokens of each, and only questions that
these frames answer. The tower is frozen and sees single frames, so that its tokens are computed once.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.accuracy.corpus import KINDS_ASKED, LONGEST, SHARD, find_files
from bench.accuracy.train_tower import encode_frames
from compress.accuracy.labels import GRID, kind_of
from compress.accuracy.questions import WORDS, Question, ask, ask_steps
from compress.accuracy.scene import DIRECTIONS, SAMPLED, SHAPES, SIDE, TEXTURES, Scene, Split, Thing, make_scene
from compress.demo.tokenizer import WordTokenizer

UNKNOWN: Final = -100
"""Target of a cell of which nothing is asked."""
STILL: Final = len(DIRECTIONS)
"""Class of a shape that has not moved."""
MOVED: Final = 12.0
RESTED: Final = 4.0
"""Pixels from its first place from which on a shape has moved, and up to which it has not."""
DENSE: Final = {
    "time": SAMPLED, "entry": SAMPLED, "centre": 2, "peers": 5, "way": STILL + 1, "copies": 4, "opening": len(TEXTURES)
}  # fmt: skip
"""Targets of single tokens and their classes; `earlier` besides, bits."""
LOOKED_UP: Final = {"came": SAMPLED, "sooner": 2}
"""Targets of the words of a question and their classes: the frame in which the shape that a word names came, and of the
second of two shapes, whether it came before the first."""
OPPOSITE: Final = {"left": "right", "right": "left", "up": "down", "down": "up", "": ""}
"""Directions when time runs backwards."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Clips of T frames of N tokens with Q questions each.

    Attributes:
        tokens: float16 (B, T * N, d).
        words: int64 (B, Q, 13), questions with the word "answer" and the answer, padded with 0.
        length: int64 (B, Q), 0 where there is no question.
        family: int64 (B, Q), index into `KINDS_ASKED`, -1 where there is none.
        options: int64 (B, Q, 4), -1 where there are fewer.
        dense: int64 (B, T * N) per name of `DENSE`; `UNKNOWN` where nothing is asked.
        earlier: int8 (B, T * N, 8), whether each shape came before the one in this cell, -1 where that is not asked.
        looked_up: int64 (B, Q, 13) per name of `LOOKED_UP`; `UNKNOWN` where nothing is asked.
    """

    tokens: Tensor
    words: Tensor
    length: Tensor
    family: Tensor
    options: Tensor
    dense: dict[str, Tensor]
    earlier: Tensor
    looked_up: dict[str, Tensor]


@torch.no_grad()
def cache_tokens(folder: Path, split: Split, model: Any, cache: Path, *, most: int | None = None) -> None:
    """Write the tower's tokens of every file of a corpus that has none yet, float16 (100, 16, 49, 192) each.

    Args:
        folder: of the corpus.
        split: its name.
        model: whose tower makes the tokens.
        cache: where they are kept.
        most: files, the first ones; all if None.
    """
    cache.mkdir(parents=True, exist_ok=True)
    for file in find_files(folder, split, most=most):
        out = cache / f"{file.stem}.npy"
        if out.exists():
            continue
        frames = torch.from_numpy(np.load(file)["frames"])
        parts = []
        for some in frames.split(8):
            with torch.autocast("cpu", torch.bfloat16):
                made = encode_frames(model, some.flatten(0, 1))
            parts.append(made.half().unflatten(0, (len(some), -1)))
        part = cache / f".{file.stem}.npy"
        np.save(part, torch.cat(parts).numpy())
        part.rename(out)


class WholeClips:
    """Clips of a split whose tokens are cached.

    Args:
        folder: of the corpus.
        split: its name.
        cache: of `cache_tokens`.
    """

    def __init__(self, folder: Path, split: Split, cache: Path) -> None:
        self.folder, self.split, self.cache = folder, split, cache
        self._tokenizer = WordTokenizer(WORDS)
        self.tokens: list[NDArray[np.float16]] = []
        self.kinds: list[NDArray[np.int8]] = []
        self.places: list[tuple[int, int, int]] = []
        self.refresh()

    def refresh(self) -> None:
        """Take up files that were cached since."""
        for file in find_files(self.cache, self.split, ending="npy")[len(self.tokens) :]:
            self.tokens.append(np.load(file, mmap_mode="r"))
            self.kinds.append(np.load(self.folder / f"{file.stem}.npz")["kind"])
            seed, shard = int(file.stem[-5:]) * SHARD, len(self.tokens) - 1
            self.places += [(shard, row, seed + row) for row in range(len(self.kinds[-1]))]

    def __len__(self) -> int:
        return len(self.places)

    @functools.lru_cache(maxsize=20000)  # noqa: B019
    def scene(self, number: int) -> Scene:
        """Return the scene of a clip."""
        return make_scene(self.places[number][2], split=self.split)

    def draw(
        self, rows: Sequence[int], frames: Sequence[NDArray[np.int64]], questions: int, weight: NDArray[np.float64],
        rng: np.random.Generator, *, apart: int, backwards: Sequence[bool] | None = None,
    ) -> Batch:  # fmt: skip
        """Draw a batch.

        Args:
            rows: numbers of the clips.
            frames: of each clip, which of its 16 sampled ones, in order; as many of all.
            questions: of each clip, at most.
            weight: (families,), how likely a question of each family of `KINDS_ASKED` is taken; 0 for never.
            rng: what chooses among the questions.
            apart: frames between two entries from which on it is asked which came first.
            backwards: of each clip, whether time runs backwards in it; nowhere if None.
        """
        parts: dict[str, list[Any]] = {name: [] for name in (*DENSE, "earlier", "tokens")}
        shape = (len(rows), questions)
        words, length = np.zeros((*shape, LONGEST), np.int64), np.zeros(shape, np.int64)
        family, options = np.full(shape, -1, np.int64), np.full((*shape, 4), -1, np.int64)
        looked_up = {name: np.full((*shape, LONGEST), UNKNOWN, np.int64) for name in LOOKED_UP}
        for row, (number, chosen) in enumerate(zip(rows, frames, strict=True)):
            shard, within, _ = self.places[number]
            scene = self.scene(number)
            at = scene.sampled[chosen]
            if backwards is not None and backwards[row]:
                chosen, at, scene = chosen[::-1], scene.frames - 1 - at[::-1], reverse(scene)
            parts["tokens"].append(self.tokens[shard][within][chosen].reshape(-1, self.tokens[shard].shape[-1]))
            for name, value in dense_targets(scene, at, self.kinds[shard][within][chosen]).items():
                parts[name].append(value)
            asked = [one for one in [*ask(scene, at), *ask_steps(scene, at), *ask_order(scene, at, apart)]
                     if weight[KINDS_ASKED.index(one.family)] > 0]  # fmt: skip
            liking = np.array([weight[KINDS_ASKED.index(one.family)] for one in asked])
            came = enter(scene, at)
            order = np.argsort(-rng.random(len(asked)) * liking, kind="stable")[:questions]
            for column, question in enumerate(asked[index] for index in order.tolist()):
                ids = self._tokenizer.encode(f"{question.text} answer {question.answer}")
                words[row, column, : len(ids)], length[row, column] = ids, len(ids)
                family[row, column] = KINDS_ASKED.index(question.family)
                options[row, column, : len(question.options)] = self._tokenizer.encode(" ".join(question.options))
                for name, targets in look_up(question.text, came).items():
                    looked_up[name][row, column, : len(targets)] = targets
        stacked = {name: torch.from_numpy(np.stack(values)) for name, values in parts.items()}
        return Batch(
            tokens=stacked.pop("tokens"),
            earlier=stacked.pop("earlier"),
            dense=stacked,
            looked_up={name: torch.from_numpy(targets) for name, targets in looked_up.items()},
            words=torch.from_numpy(words),
            length=torch.from_numpy(length),
            family=torch.from_numpy(family),
            options=torch.from_numpy(options),
        )


def choose_frames(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """int64 (count,): sampled frames at equal distances, anywhere in the clip; all 16 if so many are wanted."""
    widest = (SAMPLED - 1) // (count - 1)
    step = max(int(rng.integers(1, widest + 1)), int(rng.integers(1, widest + 1)))
    first = int(rng.integers(0, SAMPLED - step * (count - 1)))
    return first + step * np.arange(count)


def enter(scene: Scene, frames: NDArray[np.int64]) -> dict[str, int]:
    """Find the first of these frames that shows each named shape."""
    seen = {thing.name: np.flatnonzero(thing.seen(frames)) for thing in scene.things if thing.kind == "shape"}
    return {name: int(found[0]) for name, found in seen.items() if len(found)}


def look_up(text: str, came: dict[str, int]) -> dict[str, list[int]]:
    """Targets of a question's words by name of `LOOKED_UP`, given the frame in which each shape came."""
    words = text.split()
    targets = {"came": [came.get(word, UNKNOWN) for word in words], "sooner": [UNKNOWN] * len(words)}
    places = [place for place, word in enumerate(words) if word in came]
    if len(places) == 2:
        first, second = (came[words[place]] for place in places)
        targets["sooner"][places[1]] = int(second < first)
    return targets


def reverse(scene: Scene) -> Scene:
    """Return the scene whose frame ``n - 1 - i`` is frame i of this one; scenes are as likely either way."""
    last = scene.frames
    shots = [replace(one, start=last - one.stop, stop=last - one.start) for one in scene.shots]
    return replace(scene, shots=tuple(shots[::-1]), things=tuple(_reverse_thing(one, last) for one in scene.things))


def _reverse_thing(thing: Thing, frames: int) -> Thing:
    x, y = thing.place(np.array([thing.stop]))[0].tolist()
    return replace(thing, start=frames - thing.stop, stop=frames - thing.start, x=x, y=y,
                   direction=OPPOSITE[thing.direction], leaves=frames - 1 - thing.arrives,
                   arrives=frames - 1 - thing.leaves)  # fmt: skip


def ask_order(scene: Scene, frames: NDArray[np.int64], apart: int) -> list[Question]:
    """Which of two shapes came first, also of pairs that the benchmark leaves out; for training alone."""
    rng = np.random.default_rng([scene.seed, 4])
    shapes = [(thing, np.flatnonzero(thing.seen(frames))) for thing in scene.things if thing.kind == "shape"]
    found = []
    for pair in combinations([one for one in shapes if len(one[1])], 2):
        (early, sooner), (late, later) = sorted(pair, key=lambda one: int(one[1][0]))
        if later[0] - sooner[0] < apart:
            continue
        a, b = (pair[index][0].name for index in rng.permutation(2))
        for word, right in (("first", early), ("last", late)):
            found.append(Question(family="order", text=f"which came {word} : {a} or {b} ?", options=(a, b),
                                  answer=right.name))  # fmt: skip
    return found


def dense_targets(scene: Scene, at: NDArray[np.int64], kind: NDArray[np.int8]) -> dict[str, NDArray[Any]]:
    """Compute what a token can know from itself and all before it.

    Frames at (T,) and kinds (T, 7, 7) give (T * 49, ...) each.

    `time`: number of the frame. `entry`: number of the first frame that shows this cell's object. `centre`: whether an
    object's centre is in this cell, of cells that hold one. `peers`: how many centres of its kind its frame has up to
    this cell, of cells that hold an object. `way`: where the shape has moved since. `copies`: how many equal ones there
    are, from the second frame on that shows them. `earlier`: which shapes came before this one. `opening`: background
    of the first frame.
    """
    count, cells = len(at), kind.reshape(len(at), -1)
    blank = np.full(cells.shape, UNKNOWN, np.int64)
    found = {name: blank.copy() for name in DENSE}
    found["time"][:] = np.arange(count)[:, None]
    starts = np.array([shot.start for shot in scene.shots])
    first_shot = int(np.searchsorted(starts, at[0], side="right")) - 1
    found["opening"][:] = TEXTURES.index(scene.shots[first_shot].texture)
    earlier = np.full((*cells.shape, len(SHAPES)), -1, np.int8)
    seen = {thing: np.flatnonzero(thing.seen(at)) for thing in scene.things}
    came = enter(scene, at)
    bits = np.array([came.get(name, SAMPLED) for name in SHAPES])
    copies = sum(thing.kind == "count" for thing in scene.things)
    for thing, frames in seen.items():
        if not len(frames):
            continue
        mine = (cells == kind_of(thing)) & np.isin(np.arange(count), frames)[:, None]
        found["entry"][mine] = frames[0]
        column, line = np.floor(thing.place(at) / SIDE * GRID).astype(np.int64).T
        at_centre = np.arange(cells.shape[1]) == (line * GRID + column)[:, None]
        found["centre"][mine] = np.where(at_centre, 1, np.maximum(found["centre"], 0))[mine]
        if thing.kind == "count":
            found["copies"][mine & (np.arange(count) > frames[0])[:, None]] = copies - 1
        elif thing.kind == "shape":
            place = thing.place(at)
            gone = np.abs(place - place[frames[0]]).max(axis=1)
            way = np.where(gone <= RESTED, STILL, UNKNOWN)
            if thing.direction:
                way[gone >= MOVED] = DIRECTIONS.index(thing.direction)
            found["way"][mine] = np.broadcast_to(way[:, None], mine.shape)[mine]
            earlier[mine] = bits < frames[0]
    for kind_here in np.unique(cells[found["centre"] >= 0]):
        mine = (cells == kind_here) & (found["centre"] >= 0)
        counted = np.cumsum(mine & (found["centre"] == 1), axis=1)
        found["peers"][mine] = np.minimum(counted, DENSE["peers"] - 1)[mine]
    flat = {name: value.reshape(-1) for name, value in found.items()}
    return flat | {"earlier": earlier.reshape(-1, len(SHAPES))}
