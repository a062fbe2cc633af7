"""EarlyTom: frames folded inside the vision encoder, then attended tokens of what is left (CVPR 2026).

The reference follows the released code (viridisGreen/EarlyTom, Apache-2.0).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.baselines.baseline import Choice, Published, saliency_of, saliency_source
from compress.baselines.cells import grid_of, whole_cells
from compress.baselines.frame_folding import Folding, FrameSimilarity, fold_frames, walk_segments
from compress.baselines.rows import Rows
from compress.budget import allocate
from compress.encoder_merging import EncoderMerge, EncoderState
from compress.errors import ConfigError
from compress.ops.transfer import on_device, on_host
from compress.planning_mode import planned
from compress.stage import MergePoint, Segment, Signals

KINDS = ("end", "middle")

EVERYWHERE = "cosines of the tokens (no encoder with layers)"


@dataclass(frozen=True, kw_only=True)
class EarlyTom(Published):
    """Folding of similar frames after chosen encoder layers, and selection of tokens of the frames that are left.

    Frames are walked over: a segment ends where the smoothed similarity to its first frame falls below T, or at M - 1
    frames. Its first and last frame stay; neighbouring middle frames that are more alike than those two are folded, so
    that later layers see fewer frames. After the encoder the budget goes to the frames that are left; segments' end
    frames keep the most attended tokens, middle frames the most attended token of each of as many windows.

    The paper's scripts set T and the layers for every benchmark and ratio. Without an encoder that has layers, frames
    are folded once, by the tokens themselves.

    Fixed, counts are exact (frames are folded as far as what is left can hold the budget), no middle frame is lost, the
    frames of a segment's last pair count alike, and windows are nearly square.

    Attributes:
        T: smoothed similarity below which a segment ends; the scripts take 0.3 to 0.8.
        M: window; a segment has at most M - 1 frames.
        ema: weight of the newest similarity in the smoothed one.
        prune_layers: encoder layers (from 0) after which frames are folded; None for three spread as 10, 21 and 23 of
            26.
    """

    T: float = 0.5
    M: int = 6
    ema: float = 0.9
    prune_layers: tuple[int, ...] | None = None
    name: ClassVar[str] = "earlytom"
    reads: ClassVar[tuple[str, ...]] = ("saliency",)
    merge_point: ClassVar[MergePoint] = "block"
    weighs_by_size: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low, high in (("T", -1, 1.0001), ("M", 2, 2**31), ("ema", 0, 1)):
            self._check_range(name, low, high)
        layers = self.prune_layers
        if layers is not None and (not layers or layers[0] < 0 or any(a >= b for a, b in itertools.pairwise(layers))):
            raise ConfigError(f"prune_layers is {layers}; give one or more layer numbers, ascending from 0, or None")

    def merge_blocks(self, depth: int) -> tuple[int, ...]:
        """Return the blocks of an encoder after which frames are folded.

        Raises:
            ConfigError: the encoder has fewer layers.
        """
        if self._keeps_all:
            return ()
        if self.prune_layers is None:
            return tuple(sorted({max(0, math.floor(depth * share)) for share in (10 / 26, 21 / 26, 23 / 26)}))
        if self.prune_layers[-1] >= depth:
            raise ConfigError(f"prune_layers is {self.prune_layers}; this encoder has layers 0 to {depth - 1}")
        return self.prune_layers

    def scored_block(self, depth: int) -> int | None:
        """Return the block whose attention selects tokens: the last after which frames are folded."""
        blocks = self.merge_blocks(depth)
        return blocks[-1] if blocks else None

    @planned
    def inside_encoder(self, state: EncoderState) -> EncoderMerge | None:
        """Fold frames; see `compress.stage.InsideEncoder`."""
        frames, patches, _ = state.hidden.shape
        folding, bounds = self._fold(state.hidden, least=math.ceil(self.retention * state.frames - 1e-9))
        place = np.arange(patches)
        share = np.zeros(frames)
        share[folding.second] = 1 - folding.weight
        share[folding.first] = np.where(folding.first == folding.second, 1, folding.weight)
        device = state.hidden.device
        return EncoderMerge(
            origin=on_device((folding.group[:, None] * patches + place).ravel(), device),
            weight=on_device(np.repeat(share, patches).astype(np.float32), device),
            keep=on_device((folding.first[:, None] * patches + place).ravel(), device),
            frames=len(folding.first),
            segments=bounds,
        )

    def _fold(self, tokens: Tensor, *, least: int) -> tuple[Folding, NDArray[np.int64]]:
        """Fold the frames of tokens (T, N, D), and return the segments of what is left."""
        released = self.fidelity == "reference"
        similarity = FrameSimilarity(tokens, self.M)
        folding = fold_frames(similarity, self._walk(similarity), least=least, released=released)
        if len(folding.first) == len(tokens):
            return folding, self._walk(similarity)
        return folding, self._walk(similarity.after(folding))

    def _walk(self, similarity: FrameSimilarity) -> NDArray[np.int64]:
        return walk_segments(similarity, threshold=self.T, window=self.M, ema=self.ema)

    def choose(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        """See `Baseline.choose`."""
        frames, per_frame, _ = tokens.shape
        (rows, cols), sources = grid_of(signals, per_frame)
        folding, bounds, where = self._folded(tokens, signals, least=-(-count // per_frame))
        (saliency,) = on_host(folding.apply(saliency_of(tokens, signals)))
        left = len(saliency)
        budgets = allocate(np.ones(left), count, upper=per_frame)
        is_end = end_frames(bounds)
        chosen = []
        for frame, budget in enumerate(budgets.tolist()):
            if is_end[frame] or not budget:
                places = np.sort(np.argsort(-saliency[frame], kind="stable")[:budget])
            else:
                places = best_of_windows(saliency[frame], whole_cells(rows, cols, budget))
            chosen.append(places)
        picked = Rows.joined(
            [_fold_rows(folding, frame, places, per_frame) for frame, places in enumerate(chosen)],
            count_in=frames * per_frame,
        )
        kind = np.repeat((~is_end).astype(np.uint8), [len(places) for places in chosen])
        granted = np.zeros(frames, np.int64)
        granted[folding.first] = budgets
        edges = np.append(folding.first[bounds[:-1]], frames)
        return Choice(
            plan=_moved_to(picked, tokens.device).plan()[0],
            kind=on_device(kind, tokens.device),
            kinds=KINDS,
            frame_budgets=granted,
            segments=tuple(
                Segment(start=int(a), frames=int(b - a), salient=int(granted[a:b].sum()), context=0)
                for a, b in itertools.pairwise(edges)
            ),
            sources={**self._sources_of(signals), **sources, "frames": where},
            diagnostics={"frames_left": float(left)},
        )

    def _sources_of(self, signals: Signals) -> dict[str, str]:
        return {"saliency": saliency_source(signals)}

    def _folded(self, tokens: Tensor, signals: Signals, *, least: int) -> tuple[Folding, NDArray[np.int64], str]:
        """Return how the encoder folded the frames and their segments, or fold them by their tokens."""
        if signals.frame_groups is None or signals.frame_segments is None:
            return *self._fold(tokens, least=least), EVERYWHERE
        group = np.asarray(signals.frame_groups, np.int64)
        first = np.unique(group, return_index=True)[1]
        # Tokens of a group are alike: the encoder saw them as one.
        folding = Folding(first=first, second=first, weight=np.ones(len(first)), group=group)
        return folding, np.asarray(signals.frame_segments, np.int64), "folded in the encoder"

    def released(self, tokens: Tensor, signals: Signals, noise: Tensor | None = None) -> Rows:
        """See `Published.released`.

        Counts are rounded up in end frames and to the nearest in middle frames, whose windows are runs of raster order.
        """
        frames, per_frame, _ = tokens.shape
        folding, bounds, _ = self._folded(tokens.float(), signals, least=1)
        (saliency,) = on_host(folding.apply(saliency_of(tokens, signals)))
        ratio = min(1.0, self.retention * frames / len(saliency))
        parts = []
        for frame, is_end in enumerate(end_frames(bounds)):
            if is_end:
                best = np.argsort(-saliency[frame], kind="stable")[: math.ceil(per_frame * ratio)]
                places = np.sort(best)
            else:
                count = max(1, round(per_frame * ratio))
                places = best_of_windows(saliency[frame], runs(per_frame, count))
            parts.append(_fold_rows(folding, frame, places, per_frame))
        return _moved_to(Rows.joined(parts, count_in=frames * per_frame), tokens.device)


def end_frames(bounds: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which frames are the first or the last of a segment, bool (T,)."""
    ends = np.zeros(int(bounds[-1]), dtype=bool)
    ends[bounds[:-1]] = True
    ends[bounds[1:] - 1] = True
    return ends


