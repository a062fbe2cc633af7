"""Forward passes inside a session: prompts are shortened on their way to the language model, steps follow them."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.errors import ConfigError
from compress.models.adapters.adapter import Adapter
from compress.models.adapters.attached import Attached, Method, replace_method
from compress.models.session.call import Call, Calls, Generation, Reading, WantedLogits
from compress.models.session.continued_positions import place_turn
from compress.models.session.decoder_merge import DecoderMerge
from compress.models.session.decoding_reads import ChoosingLayer, DecodingReads, Step
from compress.models.session.encoding import videos_of
from compress.models.session.inner_pass import InnerPass
from compress.models.session.kv_cache import CACHE, cache_of, given_cache
from compress.models.session.location import assign_located, locate_videos
from compress.models.session.prefix import Prefix, prefix_of
from compress.models.session.shortening import (
    Prompt,
    Shortened,
    describe,
    grids_of_videos,
    kinds_in_videos,
    places_in_videos,
    shorten_prompt,
)
from compress.models.session.videos import VideoCompressor, VideoResult
from compress.models.session.visual_tokens import PromptRead
from compress.stage import Compression

_DRAFTS = (
    "this method chooses at every step what the next one reads of the cache, which drafts of several tokens do not "
    "show; leave out assistant_model and prompt_lookup_num_tokens"
)


@dataclass(frozen=True, kw_only=True)
class Account:
    """Account of the last prompt.

    Attributes:
        results: per video.
        inside: what was merged inside the language model, per row with visual tokens.
        inner_counts: per such row, visual tokens that entered, and those left after each cut.
        decoding: per decoding step since, visual tokens that each row read, for methods that choose them.
    """

    results: list[VideoResult] = field(default_factory=list)
    inside: list[Compression] = field(default_factory=list)
    inner_counts: list[tuple[int, ...]] = field(default_factory=list)
    decoding: list[tuple[int, ...]] = field(default_factory=list)


class Forward(Attached):
    """The hooks on a model and its language model.

    Attributes:
        account: of the last prompt, in whichever thread it was read.
        has_run: whether the model has been called.
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        videos: VideoCompressor,
        inside: DecoderMerge | None,
        reads: DecodingReads | None,
        calls: Calls,
        session: weakref.ref[Any],
        stage: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self.account = Account()
        self.has_run = False
        self._model = model
        self._adapter = adapter
        self._videos = videos
        self._inside = inside
        self._reads = reads
        self._calls = calls
        self._session = session
        self._stage = stage

    def install(self, hooks: ExitStack) -> None:
        """Put the hooks in place."""
        core, language_model = self._adapter.core, self._adapter.language_model
        for module, hook in (
            (self._model, self._before_model),
            (core, self._before_core),
            (language_model, self._before_language_model),
        ):
            hooks.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        hooks.callback(language_model.register_forward_hook(self._after_language_model, with_kwargs=True).remove)
        hooks.callback(core.register_forward_hook(self._after_core, always_call=True).remove)
        if hasattr(self._model, "generate"):
            replace_method(hooks, self._model, "generate", self._watch_generate)
        if self._adapter.multi_axis:
            replace_method(hooks, core, "get_rope_index", _without_cached)

    def _watch_generate(self, original: Method) -> Method:
        def generate(*args: Any, **kwargs: Any) -> Any:
            self.has_run = True  # it may end in an error before the model's own forward
            ids = kwargs.get("input_ids", kwargs.get("inputs", args[0] if args else None))
            cache = given_cache(kwargs)
            prefix = None if cache is None else prefix_of(cache, self._session())
            past = 0 if cache is None else cache.get_seq_length()
            encoded = (kwargs.get("mm_encoder_outputs") or {}).get("video")
            before = self._calls.generation
            self._calls.generation = Generation(
                ids=ids,
                inputs=kwargs,
                videos=None if encoded is None else videos_of(encoded, self._session()),
                seen=[] if prefix is None or not past else list(prefix.seen),
                fed=0 if prefix is None or not past else prefix.length + past - prefix.width,
            )
            try:
                return original(*args, **kwargs)
            finally:
                self._calls.generation = before

        return generate

    def _before_model(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if kwargs.get("labels") is not None:
            raise ConfigError(
                "labels were passed, which do not fit a shortened sequence; leave the `with` block to train"
            )
        wanted = WantedLogits.of(kwargs.get("logits_to_keep"))
        self._calls.wanted, self._calls.current = wanted, None
        if wanted is not None and wanted.places is not None:
            kwargs = {**kwargs, "logits_to_keep": wanted.places}
        return args, kwargs

    def _before_core(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = {**kwargs, "input_ids": args[0]} if args else kwargs
        calls = self._calls
        self.has_run = True
        calls.current = Call(wanted=calls.wanted, inputs=dict(named), generation=calls.generation)
        calls.wanted = None

    def _after_core(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._calls.current = None

    def _before_language_model(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        embeddings, cache, call = kwargs.get("inputs_embeds"), kwargs.get(CACHE), self._calls.current
        if getattr(cache, "is_compileable", False) or isinstance(kwargs.get("attention_mask"), dict):
            raise ConfigError("a static cache has one length for all layers; use the default dynamic cache")
        if embeddings is None or call is None or call.ids is None:
            raise ConfigError(
                "inputs_embeds were passed, but videos are found by their placeholder ids; pass input_ids"
            )
        ids = call.ids.to(embeddings.device)
        past = 0 if cache is None else cache.get_seq_length()
        with self._stage("compress"):
            prefix = self._prefix(cache, ids, past, with_videos=call.has_videos) if past else None
            if prefix is not None and not call.has_videos:
                return args, self._continue(call, kwargs, prefix, past)
            return args, self._read(call, kwargs, ids, prefix, past)

    def _prefix(self, cache: Any, ids: Tensor, past: int, *, with_videos: bool) -> Prefix:
        """Return what lies in a cache that ids follow."""
        prefix = prefix_of(cache, self._session())
        if prefix is None:
            raise ConfigError(
                "this cache was not filled inside this `with` block; "
                "begin with the whole prompt, or keep the cache that generate() returned"
            )
        prefix = prefix.for_rows(len(ids)).cut(past, self._cached(cache))
        prefix.feed(ids, past, video_token=self._adapter.config.video_token_id, with_videos=with_videos)
        return prefix

    def _read(
        self, call: Call, kwargs: dict[str, Any], ids: Tensor, prefix: Prefix | None, past: int
    ) -> dict[str, Any]:
        """Read a prompt, or a later turn with a video."""
        located = locate_videos(self._adapter, call, ids, prefix, past, self._session(), needs=self._videos.needs)
        if not located.videos and call.has_images and not call.has_videos:
            warnings.warn(
                "the prompt has images and no video; tokens of videos merge, so nothing was merged", stacklevel=2
            )
        entries = assign_located(located.videos, self._videos.entries, call, prefix, len(ids))
        compressions, results = self._videos.compress(kwargs["inputs_embeds"], located.videos, located.encoded, entries)
        self.account = Account(results=results)
        positions = kwargs.get("position_ids")
        prompt = Prompt(
            kwargs=kwargs,
            ids=ids,
            videos=located.videos,
            compressions=compressions,
            prefix=prefix,
            past=past,
            positions=positions,
        )
        if prefix is not None:
            prompt = place_turn(prompt, self._adapter, call, prefix, first=located.first)
        ends_here = self._calls.ends_at_the_language_model
        short = shorten_prompt(prompt, visual=ends_here or self._inside is not None or self._reads is not None)
        if ends_here:
            raise PromptRead(prompt, short)
        self._check_logits(call, prompt)
        call.kept = short.kept
        call.prefix = describe(
            prompt,
            short,
            self._session,
            given=call.inputs.get("position_ids"),
            images=call.has_images,
        )
        # Assisted decoding feeds its first guesses with the prompt and asks for logits from the prompt's end on.
        drafted = 0 if call.wanted is None or call.generation is None else max(call.wanted.last - 1, 0)
        if self._reads is not None and drafted:
            raise ConfigError(_DRAFTS)
        if kwargs.get(CACHE) is None and not kwargs.get("use_cache"):
            steps = self._count_steps(prompt.ids)
            if self._reads is not None and steps:
                raise ConfigError("this method chooses what decoding steps read of the cache; pass use_cache=True")
            drafted += steps
        if self._inside is not None:
            call.inside = self._begin_inside(call, prompt, short, drafted)
        if self._reads is not None:
            call.visual, call.past = short.visual, past
        return short.kwargs

    def _check_logits(self, call: Call, prompt: Prompt) -> None:
        """Raise ConfigError where logits are wanted of columns that move."""
        if call.wanted is None or call.wanted.last <= 1:
            return
        merged = [
            video.stop
            for video, one in zip(prompt.videos, prompt.compressions, strict=True)
            if self._inside is not None or (one is not None and not one.plan.keeps_all)
        ]
        call.wanted.check_tail(prompt.ids.shape[1] - max(merged, default=0))

    def _begin_inside(self, call: Call, prompt: Prompt, short: Shortened, drafted: int) -> InnerPass:
        """Prepare what the merge inside the language model needs to know of a prompt."""
        prefix, past, kwargs = prompt.prefix, prompt.past, prompt.kwargs
        masks = self._cached_masks(prefix, kwargs.get("attention_mask"), past, prompt.ids.shape[1])
        wants_places = self._inside is not None and self._inside.wants_places
        return InnerPass(
            prefix=call.prefix,
            cached=[past, *self._cached(kwargs.get(CACHE))],
            cached_masks=masks,
            new_mask=short.selection.real,
            prompt=True,
            drafted=drafted,
            visual=list(short.visual),
            place=places_in_videos(prompt) if wants_places else [],
            grids=grids_of_videos(prompt) if wants_places else [],
            kinds=kinds_in_videos(prompt) if wants_places else [],
            text_from=list(short.text_from),
            lengths=list(map(len, short.kept)),
        )

    def _cached(self, cache: Any) -> list[int]:
        """Return the columns in the cache of the layers after each cut inside the language model."""
        cuts = () if self._inside is None else self._inside.cuts
        return [0 if cache is None else cache.get_seq_length(cut.layer) for cut in cuts]

    def _cached_masks(self, prefix: Prefix | None, given: Tensor | None, past: int, count: int) -> list[Tensor | None]:
        """Return the masks over what is cached in the first layers and in those after each cut."""
        cuts = 0 if self._inside is None else len(self._inside.cuts)
        if prefix is None:
            return [None] * (1 + cuts)
        return [prefix.cached_mask(given, past, count, cut=cut) for cut in (None, *range(cuts))]

    def _count_steps(self, ids: Tensor) -> int:
        """Count the tokens that followed a prompt which is read again for each of them, because no cache is used."""
        reading = self._calls.reading
        if reading is not None and reading.continues(ids):
            self._calls.reading = Reading(ids=reading.ids, width=ids.shape[1])
            return ids.shape[1] - reading.ids.shape[1]
        self._calls.reading = Reading(ids=ids, width=ids.shape[1])
        return 0

    def _continue(self, call: Call, kwargs: dict[str, Any], prefix: Prefix, past: int) -> dict[str, Any]:
        """Continue with text after a prompt: positions and masks for the shortened cache."""
        count = kwargs["inputs_embeds"].shape[1]
        given = kwargs.get("attention_mask")
        if given is not None and given.dim() != 2:
            raise ConfigError(f"attention_mask has {given.dim()} dimensions; give two, (batch, length)")
        new = None if given is None else given[:, -count:].bool()
        call.prefix = prefix
        if self._inside is not None:
            call.inside = InnerPass(
                prefix=prefix,
                cached=[past, *self._cached(kwargs[CACHE])],
                cached_masks=self._cached_masks(prefix, given, past, count),
                new_mask=new,
                prompt=False,
            )
        if self._reads is not None:
            call.step = self._begin_step(call, kwargs, prefix, past)
        return {
            **kwargs,
            "position_ids": prefix.next_positions(past, count, call.inputs.get("position_ids")),
            "attention_mask": prefix.whole_mask(given, past, count),
        }

    def _begin_step(self, call: Call, kwargs: dict[str, Any], prefix: Prefix, past: int) -> Step | None:
        """Prepare a decoding step that reads part of the cache; None where several tokens are read, or no video was."""
        reads, count = self._reads, kwargs["inputs_embeds"].shape[1]
        generation = call.generation
        if generation is not None and call.wanted is not None and call.wanted.last > 1:
            raise ConfigError(_DRAFTS)
        ids = None if generation is None else generation.ids
        of_prompt = ids is not None and prefix.ids.shape[1] <= ids.shape[1]  # the last chunk of it
        if reads is None or count != 1 or of_prompt or not any(map(len, prefix.visual)):
            return None
        layer = kwargs[CACHE].layers[reads.layer]
        if not isinstance(layer, ChoosingLayer):
            return None
        given = kwargs.get("attention_mask")
        cached = prefix.cached_mask(given, past, count, cut=reads.part - 1 if reads.part else None)
        if cached is not None:
            new = cached.new_ones(len(cached), 1) if given is None else given[:, -1:].bool().to(cached.device)
            cached = torch.cat((cached, new), dim=1)
        return Step(cache=layer, visual=prefix.visual, mask=cached)

    def _after_prompt(self, call: Call, cache: Any) -> None:
        """Note the columns of visual tokens in the cache of the layers after the last cut."""
        reads, prefix, inside = self._reads, call.prefix, call.inside
        if reads is None or call.visual is None:
            return
        cached, visual = (call.past, call.visual) if inside is None else (inside.cached[-1], inside.visual)
        prefix.visual = [
            torch.cat((before.to(new.device), cached + new)) for before, new in zip(prefix.visual, visual, strict=True)
        ]
        cache.layers[reads.layer] = ChoosingLayer.of(cache.layers[reads.layer])

    def _after_language_model(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        call = self._calls.current
        if call is None:
            return
        cache = cache_of(output)
        cache = kwargs.get(CACHE) if cache is None else cache
        if call.prefix is not None and cache is not None:
            self._after_prompt(call, cache)
            if self._inside is not None and call.inside is not None and call.inside.prompt:
                self._inside.shorten_caches(cache, call.inside)
            call.prefix.bind(cache)
        if call.step is not None:
            self.account = replace(self.account, decoding=[*self.account.decoding, call.step.read])
        inside = call.inside
        if inside is not None and inside.prompt:
            self.account = Account(
                results=self.account.results,
                inside=list(inside.results.values()),
                inner_counts=[tuple(counts) for counts in inside.counts.values()],
            )
        if call.kept is not None and call.wanted is not None and call.ids is not None:
            kept = call.kept
            if inside is not None and inside.kept is not None:
                longest = max(map(len, kept))
                kept = [
                    row.index_select(0, places.to(row.device) - (longest - len(row)))
                    for row, places in zip(kept, inside.kept, strict=True)
                ]
            call.wanted.fill(kept, call.ids.shape[1])


def _without_cached(original: Method) -> Method:
    """Let M-RoPE count the ids that are given, where the mask covers a cache before them too.

    `generate` then fails, unless the cache is as long as the ids; of what it is given it keeps the last columns.
    """

    def get_rope_index(input_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        mask, width = kwargs.get("attention_mask"), input_ids.shape[-1]
        before = 0 if mask is None else mask.shape[-1] - width
        if mask is None or before <= 0:
            return original(input_ids, *args, **kwargs)
        positions, deltas = original(input_ids, *args, **{**kwargs, "attention_mask": mask[..., before:]})
        return functional.pad(positions, (before, 0)), deltas

    return get_rope_index
