"""A compressor at work on a model: hooks that shorten what the model sees, for the length of a `with` block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from compress.errors import ConfigError, SignalError
from compress.methods import METHODS
from compress.models.adapter import VideoGrid, VideoTokens, VisionRequest, VisionTap, adapt, spread
from compress.models.decoder_merge import DecoderMerge
from compress.models.plans import join_plans
from compress.models.prefix import Prefix
from compress.models.rows import RowSelection, real_places
from compress.models.shortening import check_same, place_positions, shorten_deepstack, visual_places
from compress.models.signals import MetaSignals, gather_signals
from compress.plan import MergePlan
from compress.stage import BeforeEncoder, BeforeLLM, Compression, InsideLLM

if TYPE_CHECKING:
    import os

    import numpy as np
    from numpy.typing import NDArray

    from codecmeta import VideoMeta
    from compress.models.chat import Chat
    from compress.models.prompt import Tokenizer
    from compress.ops.saliency import PoolingHead
    from compress.video import MapChoice

Saliency = Literal["auto", "attention", "none"]

StageTimer = Callable[[str], AbstractContextManager[None]]

_ATTACHED = "_compress_attached"


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoResult:
    """What became of one video of the last prompt.

    Attributes:
        tokens_in: its visual tokens.
        tokens_out: those that entered the language model.
        before_encoder: what was merged of its patches; None where nothing was.
        before_llm: what was merged of its tokens; None where nothing was.
        sources: signal -> where it came from.
    """

    tokens_in: int
    tokens_out: int
    before_encoder: Compression | None
    before_llm: Compression | None
    sources: Mapping[str, str]


class Session:
    """What ``compressor.attach(model, meta)`` returns; use it in a `with` block.

    Attributes:
        compressor: the method or pipeline.
        model: the model.
        adapter: what knows the model.
        results: what became of each video of the last prompt.
        timer: called with the name of a stage, gives a context that times it; None for no timing.

    Raises:
        ConfigError: the model or the combination of options is not supported.
    """

    def __init__(
        self,
        compressor: Any,
        model: nn.Module,
        meta: VideoMeta | Sequence[VideoMeta] | None = None,
        *,
        map: MapChoice = "auto",
        saliency: Saliency = "auto",
        pooling_head: PoolingHead | None = None,
    ) -> None:
        if not isinstance(compressor, BeforeEncoder | BeforeLLM | InsideLLM):
            raise ConfigError(f"{type(compressor).__name__} has no stage that works on a model (see compress.stage)")
        if saliency not in ("auto", "attention", "none"):
            raise ConfigError(f"saliency is {saliency!r}; allowed are 'auto', 'attention' and 'none'")
        self.compressor: Any = compressor
        self.model = model
        self.adapter = adapt(model)
        metas = () if meta is None else tuple(meta) if isinstance(meta, Sequence) else (meta,)
        self._metas = [MetaSignals(one, self.adapter, map) for one in metas]
        self.results: list[VideoResult] = []
        self.timer: StageTimer | None = None
        self._merges_patches = isinstance(compressor, BeforeEncoder)
        if self._merges_patches and not self._metas:
            raise ConfigError(f"{type(compressor).__name__} merges patches by their density; give metadata: meta=...")
        self._head = pooling_head
        self._wants_saliency = (
            isinstance(compressor, BeforeLLM)
            and saliency != "none"
            and (saliency == "attention" or _asks_for_saliency(compressor))
        )
        self._inside = DecoderMerge(compressor, self.adapter) if isinstance(compressor, InsideLLM) else None
        self._patches: list[Compression | None] = []
        self._prefix: Prefix | None = None
        self._seen: dict[str, Any] = {}
        self._drafted = 0
        self._vision: VisionTap | None = None
        self._hooks: ExitStack | None = None

    @property
    def inside(self) -> list[Compression]:
        """What was merged inside the language model, per row with visual tokens of the last prompt."""
        return [] if self._inside is None else list(self._inside.results)

    @property
    def active(self) -> bool:
        """Whether the model is inside the `with` block."""
        return self._hooks is not None

    def chat(
        self,
        video: VideoMeta | NDArray[np.uint8] | str | os.PathLike[str],
        *,
        tokenizer: Tokenizer,
        **options: Any,
    ) -> Chat:
        """A conversation about a video, whose tokens are shortened once.

        Args:
            video: its metadata with frames, a file, or frames.
            tokenizer: of the checkpoint.
            options: of ``generate``, for example max_new_tokens.
        """
        from compress.models.chat import Chat

        return Chat(self, video, tokenizer, options)

    def __enter__(self) -> Session:
        core = self.adapter.core
        if getattr(core, _ATTACHED, None) is not None:
            raise ConfigError(
                f"{type(self.model).__name__} already has a compressor; leave its `with` block first, or join the "
                "stages: Pipeline(RPM(), InfoMerge(retention=0.1), MATM()).attach(model, meta)"
            )
        with ExitStack() as hooks:
            setattr(core, _ATTACHED, self)
            hooks.callback(delattr, core, _ATTACHED)
            for module, hook in (
                (self.model, self._before_model),
                (core, self._before_core),
                (self.adapter.language_model, self._before_language_model),
            ):
                hooks.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
            hooks.callback(self.adapter.language_model.register_forward_hook(self._after_language_model).remove)
            self._vision = self.adapter.install(
                hooks,
                VisionRequest(
                    frames=[meta.frames for meta in self._metas],
                    plan_patches=self._plan_patches if self._merges_patches else None,
                    saliency=self._wants_saliency,
                    head=self._head,
                ),
            )
            if self._inside is not None:
                self._inside.install(hooks)
            self._hooks = hooks.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        hooks, self._hooks, self._prefix, self._vision = self._hooks, None, None, None
        if hooks is not None:
            hooks.close()

    def stage(self, name: str) -> AbstractContextManager[None]:
        """The context that times a stage."""
        return nullcontext() if self.timer is None else self.timer(name)

    def _before_model(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if kwargs.get("labels") is not None:
            raise ConfigError(
                "labels do not fit a shortened sequence: compression is for inference; leave the `with` block to train"
            )
        # Assisted decoding feeds its first guesses with the prompt and asks for logits from the prompt's end on.
        wanted = kwargs.get("logits_to_keep")
        self._drafted = max(wanted - 1, 0) if isinstance(wanted, int) else 0

    def _before_core(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = {**kwargs, "input_ids": args[0]} if args else kwargs
        encoded = named.get("mm_encoder_outputs") or {}
        if self._merges_patches and (named.get("pixel_values") is not None or encoded.get("image") is not None):
            raise ConfigError("images beside videos cannot go through a merge before the encoder; use a later stage")
        self._seen = dict(named)

    def _plan_patches(self, grids: Sequence[VideoGrid]) -> MergePlan:
        """One plan over the patches of all videos, in raster order; patches of a unit merge as one."""
        compressor: BeforeEncoder = self.compressor
        with self.stage("rpm"):
            unit = self.adapter.patch_unit
            self._patches, plans = [], []
            for grid, entry in zip(grids, spread(len(grids), len(self._metas), what="metadata"), strict=True):
                meta, units = self._metas[entry], (grid[0], grid[1] // unit, grid[2] // unit)
                if meta.residual is None:
                    self._patches.append(None)
                    plans.append(MergePlan.identity(units[0] * units[1] * units[2]))
                    continue
                compression = compressor.before_encoder(meta.density(units))
                self._patches.append(compression)
                plans.append(compression.plan)
            return join_plans(plans)

    def _before_language_model(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        embeddings, cache = kwargs.get("inputs_embeds"), kwargs.get("past_key_values")
        ids = self._seen.get("input_ids")
        if getattr(cache, "is_compileable", False) or isinstance(kwargs.get("attention_mask"), dict):
            raise ConfigError("a static cache has one length for all layers; use the default dynamic cache")
        if embeddings is None or ids is None:
            raise ConfigError("videos are found by their placeholder ids; pass input_ids, not inputs_embeds")
        past = 0 if cache is None else cache.get_seq_length()
        with self.stage("compress"):
            if past:
                return args, self._continue(kwargs, ids, cache, past)
            short, prefix = self._shorten(kwargs, ids)
        self._prefix = prefix
        if self._inside is not None:
            self._inside.begin(prefix, prefill=True, given_mask=short.get("attention_mask"), past=0)
        return args, short

    def _after_language_model(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        cache = getattr(output, "past_key_values", None)
        if self._prefix is not None and cache is not None:
            self._prefix.bind(cache)
        self._seen = {}
        if self._inside is not None:
            self._inside.end()

    def _continue(self, kwargs: dict[str, Any], ids: Tensor, cache: Any, past: int) -> dict[str, Any]:
        """A step after the prompt: positions and masks for the shortened cache."""
        prefix = self._prefix
        if prefix is None or not prefix.holds(cache):
            raise ConfigError(
                "this cache was not filled inside this `with` block (copies count as others); "
                "begin with the whole prompt, or keep the cache that generate() returned"
            )
        count = ids.shape[1]
        prefix.feed(ids, past, video_token=self.adapter.config.video_token_id)
        given = kwargs.get("attention_mask")
        if given is not None and given.dim() != 2:
            raise ConfigError(f"attention_mask has {given.dim()} dimensions; give two, (batch, length)")
        if self._inside is not None:
            self._inside.begin(prefix, prefill=False, given_mask=given, past=past)
        return {
            **kwargs,
            "position_ids": prefix.next_positions(past, count),
            "attention_mask": prefix.next_mask(given, past, count),
        }

    def _shorten(self, kwargs: dict[str, Any], ids: Tensor) -> tuple[dict[str, Any], Prefix]:
        """The prompt: merge the tokens of its videos and close the gaps."""
        embeddings, mask = kwargs["inputs_embeds"], kwargs.get("attention_mask")
        rows, width = embeddings.shape[:2]
        device = embeddings.device
        if mask is not None and mask.dim() != 2:
            raise ConfigError(f"attention_mask has {mask.dim()} dimensions; give two, (batch, length)")
        assert self._vision is not None  # hooks are in place
        videos = self.adapter.locate(ids, self._vision.grids, self._seen)
        compressions = self._compress(embeddings, videos)
        self._vision.reset()

        stays = torch.ones(rows, width, dtype=torch.bool, device=device)
        changes: list[tuple[VideoTokens, MergePlan]] = []
        for video, compression in zip(videos, compressions, strict=True):
            if compression is None:
                continue
            plan = compression.plan.to(device)
            stays[video.row, video.index] = False
            stays[video.row, video.index[plan.keep]] = True
            if video.newlines is not None:
                ends = torch.zeros(video.newlines.numel(), dtype=torch.bool, device=device)
                ends[plan.keep // video.grid[1]] = True
                stays[video.row, video.newlines.flatten()] = ends
            changes.append((video, plan))
        real = real_places(mask, rows=rows, width=width, device=device)
        kept = [places[stays[row, places]] for row, places in enumerate(real)]
        selection = RowSelection.of(kept)

        def shorten(values: Tensor) -> Tensor:
            if changes:
                values = values.clone()
            for video, plan in changes:
                values[video.row, video.index[plan.keep]] = plan.apply(values[video.row, video.index])
            return selection.take(values)

        positions = place_positions(kwargs.get("position_ids"), selection, real, compressions, width, device)
        short = {**kwargs, "inputs_embeds": shorten(embeddings), "position_ids": positions}
        short |= shorten_deepstack(kwargs, shorten, selection)
        if selection.real is not None:
            short["attention_mask"] = selection.real.to(torch.int64 if mask is None else mask.dtype)
        elif mask is not None:
            short["attention_mask"] = selection.take(mask)
        elif kwargs.get("past_key_values") is None and not kwargs.get("use_cache"):
            # Gaps between positions would be read as several packed sequences.
            short["attention_mask"] = torch.ones(rows, selection.length, dtype=torch.int64, device=device)
        visual, text_from = visual_places(videos, selection, rows, width)
        prefix = Prefix(
            ids=ids,
            given=width,
            width=selection.length,
            mask=selection.real,
            positions=positions,
            visual=visual,
            text_from=text_from,
            drafted=self._drafted,
        )
        return short, prefix

    def _compress(self, embeddings: Tensor, videos: Sequence[VideoTokens]) -> list[Compression | None]:
        """Ask the method about each video; one that a batch repeats is asked about once."""
        self.results = []
        if not videos:
            return []
        vision = self._vision
        assert vision is not None
        if self._merges_patches and not vision.planned:
            raise SignalError(
                f"the metadata describes videos of {[meta.frames for meta in self._metas]} frames, but the prompt has "
                f"videos of {[video.frames for video in videos]}; give the model the frames of the metadata, for "
                "example by compress.models.prompt.prepare"
            )
        count = len(videos)
        which = spread(count, len(self._metas), what="metadata") if self._metas else list(range(count))
        total = sum(grid[0] for grid in vision.grids)
        if total and sum(video.frames for video in videos) % total == 0:
            # Newer versions encode a video once before beams repeat it, older ones once per beam.
            vision.split([video.frames for video in videos[:: sum(video.frames for video in videos) // total]])
        seen = spread(count, len(vision.grids), what="encoded videos") if vision.grids else None
        first: dict[int, int] = {}
        compressions: list[Compression | None] = []
        for number, (video, entry) in enumerate(zip(videos, which, strict=True)):
            if entry in first:
                check_same(embeddings, videos[first[entry]], video)
                compressions.append(compressions[first[entry]])
                self.results.append(self.results[first[entry]])
                continue
            first[entry] = number
            encoded = None if seen is None else seen[number]
            meta = self._metas[entry] if self._metas else None
            patches = (video.frames, *video.grid) if encoded is None else vision.grids[encoded]
            sources = {} if meta is None else dict(meta.sources)
            compression = None
            if isinstance(self.compressor, BeforeLLM):
                saliency = vision.saliency[encoded] if vision.saliency and encoded is not None else None
                features = vision.frame_features[encoded] if vision.frame_features and encoded is not None else None
                signals = gather_signals(
                    video,
                    patches,
                    meta,
                    gop=getattr(self.compressor, "gop", "mean"),
                    saliency=saliency,
                    frame_features=features,
                    saliency_source="pooling head" if self._head is not None else self.adapter.saliency_source,
                )
                tokens = embeddings[video.row].index_select(0, video.index)
                compression = self.compressor.before_llm(tokens.view(video.frames, -1, tokens.shape[1]), signals)
                sources = {**compression.sources, **sources}
                if compression.positions == "contiguous" and self.adapter.multi_axis:
                    compression = replace(compression, positions="original")
                    sources["positions"] = "original: this model's positions have three axes"
            before = None
            if self._merges_patches and self._patches:
                before = self._patches[number * len(self._patches) // count]
                sources["rpm"] = "skipped: the metadata holds no residuals" if before is None else sources["density"]
            compressions.append(compression)
            self.results.append(
                VideoResult(
                    tokens_in=len(video.index),
                    tokens_out=len(video.index) if compression is None else compression.achieved,
                    before_encoder=before,
                    before_llm=compression,
                    sources=sources,
                )
            )
        return compressions


def _asks_for_saliency(compressor: Any) -> bool:
    """Whether the stage before the language model reads saliency.

    A method that is not registered may say so by an attribute ``signals`` like the registry's; without one it may.
    """
    stages = getattr(compressor, "stages", (compressor,))
    stage = next(stage for stage in stages if hasattr(stage, "before_llm"))
    if hasattr(stage, "signals"):
        return "saliency" in stage.signals
    kind = f"{type(stage).__module__}:{type(stage).__name__}"
    for method in METHODS.values():
        package, _, name = method.target.partition(":")
        if kind.startswith(package) and kind.endswith(f":{name}"):
            return "saliency" in method.signals
    return True
