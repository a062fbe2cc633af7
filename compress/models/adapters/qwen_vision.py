"""Hooks on the vision encoders of Qwen2-VL, Qwen2.5-VL and Qwen3-VL: merged patches, saliency from attention."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils.generic import is_flash_attention_requested
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from compress.encoder_merging import EncoderMerge
from compress.errors import ConfigError
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
from compress.models.adapters.packed_attention import Packing, Reuse, attend_reused
from compress.models.plans import expand_plan, reorder_plan
from compress.ops.saliency import attend_and_score, attention_received
from compress.ops.transfer import moved
from compress.plan import MergePlan
from compress.planning_mode import full_precision


@dataclass(kw_only=True, eq=False)
class _Pass:
    """One pass through the encoder.

    Attributes:
        grids: of the videos, in patches.
        raster: the plan over their patches, in raster order; None merges nothing.
        order: raster index of the patch at each place of the encoder's sequence.
        plan: over the places of that sequence, on its device.
        origin: the merged place of each patch, likewise.
        replaced: positions and segments of the merged sequence.
        windows: segments of its windows.
        reuse: what frames see of the others' patches, where they are reused.
        window_reuse: likewise their windows, for an encoder that has them.
        received: attention that the places of each segment received.
        merging: of patches between the blocks; None where nothing merges there.
        places: float32 (S, 2), positions of the tokens of that merging.
        window: int64 (S,), on the host, window of each of them; None for an encoder without windows.
    """

    grids: Sequence[VideoGrid]
    raster: MergePlan | None
    order: Tensor | None = None
    plan: MergePlan | None = None
    origin: Tensor | None = None
    replaced: dict[str, Any] = field(default_factory=dict)
    windows: dict[str, Any] = field(default_factory=dict)
    reuse: Reuse | None = None
    window_reuse: Reuse | None = None
    received: list[Tensor] = field(default_factory=list)
    merging: EncoderMerging | None = None
    places: Tensor | None = None
    window: Tensor | None = None

    def reused(self, packed: Tensor, whole: Tensor) -> Reuse:
        """Return what segments see, given their tokens that are computed and all of their tokens."""
        assert self.plan is not None
        assert self.origin is not None
        device = self.origin.device
        lengths = (Packing(lengths=one.tolist(), device=device) for one in (packed, whole))
        return Reuse(packed=next(lengths), whole=next(lengths), origin=self.origin, own=self.plan.keep)


class QwenVisionTap(Attached):
    """See `compress.models.adapters.adapter.VisionTap`.

    Patches merge after the patch embedding, before the first block: the blocks see the merged sequence, the mean
    positions and shorter segments, and the merger sees the full grid again.
    """

    def __init__(self, visual: Any, *, windowed: bool, request: VisionRequest) -> None:
        self._visual = visual
        self._windowed = windowed
        self._request = request
        self._merge_size: int = visual.spatial_merge_size
        self._full_blocks = set(getattr(visual, "fullatt_block_indexes", ())) if windowed else set()
        self._inside: Any = merging_in(request.inside, len(visual.blocks))
        self._saliency_source = ""
        self._thread = threading.local()

    @property
    def _running(self) -> _Pass | None:
        """The pass of this thread; None for images and for calls that no session requested."""
        return getattr(self._thread, "running", None)

    def begin(self, grids: Sequence[VideoGrid], plan: MergePlan | None) -> None:
        """See `VisionTap.begin`."""
        self._thread.running = _Pass(grids=grids, raster=plan)

    def end(self) -> list[VisionView]:
        """See `VisionTap.end`."""
        running, self._thread.running = self._running, None
        assert running is not None  # begun
        merged: list[Any] = [None] * len(running.grids)
        received, origin = running.received, running.origin
        if running.merging is not None and running.order is not None:
            starts = _starts(running.grids)
            parts = torch.split(running.order, starts.diff().tolist())
            merged = running.merging.results([part - start for part, start in zip(parts, starts, strict=False)])
            received, origin = running.merging.received, running.merging.origin
        if not received or running.order is None:
            return [VisionView(merged=one) for one in merged]
        scores = torch.cat(received)
        whole = scores if origin is None else scores.index_select(0, moved(origin, scores.device))
        raster = torch.empty_like(whole)
        raster[moved(running.order, whole.device)] = whole
        pooled = _pool(raster, running.grids, self._merge_size)
        return [
            VisionView(saliency=one, merged=became, saliency_source=self._saliency_source)
            for one, became in zip(pooled, merged, strict=True)
        ]

    def install(self, hooks: ExitStack) -> None:
        """Put the hooks on the encoder."""
        visual, request = self._visual, self._request
        if request.head is not None:
            raise ConfigError(
                "this model's vision encoder is not a SigLIP, the only one with a pooling head; leave pooling_head out"
            )
        hooks.callback(visual.register_forward_pre_hook(self._before_visual, with_kwargs=True).remove)
        inside, depth = self._inside, len(visual.blocks)
        taps: dict[nn.Module, Any] = {}
        last = max(self._full_blocks, default=depth - 1)
        if inside is not None:
            check_bias(inside, visual.config._attn_implementation or "eager")
            used = [
                Block(whole=block, attention=block.attn, second_norm=block.norm2, mlp=block.mlp)
                for block in visual.blocks
            ]
            install_merging(hooks, inside, used, self._merging, self._after_merge, self._by_window)
            taps = {block.attention: self._attend_merged for block in used}
            chosen = inside.scored_block(depth)
            if chosen is not None:
                last = chosen
                self._saliency_source = (
                    f"attention received in the encoder's block {chosen}, the last that folds frames"
                )
        if request.merges or inside is not None:
            for number, block in enumerate(visual.blocks):
                handle = block.register_forward_pre_hook(self._before_block(number), with_kwargs=True)
                hooks.callback(handle.remove)
            for merger in (visual.merger, *getattr(visual, "deepstack_merger_list", ())):
                hooks.callback(merger.register_forward_pre_hook(self._before_merger).remove)
        if request.saliency:
            taps[visual.blocks[last].attn] = self._attend_scored
        if request.reuses:
            taps = {
                block.attn: partial(self._attend_reused, windowed=windowed, scored=request.saliency and number == last)
                for number, block in enumerate(visual.blocks)
                for windowed in (self._windowed and number not in self._full_blocks,)
            }
        if taps:
            hooks.enter_context(tapped(visual, taps))

    def _merging(self) -> EncoderMerging | None:
        return None if self._running is None else self._running.merging

    def _before_visual(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        running = self._running
        if running is None:
            return
        grid_thw = torch.tensor(running.grids, device="cpu")
        running.order = self._sequence_order(grid_thw)
        pixels = args[0] if args else kwargs["hidden_states"]
        if running.raster is not None:
            self._prepare(running, running.raster, grid_thw, pixels)
        if self._inside is not None:
            self._prepare_merging(running, grid_thw, pixels.device)

    def _prepare_merging(self, running: _Pass, grid_thw: Tensor, device: torch.device) -> None:
        """Note positions and windows of the sequence, which follow every merge."""
        shapes = [(frames, rows * cols) for frames, rows, cols in running.grids]
        running.merging = EncoderMerging(self._inside, len(self._visual.blocks), shapes, device)
        positions = get_vision_position_ids(grid_thw, self._merge_size)
        if self._windowed:
            unit = self._merge_size**2
            window_index, bounds = self._window_index(grid_thw)
            positions = positions.view(-1, unit, 2)[window_index].flatten(0, 1)
            running.window = torch.repeat_interleave(torch.arange(len(bounds) - 1, device="cpu"), bounds.diff().long())
        running.places = moved(positions.float(), device)

    def _by_window(self, merge: EncoderMerge) -> EncoderMerge:
        """Let the tokens of each window stay together."""
        running = self._running
        assert running is not None  # it merges
        if running.window is None:
            return merge
        order = running.window[merge.keep.cpu()].sort(stable=True).indices
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device="cpu")
        device = merge.keep.device
        return replace(merge, keep=merge.keep[moved(order, device)], origin=moved(rank, device)[merge.origin])

    def _after_merge(self, merge: EncoderMerge) -> None:
        """Compute positions and segments of the tokens that are left."""
        running = self._running
        assert running is not None
        assert running.merging is not None
        assert running.places is not None
        running.places = merge.apply(moved(running.places, merge.origin.device))
        device = running.places.device
        lengths = torch.tensor(running.merging.frame_lengths, device="cpu")
        running.replaced = self._segments(lengths, device)
        if running.window is not None:
            running.window = running.window[merge.keep.cpu()]
            running.windows = self._segments(torch.bincount(running.window), device)
        rotary = self._visual.rotary_pos_emb
        running.replaced["position_embeddings"] = rotary(
            torch.zeros(1, dtype=torch.float32, device=device), running.places
        )

    def _sequence_order(self, grid_thw: Tensor) -> Tensor:
        """Return the raster index of the patch at each place of the encoder's sequence."""
        size = self._merge_size
        order = order_by_token(grid_thw.tolist(), size)
        if self._windowed:
            window_index, _ = self._window_index(grid_thw)
            order = order.view(-1, size * size)[window_index].flatten()
        return order

    def _window_index(self, grid_thw: Tensor) -> tuple[Tensor, Tensor]:
        visual = self._visual
        index, bounds = get_vision_window_index(
            grid_thw,
            spatial_merge_size=self._merge_size,
            window_size=visual.window_size,
            patch_size=visual.patch_size,
        )
        return index, bounds

    def _prepare(self, running: _Pass, raster: MergePlan, grid_thw: Tensor, pixels: Tensor) -> None:
        """Bring the plan into the order of the sequence, with positions and segments to go with it."""
        assert running.order is not None  # set just before
        size, device = self._merge_size, pixels.device
        positions = get_vision_position_ids(grid_thw, size)
        if self._windowed:
            # The plan is over units of size x size patches; the sequence is a sequence of such units.
            window_index, bounds = self._window_index(grid_thw)
            plan = expand_plan(reorder_plan(raster, window_index), size * size)
            positions = positions.view(-1, size * size, 2)[window_index].flatten(0, 1)
            window_lengths = bounds.diff().long()
            window = torch.repeat_interleave(torch.arange(len(window_lengths), device="cpu"), window_lengths)
            in_window = torch.bincount(window[plan.keep], minlength=len(window_lengths))
            running.windows = self._segments(in_window, device)
        else:
            plan = reorder_plan(raster, running.order)
        per_frame = (grid_thw[:, 1] * grid_thw[:, 2]).repeat_interleave(grid_thw[:, 0])
        frame = torch.repeat_interleave(torch.arange(len(per_frame), device="cpu"), per_frame)
        in_frame = torch.bincount(frame[plan.keep], minlength=len(per_frame))
        running.replaced = self._segments(in_frame, device)
        running.origin, running.plan = moved(plan.origin, device), plan.to(device)
        if self._request.reuses:
            # Blocks see one segment, and pass all of it to the taps on their attention.
            running.replaced, running.windows = self._segments(in_frame.sum()[None], device), {}
            running.reuse = running.reused(in_frame, per_frame)
            if self._windowed:
                running.window_reuse = running.reused(in_window, window_lengths)
        rotary = self._visual.rotary_pos_emb
        merged = moved(plan.apply(positions.double()).float(), device)
        running.replaced["position_embeddings"] = rotary(torch.zeros(1, dtype=torch.float32, device=device), merged)

    def _segments(self, lengths: Tensor, device: torch.device) -> dict[str, Any]:
        lengths = lengths[lengths > 0]
        bounds = F.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
        # Flash kernels read the bounds on the device; all others are called once per segment by every block, which
        # splits the sequence on the host and would wait for the device there.
        flash = is_flash_attention_requested(self._visual.config)
        return {"cu_seqlens": moved(bounds, device) if flash else bounds, "max_seqlen": int(lengths.max())}

    def _before_block(self, number: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            running = self._running
            if running is None or (running.plan is None and (running.merging is None or not running.merging.merged)):
                return None
            hidden, *rest = args
            if number == 0 and running.plan is not None:
                if running.plan.keep.device != hidden.device:  # a model that is spread over devices
                    running.plan, running.origin = running.plan.to(hidden.device), None
                    running.origin = running.plan.origin
                hidden = (running.plan.take if self._request.reuses else running.plan.apply)(hidden)
            kwargs = {**kwargs, **running.replaced}
            if self._windowed and number not in self._full_blocks:
                kwargs |= running.windows
            return (hidden, *rest), kwargs

        return hook

    def _before_merger(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        running = self._running
        if running is None:
            return None
        origin = running.origin if running.merging is None else running.merging.origin
        return None if origin is None else (args[0].index_select(0, moved(origin, args[0].device)), *args[1:])

    def _attend_merged(
        self, kernel: Kernel, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        merging = self._merging()
        if merging is None:
            return kernel(module, query, key, value, *rest, **options)
        mask = rest[0] if rest else options.pop("attention_mask", None)
        return attend_merged(merging, kernel, module, query, key, value, mask, **options)

    def _attend_reused(
        self,
        kernel: Kernel,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *rest: Any,
        windowed: bool,
        scored: bool,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        running = self._running
        reuse = None if running is None else running.window_reuse if windowed else running.reuse
        if running is None or reuse is None:
            return kernel(module, query, key, value, *rest, **options)
        if scored:
            with full_precision():
                running.received.append(reuse.received(query, key))
        options.pop("attention_mask", None)
        return attend_reused(kernel, module, query, key, value, reuse, **options), None

    def _attend_scored(
        self, kernel: Kernel, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        running = self._running
        if running is None:
            return kernel(module, query, key, value, *rest, **options)
        if running.merging is not None:
            with full_precision():
                bounds = options.get("cu_seq_lens_q")
                lengths = [query.shape[2]] if bounds is None else bounds.diff().tolist()
                for q, k in zip(*(torch.split(one, lengths, dim=2) for one in (query, key)), strict=True):
                    running.merging.received.append(attention_received(q, k)[0])
            return self._attend_merged(kernel, module, query, key, value, *rest, **options)
        with full_precision():
            if query.device.type == "cpu" and not query.requires_grad:
                # One segment per call here: kernels that take all segments at once do not run on CPUs.
                attended, received = attend_and_score(query, key, value, scaling=options["scaling"])
                running.received.append(received[0])
                return attended, None
            bounds = options.get("cu_seq_lens_q")
            lengths = [query.shape[2]] if bounds is None else bounds.diff().tolist()
            for q, k in zip(*(torch.split(one, lengths, dim=2) for one in (query, key)), strict=True):
                running.received.append(attention_received(q, k)[0])
        return kernel(module, query, key, value, *rest, **options)


def order_by_token(grids: Sequence[VideoGrid], size: int) -> Tensor:
    """Return the raster index of the patch at each place of a sequence in which those of a token follow each other.

    Args:
        grids: of the videos, in patches.
        size: rows and columns of patches of a token.
    """
    orders, offset = [], 0
    for frames, rows, cols in grids:
        raster = torch.arange(frames * rows * cols, device="cpu").view(frames, rows // size, size, cols // size, size)
        orders.append(raster.transpose(2, 3).flatten() + offset)
        offset += frames * rows * cols
    return torch.cat(orders)


def _starts(grids: Sequence[VideoGrid]) -> Tensor:
    """Return where the patches of each video begin, and the end."""
    counts = torch.tensor([frames * rows * cols for frames, rows, cols in grids], device="cpu")
    return F.pad(counts.cumsum(0), (1, 0))


def _pool(raster: Tensor, grids: Sequence[VideoGrid], size: int) -> list[Tensor]:
    """Average over the patches of each token, (T, N) per video."""
    counts = [frames * rows * cols for frames, rows, cols in grids]
    return [
        F.avg_pool2d(scores.view(frames, 1, rows, cols), size).flatten(1)
        for scores, (frames, rows, cols) in zip(torch.split(raster, counts), grids, strict=True)
    ]
