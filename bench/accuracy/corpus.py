"""Rendered clips and single frames as arrays for training: frames at the model's size, labels, questions as ids."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from compress.accuracy.drawing import Picture, backdrop, lay
from compress.accuracy.labels import label, label_objects
from compress.accuracy.questions import FAMILIES, STEPS, WORDS, ask, ask_steps
from compress.accuracy.scene import (
    COLOURS,
    DIGITS,
    GAP,
    ICONS,
    LETTERS,
    SHAPES,
    SIDE,
    TEXTURES,
    Kind,
    Shot,
    Split,
    Thing,
    make_scene,
)
from compress.accuracy.world import decode, encode
from compress.demo.model import SIDE as MODEL_SIDE
from compress.demo.tokenizer import WordTokenizer
from compress.models.inputs.preprocess import check_frames, resize

LONGEST: Final = 13
"""Tokens of a question with the word "answer" and its answer."""
MOST: Final = 28
"""Questions of a clip."""
KINDS_ASKED: Final = (*FAMILIES, *STEPS)
SHARD: Final = 100
"""Clips per file."""
FRAMES_PER_SHARD: Final = 2000


@dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
    """Arrays over n clips of T frames, or over single frames with T = 1 and no questions.

    Attributes:
        frames: uint8 (n, T, 3, 112, 112).
        kind: int8 (n, T, 7, 7), see `labels.Labels`; and so the next ones.
        colour: int8 (n, T, 7, 7).
        digit: int8 (n, T, 7, 7).
        offset: float16 (n, T, 7, 7, 2).
        texture: int8 (n, T).
        words: int16 (n, 28, 13), questions with "answer" and the answer, padded with 0.
        length: int8 (n, 28), their lengths, 0 where there is no question.
        family: int8 (n, 28), index into `KINDS_ASKED`, -1 where there is none.
        options: int16 (n, 28, 4), ids, -1 where there are fewer.
    """

    frames: NDArray[np.uint8]
    kind: NDArray[np.int8]
    colour: NDArray[np.int8]
    digit: NDArray[np.int8]
    offset: NDArray[np.float16]
    texture: NDArray[np.int8]
    words: NDArray[np.int16]
    length: NDArray[np.int8]
    family: NDArray[np.int8]
    options: NDArray[np.int16]


def model_frames(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (T, 128, 128, 3) -> uint8 (T, 3, 112, 112), resized as the model's own inputs are."""
    return resize(check_frames(pictures), (MODEL_SIDE, MODEL_SIDE)).numpy()


def render_clip(seed: int, split: Split) -> dict[str, NDArray[Any]]:
    """One clip, through the encoder and back, as a row of every array of a `Corpus`."""
    scene = make_scene(seed, split=split)
    at = scene.sampled
    labels = label(scene, at)
    words = np.zeros((MOST, LONGEST), np.int16)
    length, family = np.zeros(MOST, np.int8), np.full(MOST, -1, np.int8)
    options = np.full((MOST, 4), -1, np.int16)
    tokenizer = WordTokenizer(WORDS)
    asked = (ask(scene, at) + ask_steps(scene, at))[:MOST]
    for row, question in enumerate(asked):
        ids = tokenizer.encode(f"{question.text} answer {question.answer}")
        words[row, : len(ids)] = ids
        length[row], family[row] = len(ids), KINDS_ASKED.index(question.family)
        options[row, : len(question.options)] = tokenizer.encode(" ".join(question.options))
    return {
        "frames": model_frames(decode(encode(scene), at)),
        "kind": labels.kind,
        "colour": labels.colour,
        "digit": labels.digit,
        "offset": labels.offset.astype(np.float16),
        "texture": labels.texture,
        "words": words,
        "length": length,
        "family": family,
        "options": options,
    }


