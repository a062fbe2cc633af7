"""Views of a video: its tokens by the embedded encoder or by a model's, and what methods leave of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from torch import Tensor

from compress.comparison.coverage import Place
from compress.comparison.watched import Watched
from compress.density import MapChoice
from compress.encoders import SpectralEncoder
from compress.encoders.spectral import COVERED, TOKEN_GRID
from compress.errors import ShapeError
from compress.flops import LanguageModel
from compress.methods import METHODS, STAGES, build
from compress.video import Stopwatch, encode_video

if TYPE_CHECKING:
    from codecmeta import VideoMeta
    from compress.comparison.interview import Interview, Logits
    from compress.models.adapters.adapter import Adapter

ROUNDING: Final = 1e-6
"""Nats up to which two routes through one model say the same."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Left:
    """What a method left of a video, besides its log.

    Attributes:
        logits: of the answers; None without a model.
        full: of the answers over all tokens by the same route through the model; None without one.
        sources: signal -> where it came from.
        notes: what differs from what was requested.
    """

    logits: Logits | None = None
    full: Logits | None = None
    sources: Mapping[str, str]
    notes: tuple[str, ...] = ()


class View(Protocol):
    """A video whose tokens are seen by an encoder.

    Attributes:
        tokens: (V, D), all of them.
        place: where they lie in the pictures.
        language_model: whose operations count.
    """

    tokens: Tensor
    place: Place
    language_model: LanguageModel

    def shorten(self, method: Watched, name: str) -> Left:
        """Shorten the video by a method, which fills its log."""
        ...


class EmbeddedView:
    """A video by the embedded, weight-free encoder; the language model is Qwen2-7B, in numbers only.

    Args:
        meta: the record, with cached frames.
        map: by what density is measured.
        device: where to compute.
    """

    def __init__(self, meta: VideoMeta, *, map: MapChoice, device: str) -> None:
        self._encoded = encode_video(meta, encoder=SpectralEncoder(), map=map, device=device)
        self.tokens = self._encoded.encoder.pool(self._encoded.features).flatten(0, 1)
        self.place = Place(grid=TOKEN_GRID, covered=COVERED)
        self.language_model = LanguageModel()

    def shorten(self, method: Watched, name: str) -> Left:
        """See `View`."""
        video = self._encoded.shorten(method, Stopwatch())
        return Left(sources=video.sources, notes=video.notes)


class ModelView:
    """A video inside a model that is asked about it.

    Args:
        interview: the questions.
        adapter: of the model.
    """

    def __init__(self, interview: Interview, adapter: Adapter) -> None:
        from compress.accuracy.extremes import Everything

        self.interview = interview
        whole = Watched(Everything())
        self.everything = interview.ask(whole)
        tokens, grid = whole.log.tokens, whole.log.grid
        if tokens is None or grid is None:
            raise ShapeError("the model was shown no visual tokens of the video")
        self.tokens = tokens.flatten(0, 1)
        self.place = Place(grid=grid, covered=adapter.covered, temporal=adapter.temporal)
        self.language_model = LanguageModel.of(adapter.config.text_config)
        self._full: dict[str, Logits] = {}

    def shorten(self, method: Watched, name: str) -> Left:
        """See `View`."""
        logits = self.interview.ask(method)
        found = method.log.compression
        sources = {} if found is None else dict(found.sources)
        return Left(logits=logits, full=self._answers_over_all(method, name), sources=sources)

    def _answers_over_all(self, method: Watched, name: str) -> Logits:
        """Return the answers over all tokens, by the kernels that the method makes the model take.

        A method that merges patches or works inside the decoder takes other kernels even where it changes nothing; what
        these round otherwise is none of its doing. Where its own route at retention 1 says something else than the
        model by itself, the model by itself counts.
        """
        from compress.comparison.divergence import kl_divergence

        plain = self.interview.plain
        if all(stage in ("plan_frames", "before_llm") for stage in STAGES if hasattr(method.method, stage)):
            return plain
        if name not in self._full:
            own = self.interview.ask(build(name, retention=1.0, settings=METHODS[name].neutral))
            same = float(kl_divergence(plain, own).max()) <= ROUNDING
            self._full[name] = own if same else plain
        return self._full[name]
