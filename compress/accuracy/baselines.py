"""What any compressor has to be compared with: selections and poolings that know nothing, and one that knows much.

All act before the language model, through the same interface as the methods, and keep the positions of their anchors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from compress.attach import Attachable
from compress.budget import allocate, count_tokens, round_half_up
from compress.errors import ShapeError
from compress.ops.transfer import on_device
from compress.plan import MergePlan
from compress.stage import Compression, Signals, check_tokens


def spread(count: int, places: int) -> NDArray[np.int64]:
    """int64 (count,): indices among so many places at equal distances, ``floor((i + 1/2) places / count)``."""
    return (2 * np.arange(count, dtype=np.int64) + 1) * places // (2 * max(count, 1))


@dataclass(frozen=True, kw_only=True)
class Everything(Attachable):
    """Keeps every token: through the same hooks, answers must be those of the plain model.

    Attributes:
        signals: none are read; likewise in the classes below.
    """

    signals: ClassVar[tuple[str, ...]] = ()

    def before_llm(self, tokens: Tensor, signals: Signals) -> Compression:
        """The identity over (T, N, D)."""
        frames, per_frame, _ = check_tokens(tokens)
        return _select("everything", tokens, np.arange(frames * per_frame), nominal=frames * per_frame)


@dataclass(frozen=True, kw_only=True)
class RandomTokens(Attachable):
    """Keeps tokens drawn without replacement from the whole clip.

    Attributes:
        retention: share that is kept, in (0, 1].
        seed: of the draw.
    """

    retention: float
    seed: tuple[int, ...] = (0,)
    signals: ClassVar[tuple[str, ...]] = ()

    def before_llm(self, tokens: Tensor, signals: Signals) -> Compression:
        """A selection of exactly ``retention`` of (T, N, D)."""
        frames, per_frame, _ = check_tokens(tokens)
        kept = count_tokens(self.retention, frames * per_frame)
        keep = np.sort(np.random.default_rng(self.seed).permutation(frames * per_frame)[:kept])
        return _select("random", tokens, keep, nominal=kept)


@dataclass(frozen=True, kw_only=True)
class UniformStride(Attachable):
    """Keeps tokens at equal distances along the sequence.

    On a grid with an odd number of rows and columns the steps of the usual retentions are coprime to both, so that
    no column and no frame is preferred; on an even grid every other token would be every other column.

    Attributes:
        retention: share that is kept, in (0, 1].
    """

    retention: float
    signals: ClassVar[tuple[str, ...]] = ()

    def before_llm(self, tokens: Tensor, signals: Signals) -> Compression:
        """A selection of exactly ``retention`` of (T, N, D)."""
        frames, per_frame, _ = check_tokens(tokens)
        kept = count_tokens(self.retention, frames * per_frame)
        return _select("stride", tokens, spread(kept, frames * per_frame), nominal=kept)


@dataclass(frozen=True, kw_only=True)
class FewerFrames(Attachable):
    """Keeps as few frames as hold the budget, at equal distances, and of each an equal share of its tokens.

    Attributes:
        retention: share that is kept, in (0, 1].
    """

    retention: float
    signals: ClassVar[tuple[str, ...]] = ()

    def before_llm(self, tokens: Tensor, signals: Signals) -> Compression:
        """A selection of exactly ``retention`` of (T, N, D)."""
        frames, per_frame, _ = check_tokens(tokens)
        kept = count_tokens(self.retention, frames * per_frame)
        chosen = spread(-(-kept // per_frame), frames)
        shares = allocate(np.ones(len(chosen)), kept, upper=per_frame)
        keep = [frame * per_frame + spread(int(share), per_frame) for frame, share in zip(chosen, shares, strict=True)]
        return _select("frames", tokens, np.concatenate(keep), nominal=kept)


@dataclass(frozen=True, kw_only=True)
class SpacePooling(Attachable):
    """Averages blocks of neighbouring tokens within each frame.

    Every frame becomes a grid of a x b blocks of as equal size as possible, with a and b at most one apart and the
    count nearest to the budget (ties: the larger); only such counts can be reached.

    Attributes:
        retention: share that is asked for, in (0, 1].
    """

    retention: float
    signals: ClassVar[tuple[str, ...]] = ()

    def before_llm(self, tokens: Tensor, signals: Signals) -> Compression:
        """A plan of means over (T, N, D); ``signals.grid`` is needed."""
        frames, per_frame, _ = check_tokens(tokens)
        if signals.grid is None:
            raise ShapeError("pooling over space needs the grid of tokens: pass grid=(rows, cols)")
        rows, cols = signals.grid
        nominal = count_tokens(self.retention, frames * per_frame)
        slack = 1 + abs(rows - cols)
        shapes = [(a, b) for a in range(1, rows + 1) for b in range(1, cols + 1) if abs(a - b) <= slack]
        a, b = min(shapes, key=lambda shape: (abs(frames * shape[0] * shape[1] - nominal), -shape[0] * shape[1]))
        block = (np.arange(rows) * a // rows)[:, None] * b + np.arange(cols) * b // cols
        groups = (np.arange(frames)[:, None] * a * b + block.ravel()).ravel()
        return _average("pool-space", tokens, groups, nominal=nominal)


@dataclass(frozen=True, kw_only=True)
class TimePooling(Attachable):
    """Averages runs of consecutive frames, each place of the grid by itself.

    The number of runs is the nearest to ``retention * T``, at least one; only whole frames can be reached.

    Attributes:
        retention: share that is asked for, in (0, 1].
    """

    retention: float
    signals: ClassVar[tuple[str, ...]] = ()

    def before_llm(self, tokens: Tensor, signals: Signals) -> Compression:
        """A plan of means over (T, N, D)."""
        frames, per_frame, _ = check_tokens(tokens)
        nominal = count_tokens(self.retention, frames * per_frame)
        runs = max(1, round_half_up(self.retention * frames))
        run = np.arange(frames) * runs // frames
        groups = (run[:, None] * per_frame + np.arange(per_frame)).ravel()
        return _average("pool-time", tokens, groups, nominal=nominal)


@dataclass(frozen=True, kw_only=True, eq=False)
class Oracle(Attachable):
    """Keeps the tokens of cells that hold an object; it knows where objects are, but not what is asked.

    Where the budget holds more, the rest is filled with other cells; where it holds fewer, some are left out. Both
    evenly over time, and shifted from frame to frame, so that the same cells are not always the ones to go.

    Attributes:
        retention: share that is kept, in (0, 1].
        occupied: bool (T, rows, cols): a cell holds an object.
    """

    retention: float
    occupied: NDArray[np.bool_] = field(repr=False)
    signals: ClassVar[tuple[str, ...]] = ()

    def before_llm(self, tokens: Tensor, signals: Signals) -> Compression:
        """A selection of exactly ``retention`` of (T, N, D)."""
        frames, per_frame, _ = check_tokens(tokens)
        if self.occupied.size != frames * per_frame or len(self.occupied) != frames:
            raise ShapeError(f"occupied has shape {self.occupied.shape}; these tokens are {frames} x {per_frame}")
        kept = count_tokens(self.retention, frames * per_frame)
        held = self.occupied.reshape(frames, per_frame)
        chosen = _share_evenly(held, min(kept, int(held.sum())))
        chosen |= _share_evenly(~held, kept - int(chosen.sum()))
        return _select("oracle", tokens, np.flatnonzero(chosen), nominal=kept)


def _share_evenly(candidates: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """Some of the candidates (T, N), as many in each frame as possible alike."""
    chosen = np.zeros_like(candidates)
    shares = allocate(np.ones(len(candidates)), count, upper=candidates.sum(axis=1))
    for frame, share in enumerate(shares.tolist()):
        places = np.flatnonzero(candidates[frame])
        if share:
            chosen[frame, places[(spread(share, len(places)) + frame) % len(places)]] = True
    return chosen


def _select(method: str, tokens: Tensor, keep: NDArray[np.int64], *, nominal: int) -> Compression:
    frames, per_frame, _ = tokens.shape
    plan = MergePlan.selection(on_device(keep, tokens.device), count_in=frames * per_frame)
    return Compression(method=method, plan=plan, frames=frames, nominal=nominal)


def _average(method: str, tokens: Tensor, groups: NDArray[np.int64], *, nominal: int) -> Compression:
    """Means of groups 0, 1, ...; the anchor of each is its middle token."""
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
    middle = np.array([group[(len(group) - 1) // 2] for group in members])
    rank = np.empty_like(middle)
    rank[np.argsort(middle)] = np.arange(len(middle))
    plan = MergePlan.from_groups(rank[groups], keep=np.sort(middle))
    return Compression(method=method, plan=plan.to(tokens.device), frames=tokens.shape[0], nominal=nominal)