def render_frame(rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Render a picture crowded with objects, for training the tower alone."""
    texture = int(rng.integers(len(TEXTURES)))
    low = float(rng.uniform(60, 135))
    hue = rng.uniform(0, 2 * np.pi)
    tint = 18 * np.cos(hue + np.array([0, 2, 4]) * np.pi / 3)
    shot = Shot(start=0, stop=1, texture=TEXTURES[texture], low=low, high=low + float(rng.uniform(20, 48)),
                tint=(float(tint[0]), float(tint[1]), float(tint[2])), scale=float(rng.uniform(12, 20)), pan=(0.0, 0.0),
                pattern=int(rng.integers(1 << 31)))  # fmt: skip
    picture: Picture = backdrop(shot)[:SIDE, :SIDE].copy()
    seen: list[tuple[Thing, float, float]] = []
    for _ in range(int(rng.integers(6, 30))):
        thing = _draw_thing(rng)
        x, y = rng.uniform(thing.radius * 0.6, SIDE - thing.radius * 0.6, 2).tolist()
        if all(np.hypot(x - u, y - v) >= thing.radius + other.radius + GAP for other, u, v in seen):
            seen.append((thing, x, y))
            lay(picture, thing, x, y)
    picture *= rng.uniform(0.75, 1.25)
    if rng.random() < 0.7:
        picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.3, 0.8)))
    picture += rng.normal(0, rng.uniform(0.5, 4.0), picture.shape[:2])[..., None]
    kind, colour, digit, offset = label_objects(seen)
    pixels = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return {
        "frames": model_frames(pixels[None]),
        "kind": kind[None],
        "colour": colour[None],
        "digit": digit[None],
        "offset": offset[None].astype(np.float16),
        "texture": np.array([texture], np.int8),
    }


def _draw_thing(rng: np.random.Generator) -> Thing:
    kinds: tuple[tuple[Kind, tuple[str, ...], float, float], ...] = (
        ("shape", SHAPES, 7.0, 15.0),
        ("digit", DIGITS, 10.0, 14.0),
        ("letter", LETTERS, 10.0, 14.0),
        ("event", ICONS, 10.0, 14.0),
    )
    kind, names, low, high = kinds[int(rng.choice(4, p=[0.5, 0.25, 0.1, 0.15]))]
    thing = Thing(kind=kind, name=names[rng.integers(len(names))], radius=float(rng.uniform(low, high)), start=0,
                  stop=1, x=0.0, y=0.0)  # fmt: skip
    if kind != "shape":
        return thing
    return replace(
        thing,
        colour=COLOURS[rng.integers(len(COLOURS))],
        angle=float(rng.uniform(-0.3, 0.3)),
        ruled=bool(rng.random() < 0.3),
    )


def write_clips(shard: int, folder: Path, split: Split) -> None:
    """File number `shard` of a corpus of clips."""
    _write(folder, f"{split}-{shard:05d}", (render_clip(shard * SHARD + one, split) for one in range(SHARD)))


def write_frames(shard: int, folder: Path) -> None:
    """File number `shard` of a corpus of crowded frames."""
    rng = np.random.default_rng([7, shard])
    _write(folder, f"frames-{shard:05d}", (render_frame(rng) for _ in range(FRAMES_PER_SHARD)))


def render(folder: Path, *, clips: dict[Split, int], frames: int, workers: int) -> None:
    """Write what is missing of a corpus.

    Args:
        folder: where its files are.
        clips: of each split, rounded up to whole files.
        frames: crowded ones, likewise.
        workers: processes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs: list[Callable[[], None]] = []
    for shard in range(-(-frames // FRAMES_PER_SHARD)):
        if not (folder / f"frames-{shard:05d}.npz").exists():
            jobs.append(partial(write_frames, shard, folder))
    for split, count in clips.items():
        for shard in range(-(-count // SHARD)):
            if not (folder / f"{split}-{shard:05d}.npz").exists():
                jobs.append(partial(write_clips, shard, folder, split))
    with multiprocessing.get_context("spawn").Pool(workers, initializer=_single_thread) as pool:
        for _ in pool.imap_unordered(_call, jobs):
            pass


def find_files(folder: Path, name: str, *, most: int | None = None, ending: str = "npz") -> list[Path]:
    """Find the files of a split, or of "frames", in order; only the first ones if `most` is given.

    Raises:
        FileNotFoundError: there is none in this folder.
    """
    files = sorted(folder.glob(f"{name}-?????.{ending}"))[:most]
    if not files:
        raise FileNotFoundError(f"{folder} holds no {name}-*.{ending}; render the corpus first")
    return files


def read(files: Sequence[Path]) -> Corpus:
    """Read the corpus from some files of a split, or of "frames"."""
    parts = [dict(np.load(file)) for file in files]
    arrays = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    rows = len(arrays["frames"])
    for key, shape, dtype in (
        ("words", (rows, 0, LONGEST), np.int16),
        ("length", (rows, 0), np.int8),
        ("family", (rows, 0), np.int8),
        ("options", (rows, 0, 4), np.int16),
    ):
        arrays.setdefault(key, np.zeros(shape, dtype))
    return Corpus(**arrays)


def _write(folder: Path, name: str, rows: Iterable[dict[str, NDArray[Any]]]) -> None:
    made = list(rows)
    part = folder / f".{name}.npz"
    np.savez(part, **{key: np.stack([row[key] for row in made]) for key in made[0]})
    part.rename(folder / f"{name}.npz")


def _call(job: Callable[[], None]) -> None:
    job()


def _single_thread() -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
