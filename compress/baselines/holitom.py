"""HoliTom, outer part: static positions averaged over windows of frames, the rest by attention (NeurIPS 2025).

The reference follows the released code (cokeshao/HoliTom, Apache-2.0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from compress.baselines.baseline import Choice, Published, saliency_of, saliency_source
from compress.baselines.noise import Noise, released_peaks
from compress.baselines.rows import Rows
from compress.budget import allocate
from compress.errors import ConfigError
from compress.ops.density_peaks import log_peak_scores
from compress.ops.similarity import change_between
from compress.ops.transfer import on_device, on_host
from compress.plan import MergePlan
from compress.stage import Segment, Signals

KINDS = ("dynamic", "static")


@dataclass(frozen=True, kw_only=True)
class HoliTom(Published):
    """Windows that hold most static tokens, by dynamic programming; one set of static tokens per window.

    A position is static in a window where all its similarities to the next frame exceed tau; a window gains that many
    tokens for every frame after its first, and the windows that gain most together are taken. Static tokens are
    averaged over their window and clustered by density peaks, of the others the most attended stay; both at the
    retention divided by the share that the averages leave.

    Fixed, the count is exact: a clip so static that its averages leave too few tokens raises tau as far as needed,
    which is reported; a window with static tokens keeps at least one of them; ties go to the lower position. Budgets of
    frames do not apply, since static tokens belong to windows.

    Attributes:
        tau: similarity above which a position is static.
        beta: weight of a cluster's centre, the rest is the mean of the others.
        no_beta: plain means of clusters instead.
        K: neighbours of a density, the token itself included.
        max_window_size: frames.
    """

    tau: float = 0.8
    beta: float = 0.6
    no_beta: bool = False
    K: int = 7
    max_window_size: int = 1024
    name: ClassVar[str] = "holitom"
    looks: ClassVar[bool] = False  # all tokens that are compared are checked
    reads: ClassVar[tuple[str, ...]] = ("saliency",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low, high in (("tau", -1, 1), ("beta", 0, 1), ("K", 1, 2**31), ("max_window_size", 1, 2**31)):
            self._check_range(name, low, high)

    def choose(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        """See `Baseline.choose`."""
        frames, per_frame, _ = tokens.shape
        change = change_between(tokens, range(1, frames), range(frames - 1))
        similarity, saliency = on_host(1 - change, saliency_of(tokens, signals))
        tau = self._threshold(similarity, frames * per_frame, count)
        windows, _ = select_windows(similarity, tau=tau, longest=self.max_window_size)
        static = [static_positions(similarity, window, tau) for window in windows]
        held = np.array([mask.sum() for mask in static])
        room = np.concatenate([[n, *[per_frame - n] * (b - a + 1)] for (a, b), n in zip(windows, held, strict=True)])
        is_window = np.concatenate([[True, *[False] * (b - a + 1)] for a, b in windows])
        least = (room > 0) & is_window
        share = allocate(room, count, lower=least if least.sum() <= count else 0, upper=room)
        clusters, dynamic = share[is_window], share[~is_window]

        centres = self._centres(tokens, windows, static, clusters)
        rows: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
        keep: list[NDArray[np.int64]] = []
        kinds: list[NDArray[np.uint8]] = []
        for (start, stop), mask, picked in zip(windows, static, centres, strict=True):
            where = np.flatnonzero(mask)
            if picked.size:
                rows.append(self._cluster(tokens, start, stop, where, picked))
                keep.append(start * per_frame + where[picked])
                kinds.append(np.full(len(picked), KINDS.index("static"), np.uint8))
            for frame in range(start, stop + 1):
                order = np.argsort(np.where(mask, np.inf, -saliency[frame]), kind="stable")
                chosen = frame * per_frame + np.sort(order[: dynamic[frame]])
                rows.append((np.arange(len(chosen)), chosen, np.ones(len(chosen))))
                keep.append(chosen)
                kinds.append(np.zeros(len(chosen), np.uint8))
        offsets = np.cumsum([0, *(len(part) for part in keep)])
        row = np.concatenate([part[0] + offset for part, offset in zip(rows, offsets[:-1], strict=True)])
        col, weight = (np.concatenate([part[i] for part in rows]) for i in (1, 2))
        place = np.argsort(np.concatenate(keep))
        rank = np.empty_like(place)
        rank[place] = np.arange(len(place))
        plan = MergePlan.from_entries(
            torch.from_numpy(rank[row]),
            torch.from_numpy(col),
            torch.from_numpy(weight),
            keep=torch.from_numpy(np.concatenate(keep)[place]),
            count_in=frames * per_frame,
        )
        return Choice(
            plan=plan.to(tokens.device),
            kind=on_device(np.concatenate(kinds)[place], tokens.device),
            kinds=KINDS,
            segments=tuple(
                Segment(start=a, frames=b - a + 1, salient=int(dynamic[a : b + 1].sum()), context=int(n))
                for (a, b), n in zip(windows, clusters, strict=True)
            ),
            sources=self._sources_of(signals),
            diagnostics={"tau": tau},
        )

    def _threshold(self, similarity: NDArray[np.float64], total: int, count: int) -> float:
        """Find the least threshold from tau on at which the averages leave at least ``count`` tokens.

        The gain of windows falls as the threshold rises, so that this is a search among the similarities that occur.
        """
        steps = np.concatenate(([self.tau], np.unique(similarity[similarity > self.tau])))
        low, high = 0, len(steps) - 1
        while low < high:
            middle = (low + high) // 2
            _, gain = select_windows(similarity, tau=float(steps[middle]), longest=self.max_window_size)
            low, high = (low, middle) if total - gain >= count else (middle + 1, high)
        return float(steps[low])

    def _centres(
        self,
        tokens: Tensor,
        windows: list[tuple[int, int]],
        static: list[NDArray[np.bool_]],
        clusters: NDArray[np.int64],
    ) -> list[NDArray[np.int64]]:
        """Find the cluster centres of every window among its static positions, ascending."""
        scores = []
        for (start, stop), mask, wanted in zip(windows, static, clusters, strict=True):
            if 0 < wanted < mask.sum():
                mean = tokens[start : stop + 1, on_device(np.flatnonzero(mask), tokens.device)].float().mean(dim=0)
                everyone = torch.ones((1, len(mean)), dtype=torch.bool, device=tokens.device)
                scores.append(log_peak_scores(mean[None], everyone, neighbours=min(self.K, len(mean)))[0])
        ranked = iter(on_host(*scores) if scores else [])
        centres = []
        for mask, wanted in zip(static, clusters, strict=True):
            if 0 < wanted < mask.sum():
                centres.append(np.sort(np.argsort(-next(ranked), kind="stable")[:wanted]))
            else:
                centres.append(np.arange(int(wanted)))
        return centres

    def _cluster(
        self, tokens: Tensor, start: int, stop: int, where: NDArray[np.int64], picked: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Return the entries of a window's clusters: cluster, token, weight."""
        length = stop - start + 1
        mean = tokens[start : stop + 1, on_device(where, tokens.device)].float().mean(dim=0)
        others = np.setdiff1d(np.arange(len(where)), picked)
        nearest = np.zeros(0, np.int64)
        if others.size:
            centred = mean - mean.mean(dim=0)
            a, b = centred[on_device(others, mean.device)], centred[on_device(picked, mean.device)]
            nearest = (b.square().sum(dim=1) - 2 * a @ b.T).argmin(dim=1).cpu().numpy()
        joined = np.bincount(nearest, minlength=len(picked))
        own = np.where(joined > 0, 1 / (joined + 1) if self.no_beta else self.beta, 1.0)
        other = (1 - own) / np.maximum(joined, 1)
        cluster = np.concatenate((np.arange(len(picked)), nearest))
        position = where[np.concatenate((picked, others))]
        weight = np.concatenate((own, other[nearest])) / length
        frame = np.arange(start, stop + 1)
        return (
            np.repeat(cluster, length),
            (frame[None] * tokens.shape[1] + position[:, None]).ravel(),
            np.repeat(weight, length),
        )

    def _sources_of(self, signals: Signals) -> dict[str, str]:
        return {"saliency": saliency_source(signals)}

    def released(self, tokens: Tensor, signals: Signals, noise: Tensor | None = None) -> Rows:
        """See `Published.released`.

        Counts are rounded up for dynamic and to the nearest even for static tokens, which may leave no static token;
        static tokens come before the dynamic ones of their window.
        """
        frames, per_frame, _ = tokens.shape
        wide, saliency, draws = tokens.float(), saliency_of(tokens, signals), Noise(noise)
        normed = functional.normalize(wide, p=2, dim=2)
        similar = functional.cosine_similarity(normed[:-1], normed[1:], dim=2).cpu().numpy()
        windows, gain = select_windows(similar, tau=self.tau, longest=self.max_window_size)
        total = frames * per_frame
        ratio = min(self.retention / ((total - gain) / total), 1)
        parts: list[Rows] = []
        for start, stop in windows:
            mask = torch.from_numpy(static_positions(similar, (start, stop), self.tau)).to(tokens.device)
            moving = (~mask).nonzero().squeeze(1)
            where = mask.nonzero().squeeze(1)
            if clusters := round(len(where) * ratio):
                mean = wide[start : stop + 1, where].mean(dim=0)
                score, distance = released_peaks(mean[None], neighbours=min(self.K, clusters), noise=draws)
                picked = score[0].topk(clusters).indices.sort().values
                others = torch.ones_like(where, dtype=torch.bool).index_fill_(0, picked, False).nonzero().squeeze(1)
                nearest = distance[0][others][:, picked].argmin(dim=1)
                joined = torch.zeros(clusters, dtype=torch.float32, device=tokens.device)
                joined.index_add_(0, nearest, torch.ones_like(nearest, dtype=torch.float32))
                own = 1 / (joined + 1) if self.no_beta else torch.where(joined > 0, self.beta, 1.0)
                other = (1 - own) / joined.clamp(min=1)
                cluster = torch.cat((torch.arange(clusters, device=tokens.device), nearest))
                position = where[torch.cat((picked, others))]
                length = stop - start + 1
                frame = torch.arange(start, stop + 1, device=tokens.device)
                parts.append(
                    Rows(
                        keep=start * per_frame + where[picked],
                        row=cluster.repeat_interleave(length),
                        col=(frame[None] * per_frame + position[:, None]).flatten(),
                        weight=(torch.cat((own, other[nearest])) / length).repeat_interleave(length),
                        count_in=total,
                    )
                )
            for f in range(start, stop + 1):
                top = saliency[f, moving].topk(math.ceil(len(moving) * ratio)).indices.sort().values
                parts.append(Rows.selection(f * per_frame + moving[top], count_in=total))
        if not any(part.keep.numel() for part in parts):
            raise ConfigError(f"the released code keeps no token at retention {self.retention}")
        return Rows.joined(parts, count_in=total)


