"""Hooks on a SigLIP tower: merged patches packed into one sequence, saliency from its attention or a pooling head."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.encoder_merging import EncoderResult
from compress.models.adapters.adapter import VideoGrid, VisionRequest, VisionView
from compress.models.adapters.attached import Attached
from compress.models.adapters.attention import Kernel, tapped
from compress.models.adapters.encoder_merge import (
    Block,
    EncoderMerging,
    attend_merged,
    check_bias,
    install_merging,
    merging_in,
)
from compress.models.adapters.packed_attention import Packing, Reuse, attend_packed, attend_reused
from compress.ops.saliency import attend_and_score, attention_received
from compress.ops.transfer import moved
from compress.plan import MergePlan
from compress.planning_mode import full_precision


@dataclass(kw_only=True, eq=False)
class _Pass:
    """One pass through the tower.

    Attributes:
        grids: of the videos.
        plan: over their patches; None merges nothing.
        packing: the frames of the packed sequence, where patches merged.
        reuse: what each frame sees of the others' patches, where they are reused.
        merging: of patches between the blocks; None where nothing merges there.
        received: attention that each place of the sequence received.
        saliency: (frames, N), of all videos.
        frame_features: (frames, D), likewise.
    """

    grids: Sequence[VideoGrid]
    plan: MergePlan | None
    packing: Packing | None = None
    reuse: Reuse | None = None
    origin: Tensor | None = None
    merging: EncoderMerging | None = None
    received: Tensor | None = None
    saliency: Tensor | None = None
    frame_features: Tensor | None = None

    @property
    def frames(self) -> list[int]:
        """Frames of each video."""
        return [grid[0] for grid in self.grids]


class SiglipTap(Attached):
    """See `compress.models.adapters.adapter.VisionTap`.

    Merged patches of all frames go through the encoder as one sequence in which each frame attends to itself, and
    are spread over the grid again after the projector, so that it also works on fewer.
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
        self._tower = tower
        self._projector = projector
        self._layer = layer
        self._grid = grid
        self._pool = pool
        self._request = request
        self._depth = len(tower.encoder.layers[:layer]) + 1
        self._inside: Any = merging_in(request.inside, self._depth)
        self._saliency_source = ""
        self._thread = threading.local()

    @property
    def _running(self) -> _Pass | None:
        """The pass of this thread; None for images and for calls that no session requested."""
        return getattr(self._thread, "running", None)

    def begin(self, grids: Sequence[VideoGrid], plan: MergePlan | None) -> None:
        """See `VisionTap.begin`."""
        self._thread.running = _Pass(grids=grids, plan=plan)

    def end(self) -> list[VisionView]:
        """See `VisionTap.end`."""
        running, self._thread.running = self._running, None
        assert running is not None  # begun
        nothing: list[Tensor | None] = [None] * len(running.grids)
        saliency, features = (
            nothing if found is None else list(torch.split(found, running.frames))
            for found in (running.saliency, running.frame_features)
        )
        merged: Sequence[EncoderResult | None] = [None] * len(running.grids)
        if running.merging is not None:
            merged = running.merging.results()
        return [
            VisionView(saliency=one, frame_features=other, merged=became, saliency_source=self._saliency_source)
            for one, other, became in zip(saliency, features, merged, strict=True)
        ]

    def install(self, hooks: ExitStack) -> None:
        """Put the hooks on the tower and the projector."""
        request, layers = self._request, self._tower.encoder.layers
        hooks.callback(self._tower.embeddings.register_forward_hook(self._after_embeddings).remove)
        hooks.callback(self._projector.register_forward_hook(self._after_projector).remove)
        depth = self._depth
        scored = layers[self._layer].self_attn if request.saliency and request.head is None else None
        taps: dict[nn.Module, Any] = {}
        if request.merges:
            taps = {layer.self_attn: self._attend for layer in layers}
        inside = self._inside
        if inside is not None:
            check_bias(inside, self._tower.config._attn_implementation or "eager")
            used = [
                Block(whole=layer, attention=layer.self_attn, second_norm=layer.layer_norm2, mlp=layer.mlp)
                for layer in layers[:depth]
            ]
            install_merging(hooks, inside, used, self._merging)
            taps = {block.attention: self._attend_merged for block in used}
            block = inside.scored_block(depth)
            if scored is not None and block is not None:
                scored = layers[block].self_attn
                self._saliency_source = f"attention received in the tower's block {block}, the last that folds frames"
        if scored is not None:
            taps[scored] = self._attend_scored
        if taps:
            hooks.enter_context(tapped(self._tower, taps))

    def _merging(self) -> EncoderMerging | None:
        return None if self._running is None else self._running.merging

    def _after_embeddings(self, module: nn.Module, args: Any, embeddings: Tensor) -> Tensor | None:
        running = self._running
        if running is not None and self._inside is not None:
            shapes = [(frames, embeddings.shape[1]) for frames in running.frames]
            running.merging = EncoderMerging(self._inside, self._depth, shapes, embeddings.device)
        if running is None or running.plan is None:
            return None
        plan, device = running.plan, embeddings.device
        # Lengths and origins are taken while the plan is on the host.
        frame = plan.keep // math.prod(self._grid)
        lengths = torch.bincount(frame, minlength=embeddings.shape[0]).tolist()
        running.packing = Packing(lengths=lengths, device=device)
        running.origin = moved(plan.origin, device)
        if self._request.reuses:
            whole = Packing(lengths=[embeddings.shape[1]] * len(embeddings), device=device)
            running.reuse = Reuse(
                packed=running.packing, whole=whole, origin=running.origin, own=moved(plan.keep, device)
            )
            return embeddings.flatten(0, 1).index_select(0, running.reuse.own)[None]
        return plan.to(device).apply(embeddings.flatten(0, 1))[None]

    def _attend(
        self, kernel: Kernel, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        running = self._running
        if running is None or running.packing is None:
            return kernel(module, query, key, value, mask, **options)
        if running.reuse is not None:
            return attend_reused(kernel, module, query, key, value, running.reuse, **options), None
        return attend_packed(kernel, module, query, key, value, running.packing, **options), None

    def _attend_merged(
        self, kernel: Kernel, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        merging = self._merging()
        if merging is None:
            return kernel(module, query, key, value, mask, **options)
        return attend_merged(merging, kernel, module, query, key, value, mask, **options)

    def _attend_scored(
        self, kernel: Kernel, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        running = self._running
        if running is None:
            return kernel(module, query, key, value, mask, **options)
        packing = running.packing
        if running.merging is not None:
            with full_precision():
                running.merging.received = [attention_received(query, key).flatten()]
            return self._attend_merged(kernel, module, query, key, value, mask, **options)
        if running.reuse is not None:
            with full_precision():
                running.received = running.reuse.received(query, key)
            return self._attend(kernel, module, query, key, value, mask, **options)
        with full_precision():
            if query.device.type == "cpu" and not query.requires_grad:
                frames = [(query, key, value)]
                if packing is not None:
                    split = (torch.split(one, list(packing.lengths), dim=2) for one in (query, key, value))
                    frames = list(zip(*split, strict=True))
                found = [attend_and_score(*frame, scaling=options["scaling"]) for frame in frames]
                running.received = torch.cat([received.flatten() for _, received in found])
                return torch.cat([attended for attended, _ in found], dim=1), None
            if packing is None:
                running.received = attention_received(query, key).flatten()
            else:
                received = attention_received(packing.pad(query), packing.pad(key), real=packing.real)
                running.received = received.flatten().index_select(0, packing.back)
        return self._attend(kernel, module, query, key, value, mask, **options)

    def _after_projector(self, module: nn.Module, args: tuple[Tensor, ...], projected: Tensor) -> Tensor | None:
        running = self._running
        if running is None:
            return None
        origin, count = running.origin, sum(running.frames)
        if running.merging is not None:
            origin = running.merging.origin
            running.received = torch.cat(running.merging.received) if running.merging.received else None

        def whole(packed: Tensor) -> Tensor:
            """Spread what merged patches have over the patches of the grid, (frames, patches, ...)."""
            flat = packed if origin is None else packed.index_select(0, moved(origin, packed.device))
            return flat.view(count, math.prod(self._grid), *flat.shape[1:])

        if self._request.saliency and self._request.head is not None:
            with full_precision():
                received, running.frame_features = self._request.head(whole(args[0].flatten(0, 1)))
            running.saliency = self._pool(received.view(count, *self._grid))
        elif running.received is not None:
            running.saliency = self._pool(whole(running.received).view(count, *self._grid))
        return None if origin is None else whole(projected.flatten(0, 1))
