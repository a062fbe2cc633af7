"""VidCom2: tokens unlike the means of their frame and of the video, more in unusual frames (EMNLP 2025).

The reference follows the released code for LLaVA-OneVision (xuyang-liu16/VidCom2, Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from compress.baselines.baseline import Choice, FrameBudgets, Published
from compress.baselines.rows import Rows
from compress.budget import allocate
from compress.errors import ConfigError
from compress.ops.similarity import NORM_FLOOR
from compress.ops.transfer import on_device, on_host
from compress.plan import MergePlan
from compress.stage import Signals

CHANNELS = 0.5
"""Share of the channels, those of least variance, that similarity is measured on."""
SCALES = tuple(2.0**k for k in range(-3, 2))
"""Variances of the Gaussian kernels, alpha = 2^-3 ... 2^1."""
TEMPERATURE = 0.01
"""Temperature of the softmax that turns frames' scores into scales."""


@dataclass(frozen=True, kw_only=True)
class VidCom2(Published, FrameBudgets):
    """The tokens least like their frame and their video, by Gaussian kernels; frames unlike the video keep more.

    Fixed, the frames' shares add up to the budget, whatever the cap of a whole frame takes away.
    """

    retention: float = 0.25
    name: ClassVar[str] = "vidcom2"

    def own_budgets(self, frames: int, per_frame: int) -> NDArray[np.int64]:
        """Raise ConfigError: the method's own budgets depend on the tokens."""
        raise ConfigError(
            "frame_budget is 'own', by which VidCom2 needs the tokens themselves, after the encoder; "
            "use frame_budget='packets', which shares it by packet sizes"
        )

    def choose(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        """See `Baseline.choose`."""
        frames, per_frame, _ = tokens.shape
        video, frame = _similarities(tokens)
        score = video + frame
        sources: dict[str, str] = {}
        if self.frame_budget == "packets":
            budgets, sources = self.budgets(tokens, signals)
        else:
            (scales,) = on_host(_scales(video, self.retention))
            budgets = allocate(scales, count, lower=1 if count >= frames else 0, upper=per_frame)
        order = score.sort(dim=1, stable=True).indices
        taken = on_device(np.arange(per_frame)[None] < budgets[:, None], tokens.device)
        stays = torch.zeros_like(taken).scatter_(1, order, taken)
        # Their number is known, and looking for them would have the host wait.
        keep = stays.flatten().sort(descending=True, stable=True).indices[: int(budgets.sum())]
        plan = MergePlan.selection(keep, count_in=frames * per_frame)
        return Choice(plan=plan, frame_budgets=budgets, sources=sources)

    def released(self, tokens: Tensor, signals: Signals, noise: Tensor | None = None) -> Rows:
        """See `Published.released`. A scale is cut at 1, and what that loses is not given to other frames."""
        frames, per_frame, width = tokens.shape
        wide = tokens.float()
        variance = wide.flatten(0, 1).var(dim=0, unbiased=False)
        channels = variance.topk(int(width * CHANNELS), largest=False).indices
        direction = functional.normalize(wide[:, :, channels], dim=2)
        video = _kernel_sum(direction, direction.mean(dim=(0, 1), keepdim=True))
        frame = _kernel_sum(direction, direction.mean(dim=1, keepdim=True))
        counts = (_scales(video, self.retention).clamp(max=1.0) * per_frame).round().long().clamp(min=1).tolist()
        score = video + frame
        keep = [
            f * per_frame + score[f].topk(kept, largest=False, sorted=False).indices.sort().values
            for f, kept in enumerate(counts)
        ]
        return Rows.selection(torch.cat(keep), count_in=frames * per_frame)


def _similarities(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Measure the similarity of every token to the video's and to its frame's mean direction, float32 (T, N) each."""
    width = tokens.shape[2]
    channels = _variances(tokens).sort(stable=True).indices[: max(1, int(width * CHANNELS))].sort().values
    chosen = torch.cat([part.index_select(2, channels).float() for part in _tiles(tokens)])
    norm = torch.linalg.vector_norm(chosen, dim=2)
    missing = norm < NORM_FLOOR
    scale = 1 / norm.masked_fill(missing, torch.inf)
    # Of unit rows u and a centre c, |u - c|^2 = |u|^2 - 2 u c + |c|^2; a row without direction is 0.
    own = (~missing).to(torch.float32)
    frame = (scale[:, None] @ chosen).squeeze(1) / tokens.shape[1]
    video = frame.mean(dim=0)
    similarities = []
    for centre in (video.expand_as(frame), frame):
        product = (chosen @ centre[..., None]).squeeze(2) * scale
        distance = own - 2 * product + centre.square().sum(dim=1, keepdim=True)
        similarities.append(_kernels(distance.clamp_min(0)))
    return similarities[0], similarities[1]


def _tiles(tokens: Tensor) -> Iterator[Tensor]:
    """Yield one frame at a time on a CPU, whose cache it stays in, all at once on an accelerator."""
    step = 1 if tokens.device.type == "cpu" else len(tokens)
    for start in range(0, len(tokens), step):
        yield tokens[start : start + step]


def _variances(tokens: Tensor) -> Tensor:
    """Compute the variance of every channel, float64 (D,), about the mean of the first frame against cancellation."""
    origin = tokens[0].float().mean(dim=0)
    total = torch.zeros(tokens.shape[2], dtype=torch.float64, device=tokens.device)
    squares = torch.zeros_like(total)
    for part in _tiles(tokens):
        off = part.flatten(0, 1).float() - origin
        total += off.sum(dim=0).double()
        squares += (off * off).sum(dim=0).double()
    count = tokens.shape[0] * tokens.shape[1]
    return squares / count - (total / count).square()


def _kernel_sum(direction: Tensor, centre: Tensor) -> Tensor:
    """Sum exp(-d^2 / (2 alpha)) over the scales, (T, N)."""
    return _kernels((direction - centre).square().sum(dim=2))


def _kernels(distance: Tensor) -> Tensor:
    """Sum the kernels of squared distances."""
    return torch.stack([torch.exp(distance / (-2 * alpha)) for alpha in SCALES]).sum(dim=0)


def _scales(video: Tensor, retention: float) -> Tensor:
    """Share of each frame's tokens, float32 (T,), ``r (1 + p - mean p)``, p the softmax of its dissimilarity."""
    score = -video.mean(dim=1)
    share = ((score - score.max()) / TEMPERATURE).softmax(dim=0)
    return retention * (1 + share - share.mean())
