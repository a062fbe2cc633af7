"""A compressor at work on a model: hooks that shorten what the model sees, for the length of a `with` block."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from codecmeta import VideoMeta
from compress.errors import ConfigError
from compress.methods import METHODS
from compress.models.adapters.adapter import VideoGrid, VisionRequest, VisionTap, adapt
from compress.models.session.decoder_merge import DecoderMerge
from compress.models.session.kv_cache import CACHE, cache_of
from compress.models.session.prefix import Prefix
from compress.models.session.shortening import shorten_prompt
from compress.models.session.videos import VideoCompressor, VideoResult
from compress.plan import MergePlan
from compress.stage import BeforeEncoder, BeforeLLM, Compression, InsideLLM, Signals

if TYPE_CHECKING:
    import os

    import numpy as np
    from numpy.typing import NDArray

    from compress.models.inputs.prompt import Tokenizer
    from compress.models.session.chat import Chat
    from compress.ops.saliency import PoolingHead
    from compress.video import MapChoice

Saliency = Literal["auto", "attention", "none"]

StageTimer = Callable[[str], AbstractContextManager[None]]

_ATTACHED = "_compress_attached"


class Session:
    """What ``compressor.attach(model, meta)`` returns; use it in a `with` block.

    Attributes:
        compressor: the method or pipeline, with the decoder layers that it chose by the depth of the model.
        model: the model.
        adapter: what knows the model.
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
        self.model = model
        self.adapter = adapt(model)
        if hasattr(compressor, "at_depth"):
            compressor = compressor.at_depth(len(self.adapter.layers), first=self.adapter.first_merge_layer)
        self.compressor: Any = compressor
        metas = _listed(meta)
        self.timer: StageTimer | None = None
        reads = signals_read(compressor) if isinstance(compressor, BeforeLLM) else ()
        self._videos = VideoCompressor(
            compressor, self.adapter, metas, map, reads=reads, pooling_head=pooling_head is not None
        )
        if self._videos.merges_patches and not metas:
            raise ConfigError(f"{type(compressor).__name__} merges patches by their density; give metadata: meta=...")
        self._head = pooling_head
        self._wants_saliency = (
            isinstance(compressor, BeforeLLM)
            and saliency != "none"
            and (saliency == "attention" or "saliency" in reads)
        )
        self._inside = DecoderMerge(compressor, self.adapter) if isinstance(compressor, InsideLLM) else None
        self._prefix: Prefix | None = None
        self._seen: dict[str, Any] = {}
        self._drafted = 0
        self._vision: VisionTap | None = None
        self._hooks: ExitStack | None = None

    @property
    def results(self) -> list[VideoResult]:
        """What became of each video of the last prompt."""
        return self._videos.results

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
        from compress.models.session.chat import Chat

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
                    frames=self._videos.frames,
                    plan_patches=self._plan_patches if self._videos.merges_patches else None,
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
        if self._videos.merges_patches and (named.get("pixel_values") is not None or encoded.get("image") is not None):
            raise ConfigError("images beside videos cannot go through a merge before the encoder; use a later stage")
        self._seen = dict(named)

    def _plan_patches(self, grids: Sequence[VideoGrid]) -> MergePlan:
        with self.stage("rpm"):
            return self._videos.plan_patches(grids)

    def _before_language_model(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        embeddings, cache = kwargs.get("inputs_embeds"), kwargs.get(CACHE)
        ids = self._seen.get("input_ids")
        if getattr(cache, "is_compileable", False) or isinstance(kwargs.get("attention_mask"), dict):
            raise ConfigError("a static cache has one length for all layers; use the default dynamic cache")
        if embeddings is None or ids is None:
            raise ConfigError("videos are found by their placeholder ids; pass input_ids, not inputs_embeds")
        past = 0 if cache is None else cache.get_seq_length()
        with self.stage("compress"):
            if past:
                return args, self._continue(kwargs, ids, cache, past)
            assert self._vision is not None  # hooks are in place
            videos = self.adapter.locate(ids, self._vision.grids, self._seen)
            compressions = self._videos.compress(embeddings, videos, self._vision)
            self._vision.reset()
            short, prefix = shorten_prompt(
                kwargs, ids, videos, compressions, drafted=self._drafted, visual=self._inside is not None
            )
        self._prefix = prefix
        if self._inside is not None:
            self._inside.begin(prefix, prefill=True, given_mask=short.get("attention_mask"), past=0)
        return args, short

    def _after_language_model(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        cache = cache_of(output)
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


def _listed(meta: VideoMeta | Sequence[VideoMeta] | None) -> tuple[VideoMeta, ...]:
    """The metadata as a tuple; ConfigError for anything else."""
    metas = () if meta is None else tuple(meta) if isinstance(meta, list | tuple) else (meta,)
    for one in metas:
        if not isinstance(one, VideoMeta):
            raise ConfigError(f"meta holds {one!r}, no metadata; give codecmeta.load(path), or several in a list")
    return metas


def signals_read(compressor: BeforeLLM) -> tuple[str, ...]:
    """The signals that the stage before the language model reads.

    A method says so by an attribute ``signals`` or by its entry in the registry; one without either may read all.

    Raises:
        ConfigError: the attribute names a signal that there is not.
    """
    known = [field.name for field in dataclasses.fields(Signals)]
    stages = getattr(compressor, "stages", (compressor,))
    stage = next(stage for stage in stages if hasattr(stage, "before_llm"))
    if hasattr(stage, "signals"):
        if unknown := [repr(name) for name in stage.signals if name not in known]:
            raise ConfigError(
                f"signals of {type(stage).__name__} names {', '.join(unknown)}; there are {', '.join(known)}"
            )
        return tuple(stage.signals)
    kind = f"{type(stage).__module__}:{type(stage).__name__}"
    for method in METHODS.values():
        package, _, name = method.target.partition(":")
        if kind.startswith(package) and kind.endswith(f":{name}"):
            return method.signals
    return tuple(known)
