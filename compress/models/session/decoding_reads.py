"""Decoding steps that read part of the visual tokens in the cache: choices at one layer, columns taken after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicLayer

from compress.errors import ConfigError
from compress.models.adapters.adapter import Adapter
from compress.models.adapters.attached import Attached
from compress.models.adapters.attention import Kernel, Tap
from compress.models.session.call import Calls
from compress.models.session.rows import RowSelection
from compress.ops.causal_attention import attention_received
from compress.planning_mode import planning
from compress.stage import AtDecoding, Cut


class ChoosingLayer(DynamicLayer):  # type: ignore[misc]
    """Layer of a cache that also holds the attention and the choice of the last decoding step, row by row.

    Beams reorder them with their keys and values, and copies of the cache have copies. A cache that is cut back forgets
    them.

    Attributes:
        attention: float32 (B, n), padded with zeros; None before the first step.
        chosen: bool (B, n), padded with False.
    """

    attention: Tensor | None = None
    chosen: Tensor | None = None

    @staticmethod
    def of(layer: Any) -> ChoosingLayer:
        """Make one with the keys and values of a layer.

        Raises:
            ConfigError: it is of another kind than the default.
        """
        if type(layer) not in (DynamicLayer, ChoosingLayer):
            raise ConfigError(
                f"the cache has a {type(layer).__name__}; decoding steps that read part of it need the default "
                "dynamic cache"
            )
        made = ChoosingLayer.__new__(ChoosingLayer)
        made.__dict__.update(layer.__dict__)
        made.attention = made.chosen = None
        return made

    def _select(self, rows: Tensor) -> None:
        if self.attention is not None and self.chosen is not None:
            self.attention, self.chosen = (
                one.index_select(0, rows.to(one.device)) for one in (self.attention, self.chosen)
            )

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorder the rows."""
        super().reorder_cache(beam_idx)
        self._select(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat the rows."""
        super().batch_repeat_interleave(repeats)
        if self.attention is not None:
            self._select(torch.arange(len(self.attention)).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        super().batch_select_indices(indices)
        self._select(indices)

    def crop(self, tokens_to_remove: int) -> None:
        """Cut the cache back, and forget the choice."""
        super().crop(tokens_to_remove)
        self.attention = self.chosen = None


@dataclass(kw_only=True, eq=False)
class Step:
    """A decoding step.

    Attributes:
        cache: layer that holds the choice.
        visual: per row, columns of visual tokens in the cache.
        mask: bool (B, columns), over the cache and the new token; None without padding.
        read: per row, visual tokens that it reads, once they are chosen.
        columns: those that the layers after the choice read.
    """

    cache: ChoosingLayer
    visual: Sequence[Tensor]
    mask: Tensor | None
    read: tuple[int, ...] = ()
    columns: RowSelection | None = field(default=None)


class DecodingReads(Attached):
    """The taps of a method that chooses what decoding steps read.

    Attributes:
        layer: the decoder layer whose attention decides.
        part: part of the decoder, as cuts divide it, that it lies in.
    """

    def __init__(self, method: AtDecoding, adapter: Adapter, calls: Calls, cuts: Sequence[Cut]) -> None:
        depth, first = len(adapter.layers), method.decode_layer
        if first is None or not 1 <= first < depth:
            raise ConfigError(
                f"decode_layer of {type(method).__name__} is {first}; this model has {depth} decoder layers and allows "
                f"1 to {depth - 1}"
            )
        if late := [cut.layer for cut in cuts if cut.layer >= first]:
            raise ConfigError(
                f"visual tokens leave before layer {late[-1]}, after decoding steps have chosen among them at layer "
                f"{first - 1}; choose a cut before it, or a later decode_layer"
            )
        kernel = adapter.language_model.config._attn_implementation or "eager"
        if not kernel.startswith(("eager", "sdpa", "flash")):
            raise ConfigError(
                f"attention {kernel!r} takes no shorter keys; choose eager, sdpa or flash attention for this method"
            )
        self.layer = first - 1
        self.part = len(cuts)
        self._kernel = kernel
        self._choose: Any = method.at_decoding
        self._adapter = adapter
        self._calls = calls

    def taps(self) -> dict[nn.Module, Tap]:
        """Return the taps, by attention module."""
        layers: Any = self._adapter.layers
        later = {layer.self_attn: self._tap(self._narrow) for layer in layers[self.layer + 1 :]}
        return {layers[self.layer].self_attn: self._tap(self._score), **later}

    def _tap(self, act: Callable[..., tuple[Any, ...]]) -> Tap:
        def tap(kernel: Kernel, module: nn.Module, query: Tensor, *tensors: Any, **options: Any) -> Any:
            call = self._calls.current
            step: Step | None = None if call is None else call.step
            if step is not None:
                tensors = act(step, query, *tensors, scaling=options["scaling"])
            return kernel(module, query, *tensors, **options)

        return tap

    def _score(
        self, step: Step, query: Tensor, key: Tensor, value: Tensor, mask: Any, *, scaling: float
    ) -> tuple[Any, ...]:
        """Choose by the attention of this layer, which itself reads everything."""
        state, counts = step.cache, list(map(len, step.visual))
        rows, device = len(query), key.device
        attention = torch.zeros(rows, max(counts), dtype=torch.float32, device=device)
        chosen = torch.zeros_like(attention, dtype=torch.bool)
        reads = torch.ones(rows, key.shape[2], dtype=torch.bool, device=device)
        if step.mask is not None:
            reads &= step.mask.to(device)
        for row, (visual, count) in enumerate(zip(step.visual, counts, strict=True)):
            if not count:
                continue
            columns = visual.to(device)
            with torch.autocast(query.device.type, enabled=False), planning():
                received = attention_received(
                    query[row],
                    key[row],
                    scaling=scaling,
                    first=key.shape[2] - 1,
                    real=None if step.mask is None else step.mask[row].to(device),
                ).index_select(0, columns)
                before = None if state.attention is None else state.attention[row, :count].to(device)
                last = None if state.chosen is None else state.chosen[row, :count].to(device)
                choice = self._choose(received, before, last)
            attention[row, :count], chosen[row, :count] = received, choice
            reads[row].scatter_(0, columns, choice)
        state.attention, state.chosen = attention, chosen
        step.columns = RowSelection.of([row.nonzero().squeeze(1) for row in reads])
        step.read = tuple(chosen.sum(dim=1).tolist())
        return key, value, mask

    def _narrow(
        self, step: Step, query: Tensor, key: Tensor, value: Tensor, mask: Any, *, scaling: float
    ) -> tuple[Any, ...]:
        """Leave out what was not chosen."""
        columns = step.columns
        if columns is None:
            return key, value, mask
        index = columns.index.to(key.device)
        key, value = (torch.take_along_dim(one, index[:, None, :, None], dim=2) for one in (key, value))
        real = None if columns.real is None else columns.real.to(key.device)
        if self._kernel.startswith("flash"):
            if mask is not None:
                real = torch.take_along_dim(mask.bool(), index, dim=1) & (True if real is None else real)
            return key, value, real
        if mask is None and real is None:
            return key, value, None
        if mask is None:
            mask = torch.ones(len(index), 1, 1, index.shape[1], dtype=torch.bool, device=key.device)
            if self._kernel.startswith("eager"):
                mask = torch.zeros_like(mask, dtype=query.dtype)
        else:
            mask = torch.take_along_dim(mask, index[:, None, None, :], dim=3)
        if real is not None:
            shown = real[:, None, None, :]
            mask = mask & shown if mask.dtype == torch.bool else mask.masked_fill(~shown, torch.finfo(mask.dtype).min)
        return key, value, mask
