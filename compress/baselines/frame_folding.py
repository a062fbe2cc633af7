"""Segments of similar frames, and the folding of their middle frames in pairs (EarlyTom, CVPR 2026)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.ops.similarity import NORM_FLOOR, unit
from compress.ops.transfer import on_host


class FrameSimilarity:
    """Mean cosines of tokens at the same place of two frames that are less than a window apart.

    An accelerator computes all of them at once, a CPU those that are asked for.

    Args:
        tokens: (T, N, D).
        window: frames.
    """

    def __init__(self, tokens: Tensor, window: int) -> None:
        self.frames = len(tokens)
        self._tokens = tokens
        self._window = window
        self._folding = Folding.identity(self.frames)
        self._known: dict[tuple[int, int], float] = {}
        self._norms: dict[int, Tensor] = {}
        if tokens.device.type != "cpu":
            direction = unit(tokens)
            for distance in range(1, min(window, self.frames)):
                (found,) = on_host((direction[distance:] * direction[:-distance]).sum(dim=2).mean(dim=1))
                self._known |= {(t, t + distance): float(value) for t, value in enumerate(found)}

    def between(self, first: int, second: int) -> float:
        """Return the similarity of two frames, the first one earlier."""
        if (first, second) not in self._known:
            product = (self._frame(first) * self._frame(second)).sum(dim=1)
            self._known[first, second] = float((product / (self._norm(first) * self._norm(second))).mean())
        return self._known[first, second]

    def after(self, folding: Folding) -> FrameSimilarity:
        """Return the similarity of what a first folding leaves; a CPU folds the frames that are asked for."""
        if self._tokens.device.type != "cpu":
            return FrameSimilarity(folding.apply(self._tokens), self._window)
        left = FrameSimilarity(self._tokens, self._window)
        left.frames, left._folding = len(folding.first), folding
        whole = {a: place for place, a in enumerate(folding.first.tolist()) if a == folding.second[place]}
        left._norms = {whole[frame]: norm for frame, norm in self._norms.items() if frame in whole}
        pairs = {(whole.get(a), whole.get(b)): value for (a, b), value in self._known.items()}
        left._known = {(a, b): value for (a, b), value in pairs.items() if a is not None and b is not None}
        return left

    def _frame(self, number: int) -> Tensor:
        first, second, weight = (one[number].item() for one in self._folding.columns)
        here = self._tokens[first].float()
        return here if first == second else here * weight + self._tokens[second].float() * (1 - weight)

    def _norm(self, number: int) -> Tensor:
        if number not in self._norms:
            norm = torch.linalg.vector_norm(self._frame(number), dim=1)
            self._norms[number] = norm.masked_fill(norm < NORM_FLOOR, torch.inf)
        return self._norms[number]


def walk_segments(similarity: FrameSimilarity, *, threshold: float, window: int, ema: float) -> NDArray[np.int64]:
    """Cut where the smoothed similarity to the segment's first frame falls below the threshold.

    A segment has at most ``window - 1`` frames.

    Args:
        similarity: of the frames.
        threshold: T.
        window: M.
        ema: weight of the newest similarity; what is smoothed begins at 1 in every segment.

    Returns:
        Where segments begin, int64 (K + 1,).
    """
    frames = similarity.frames
    starts, smoothed = [0], 1.0
    for frame in range(1, frames):
        full = frame - starts[-1] + 1 >= window
        if not full:
            smoothed = ema * similarity.between(starts[-1], frame) + (1 - ema) * smoothed
        if full or smoothed < threshold:
            starts.append(frame)
            smoothed = 1.0
    return np.array([*starts, frames], np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Folding:
    """Frames that become fewer.

    Attributes:
        first: int64 (T',), the frame whose place each one takes.
        second: int64 (T',), the frame that joins it, or ``first`` again.
        weight: float64 (T',), of the first; the second has the rest.
        group: int64 (T,), what each frame became; a frame that was lost goes with the one before it.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    weight: NDArray[np.float64]
    group: NDArray[np.int64]

    @property
    def columns(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """First, second and weight."""
        return self.first, self.second, self.weight

    @staticmethod
    def identity(frames: int) -> Folding:
        """Leave all frames."""
        every = np.arange(frames)
        return Folding(first=every, second=every, weight=np.ones(frames), group=every)

    def apply(self, frames: Tensor) -> Tensor:
        """Fold (T, ...) to (T', ...) in float32."""
        weight = torch.from_numpy(self.weight.astype(np.float32)).to(frames.device)
        shape = (-1, *[1] * (frames.dim() - 1))
        first, second = (torch.from_numpy(index).to(frames.device) for index in (self.first, self.second))
        weight = weight.view(shape)
        return frames[first].float() * weight + frames[second].float() * (1 - weight)


def fold_frames(
    similarity: FrameSimilarity, bounds: NDArray[np.int64], *, least: int = 1, released: bool = False
) -> Folding:
    """Fold neighbouring middle frames of segments that are more alike than the segment's first and last frame.

    A pair is folded where it is also more alike than the next pair; its weights are those of the two similarities. The
    last pair has no next one: its frames count alike, or, as in the released code, only the first does. That code also
    loses a last middle frame that no pair holds.

    Args:
        similarity: of the frames.
        bounds: of the segments.
        least: frames that must stay; further pairs are left apart.
        released: do what the released code does, whatever must stay.
    """
    first: list[int] = []
    second: list[int] = []
    weight: list[float] = []
    group = np.zeros(int(bounds[-1]), np.int64)
    spare = int(bounds[-1]) - least

    def leave(a: int, b: int, share: float) -> None:
        first.append(a)
        second.append(b)
        weight.append(share)
        group[[a, b]] = len(first) - 1

    for start, stop in itertools.pairwise(bounds.tolist()):
        middle = range(start + 1, stop - 1)
        if len(middle) < 2:
            for frame in range(start, stop):
                leave(frame, frame, 1.0)
            continue
        leave(start, start, 1.0)
        bar = similarity.between(start, stop - 1)
        frame = middle.start
        while frame < middle.stop - 1:
            here, last = similarity.between(frame, frame + 1), frame + 1 == middle.stop - 1
            after = here if last else similarity.between(frame + 1, frame + 2)
            if here > bar and (last or here > after) and (released or spare > 0):
                leave(frame, frame + 1, (1.0 if released else 0.5) if last else here / (here + after))
                spare -= 1
                frame += 2
            else:
                leave(frame, frame, 1.0)
                frame += 1
        if frame == middle.stop - 1:
            if released:
                group[frame] = len(first) - 1
            else:
                leave(frame, frame, 1.0)
        leave(stop - 1, stop - 1, 1.0)
    return Folding(first=np.array(first), second=np.array(second), weight=np.array(weight, np.float64), group=group)
