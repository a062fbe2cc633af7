"""Merge of visual tokens between two decoder layers: scores from attention, and layers that see fewer tokens."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import create_causal_mask

from compress.errors import ConfigError
from compress.models.adapters.adapter import Adapter
from compress.models.adapters.attached import Attached
from compress.models.adapters.attention import Kernel, tapped
from compress.models.session.call import Calls
from compress.models.session.kv_cache import CACHE
from compress.models.session.prefix import Prefix
from compress.models.session.rows import RowSelection, places_of, real_places
from compress.planning_mode import planning
from compress.stage import Compression, InsideLLM


@dataclass(kw_only=True, eq=False)
class InnerPass:
    """One forward pass through a decoder that merges, over a prompt or over what follows it.

    Attributes:
        prefix: what the cache holds after it, or, for text that follows, before it.
        cached: columns in the cache of the first layers.
        cached_inner: in that of the layers after the merge.
        cached_mask: bool (B, cached_inner), False for padding; None without any.
        new_mask: bool (B, columns), the same over what is new.
        prompt: whether it is over a prompt, whose tokens merge.
        visual: per row of a prompt, places of visual tokens among what is new.
        text_from: per row, where the text after them begins.
        drafted: tokens at the end that are guesses of an assistant, whose attention does not count.
        mask: bool (B, columns), over all keys of the first layers of a prompt; None without padding.
        results: what was merged, per row with visual tokens.
        kept: per row, the places that stay, without padding.
    """

    prefix: Prefix
    cached: int
    cached_inner: int
    cached_mask: Tensor | None
    new_mask: Tensor | None
    prompt: bool
    visual: list[Tensor] = field(default_factory=list)
    text_from: list[int] = field(default_factory=list)
    drafted: int = 0
    mask: Tensor | None = None
    results: list[Compression] = field(default_factory=list)
    kept: list[Tensor] | None = None
    scores: dict[int, list[Tensor]] = field(default_factory=dict)
    replaced: dict[str, Any] = field(default_factory=dict)

    def inner_mask(self, new: Tensor | None, count: int) -> Tensor | None:
        """Build the 2-D mask of the layers after the merge: over their cache, and over ``count`` new tokens."""
        if self.cached_mask is None and new is None:
            return None
        rows, device = len(self.prefix.ids), self.prefix.ids.device

        def ones(columns: int) -> Tensor:
            return torch.ones(rows, columns, dtype=torch.bool, device=device)

        head = ones(self.cached_inner) if self.cached_mask is None else self.cached_mask
        return torch.cat((head, (ones(count) if new is None else new).to(head.device)), dim=1)


class DecoderMerge(Attached):
    """The hooks of a method that merges inside the language model.

    Attributes:
        method: the method.
        merge_layer: the layer before which it merges.
    """

    def __init__(self, method: InsideLLM, adapter: Adapter, calls: Calls) -> None:
        depth, layers, merge_layer = len(adapter.layers), method.layers, method.merge_layer
        if not layers or merge_layer is None:
            raise ConfigError(
                f"layers of {type(method).__name__} is {layers} and merge_layer {merge_layer}; name them, or give the "
                "method at_depth(depth, first=...), which names them for a model"
            )
        if not adapter.first_merge_layer <= merge_layer < depth or layers[-1] >= merge_layer:
            raise ConfigError(
                f"layers is {layers}, merging before layer {merge_layer}; this model has {depth} decoder "
                f"layers and allows merging before layers {adapter.first_merge_layer} to {depth - 1}"
            )
        if getattr(adapter.language_model, "has_sliding_layers", False):
            raise ConfigError("this model has sliding-window layers; merging inside the language model needs full ones")
        self.method = method
        self.merge_layer = merge_layer
        self._layers = layers
        self._adapter = adapter
        self._calls = calls
        self._query = getattr(method, "query", "last")

    def install(self, hooks: ExitStack) -> None:
        """Put hooks on the decoder layers and taps on those that are scored."""
        layers: Any = self._adapter.layers
        taps: dict[nn.Module, Any] = {layers[number].self_attn: self._tap(number) for number in self._layers}
        hooks.enter_context(tapped(self._adapter.language_model, taps))
        for number in range(self.merge_layer, len(layers)):
            handle = layers[number].register_forward_pre_hook(self._before_layer(number), with_kwargs=True)
            hooks.callback(handle.remove)

    @property
    def _running(self) -> InnerPass | None:
        """The pass of this thread."""
        call = self._calls.current
        return None if call is None else call.inside

    def _tap(self, number: int) -> Callable[..., tuple[Tensor, Tensor | None]]:
        def tap(kernel: Kernel, module: nn.Module, query: Tensor, key: Tensor, *rest: Any, **options: Any) -> Any:
            running = self._running
            if running is not None and running.prompt and any(map(len, running.visual)):
                running.scores[number] = self._score(query, key, options["scaling"], running)
            return kernel(module, query, key, *rest, **options)

        return tap

    def _score(self, query: Tensor, key: Tensor, scaling: float, running: InnerPass) -> list[Tensor]:
        """Average the attention that each row's visual tokens receive over heads and over the queries that count.

        Compiled layers trace this, so it must not break their graph.
        """
        if torch.is_autocast_enabled(query.device.type):
            with torch.autocast(query.device.type, enabled=False):
                return self._score(query, key, scaling, running)
        scores = []
        for row, visual in enumerate(running.visual):
            stop = query.shape[2] - running.drafted
            start = stop - 1 if self._query == "last" else min(running.text_from[row], stop - 1)
            q, k = query[row, :, start:stop].float(), key[row].float()
            groups = q.shape[0] // k.shape[0]
            logits = (q.view(k.shape[0], groups, *q.shape[1:]) @ k[:, None].mT).flatten(0, 1) * scaling
            place = torch.arange(k.shape[1], device=k.device)
            hidden = place > place[running.cached + start : running.cached + stop, None]
            if running.mask is not None:
                hidden = hidden | ~running.mask[row].to(k.device)
            attention = logits.masked_fill(hidden, -torch.inf).softmax(dim=-1)
            scores.append(attention.mean(dim=(0, 1)).index_select(0, running.cached + visual.to(k.device)))
        return scores

    def _before_layer(self, number: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            running = self._running
            if running is None:
                return None
            hidden = args[0] if args else kwargs["hidden_states"]
            if number == self.merge_layer:
                if running.prompt:
                    hidden = self._merge(hidden, kwargs, running)
                elif kwargs.get("attention_mask") is not None:
                    mask = running.inner_mask(running.new_mask, hidden.shape[1])
                    running.replaced = {"attention_mask": self._causal_mask(hidden, mask, kwargs)}
            kwargs = {**kwargs, **running.replaced}
            return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

        return hook

    def _merge(self, hidden: Tensor, kwargs: dict[str, Any], running: InnerPass) -> Tensor:
        rows, width = hidden.shape[:2]
        device = hidden.device
        real = real_places(running.new_mask, rows=rows, width=width, device=device)
        merged, kept = hidden, []
        for row, places in enumerate(running.visual):
            if not len(places):
                kept.append(real[row])
                continue
            visual = places.to(device)
            scores = torch.stack([running.scores[number][row].to(device) for number in self._layers])
            with planning():
                compression = self.method.inside_llm(scores, hidden[row].index_select(0, visual))
            plan = compression.plan.to(device)
            if merged is hidden:
                merged = hidden.clone()
            merged[row, visual[plan.keep]] = plan.apply(hidden[row].index_select(0, visual))
            stays = torch.ones(width, dtype=torch.bool, device=device)
            # Assigning a number by an index copies it to the device and waits; filling does not.
            stays.index_fill_(0, visual, False).index_fill_(0, visual[plan.keep], True)
            count = len(real[row]) - len(visual) + plan.count_out
            kept.append(real[row].index_select(0, places_of(stays.index_select(0, real[row]), count)))
            running.results.append(compression)
        selection = RowSelection.of(kept)
        running.kept = kept
        mask = running.inner_mask(selection.real, selection.length)
        running.prefix.inner_width = running.cached_inner + selection.length
        running.prefix.inner_mask = mask
        short = selection.take(merged)
        cos, sin = (one.to(device) for one in kwargs["position_embeddings"])
        running.replaced = {
            "position_embeddings": (selection.take(cos), selection.take(sin)),
            "position_ids": None,
            "attention_mask": self._causal_mask(short, mask, kwargs if running.cached else {}),
        }
        return short

    def _causal_mask(self, hidden: Tensor, mask: Tensor | None, kwargs: dict[str, Any]) -> Tensor | None:
        """Build the mask of the layers after the merge, whose caches are shorter."""
        made: Tensor | None = create_causal_mask(
            config=self._adapter.language_model.config,
            inputs_embeds=hidden,
            attention_mask=mask,
            **{CACHE: kwargs.get(CACHE)},
            layer_idx=self.merge_layer,
        )
        return made
