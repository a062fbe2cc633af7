"""Whole clips for training: every token of every sampled frame, the questions these frames answer, dense targets.

A clip of fewer frames is a whole clip too: some of its sampled frames, all tokens of each, and only questions that
these frames answer. The tower is frozen and sees single frames, so that its tokens are computed once.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.accuracy.corpus import KINDS_ASKED, LONGEST, SHARD, find_files
from bench.accuracy.train_tower import encode_frames
from compress.accuracy.labels import kind_of
from compress.accuracy.questions import WORDS, Question, ask
from compress.accuracy.scene import DIRECTIONS, SAMPLED, SHAPES, TEXTURES, Scene, Split, make_scene
from compress.demo.tokenizer import WordTokenizer

UNKNOWN: Final = -100
"""Target of a cell of which nothing is asked."""
STILL: Final = len(DIRECTIONS)
"""Class of a shape that has not moved."""
MOVED: Final = 12.0
RESTED: Final = 4.0
"""Pixels from its first place from which on a shape has moved, and up to which it has not."""
DENSE: Final = {"time": SAMPLED, "entry": SAMPLED, "way": STILL + 1, "copies": 4, "opening": len(TEXTURES)}
"""Targets of single tokens and their classes; `earlier` besides, bits."""


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
    """

    tokens: Tensor
    words: Tensor
    length: Tensor
    family: Tensor
    options: Tensor
    dense: dict[str, Tensor]
    earlier: Tensor


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
        """The scene of a clip."""
        return make_scene(self.places[number][2], split=self.split)

    def draw(
        self, rows: Sequence[int], frames: Sequence[NDArray[np.int64]], questions: int, weight: NDArray[np.float64],
        rng: np.random.Generator, *, apart: int,
    ) -> Batch:  # fmt: skip
        """A batch.

        Args:
            rows: numbers of the clips.
            frames: of each clip, which of its 16 sampled ones, in order; as many of all.
            questions: of each clip, at most.
            weight: (families,), how likely a question of each family of `KINDS_ASKED` is taken; 0 for never.
            rng: what chooses among the questions.
            apart: frames between two entries from which on it is asked which came first.
        """
        parts: dict[str, list[Any]] = {name: [] for name in (*DENSE, "earlier", "tokens")}
        shape = (len(rows), questions)
        words, length = np.zeros((*shape, LONGEST), np.int64), np.zeros(shape, np.int64)
        family, options = np.full(shape, -1, np.int64), np.full((*shape, 4), -1, np.int64)
        for row, (number, chosen) in enumerate(zip(rows, frames, strict=True)):
            shard, within, _ = self.places[number]
            scene = self.scene(number)
            at = scene.sampled[chosen]
            parts["tokens"].append(self.tokens[shard][within][chosen].reshape(-1, self.tokens[shard].shape[-1]))
            for name, value in dense_targets(scene, at, self.kinds[shard][within][chosen]).items():
                parts[name].append(value)
            asked = [one for one in [*ask(scene, at), *ask_order(scene, at, apart)]
                     if weight[KINDS_ASKED.index(one.family)] > 0]  # fmt: skip
            liking = np.array([weight[KINDS_ASKED.index(one.family)] for one in asked])
            order = np.argsort(-rng.random(len(asked)) * liking, kind="stable")[:questions]
            for column, question in enumerate(asked[index] for index in order.tolist()):
                ids = self._tokenizer.encode(f"{question.text} answer {question.answer}")
                words[row, column, : len(ids)], length[row, column] = ids, len(ids)
                family[row, column] = KINDS_ASKED.index(question.family)
                options[row, column, : len(question.options)] = self._tokenizer.encode(" ".join(question.options))
        stacked = {name: torch.from_numpy(np.stack(values)) for name, values in parts.items()}
        return Batch(
            tokens=stacked.pop("tokens"),
            earlier=stacked.pop("earlier"),
            dense=stacked,
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
    """What a token can know from itself and all before it: frames at (T,), kinds (T, 7, 7) -> (T * 49, ...) each.

    `time`: number of the frame. `entry`: of the first one that shows this cell's object. `way`: where the shape has
    moved since. `copies`: how many equal ones there are, from the second frame on that shows them. `earlier`: which
    shapes came before this one. `opening`: background of the first frame.
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
    entries = {thing.name: int(frames[0]) for thing, frames in seen.items() if len(frames) and thing.kind == "shape"}
    bits = np.array([entries.get(name, SAMPLED) for name in SHAPES])
    copies = sum(thing.kind == "count" for thing in scene.things)
    for thing, frames in seen.items():
        if not len(frames):
            continue
        mine = (cells == kind_of(thing)) & np.isin(np.arange(count), frames)[:, None]
        found["entry"][mine] = frames[0]
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
    flat = {name: value.reshape(-1) for name, value in found.items()}
    return flat | {"earlier": earlier.reshape(-1, len(SHAPES))}
