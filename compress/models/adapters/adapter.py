"""Adapters: the interface between the session and a backbone, and the choice of a model's adapter.

An adapter knows modules, prompts, token layouts and positions of one family of models and never sees a method.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.encoder_merging import EncoderResult
from compress.errors import ConfigError
from compress.models.origin import Origin
from compress.ops.saliency import PoolingHead
from compress.plan import MergePlan
from compress.stage import InsideEncoder

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
    """Location of the tokens of one video in a prompt.

    Attributes:
        row: of the batch.
        frames: T, after temporal patching.
        grid: rows and columns of the tokens of a frame, N = rows * cols.
        patches: rows and columns of the encoder's patches of a frame.
        index: int64 (T * N,), place in the sequence of each token, frame-major, raster order.
        stop: where its last placeholder ends.
        newlines: int64 (T, rows), place of the token that ends each row of tokens; None where rows have none. It
            leaves with the last token of its row.
        start: place of its first token where the others follow without gaps; None where there are gaps.
        begin: where its first placeholder lies.
    """

    row: int
    frames: int
    grid: tuple[int, int]
    patches: tuple[int, int]
    index: Tensor
    begin: int
    stop: int
    newlines: Tensor | None = None
    start: int | None = None

    def of(self, values: Tensor) -> Tensor:
        """Take the tokens' entries of a batch, (B, S, ...) -> (T * N, ...); a view where they are contiguous."""
        if self.start is None:
            return values[self.row].index_select(0, self.index)
        return values[self.row, self.start : self.start + len(self.index)]


@dataclass(frozen=True, kw_only=True, eq=False)
class VisionRequest:
    """Request of a session to the vision encoder.

    Attributes:
        merges: whether patches will merge before it.
        saliency: whether to measure the saliency of each token.
        head: SigLIP's attention pooling, which measures it; None for attention received.
        inside: what merges between its blocks; None for nothing.
        reuses: whether patches that merge are left out for their anchor, in which frames still see them, not averaged.
    """

    merges: bool
    saliency: bool
    head: PoolingHead | None
    inside: InsideEncoder | None = None
    reuses: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class VisionView:
    """Observations of one video in the vision encoder.

    Attributes:
        saliency: (T, N), if it was measured.
        frame_features: (T, D), likewise, from a pooling head.
        merged: what its patches became between the blocks; None where nothing merges there.
        saliency_source: what the saliency is, if not what the adapter says.
    """

    saliency: Tensor | None = None
    frame_features: Tensor | None = None
    merged: EncoderResult | None = None
    saliency_source: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """Frames with their times.

    Attributes:
        frames: uint8 (T, h, w, 3).
        seconds: float64 (T,), when each is shown.
        duration: of the video, in seconds.
        origin: file and times; None where they are not known.
    """

    frames: NDArray[np.uint8]
    seconds: NDArray[np.float64]
    duration: float
    origin: Origin | None = None


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
    """Hooks on the vision encoder; they affect only what the same thread runs between `begin` and `end`."""

    def begin(self, grids: Sequence[VideoGrid], plan: MergePlan | None) -> None:
        """Announce that the next pass of this thread through the encoder is over videos of these grids.

        Args:
            grids: of their patches.
            plan: over the patches of all of them, in raster order; None merges nothing.
        """
        ...

    def end(self) -> list[VisionView]:
        """Return what that pass showed of each video, also after it failed."""
        ...


class TokenLayout(Protocol):
    """Layout of the visual tokens of a backbone."""

    @property
    def temporal(self) -> int:
        """Frames per temporal patch."""
        ...

    @property
    def covered(self) -> float:
        """Share of the picture's width and height that patches cover."""
        ...

    @property
    def patch_unit(self) -> int:
        """Rows and columns of encoder patches that can only merge as one."""
        ...

    @property
    def multi_axis(self) -> bool:
        """Whether positions have three axes, so that renumbering them has no meaning."""
        ...

    @property
    def saliency_source(self) -> str:
        """What `VisionView.saliency` is without a head."""
        ...

    def pool(self, maps: Tensor) -> Tensor:
        """Pool maps on the patch grid (T, rows, cols) to the token grid (T, N), as the model pools features."""
        ...


