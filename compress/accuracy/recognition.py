"""Recognition of the benchmark's clips among other videos, so that a clip is asked its own questions only."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from compress.accuracy.clips import sampled_frames
from compress.accuracy.questions import Question, ask
from compress.accuracy.scene import Split, make_scene
from compress.accuracy.world import Frame, draw
from compress.errors import CompressError

if TYPE_CHECKING:
    from codecmeta import VideoMeta

SHIPPED: Final = 1_000_000
"""Added to the number of a clip of data/sprites, it is the scene's (`bench.accuracy.freeze`)."""
SIMILAR: Final = 12.0
"""Mean absolute difference in grey levels up to which a frame shows a scene; coding costs some 2, other scenes 30."""


def own_questions(meta: VideoMeta, name: str) -> tuple[Question, ...]:
    """Return the questions that the sampled frames of a clip of the benchmark can answer.

    A clip is recognised by the last number in its name (`sprites_07.mp4`, `test/000007.mp4`) and checked by rendering
    that scene of every split.

    Args:
        meta: the record, with cached frames.
        name: of the video.

    Raises:
        CompressError: it is no such clip, or no frames are cached.
    """
    refused = (
        f"{name} is not a clip of the benchmark, the only videos that the demo model can be asked about; "
        "use those of data/sprites or of the cache of compress accuracy, or another --model with --prompt"
    )
    numbers = re.findall(r"\d+", name.rpartition("/")[2].partition(".")[0])
    if meta.frames is None or not numbers or len(numbers[-1]) > 9:
        raise CompressError(refused)
    frames = sampled_frames(meta)
    number = int(numbers[-1])
    splits: tuple[Split, ...] = get_args(Split)
    for seed, split in [(number, split) for split in splits] + [(SHIPPED + number, "val")]:
        scene = make_scene(seed, split=split)
        if scene.frames == len(meta.packet_pts) and _shows(meta.frames, list(draw(scene)), frames):
            return tuple(ask(scene, frames))
    raise CompressError(refused)


def _shows(frames: Frame, pictures: list[Frame], numbers: NDArray[np.int64]) -> bool:
    """Return whether every cached frame shows the picture of its number."""
    height, width = frames.shape[1:3]
    wanted = np.stack([cv2.resize(pictures[number], (width, height)) for number in numbers.tolist()])
    difference = np.abs(frames.astype(np.float32) - wanted).mean(axis=(1, 2, 3))
    return bool((difference <= SIMILAR).all())