def static_positions(similarity: NDArray[np.floating], window: tuple[int, int], tau: float) -> NDArray[np.bool_]:
    """Find the positions of a window (first, last frame) that never change by more than tau, bool (N,)."""
    start, stop = window
    if start == stop:
        return np.zeros(similarity.shape[1], dtype=bool)
    return np.asarray((similarity[start:stop] > tau).all(axis=0))


def select_windows(similarity: NDArray[np.floating], *, tau: float, longest: int) -> tuple[list[tuple[int, int]], int]:
    """Select the windows whose static positions save most tokens together.

    Of equal gains single frames go before windows, and shorter windows before longer ones, from the last frame back.

    Args:
        similarity: (T - 1, N), of each token to the next frame's.
        tau: positions above it are static.
        longest: frames of a window.

    Returns:
        First and last frame of every window, in order, covering all frames; and the tokens that they save.
    """
    steps, per_frame = similarity.shape
    frames = steps + 1
    # gain[s, w] of the window of w + 1 frames from s: static positions times w.
    gain = np.zeros((frames, frames), np.int64)
    run = np.zeros(per_frame, np.int64)
    for start in range(steps - 1, -1, -1):
        run = np.where(similarity[start] > tau, run + 1, 0)
        at_least = np.cumsum(np.bincount(run, minlength=frames)[::-1])[::-1]
        gain[start] = at_least * np.arange(frames)
    best = np.zeros(frames + 1, np.int64)  # best[i]: of the first i frames
    first = np.arange(frames)
    for last in range(frames):
        best[last + 1] = best[last]
        extra = np.arange(1, min(last + 1, longest))
        if extra.size:
            values = best[last - extra] + gain[last - extra, extra]
            choice = int(values.argmax())
            if values[choice] > best[last]:
                best[last + 1], first[last] = values[choice], last - extra[choice]
    windows = []
    last = frames - 1
    while last >= 0:
        windows.append((int(first[last]), last))
        last = int(first[last]) - 1
    return windows[::-1], int(best[-1])