def runs(places: int, count: int) -> NDArray[np.int64]:
    """Divide places into runs, the first ones longer by one where they do not divide; the run of each place."""
    short, longer = divmod(places, count)
    return np.repeat(np.arange(count), short + (np.arange(count) < longer))


def best_of_windows(saliency: NDArray[np.float64], window: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the most salient place of every window, ascending; the first of equal ones."""
    order = np.lexsort((np.arange(len(saliency)), -saliency, window))
    first = np.flatnonzero(np.diff(window[order], prepend=-1))
    return np.sort(order[first])


def _fold_rows(folding: Folding, frame: int, places: NDArray[np.int64], per_frame: int) -> Rows:
    """Return the rows of some places of a folded frame, on the host."""
    first, second, weight = (column[frame].item() for column in folding.columns)
    row = np.arange(len(places))
    parts = [(first, weight)] if first == second else [(first, weight), (second, 1 - weight)]
    parts = [(at, share if first != second else 1.0) for at, share in parts if share > 0]
    return Rows(
        keep=torch.from_numpy(first * per_frame + places),
        row=torch.from_numpy(np.tile(row, len(parts))),
        col=torch.from_numpy(np.concatenate([at * per_frame + places for at, _ in parts])),
        weight=torch.from_numpy(np.repeat([share for _, share in parts], len(places)).astype(np.float32)),
        count_in=0,
    )


def _moved_to(rows: Rows, device: torch.device) -> Rows:
    """Move rows that were built on the host."""
    if device.type == "cpu":
        return rows
    return Rows(
        keep=rows.keep.to(device),
        row=rows.row.to(device),
        col=rows.col.to(device),
        weight=rows.weight.to(device),
        count_in=rows.count_in,
        stochastic=rows.stochastic,
    )
