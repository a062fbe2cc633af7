"""Hooks on a SigLIP tower: merged patches packed into one sequence, saliency from its attention or a pooling head."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from compress.models.adapters.adapter import VideoGrid, VisionRequest
from compress.models.adapters.attention import Kernel, tapped
from compress.models.adapters.packed_attention import Packing, attend_packed
from compress.ops.saliency import attend_and_score, attention_received
from compress.ops.transfer import moved


class SiglipTap:
    """See `compress.models.adapters.adapter.VisionTap`.

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
        self._packing: Packing | None = None
        self._origin: Tensor | None = None
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
        self._packing, self._origin, self._received = None, None, None
        repeats, rest = divmod(count, sum(frames)) if frames else (0, 0)
        # Images go through the tower too; only exactly the videos that the metadata describes are merged.
        described = repeats > 0 and rest == 0
        self.split([length for length in frames for _ in range(repeats)] if described else [count])
        self._count = count
        if self._request.plan_patches is None or not described:
            return None
        self.planned = True
        plan = self._request.plan_patches(self.grids)
        # Lengths and origins are taken while the plan is on the host.
        lengths = torch.bincount(plan.keep // math.prod(self._grid), minlength=count).tolist()
        self._packing = Packing(lengths=lengths, device=embeddings.device)
        self._origin = moved(plan.origin, embeddings.device)
        return plan.to(embeddings.device).apply(embeddings.flatten(0, 1))[None]

    def split(self, frames: Sequence[int]) -> None:
        """Take the frames encoded last as videos of these lengths, if that is how many there are."""
        self.grids = [(length, *self._grid) for length in frames]
        for found in (self.saliency, self.frame_features):
            if found and sum(map(len, found)) == sum(frames):
                found[:] = torch.split(torch.cat(found), list(frames))

    def _attend(
        self, kernel: Kernel, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        if self._packing is None:
            return kernel(module, query, key, value, mask, **options)
        return attend_packed(kernel, module, query, key, value, self._packing, **options), None

    def _attend_scored(
        self, kernel: Kernel, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        packing = self._packing
        if query.device.type == "cpu" and not query.requires_grad:
            frames = [(query, key, value)]
            if packing is not None:
                split = (torch.split(one, list(packing.lengths), dim=2) for one in (query, key, value))
                frames = list(zip(*split, strict=True))
            found = [attend_and_score(*frame, scaling=options["scaling"]) for frame in frames]
            self._received = torch.cat([received.flatten() for _, received in found])
            return torch.cat([attended for attended, _ in found], dim=1), None
        if packing is None:
            self._received = attention_received(query, key).flatten()
        else:
            received = attention_received(packing.pad(query), packing.pad(key), real=packing.real)
            self._received = received.flatten().index_select(0, packing.back)
        return self._attend(kernel, module, query, key, value, mask, **options)

    def _after_projector(self, module: nn.Module, args: tuple[Tensor, ...], projected: Tensor) -> Tensor | None:
        origin, self._origin, self._packing = self._origin, None, None

        def whole(packed: Tensor) -> Tensor:
            """What merged patches have -> what each patch of the grid has, (frames, patches, ...)."""
            flat = packed if origin is None else packed.index_select(0, origin)
            return flat.view(self._count, math.prod(self._grid), *flat.shape[1:])

        received, self._received = self._received, None
        if self._request.saliency and self._request.head is not None:
            received, features = self._request.head(whole(args[0].flatten(0, 1)))
            self.frame_features = [features]
            self.saliency = [self._pool(received.view(self._count, *self._grid))]
        elif received is not None:
            self.saliency = [self._pool(whole(received).view(self._count, *self._grid))]
        self.split([grid[0] for grid in self.grids])
        return None if origin is None else whole(projected[0])