class Adapter(TokenLayout, Protocol):
    """A backbone.

    Attributes:
        core: the module that puts vision and language together.
        config: of the whole model.
        language_model: the decoder.
        layers: its layers.
        first_merge_layer: the first decoder layer before which tokens may merge.
    """

    core: nn.Module
    config: Any
    language_model: Any
    layers: nn.ModuleList
    first_merge_layer: int

    def install(self, hooks: ExitStack, request: VisionRequest) -> VisionTap:
        """Put hooks on the vision encoder; leaving the stack removes them."""
        ...

    def video_grids(self, pixels: Tensor, inputs: Mapping[str, Any]) -> list[VideoGrid]:
        """Return the patch grids of the videos that ``core.get_video_features(pixels, **inputs)`` encodes."""
        ...

    def cut_patches(self, pixels: Tensor, grids: Sequence[VideoGrid]) -> list[Tensor]:
        """Cut what the encoder is given to units of patches that can merge: (T, rows, cols, P) for each video.

        Args:
            pixels: of all videos.
            grids: of their patches.

        Returns:
            Their pixels in levels of 255, from any zero.
        """
        ...

    def locate(self, input_ids: Tensor, grids: Sequence[VideoGrid], inputs: Mapping[str, Any]) -> list[VideoTokens]:
        """Locate the videos of a batch.

        Args:
            input_ids: int64 (B, S).
            grids: of the videos that were encoded for it, as far as known; rows that repeat a prompt share them.
            inputs: further arguments of the call.
        """
        ...

    def relative_positions(
        self, input_ids: Tensor, grids: Sequence[VideoGrid], inputs: Mapping[str, Any], mask: Tensor | None
    ) -> Tensor:
        """Compute position ids of a later turn, counted from 0: (B, S), or (3, B, S) with three axes.

        Args:
            input_ids: int64 (B, S).
            grids: of its videos.
            inputs: further arguments of the call.
            mask: (B, S), 0 for padding; None without any.
        """
        ...

    def encode_pixels(self, clip: Clip) -> VisualInputs:
        """Convert a clip to the inputs of the model."""
        ...

    def write_prompt(self, question: str, clip: Clip) -> list[str | None]:
        """Write the pieces of a first turn; None stands for a run of placeholders."""
        ...

    def write_turn(self, question: str) -> str:
        """Write what follows an answer: its end, a further question and the beginning of the next answer."""
        ...


def adapt(model: nn.Module) -> Adapter:
    """Build the adapter of a model.

    Raises:
        ConfigError: no adapter exists, or the installed transformers builds the model differently.
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
    """Return the part of a model at a dotted path.

    Raises:
        ConfigError: the model has no such part.
    """
    found: Any = model
    for name in path.split("."):
        found = getattr(found, name, None)
        if found is None:
            raise ConfigError(
                f"{type(model).__name__} of transformers {_version()} has no {path!r}; "
                "install a version of transformers that is supported (see docs/models.md)"
            )
    return found


def count_places(input_ids: Tensor, mask: Tensor | None) -> Tensor:
    """Count the places of the tokens of each row, int64 (B, S); padding on the left does not count."""
    if mask is None:
        return torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
    return (mask.long().cumsum(dim=1) - 1).clamp_min(0).to(input_ids.device)


def placeholder_runs(input_ids: Tensor, token: int) -> list[tuple[int, int, int]]:
    """Find (row, start, stop) of every run of a token, row by row; costs one synchronisation."""
    held = np.pad((input_ids == token).cpu().numpy(), ((0, 0), (1, 1)))
    edges = np.diff(held.astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    _, stops = np.nonzero(edges == -1)
    return list(zip(rows.tolist(), starts.tolist(), stops.tolist(), strict=True))


def spread_rows(rows: Sequence[int], entries: int) -> list[int] | None:
    """Return the entry that each video takes, where whole prompts are repeated equally often, one after the other.

    Beams and samples repeat the prompt of a row, and with it all of its videos: A B, A B, not A A, B B.

    Args:
        rows: row of each video, ascending.
        entries: of the prompts before they were repeated.

    Returns:
        An entry per video, or None where the rows do not repeat so many entries.
    """
    if len(rows) == entries:
        return list(range(entries))
    if not entries or len(rows) % entries:
        return None
    repeats = len(rows) // entries
    counts: dict[int, int] = {}
    for row in rows:
        counts[row] = counts.get(row, 0) + 1
    first: dict[int, tuple[int, int]] = {}
    total = 0
    for row, count in counts.items():
        if row // repeats not in first:
            first[row // repeats] = total, count
            total += count
        elif first[row // repeats][1] != count:
            return None
    if total != entries:
        return None
    return [first[row // repeats][0] + place for row, count in counts.items() for place in range(count)]


def _version() -> str:
    import transformers

    return str(transformers.__version__)
