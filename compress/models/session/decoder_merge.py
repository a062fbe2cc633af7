"""Cuts between decoder layers: scores from attention, and layers that see fewer visual tokens."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import create_causal_mask

from compress.errors import ConfigError
from compress.models.adapters.adapter import Adapter
from compress.models.adapters.attached import Attached
from compress.models.adapters.attention import Kernel, Tap
from compress.models.session.call import Calls
from compress.models.session.inner_pass import InnerPass
from compress.models.session.kv_cache import CACHE
from compress.models.session.rows import RowSelection, places_of
from compress.ops.causal_attention import attention_received
from compress.planning_mode import planning
from compress.stage import Compression, Cut, InnerTokens, InsideLLM, cuts_of


class DecoderMerge(Attached):
    """The hooks of a method that merges inside the language model.

    Attributes:
        cuts: where it merges, in order.
        wants_places: the method asks for the place of each token in its video.
    """

    def __init__(self, method: InsideLLM, adapter: Adapter, calls: Calls) -> None:
        cuts = cuts_of(method)
        if not cuts:
            raise ConfigError(
                f"layers of {type(method).__name__} is {method.layers} and merge_layer {method.merge_layer}; name "
                "them, or give the method at_depth(depth, first=...), which names them for a model"
            )
        _check_cuts(cuts, adapter)
        if getattr(adapter.language_model, "has_sliding_layers", False):
            raise ConfigError("this model has sliding-window layers; merging inside the language model needs full ones")
        self._plan_inside: Any = method.inside_llm
        self.wants_places = hasattr(method, "cuts")
        self._renumbered = any(cut.positions == "contiguous" for cut in cuts)
        if adapter.multi_axis:
            cuts = tuple(replace(cut, positions="original") for cut in cuts)
        self.cuts = cuts
        self._adapter = adapter
        self._calls = calls

    def taps(self) -> dict[nn.Module, Tap]:
        """Return the taps on the layers that are scored, by attention module."""
        layers: Any = self._adapter.layers
        read = {number for cut in self.cuts for number in cut.scored}
        return {layers[number].self_attn: self._tap(number) for number in sorted(read)}

    def install(self, hooks: ExitStack) -> None:
        """Put hooks on the decoder layers."""
        layers: Any = self._adapter.layers
        for number in range(self.cuts[0].layer, len(layers)):
            handle = layers[number].register_forward_pre_hook(self._before_layer(number), with_kwargs=True)
            hooks.callback(handle.remove)

    @property
    def _running(self) -> InnerPass | None:
        """The pass of this thread."""
        call = self._calls.current
        return None if call is None else call.inside

    def _tap(self, number: int) -> Tap:
        own = next((i for i, cut in enumerate(self.cuts) if cut.layer == number), None)
        later = next((i for i, cut in enumerate(self.cuts) if number in cut.scored and number < cut.layer), None)

        def tap(kernel: Kernel, module: nn.Module, query: Tensor, key: Tensor, *rest: Any, **options: Any) -> Any:
            running = self._running
            if running is None or not running.prompt or not any(map(len, running.visual)):
                return kernel(module, query, key, *rest, **options)
            cut = own if running.probing else later
            if cut is not None:
                running.scores[cut, number] = self._score(query, key, options["scaling"], running, self.cuts[cut])
            if running.probing:
                return torch.zeros_like(query).transpose(1, 2), None
            return kernel(module, query, key, *rest, **options)

        return tap

    def _score(self, query: Tensor, key: Tensor, scaling: float, running: InnerPass, cut: Cut) -> list[Tensor]:
        """Reduce the attention that each row's visual tokens receive over heads and over the queries that count.

        Compiled layers trace this, so it must not break their graph.
        """
        if torch.is_autocast_enabled(query.device.type):
            with torch.autocast(query.device.type, enabled=False):
                return self._score(query, key, scaling, running, cut)
        scores, width = [], query.shape[2]
        cached = key.shape[2] - width
        for row, visual in enumerate(running.visual):
            stop = width - running.drafted
            start = stop - 1
            if cut.query == "text":
                start = min(running.text_from[row], stop - 1)
            elif cut.query == "all":
                start = width - running.lengths[row]
            received = attention_received(
                query[row, :, start:stop],
                key[row],
                scaling=scaling,
                first=cached + start,
                real=_on(running.real_keys(row, width), key.device),
                reduce=cut.reduce,
            )
            scores.append(received.index_select(0, cached + visual.to(key.device)))
        return scores

    def _probe(self, layer: Any, hidden: Tensor, kwargs: dict[str, Any], running: InnerPass) -> None:
        """Score by the layer that follows: by its queries and keys of all tokens that reach it."""
        device = next(layer.parameters()).device
        if device.type == "meta":
            raise ConfigError("weights of this model are offloaded; its layers cannot score tokens before they run")
        running.probing = True
        try:
            layer.self_attn(
                hidden_states=layer.input_layernorm(hidden.to(device)),
                position_embeddings=tuple(one.to(device) for one in kwargs["position_embeddings"]),
                attention_mask=None,
                **{CACHE: _Cached(kwargs.get(CACHE))},
            )
        finally:
            running.probing = False

    def _before_layer(self, number: int) -> Callable[..., Any]:
        cut = next((i for i, one in enumerate(self.cuts) if one.layer == number), None)

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            running = self._running
            if running is None:
                return None
            hidden = args[0] if args else kwargs["hidden_states"]
            if cut is not None and running.prompt:
                hidden = self._merge(cut, module, hidden, {**kwargs, **running.replaced}, running)
            elif cut is not None:
                running.part = cut + 1
                self._follow(self.cuts[cut], hidden, kwargs, running)
            kwargs = {**kwargs, **running.replaced}
            return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

        return hook

    def _follow(self, cut: Cut, hidden: Tensor, kwargs: dict[str, Any], running: InnerPass) -> None:
        """Set the arguments of the layers after a cut for what follows a prompt."""
        count = hidden.shape[1]
        if kwargs.get("attention_mask") is not None:
            mask = running.mask(running.new_mask, count, running.part)
            running.replaced["attention_mask"] = self._causal_mask(cut, hidden, mask, kwargs)
        if cut.positions == "contiguous":
            places = running.contiguous_positions(running.new_mask, count, hidden.device)
            running.replaced["position_embeddings"] = self._adapter.language_model.rotary_emb(hidden, places)

    def _merge(self, number: int, layer: nn.Module, hidden: Tensor, kwargs: dict[str, Any], running: InnerPass) -> Any:
        """Merge at a cut; returns the hidden states that are left."""
        cut, width, device = self.cuts[number], hidden.shape[1], hidden.device
        if cut.layer in cut.scored and any(map(len, running.visual)):
            self._probe(layer, hidden, kwargs, running)
        merged, kept = hidden, []
        for row, places in enumerate(running.visual):
            real = running.places(row, width, device)
            if not len(places):
                kept.append(real)
                continue
            visual = places.to(device)
            compression = self._plan(number, row, hidden, running)
            plan = compression.plan.to(device)
            if merged is hidden:
                merged = hidden.clone()
            merged[row, visual[plan.keep]] = plan.apply(hidden[row].index_select(0, visual))
            stays = torch.ones(width, dtype=torch.bool, device=device)
            # Assigning a number by an index copies it to the device and waits; filling does not.
            stays.index_fill_(0, visual, False).index_fill_(0, visual[plan.keep], True)
            count = len(real) - len(visual) + plan.count_out
            kept.append(real.index_select(0, places_of(stays.index_select(0, real), count)))
            running.visual[row] = visual[plan.keep]
            if running.place:
                running.place[row] = running.place[row].to(device)[plan.keep]
                kind, names = running.kinds[row]
                running.kinds[row] = (None if kind is None else kind.to(device)[plan.keep], names)
            running.account(row, compression)
        selection = RowSelection.of(kept)
        running.enter_part(kept, selection, width)
        short = selection.take(merged)
        if cut.positions == "contiguous":
            places = running.contiguous_positions(selection.real, selection.length, device)
            cos, sin = self._adapter.language_model.rotary_emb(short, places)
        else:
            cos, sin = (selection.take(one.to(device)) for one in kwargs["position_embeddings"])
        mask = running.mask(selection.real, selection.length, running.part)
        running.replaced = {
            "position_embeddings": (cos, sin),
            "position_ids": None,
            "attention_mask": self._causal_mask(cut, short, mask, kwargs if running.cached[running.part] else {}),
        }
        return short

    def _plan(self, number: int, row: int, hidden: Tensor, running: InnerPass) -> Compression:
        """Ask the method about one row."""
        cut, visual = self.cuts[number], running.visual[row].to(hidden.device)
        read = [running.scores[number, layer][row].to(hidden.device) for layer in cut.scored]
        scores = torch.stack(read) if read else hidden.new_zeros((0, len(visual)))
        tokens = hidden[row].index_select(0, visual)
        with planning():
            compression: Compression
            kind, names = running.kinds[row] if running.kinds else (None, ())
            if not self.wants_places:
                compression = self._plan_inside(scores, tokens)
            else:
                shown = InnerTokens(
                    cut=number,
                    entered=running.counts.get(row, [len(visual)])[0],
                    place=running.place[row].to(hidden.device) if running.place else None,
                    grids=running.grids[row] if running.grids else (),
                    kind=None if kind is None else kind.to(hidden.device),
                    kinds=names,
                    text=hidden[row, running.text_from[row] : hidden.shape[1] - running.drafted],
                )
                compression = self._plan_inside(scores, tokens, shown)
        if self._renumbered and self._adapter.multi_axis:
            sources = {**compression.sources, "positions": "original: this model's positions have three axes"}
            return replace(compression, sources=sources)
        return compression

    def shorten_caches(self, cache: Any, running: InnerPass) -> None:
        """Let tokens that left at the only cut leave the caches of the layers before it too, if the cut asks for that.

        Raises:
            ConfigError: a layer of the cache is of another kind than the default.
        """
        cut, prefix = self.cuts[0], running.prefix
        if not cut.caches or running.kept is None:
            return
        index = RowSelection.of(running.kept).index
        before = torch.arange(running.cached[0], device=index.device).expand(len(index), -1)
        columns = torch.cat((before, running.cached[0] + index), dim=1)
        for layer in cache.layers[: cut.layer]:
            if not isinstance(layer, DynamicLayer):
                raise ConfigError(
                    f"the cache has a {type(layer).__name__}; this method shortens the layers before its cut, which "
                    "needs the default dynamic cache"
                )
            place = columns.to(layer.keys.device)[:, None, :, None]
            layer.keys, layer.values = (torch.take_along_dim(one, place, dim=2) for one in (layer.keys, layer.values))
        prefix.width, prefix.mask = prefix.inner[0].width, prefix.inner[0].mask

    def _causal_mask(self, cut: Cut, hidden: Tensor, mask: Tensor | None, kwargs: dict[str, Any]) -> Tensor | None:
        """Build the mask of the layers after a cut, whose caches are shorter."""
        made: Tensor | None = create_causal_mask(
            config=self._adapter.language_model.config,
            inputs_embeds=hidden,
            attention_mask=mask,
            **{CACHE: kwargs.get(CACHE)},
            layer_idx=cut.layer,
        )
        return made


class _Cached:
    """Cache that a layer reads and does not write."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Return what is cached and the new keys and values."""
        if self._cache is None or not self._cache.get_seq_length(layer):
            return keys, values
        held = self._cache.layers[layer]
        return torch.cat((held.keys, keys), dim=2), torch.cat((held.values, values), dim=2)


def _on(mask: Tensor | None, device: torch.device) -> Tensor | None:
    return None if mask is None else mask.to(device)


def _check_cuts(cuts: tuple[Cut, ...], adapter: Adapter) -> None:
    """Raise ConfigError unless the decoder has these layers and each cut is scored where its tokens are all there."""
    depth, before = len(adapter.layers), 0
    if len(cuts) > 1 and any(cut.caches for cut in cuts):
        raise ConfigError("caches of layers before a cut are shortened after a method's only cut; this one has several")
    for cut in cuts:
        last = cut.scored[-1] if cut.scored else cut.layer
        if not adapter.first_merge_layer <= cut.layer < depth or last > cut.layer:
            raise ConfigError(
                f"layers is {cut.scored}, merging before layer {cut.layer}; this model has {depth} decoder "
                f"layers and allows merging before layers {adapter.first_merge_layer} to {depth - 1}"
            )
        if (cut.scored and cut.scored[0] < before) or (before and cut.layer <= before):
            raise ConfigError(
                f"the cut before layer {cut.layer} reads the attention of layers {cut.scored}, but tokens leave before "
                f"layer {before} already; choose layers from {before} on"
            )
        before = cut.layer
