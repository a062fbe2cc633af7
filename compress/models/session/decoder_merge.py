"""Merging visual tokens between two decoder layers: scores from attention, and layers that see fewer tokens."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import create_causal_mask

from compress.errors import ConfigError
from compress.models.adapters.adapter import Adapter
from compress.models.adapters.attention import Kernel, tapped
from compress.models.session.kv_cache import CACHE
from compress.models.session.prefix import Prefix
from compress.models.session.rows import RowSelection, places_of, real_places
from compress.stage import Compression, InsideLLM


class DecoderMerge:
    """The hooks of a method that merges inside the language model.

    Attributes:
        method: the method.
        results: its account per row of the last prompt.
    """

    def __init__(self, method: InsideLLM, adapter: Adapter) -> None:
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
        self._layers, self._merge_layer = layers, merge_layer
        self.results: list[Compression] = []
        self._adapter = adapter
        self._query = getattr(method, "query", "last")
        self._scores: dict[int, list[Tensor]] = {}
        self._prefix: Prefix | None = None
        self._prefill = False
        self._given_mask: Tensor | None = None
        self._past = 0
        self._replaced: dict[str, Any] = {}

    def install(self, hooks: ExitStack) -> None:
        """Put hooks on the decoder layers and taps on those that are scored."""
        layers: Any = self._adapter.layers
        taps: dict[nn.Module, Any] = {layers[number].self_attn: self._tap(number) for number in self._layers}
        hooks.enter_context(tapped(self._adapter.language_model, taps))
        for number in range(self._merge_layer, len(layers)):
            handle = layers[number].register_forward_pre_hook(self._before_layer(number), with_kwargs=True)
            hooks.callback(handle.remove)

    def begin(self, prefix: Prefix, *, prefill: bool, given_mask: Tensor | None, past: int) -> None:
        """A forward pass begins: over a prompt, or over what follows it."""
        self._prefix, self._prefill, self._given_mask, self._past = prefix, prefill, given_mask, past
        if prefill:
            self.results = []

    def end(self) -> None:
        """The forward pass is over."""
        self._prefill, self._given_mask, self._replaced, self._scores = False, None, {}, {}

    def _tap(self, number: int) -> Callable[..., tuple[Tensor, Tensor | None]]:
        def tap(kernel: Kernel, module: nn.Module, query: Tensor, key: Tensor, *rest: Any, **options: Any) -> Any:
            if self._prefill and self._prefix is not None and any(map(len, self._prefix.visual)):
                self._scores[number] = self._score(query, key, options["scaling"], self._prefix)
            return kernel(module, query, key, *rest, **options)

        return tap

    def _score(self, query: Tensor, key: Tensor, scaling: float, prefix: Prefix) -> list[Tensor]:
        """Attention that each row's visual tokens receive, mean over heads and over the queries that count."""
        scores = []
        for row, visual in enumerate(prefix.visual):
            stop = key.shape[2] - prefix.drafted
            start = stop - 1 if self._query == "last" else min(prefix.text_from[row], stop - 1)
            q, k = query[row, :, start:stop].float(), key[row].float()
            groups = q.shape[0] // k.shape[0]
            logits = (q.view(k.shape[0], groups, *q.shape[1:]) @ k[:, None].mT).flatten(0, 1) * scaling
            place = torch.arange(k.shape[1], device=k.device)
            hidden = place > place[start:stop, None]
            if prefix.mask is not None:
                hidden = hidden | ~prefix.mask[row]
            attention = logits.masked_fill(hidden, -torch.inf).softmax(dim=-1)
            scores.append(attention.mean(dim=(0, 1)).index_select(0, visual))
        return scores

    def _before_layer(self, number: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if self._prefix is None:
                return None
            hidden = args[0] if args else kwargs["hidden_states"]
            if number == self._merge_layer:
                if self._prefill:
                    hidden = self._merge(hidden, kwargs, self._prefix)
                elif kwargs.get("attention_mask") is not None:
                    self._replaced = {"attention_mask": self._mask_after_merge(hidden, kwargs, self._prefix)}
            kwargs = {**kwargs, **self._replaced}
            return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

        return hook

    def _merge(self, hidden: Tensor, kwargs: dict[str, Any], prefix: Prefix) -> Tensor:
        rows, width = hidden.shape[:2]
        real = real_places(prefix.mask, rows=rows, width=width, device=hidden.device)
        merged, kept = hidden, []
        for row, visual in enumerate(prefix.visual):
            if not len(visual):
                kept.append(real[row])
                continue
            scores = torch.stack([self._scores[number][row] for number in self._layers])
            compression = self.method.inside_llm(scores, hidden[row].index_select(0, visual))
            plan = compression.plan.to(hidden.device)
            if merged is hidden:
                merged = hidden.clone()
            merged[row, visual[plan.keep]] = plan.apply(hidden[row].index_select(0, visual))
            stays = torch.ones(width, dtype=torch.bool, device=hidden.device)
            # Assigning a number by an index copies it to the device and waits; filling does not.
            stays.index_fill_(0, visual, False).index_fill_(0, visual[plan.keep], True)
            count = len(real[row]) - len(visual) + plan.count_out
            kept.append(real[row].index_select(0, places_of(stays.index_select(0, real[row]), count)))
            self.results.append(compression)
        selection = RowSelection.of(kept)
        prefix.inner_width, prefix.inner_mask = selection.length, selection.real
        short = selection.take(merged)
        cos, sin = kwargs["position_embeddings"]
        self._replaced = {
            "position_embeddings": (selection.take(cos), selection.take(sin)),
            "position_ids": None,
            "attention_mask": create_causal_mask(
                config=self._adapter.language_model.config,
                inputs_embeds=short,
                attention_mask=selection.real,
                **{CACHE: None},
            ),
        }
        return short

    def _mask_after_merge(self, hidden: Tensor, kwargs: dict[str, Any], prefix: Prefix) -> Tensor | None:
        """The mask of the layers after the merge, whose caches are shorter."""
        mask: Tensor | None = create_causal_mask(
            config=self._adapter.language_model.config,
            inputs_embeds=hidden,
            attention_mask=prefix.next_inner_mask(self._given_mask, self._past, hidden.shape[1]),
            **{CACHE: kwargs.get(CACHE)},
            layer_idx=self._merge_layer,
        )
        return mask
