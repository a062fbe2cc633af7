"""Session of a compressor on a model: hooks that shorten what the model sees, for the length of a `with` block."""

from __future__ import annotations

import dataclasses
import reprlib
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from codecmeta import VideoMeta
from compress.errors import ConfigError
from compress.methods import METHODS
from compress.models.adapters.adapter import VisionRequest, adapt
from compress.models.adapters.attention import chain, tapped
from compress.models.adapters.wrappers import check_hooks, unwrap
from compress.models.origin import Origin
from compress.models.session.call import Calls
from compress.models.session.decoder_merge import DecoderMerge
from compress.models.session.decoding_reads import DecodingReads
from compress.models.session.encoder import SessionEncoder
from compress.models.session.forward import Forward
from compress.models.session.signals import MetaSignals
from compress.models.session.videos import VideoCompressor, VideoResult
from compress.stage import (
    AtDecoding,
    BeforeEncoder,
    BeforeLLM,
    Compression,
    InsideEncoder,
    InsideLLM,
    Signals,
)

if TYPE_CHECKING:
    import os

    import numpy as np
    from numpy.typing import NDArray

    from compress.density import MapChoice
    from compress.models.inputs.prompt import Tokenizer
    from compress.models.session.chat import Chat
    from compress.models.session.visual_tokens import VisualTokens
    from compress.ops.saliency import PoolingHead

Saliency = Literal["auto", "attention", "none"]

StageTimer = Callable[[str], AbstractContextManager[None]]

_ATTACHED = "_compress_attached"

_SLOWER_WITH_MERGED_PATCHES = ("cuda",)
"""Types of device on which merging the default share of patches made the encoder slower (docs/gpu.md)."""


class Session:
    """A compressor attached to a model, as ``compressor.attach(model, meta)`` returns it; use it in a `with` block.

    Several threads may use the model inside the block, and several caches may be decoded in turn: what is known of a
    prompt belongs to the forward pass, to the features of its videos and to the cache that it fills.

    Attributes:
        compressor: the method or pipeline, with the decoder layers that it chose by the depth of the model.
        model: the model, out of what it was wrapped in.
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
        if not isinstance(compressor, BeforeEncoder | InsideEncoder | BeforeLLM | InsideLLM | AtDecoding):
            raise ConfigError(f"{type(compressor).__name__} has no stage that works on a model (see compress.stage)")
        if saliency not in ("auto", "attention", "none"):
            raise ConfigError(f"saliency is {saliency!r}; choose from 'auto', 'attention' and 'none'")
        self.model = unwrap(model)
        self.adapter = adapt(self.model)
        if hasattr(compressor, "at_depth"):
            compressor = compressor.at_depth(len(self.adapter.layers), first=self.adapter.first_merge_layer)
        self.compressor: Any = compressor
        if isinstance(compressor, BeforeEncoder) and isinstance(compressor, InsideEncoder):
            raise ConfigError(
                f"{type(compressor).__name__} merges patches both before and inside the encoder, where every frame "
                "must keep as many as the others; choose one of the two"
            )
        metas = _listed(meta)
        self.timer: StageTimer | None = None
        reads = signals_read(compressor) if isinstance(compressor, BeforeLLM) else ()
        self._head = pooling_head
        self._wants_saliency = (
            isinstance(compressor, BeforeLLM)
            and saliency != "none"
            and (saliency == "attention" or "saliency" in reads)
        )
        self._videos = VideoCompressor(
            compressor,
            self.adapter,
            [MetaSignals(one, self.adapter, map, whole=why_patches_stay(compressor, self.model)) for one in metas],
            reads=reads,
            reads_saliency=self._wants_saliency,
            pooling_head=pooling_head is not None,
            origins=[Origin.of(one) for one in metas],
        )
        if self._videos.merges_patches and not self._videos.reuses_patches and not metas:
            raise ConfigError(f"{type(compressor).__name__} merges patches by their density; give metadata: meta=...")
        self._calls = Calls()
        self._inside = (
            DecoderMerge(compressor, self.adapter, self._calls) if isinstance(compressor, InsideLLM) else None
        )
        cuts = () if self._inside is None else self._inside.cuts
        self._reads = (
            DecodingReads(compressor, self.adapter, self._calls, cuts) if isinstance(compressor, AtDecoding) else None
        )
        self._forward = Forward(
            self.model,
            self.adapter,
            self._videos,
            self._inside,
            self._reads,
            self._calls,
            weakref.ref(self),
            self.stage,
        )
        self._hooks: ExitStack | None = None
        self._entered = False

    def __del__(self) -> None:
        # absent where the constructor raised
        if not getattr(self, "_entered", True):
            warnings.warn(
                "attach() shortens nothing outside a `with` block: with method.attach(model, meta): ...", stacklevel=2
            )

    @property
    def results(self) -> list[VideoResult]:
        """Result of each video of the last prompt."""
        return self._forward.account.results

    @property
    def inside(self) -> list[Compression]:
        """What was merged inside the language model, per row with visual tokens of the last prompt."""
        return list(self._forward.account.inside)

    @property
    def decoding(self) -> list[tuple[int, ...]]:
        """Visual tokens that each row read, per decoding step since the last prompt; empty if nothing chooses them."""
        return list(self._forward.account.decoding)

    @property
    def layer_tokens(self) -> list[int]:
        """Visual tokens that each decoder layer saw of the last prompt, of its first row with any."""
        account = self._forward.account
        depth = len(self.adapter.layers)
        if self._inside is None or not account.inner_counts:
            return [account.results[0].tokens_out if account.results else 0] * depth
        bounds = [0, *(cut.layer for cut in self._inside.cuts), depth]
        counts = account.inner_counts[0]
        return [count for i, count in enumerate(counts) for _ in range(bounds[i], bounds[i + 1])]

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
        """Start a conversation about a video, whose tokens are shortened once.

        Args:
            video: its metadata with frames, a file, or frames.
            tokenizer: of the checkpoint.
            options: of ``generate``, for example max_new_tokens.
        """
        from compress.models.session.chat import Chat

        return Chat(self, video, tokenizer, options)

    def encode(
        self, video: VideoMeta | NDArray[np.uint8] | str | os.PathLike[str], *, tokenizer: Tokenizer
    ) -> VisualTokens:
        """Encode a video and shorten its tokens, without a question and without running the language model.

        Args:
            video: its metadata with frames, a file, or frames.
            tokenizer: of the checkpoint; it writes the text around and between the frames.

        Raises:
            ConfigError: the `with` block is not active, or the method refuses the video.
            SignalError: the metadata is that of another video, or lacks its frames.
        """
        from compress.models.session.visual_tokens import encode_video

        return encode_video(self, video, tokenizer)

    @contextmanager
    def ending_at_the_language_model(self) -> Iterator[None]:
        """Let forward passes of this thread end, with `PromptRead`, where the language model would begin."""
        self._calls.ends_at_the_language_model = True
        try:
            yield
        finally:
            self._calls.ends_at_the_language_model = False

    def __enter__(self) -> Session:
        self._entered = True
        core = self.adapter.core
        if getattr(core, _ATTACHED, None) is not None:
            raise ConfigError(
                f"{type(self.model).__name__} already has a compressor; leave its `with` block first, or join the "
                "stages: Pipeline(RPM(), InfoMerge(retention=0.1), MATM()).attach(model, meta)"
            )
        with ExitStack() as hooks:
            with check_hooks(self.model):
                setattr(core, _ATTACHED, self)
                hooks.callback(delattr, core, _ATTACHED)
                self._forward.install(hooks)
                request = VisionRequest(
                    merges=self._videos.merges_patches,
                    saliency=self._wants_saliency,
                    head=self._head,
                    inside=self.compressor if isinstance(self.compressor, InsideEncoder) else None,
                    reuses=self._videos.reuses_patches,
                )
                encoder = SessionEncoder(self.adapter, self._videos, self._calls, weakref.ref(self), self.stage)
                encoder.install(hooks, self.adapter.install(hooks, request))
                taps = [one.taps() for one in (self._inside, self._reads) if one is not None]
                if taps:
                    hooks.enter_context(tapped(self.adapter.language_model, chain(*taps)))
                if self._inside is not None:
                    self._inside.install(hooks)
            self._hooks = hooks.pop_all()
        return self

    def __exit__(self, error: object = None, *_: object) -> None:
        hooks, self._hooks = self._hooks, None
        if hooks is not None:
            hooks.close()
        if error is None and not self._forward.has_run:
            warnings.warn(
                f"this {type(self.model).__name__} was not called inside the `with` block, so that nothing was "
                "shortened; call the model that was attached to",
                stacklevel=2,
            )

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Return the context that times a stage."""
        return nullcontext() if self.timer is None else self.timer(name)


