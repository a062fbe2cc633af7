"""Hooks on the vision encoders of Qwen2-VL, Qwen2.5-VL and Qwen3-VL: merged patches, saliency from attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils.generic import is_flash_attention_requested
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from compress.errors import ConfigError
from compress.models.adapters.adapter import VideoGrid, VisionRequest
from compress.models.adapters.attention import Kernel, tapped
from compress.models.plans import expand_plan, reorder_plan
from compress.ops.saliency import attend_and_score, attention_received
from compress.ops.transfer import moved
from compress.plan import MergePlan


class QwenVisionTap:
    """See `compress.models.adapters.adapter.VisionTap`.

    Patches merge behind the patch embedding, before the first block: the blocks see the merged sequence, the mean
    positions and shorter segments, and the merger sees the full grid again.
    """

    def __init__(self, visual: Any, *, windowed: bool, request: VisionRequest) -> None:
        self.grids: list[VideoGrid] = []
        self.saliency: list[Tensor] = []
        self.frame_features: list[Tensor] = []
        self.planned = False
        self._visual = visual
        self._windowed = windowed
        self._request = request
        self._merge_size: int = visual.spatial_merge_size
        self._full_blocks = set(getattr(visual, "fullatt_block_indexes", ())) if windowed else set()
        self._order: Tensor | None = None
        self._plan: MergePlan | None = None
        self._origin: Tensor | None = None
        self._replaced: dict[str, Any] = {}
        self._windows: dict[str, Any] = {}
        self._received: list[Tensor] = []

    def reset(self) -> None:
        """Forget: a new prompt begins."""
        self.grids, self.saliency, self.frame_features, self.planned = [], [], [], False

    def split(self, frames: Sequence[int]) -> None:
        """Nothing to learn: the encoder is given every video's grid."""

    def install(self, hooks: ExitStack) -> None:
        """Put the hooks on the encoder."""
        visual, request = self._visual, self._request
        if request.head is not None:
            raise ConfigError("this model's vision encoder is no SigLIP; leave pooling_head out")
        hooks.callback(visual.register_forward_pre_hook(self._before_visual, with_kwargs=True).remove)
        hooks.callback(visual.register_forward_hook(self._after_visual).remove)
        if request.plan_patches is not None:
            for number, block in enumerate(visual.blocks):
                handle = block.register_forward_pre_hook(self._before_block(number), with_kwargs=True)
                hooks.callback(handle.remove)
            for merger in (visual.merger, *getattr(visual, "deepstack_merger_list", ())):
                hooks.callback(merger.register_forward_pre_hook(self._before_merger).remove)
        if request.saliency:
            last = max(self._full_blocks, default=len(visual.blocks) - 1)
            hooks.enter_context(tapped(visual, {visual.blocks[last].attn: self._attend_scored}))

    def _before_visual(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        grid_thw = kwargs["grid_thw"] if "grid_thw" in kwargs else args[1]
        device, grid_thw = grid_thw.device, grid_thw.cpu()
        grids = [(int(t), int(h), int(w)) for t, h, w in grid_thw.tolist()]
        self._plan, self._received, self._replaced, self._windows = None, [], {}, {}
        self._order, self._origin = None, None
        frames = list(self._request.frames)
        # Images come the same way; they have one frame each, and are known from videos by the metadata.
        repeats = len(grids) // len(frames) if frames else 0
        described = [count for count in frames for _ in range(repeats)] == [grid[0] for grid in grids]
        if frames and not described:
            if any(grid[0] > 1 for grid in grids):
                self.grids = grids
            return
        self.grids, self._order = grids, self._sequence_order(grid_thw)
        if self._request.plan_patches is not None:
            self.planned = True
            self._prepare(self._request.plan_patches(grids), grid_thw, device)

    def _sequence_order(self, grid_thw: Tensor) -> Tensor:
        """Raster index of the patch at each place of the encoder's sequence."""
        size, orders, offset = self._merge_size, [], 0
        for frames, rows, cols in grid_thw.tolist():
            raster = torch.arange(frames * rows * cols).view(frames, rows // size, size, cols // size, size)
            orders.append(raster.transpose(2, 3).flatten() + offset)
            offset += frames * rows * cols
        order = torch.cat(orders)
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

    def _prepare(self, raster: MergePlan, grid_thw: Tensor, device: torch.device) -> None:
        """Bring the plan into the order of the sequence, with positions and segments to go with it."""
        assert self._order is not None  # set just before
        size = self._merge_size
        positions = get_vision_position_ids(grid_thw, size)
        if self._windowed:
            # The plan is over units of size x size patches; the sequence is a sequence of such units.
            window_index, bounds = self._window_index(grid_thw)
            plan = expand_plan(reorder_plan(raster, window_index), size * size)
            positions = positions.view(-1, size * size, 2)[window_index].flatten(0, 1)
            window = torch.repeat_interleave(torch.arange(len(bounds) - 1), bounds.diff().long())
            self._windows = self._segments(torch.bincount(window[plan.keep]), device)
        else:
            plan = reorder_plan(raster, self._order)
        per_frame = (grid_thw[:, 1] * grid_thw[:, 2]).repeat_interleave(grid_thw[:, 0])
        frame = torch.repeat_interleave(torch.arange(len(per_frame)), per_frame)
        self._replaced = self._segments(torch.bincount(frame[plan.keep], minlength=len(per_frame)), device)
        rotary = self._visual.rotary_pos_emb
        merged = moved(plan.apply(positions.double()).float(), device)
        self._replaced["position_embeddings"] = rotary(torch.zeros(1, device=device), merged)
        self._origin, self._plan = moved(plan.origin, device), plan.to(device)

    def _segments(self, lengths: Tensor, device: torch.device) -> dict[str, Any]:
        lengths = lengths[lengths > 0]
        bounds = F.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
        # Flash kernels read the bounds on the device; all others are called once per segment by every block, which
        # splits the sequence on the host and would wait for the device there.
        flash = is_flash_attention_requested(self._visual.config)
        return {"cu_seqlens": moved(bounds, device) if flash else bounds, "max_seqlen": int(lengths.max())}

    def _before_block(self, number: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if self._plan is None:
                return None
            hidden, *rest = args
            if number == 0:
                hidden = self._plan.apply(hidden)
            kwargs = {**kwargs, **self._replaced}
            if self._windowed and number not in self._full_blocks:
                kwargs |= self._windows
            return (hidden, *rest), kwargs

        return hook

    def _before_merger(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return None if self._origin is None else (args[0].index_select(0, self._origin), *args[1:])

    def _attend_scored(
        self, kernel: Kernel, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        if query.device.type == "cpu" and not query.requires_grad:
            # Here it is one segment a call: kernels that take all at once are not for processors.
            attended, received = attend_and_score(query, key, value, scaling=options["scaling"])
            self._received.append(received[0])
            return attended, None
        bounds = options.get("cu_seq_lens_q")
        lengths = [query.shape[2]] if bounds is None else bounds.diff().tolist()
        for q, k in zip(*(torch.split(one, lengths, dim=2) for one in (query, key)), strict=True):
            self._received.append(attention_received(q, k)[0])
        return kernel(module, query, key, value, *rest, **options)

    def _after_visual(self, module: nn.Module, args: Any, output: Any) -> None:
        origin, order, received = self._origin, self._order, self._received
        self._plan, self._origin, self._order, self._received = None, None, None, []
        if not received or order is None:
            return
        scores = torch.cat(received)
        whole = scores if origin is None else scores.index_select(0, origin)
        raster = torch.empty_like(whole)
        raster[moved(order, whole.device)] = whole
        self.saliency = list(_pool(raster, self.grids, self._merge_size))


def _pool(raster: Tensor, grids: Sequence[VideoGrid], size: int) -> list[Tensor]:
    """Per video, (T, N): means over the patches of each token."""
    counts = [frames * rows * cols for frames, rows, cols in grids]
    return [
        F.avg_pool2d(scores.view(frames, 1, rows, cols), size).flatten(1)
        for scores, (frames, rows, cols) in zip(torch.split(raster, counts), grids, strict=True)
    ]
