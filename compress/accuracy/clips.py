"""Clips of a split on disk: rendered and extracted once, then read again."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

import codecmeta
from codecmeta import VideoMeta
from compress.accuracy import drawing, labels, questions, scene, world
from compress.accuracy.labels import Labels, label
from compress.accuracy.questions import Question, ask
from compress.accuracy.scene import SAMPLED, Split, make_scene, sample_frames
from compress.accuracy.world import encode


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """A clip of the benchmark.

    Attributes:
        split: what it belongs to.
        seed: its number there.
        meta: what `codecmeta.extract` found in the file.
        labels: what the cells of the sampled frames show.
        questions: about those frames.
    """

    split: Split
    seed: int
    meta: VideoMeta
    labels: Labels
    questions: tuple[Question, ...]

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.split}/{self.seed}"


def default_cache() -> Path:
    """Return ``$XDG_CACHE_HOME/codecmeta/accuracy``, or the same below ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "codecmeta" / "accuracy"


def digest_world() -> str:
    """Digest the sources that decide what a clip shows and what is asked, twelve hexadecimal digits."""
    digest = hashlib.sha256()
    for module in (scene, drawing, world, labels, questions):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()[:12]


@cache
def digest_extraction() -> str:
    """Digest the sources and the libav that decide what a record holds, twelve hexadecimal digits."""
    digest = hashlib.sha256(av.__version__.encode())
    for path in sorted(Path(codecmeta.__path__[0]).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def open_clip(folder: Path, split: Split, seed: int, *, frames: int = SAMPLED) -> Clip:
    """Open a clip; render and extract it unless that has been done already.

    Files lie in folders named after the sources of the generator and of codecmeta, so that a changed world is rendered
    again, and all is extracted again by a changed codecmeta.

    Args:
        folder: root of the cache.
        split: which scenes.
        seed: which of them.
        frames: how many are sampled, as ``uniform:frames``; what is asked is what these can answer.

    Raises:
        CodecMetaError: the clip cannot be extracted, or its .npz read.
        ValueError: the extracted frames are not those that the questions are about.
    """
    made = make_scene(seed, split=split)
    home = folder / f"world-{digest_world()}"
    file = home / split / f"{seed:06d}.mp4"
    sampling = f"uniform:{frames}"
    kept = f"meta-{digest_extraction()}" if frames == SAMPLED else f"meta-{digest_extraction()}-{frames}"
    record = home / kept / split / f"{file.name}.npz"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{seed:06d}.part{os.getpid()}.mp4")
        part.write_bytes(encode(made))
        part.rename(file)
    if not record.exists():
        record.parent.mkdir(parents=True, exist_ok=True)
        codecmeta.extract(file, frames=sampling, maps=("innovation", "carried")).save(record)
    meta = codecmeta.load(record)
    chosen, wanted = sampled_frames(meta), sample_frames(made.frames, frames)
    if not np.array_equal(chosen, wanted):
        raise ValueError(f"{record}: {sampling} chose frames {chosen.tolist()}, questions ask of {wanted.tolist()}")
    return Clip(split=split, seed=seed, meta=meta, labels=label(made, chosen), questions=tuple(ask(made, chosen)))


def sampled_frames(meta: VideoMeta) -> NDArray[np.int64]:
    """Return the presentation indices of the sampled frames, int64 (T,)."""
    return np.searchsorted(np.sort(meta.packet_pts), meta.frame_pts).astype(np.int64)
