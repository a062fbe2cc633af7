"""What the session needs to know of a backbone, and which adapter knows it.

An adapter knows modules, prompts, token layouts and positions of one family of models and never sees a method.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.errors import ConfigError, ShapeError
from compress.ops.saliency import PoolingHead
from compress.plan import MergePlan

ADAPTERS: Final[Mapping[str, str]] = {
    "LlavaVideoForConditionalGeneration": "compress.models.adapters.llava_video:LlavaVideo",
    "LlavaOnevisionForConditionalGeneration": "compress.models.adapters.llava_onevision:LlavaOnevision",
    "Qwen2VLForConditionalGeneration": "compress.models.adapters.qwen2_vl:Qwen2VL",
    "Qwen2_5_VLForConditionalGeneration": "compress.models.adapters.qwen2_5_vl:Qwen25VL",
    "Qwen3VLForConditionalGeneration": "compress.models.adapters.qwen3_vl:Qwen3VL",
}
"""Model class -> its adapter, ``module:class``; subclasses go with their nearest parent."""

VideoGrid = tuple[int, int, int]
"""Frames (after temporal patching), rows and columns of a video's patches."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoTokens:
    """Where the tokens of one video lie in a prompt.

    Attributes:
        row: of the batch.
        frames: T, after temporal patching.
        grid: rows and columns of the tokens of a frame, N = rows * cols.
        index: int64 (T * N,), place in the sequence of each token, frame-major, raster order.
        stop: where its last placeholder ends.
        newlines: int64 (T, rows), place of the token that ends each row of tokens; None where rows have none. It
            leaves with the last token of its row.
        start: place of its first token where the others follow without gaps; None where there are gaps.
    """

    row: int
    frames: int
    grid: tuple[int, int]
    index: Tensor
    stop: int
    newlines: Tensor | None = None
    start: int | None = None

    def of(self, values: Tensor) -> Tensor:
        """The tokens' entries among those of a batch, (B, S, ...) -> (T * N, ...); a view where they lie together."""
        if self.start is None:
            return values[self.row].index_select(0, self.index)
        return values[self.row, self.start : self.start + len(self.index)]


@dataclass(frozen=True, kw_only=True, eq=False)
class VisionRequest:
    """What a session wants of the vision encoder.

    Attributes:
        frames: encoder frames of each video that has metadata.
        plan_patches: asked once per batch for the plan over all patches of the videos' grids, in raster order;
            None merges nothing.
        saliency: measure how much each token matters.
        head: by SigLIP's attention pooling; None for attention received.
    """

    frames: Sequence[int]
    plan_patches: Callable[[Sequence[VideoGrid]], MergePlan] | None
    saliency: bool
    head: PoolingHead | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """Frames with their times.

    Attributes:
        frames: uint8 (T, h, w, 3).
        seconds: float64 (T,), when each is shown.
        duration: of the video, in seconds.
    """

    frames: NDArray[np.uint8]
    seconds: NDArray[np.float64]
    duration: float


@dataclass(frozen=True, kw_only=True, eq=False)
class VisualInputs:
    """A clip as a model takes it.

    Attributes:
        tensors: by the names of `generate`.
        runs: placeholders of each run, one run per video or per frame.
    """

    tensors: dict[str, Tensor]
    runs: list[int]


class VisionTap(Protocol):
    """What hooks on the vision encoder found out, for the videos encoded since the last prompt.

    Attributes:
        grids: of the videos.
        saliency: per video, (T, N).
        frame_features: per video, (T, D); empty without a pooling head.
        planned: whether patches were merged.
    """

    grids: list[VideoGrid]
    saliency: list[Tensor]
    frame_features: list[Tensor]
    planned: bool

    def split(self, frames: Sequence[int]) -> None:
        """Learn how many frames each of the encoded videos has, where the encoder cannot tell."""
        ...

    def reset(self) -> None:
        """Forget: a new prompt begins."""
        ...


class Adapter(Protocol):
    """A backbone.

    Attributes:
        core: the module that puts vision and language together.
        config: of the whole model.
        language_model: the decoder.
        layers: its layers.
        temporal: frames per temporal patch.
        covered: share of the picture's width and height that patches cover.
        patch_unit: rows and columns of encoder patches that can only merge as one.
        multi_axis: positions have three axes, so that renumbering them has no meaning.
        first_merge_layer: the first decoder layer before which tokens may merge.
        saliency_source: what `VisionTap.saliency` is without a head.
    """

    core: nn.Module
    config: Any
    language_model: Any
    layers: nn.ModuleList
    temporal: int
    covered: float
    patch_unit: int
    multi_axis: bool
    first_merge_layer: int
    saliency_source: str

    def install(self, hooks: ExitStack, request: VisionRequest) -> VisionTap:
        """Put hooks on the vision encoder; leaving the stack removes them."""
        ...

    def locate(self, input_ids: Tensor, grids: Sequence[VideoGrid], inputs: Mapping[str, Any]) -> list[VideoTokens]:
        """Where the videos of a batch lie.

        Args:
            input_ids: int64 (B, S).
            grids: of the videos that were encoded for this prompt, as far as known.
            inputs: further arguments of the call.
        """
        ...

    def pool(self, maps: Tensor) -> Tensor:
        """Maps on the patch grid (T, rows, cols) -> on the token grid (T, N), pooled as the model pools features."""
        ...

    def encode_pixels(self, clip: Clip) -> VisualInputs:
        """A clip as the model takes it."""
        ...

    def write_prompt(self, question: str, clip: Clip) -> list[str | None]:
        """The pieces of a first turn; None stands for a run of placeholders."""
        ...

    def write_turn(self, question: str) -> str:
        """What follows an answer: its end, a further question and the beginning of the next answer."""
        ...


def adapt(model: nn.Module) -> Adapter:
    """The adapter of a model.

    Raises:
        ConfigError: there is none, or the installed transformers builds the model otherwise.
    """
    for parent in type(model).__mro__:
        if parent.__name__ in ADAPTERS:
            module, _, name = ADAPTERS[parent.__name__].partition(":")
            adapter: Adapter = getattr(importlib.import_module(module), name)(model)
            return adapter
    raise ConfigError(
        f"{type(model).__name__} (transformers {_version()}) is not supported; supported are {', '.join(ADAPTERS)}"
    )


def part(model: nn.Module, path: str) -> Any:
    """The part of a model at a dotted path.

    Raises:
        ConfigError: it is not there.
    """
    found: Any = model
    for name in path.split("."):
        found = getattr(found, name, None)
        if found is None:
            raise ConfigError(
                f"{type(model).__name__} of transformers {_version()} has no {path!r}; "
                "this version is built otherwise than those that are supported (see docs/models.md)"
            )
    return found


def placeholder_runs(input_ids: Tensor, token: int) -> list[tuple[int, int, int]]:
    """(row, start, stop) of every run of a token, row by row; costs one synchronisation."""
    held = np.pad((input_ids == token).cpu().numpy(), ((0, 0), (1, 1)))
    edges = np.diff(held.astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    _, stops = np.nonzero(edges == -1)
    return list(zip(rows.tolist(), starts.tolist(), stops.tolist(), strict=True))


def spread(count: int, entries: int, *, what: str) -> list[int]:
    """Which of some entries each of ``count`` videos takes, where beams or samples repeat every video equally often.

    Raises:
        ShapeError: they do not divide.
    """
    if not entries or count % entries:
        raise ShapeError(f"the prompts hold {count} videos, but there are {entries} {what}; give one per video")
    return [video * entries // count for video in range(count)]


def _version() -> str:
    import transformers

    return str(transformers.__version__)
