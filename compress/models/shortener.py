"""Models as shorteners: their own encoder instead of the embedded one, for runs that keep tokens."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.density import MapChoice
from compress.errors import ConfigError
from compress.models.adapters.llava_onevision import LlavaOnevision
from compress.models.adapters.wrappers import input_device
from compress.models.inputs.prompt import Tokenizer
from compress.models.opening import open_model
from compress.models.session.session import Session
from compress.models.session.signals import MetaSignals
from compress.models.session.videos import VideoResult
from compress.plan import MergePlan
from compress.stage import AtDecoding, BeforeEncoder, BeforeLLM, Compression, InsideEncoder, InsideLLM
from compress.video import CompressedVideo, Layout, Stopwatch, ask_instead, blaming_the_video

if TYPE_CHECKING:
    from codecmeta import VideoMeta
    from compress.models.adapters.adapter import VideoTokens


@dataclass(frozen=True, kw_only=True)
class ModelShortener:
    """A Hugging Face Video-LLM up to where its language model begins; it is loaded when the first video needs it.

    Attributes:
        checkpoint: name or folder, see `open_model`; exclusive with the next.
        random_config: architecture to fill with random weights.
        device: where to put it.
        embeddings: return what a server that takes embeddings is given in place of the video, of a family whose tokens
            have one position each.
    """

    checkpoint: str | None = None
    random_config: str | None = None
    device: str = "cpu"
    embeddings: bool = False

    @cached_property
    def opened(self) -> tuple[Any, Tokenizer]:
        """The model and its tokenizer."""
        return open_model(checkpoint=self.checkpoint, random_config=self.random_config, device=self.device)

    def describe(self) -> dict[str, Any]:
        """See `Shortener`."""
        name = self.checkpoint if self.checkpoint is not None else self.random_config
        return {
            "model": name,
            "random": self.checkpoint is None,
            "files": _digest_files(Path(name or "")),
            "device": self.device,
            **({"embeddings": True} if self.embeddings else {}),
        }

    def check(self, method: object, name: str) -> None:
        """See `Shortener`."""
        if not isinstance(method, BeforeEncoder | InsideEncoder | BeforeLLM):
            raise ConfigError(
                f"{name} has no stage before the language model, and a run does not go further; choose a method with a "
                "stage before_encoder, inside_encoder or before_llm (see: compress methods)"
                f"{ask_instead(method, name)}"
            )
        if (self.checkpoint is None) == (self.random_config is None):
            raise ConfigError("give either --model with a checkpoint or --random-weights with an architecture")
        if self.embeddings and getattr(method, "positions", "original") != "contiguous":
            raise ConfigError(
                f"{name} keeps original positions, which a server that is given embeddings cannot know: it counts "
                "their rows on without gaps; set positions=contiguous"
            )

    def shorten(self, meta: VideoMeta, method: Any, *, map: MapChoice, stopwatch: Stopwatch) -> CompressedVideo:
        """See `Shortener`."""
        model, tokenizer = self.opened
        place = input_device(model)
        session: Session = method.attach(model, meta, map=map)
        session.timer = lambda _: stopwatch.stage("compress", place)
        with stopwatch.stage("encode", place), session, blaming_the_video():
            found = session.encode(meta, tokenizer=tokenizer)
        stopwatch.seconds["encode"] -= stopwatch.seconds["compress"]
        if self.embeddings and not isinstance(session.adapter, LlavaOnevision):
            raise ConfigError(
                f"{type(session.model).__name__} places its tokens by more than their order, which embeddings do not "
                "tell a server; they are written of LLaVA-OneVision"
            )
        signals = MetaSignals(meta, session.adapter, map)
        unit = session.adapter.patch_unit
        return CompressedVideo(
            tokens=found.tokens.float().cpu(),
            positions=found.positions.cpu(),
            patches=found.result.before_encoder,
            compression=found.result.before_llm or _nothing_merged(found.place),
            packet_size=signals.packet_size(getattr(method, "gop", "mean")),
            frame_seconds=signals.frame_seconds,
            layout=Layout(
                grid=found.place.grid,
                patch_grid=(found.place.patches[0] // unit, found.place.patches[1] // unit),
                covered=session.adapter.covered,
                temporal=session.adapter.temporal,
            ),
            sources=_sources(method, found.result),
            notes=_notes(found.result),
            embeddings=found.run.float().cpu() if self.embeddings else None,
        )


def _nothing_merged(place: VideoTokens) -> Compression:
    """Return the compression of a method that has no stage before the language model."""
    count = len(place.index)
    return Compression(method="none", plan=MergePlan.identity(count, device="cpu"), frames=place.frames, nominal=count)


def _sources(method: object, result: VideoResult) -> dict[str, str]:
    sources = dict(result.sources)
    if isinstance(method, InsideLLM):
        sources["inside_llm"] = "skipped: there is no question"
    if isinstance(method, AtDecoding):
        sources["at_decoding"] = "skipped: there is no question"
    return sources


def _notes(result: VideoResult) -> tuple[str, ...]:
    rpm = result.sources.get("rpm", "")
    return (f"RPM {rpm}",) if rpm.startswith("skipped") else ()


def _digest_files(place: Path) -> str | None:
    """Return a word that changes with a checkpoint or configuration on this machine; None for a mere name."""
    if not place.exists():
        return None
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    stamps = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return hashlib.sha256(repr(stamps).encode()).hexdigest()[:16]
