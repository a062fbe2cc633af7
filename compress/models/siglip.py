"""Hooks on a SigLIP tower: merged patches packed into one sequence, saliency from its attention or a pooling head."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.models.adapter import VideoGrid, VisionRequest
from compress.models.attention import Kernel, tapped
from compress.ops.saliency import attend_and_score, attention_received
from compress.plan import MergePlan


class SiglipTap:
    """See `compress.models.adapter.VisionTap`.

    Merged patches of all frames go through the encoder as one sequence in which each frame attends to itself, and
    are spread over the grid again behind the projector, so that it too works on fewer.
    """

    def __init__(
        self,
        *,
        tower: Any,
        projector: nn.Module,
        layer: int,
        grid: tuple[int, int],
        pool: Callable[[Tensor], Tensor],
        request: VisionRequest,
    ) -> None:
        self.grids: list[VideoGrid] = []
        self.saliency: list[Tensor] = []
        self.frame_features: list[Tensor] = []
        self.planned = False
        self._tower = tower
        self._projector = projector
        self._layer = layer
        self._grid = grid
        self._pool = pool
        self._request = request
        self._plan: MergePlan | None = None
        self._lengths: list[int] = []
        self._padding: Padding | None = None
        self._count = 0
        self._received: Tensor | None = None

    def reset(self) -> None:
        """Forget: a new prompt begins."""
        self.grids, self.saliency, self.frame_features, self.planned = [], [], [], False

    def install(self, hooks: ExitStack) -> None:
        """Put the hooks on the tower and the projector."""
        request, layers = self._request, self._tower.encoder.layers
        hooks.callback(self._tower.embeddings.register_forward_hook(self._after_embeddings).remove)
        hooks.callback(self._projector.register_forward_hook(self._after_projector).remove)
        scored = layers[self._layer].self_attn if request.saliency and request.head is None else None
        taps: dict[nn.Module, Any] = {}
        if request.plan_patches is not None:
            taps = {layer.self_attn: self._attend for layer in layers}
        if scored is not None:
            taps[scored] = self._attend_scored
        if taps:
            hooks.enter_context(tapped(self._tower, taps))

    def _after_embeddings(self, module: nn.Module, args: Any, embeddings: Tensor) -> Tensor | None:
        count, frames = embeddings.shape[0], list(self._request.frames)
        self._plan, self._padding, self._received = None, None, None
        repeats, rest = divmod(count, sum(frames)) if frames else (0, 0)
        # Images go through the tower too; only exactly the videos that the metadata describes are merged.
        described = repeats > 0 and rest == 0
        self.split([length for length in frames for _ in range(repeats)] if described else [count])
        self._count = count
        if self._request.plan_patches is None or not described:
            return None
        self.planned = True
        plan = self._request.plan_patches(self.grids)
        self._lengths = torch.bincount(plan.keep // math.prod(self._grid), minlength=count).tolist()
        self._plan = plan.to(embeddings.device)
        return self._plan.apply(embeddings.flatten(0, 1))[None]

    def split(self, frames: Sequence[int]) -> None:
        """Take the frames encoded last as videos of these lengths, if that is how many there are."""
        self.grids = [(length, *self._grid) for length in frames]
        for found in (self.saliency, self.frame_features):
            if found and sum(map(len, found)) == sum(frames):
                found[:] = torch.split(torch.cat(found), list(frames))

    def _attend(
        self, kernel: Kernel, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        if self._plan is None:
            return kernel(module, query, key, value, mask, **options)
        if query.device.type == "cpu":
            return attend_by_segment(kernel, module, query, key, value, self._lengths, **options), None
        if self._padding is None:
            self._padding = Padding.of(self._lengths, query.device)
        return attend_padded(query, key, value, self._padding, scaling=options["scaling"]), None

    def _attend_scored(
        self, kernel: Kernel, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        frames = [(query, key, value)]
        if self._plan is not None:
            split = (torch.split(one, self._lengths, dim=2) for one in (query, key, value))
            frames = list(zip(*split, strict=True))
        if query.device.type == "cpu":
            found = [attend_and_score(*frame, scaling=options["scaling"]) for frame in frames]
            self._received = torch.cat([received.flatten() for _, received in found])
            return torch.cat([attended for attended, _ in found], dim=1), None
        self._received = torch.cat([attention_received(q, k).flatten() for q, k, _ in frames])
        return self._attend(kernel, module, query, key, value, mask, **options)

    def _after_projector(self, module: nn.Module, args: tuple[Tensor, ...], projected: Tensor) -> Tensor | None:
        plan, self._plan = self._plan, None

        def whole(packed: Tensor) -> Tensor:
            """What merged patches have -> what each patch of the grid has, (frames, patches, ...)."""
            flat = packed if plan is None else plan.broadcast(packed)
            return flat.view(self._count, math.prod(self._grid), *flat.shape[1:])

        received, self._received = self._received, None
        if self._request.saliency and self._request.head is not None:
            received, features = self._request.head(whole(args[0].flatten(0, 1)))
            self.frame_features = [features]
            self.saliency = [self._pool(received.view(self._count, *self._grid))]
        elif received is not None:
            self.saliency = [self._pool(whole(received).view(self._count, *self._grid))]
        self.split([grid[0] for grid in self.grids])
        return None if plan is None else whole(projected[0])


def attend_by_segment(
    kernel: Kernel,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Sequence[int],
    **options: Any,
) -> Tensor:
    """Attention within consecutive segments of a packed sequence, one call of the kernel each.

    Args:
        kernel: the configured attention function.
        module: the attention module.
        query: (1, heads, sum of lengths, d); likewise key and value.
        key: see query.
        value: see query.
        lengths: tokens of each segment.
        options: of the kernel.

    Returns:
        (1, sum of lengths, heads, d).
    """
    segments = zip(*(torch.split(one, list(lengths), dim=2) for one in (query, key, value)), strict=True)
    return torch.cat([kernel(module, q, k, v, None, **options)[0] for q, k, v in segments], dim=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Padding:
    """How segments of a packed sequence become a batch, padded to the longest; the same for all layers.

    Attributes:
        source: int64 (segments, longest), place in the sequence, 0 where there is none.
        real: bool (segments, 1, 1, longest), False where there is none.
        back: int64 (sum of lengths,), place in the flat batch of each token.
    """

    source: Tensor
    real: Tensor
    back: Tensor

    @staticmethod
    def of(lengths: Sequence[int], device: torch.device) -> Padding:
        """For segments of these lengths."""
        length = torch.tensor(lengths)
        column = torch.arange(int(length.max()))
        real = column < length[:, None]
        source = torch.where(real, (length.cumsum(0) - length)[:, None] + column, 0)
        back = real.flatten().nonzero().squeeze(1)
        return Padding(source=source.to(device), real=real[:, None, None].to(device), back=back.to(device))


def attend_padded(query: Tensor, key: Tensor, value: Tensor, padding: Padding, *, scaling: float) -> Tensor:
    """The same in one call, which launches fewer kernels.

    Args:
        query: (1, heads, sum of lengths, d); likewise key and value.
        key: see query.
        value: see query.
        padding: of the segments.
        scaling: factor of the logits.

    Returns:
        (1, sum of lengths, heads, d).
    """

    def pad(packed: Tensor) -> Tensor:
        batch = packed[0].transpose(0, 1).index_select(0, padding.source.flatten())
        return batch.view(*padding.source.shape, *batch.shape[1:]).transpose(1, 2)

    attended = F.scaled_dot_product_attention(pad(query), pad(key), pad(value), attn_mask=padding.real, scale=scaling)
    return attended.transpose(1, 2).flatten(0, 1).index_select(0, padding.back)[None]
