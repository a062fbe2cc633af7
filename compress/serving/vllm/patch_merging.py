"""Merges of patches before the first block of an engine's vision encoder, and back before its merger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.vision_utils import get_vision_position_ids

from compress.models.adapters.adapter import VideoGrid
from compress.models.adapters.qwen_vision import order_by_token
from compress.models.plans import reorder_plan
from compress.ops.transfer import moved
from compress.plan import MergePlan


@dataclass(frozen=True, kw_only=True, eq=False)
class MergedPass:
    """A pass of merged patches through the encoder.

    Attributes:
        plan: over the patches in the encoder's order.
        origin: int64 (S,), the merged place of each of them.
        lengths: merged patches of each frame.
        places: float32 (S', 2), row and column of each merged patch.
    """

    plan: MergePlan
    origin: Tensor
    lengths: list[int]
    places: Tensor

    @staticmethod
    def of(raster: MergePlan, grids: Sequence[VideoGrid], size: int) -> MergedPass:
        """Reorder a plan from raster order to the encoder's, in which the patches of a token follow each other.

        Args:
            raster: over the patches of all videos, on the host.
            grids: of these.
            size: rows and columns of patches of a token.
        """
        plan = reorder_plan(raster, order_by_token(grids, size))
        lengths = torch.tensor([rows * cols for frames, rows, cols in grids for _ in range(frames)])
        frame = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        positions = get_vision_position_ids(torch.tensor(grids), size)
        return MergedPass(
            plan=plan,
            origin=plan.origin,
            lengths=torch.bincount(frame[plan.keep], minlength=len(lengths)).tolist(),
            places=plan.apply(positions.double()).float(),
        )

    def spread(self, merged: Tensor) -> Tensor:
        """Expand values of merged patches to all patches, (S', ...) -> (S, ...)."""
        return merged.index_select(0, moved(self.origin, merged.device))


class PatchMerger:
    """Hooks on an encoder of vLLM without windows, whose blocks take ``cu_seqlens`` and cosines of positions.

    Attributes:
        running: the pass that goes through it; None for images, and where nothing merges.
    """

    def __init__(self, visual: Any) -> None:
        self.running: MergedPass | None = None
        self._visual = visual
        self._replaced: dict[str, Any] = {}
        for number, block in enumerate(visual.blocks):
            block.register_forward_pre_hook(self._before_block(number), with_kwargs=True)
        visual.merger.register_forward_pre_hook(self._before_merger)

    @contextmanager
    def merging(self, running: MergedPass) -> Iterator[None]:
        """Merge patches in the pass inside the block."""
        self.running = running
        try:
            yield
        finally:
            self.running, self._replaced = None, {}

    def _before_block(self, number: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            running = self.running
            if running is None:
                return None
            hidden, *rest = args
            if number == 0:
                self._replaced = self._arguments(running, kwargs)
                hidden = running.plan.to(hidden.device).apply(hidden)
            return (hidden, *rest), {**kwargs, **self._replaced}

        return hook

    def _arguments(self, running: MergedPass, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return segments and rotary embedding of merged patches, which lie between the rows and columns."""
        rotary = self._visual.rotary_pos_emb
        plain = kwargs["rotary_pos_emb_cos"]
        angles = running.places[:, :, None] * rotary._compute_inv_freq(rotary.base).cpu()
        lengths = torch.tensor([length for length in running.lengths if length])
        bounds = F.pad(lengths.cumsum(0), (1, 0)).to(kwargs["cu_seqlens"].dtype)
        return {
            "cu_seqlens": moved(bounds, kwargs["cu_seqlens"].device),
            "rotary_pos_emb_cos": moved(angles.flatten(1).cos(), plain.device).to(plain.dtype),
            "rotary_pos_emb_sin": moved(angles.flatten(1).sin(), plain.device).to(plain.dtype),
            "max_seqlen": self._visual.compute_attn_mask_seqlen(bounds),
        }

    def _before_merger(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        running = self.running
        return None if running is None else (running.spread(args[0]), *args[1:])