def why_patches_stay(compressor: object, model: nn.Module) -> str:
    """Return why patches do not merge unless a map is named; empty where they do.

    Merging before the encoder exists to save time, and where it was measured to cost some it is not the default:
    a method whose stage before the encoder is as nobody asked for it says so by ``patches_by_default``.
    """
    device = next((weight.device.type for weight in model.parameters()), "cpu")
    if not getattr(compressor, "patches_by_default", False) or device not in _SLOWER_WITH_MERGED_PATCHES:
        return ""
    return (
        "off by default on a GPU, where merging 13 % of the patches made the encoder slower (54 against 43 ms); "
        "name a map to merge them, such as texture"
    )


def _listed(meta: VideoMeta | Sequence[VideoMeta] | None) -> tuple[VideoMeta, ...]:
    """Return the metadata as a tuple; ConfigError for anything else."""
    metas = () if meta is None else tuple(meta) if isinstance(meta, list | tuple) else (meta,)
    for one in metas:
        if not isinstance(one, VideoMeta):
            raise ConfigError(
                f"meta holds {reprlib.repr(one)}, which is no metadata; give codecmeta.load(path), or several in a list"
            )
    return metas


def signals_read(compressor: BeforeLLM) -> tuple[str, ...]:
    """List the signals that the stage before the language model reads.

    A method says so by an attribute ``signals`` or by its entry in the registry; one without either may read all.

    Raises:
        ConfigError: the attribute names an unknown signal.
    """
    known = [field.name for field in dataclasses.fields(Signals)]
    method = next(one for one in getattr(compressor, "methods", (compressor,)) if hasattr(one, "before_llm"))
    if hasattr(method, "signals"):
        if unknown := [repr(name) for name in method.signals if name not in known]:
            raise ConfigError(
                f"unknown signals {', '.join(unknown)} of {type(method).__name__}; choose from {', '.join(known)}"
            )
        return tuple(method.signals)
    kind = f"{type(method).__module__}:{type(method).__name__}"
    for entry in METHODS.values():
        package, _, name = entry.target.partition(":")
        if kind.startswith(package) and kind.endswith(f":{name}"):
            return entry.signals
    return tuple(known)
