"""Signals of a video inside a model, gathered from its metadata and the vision encoder."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.density import DensityStage, MapChoice, StageMaps, choose_maps, measure_density
from compress.encoder_merging import EncoderResult
from compress.errors import SignalError
from compress.models.adapters.adapter import TokenLayout, VideoGrid, VideoTokens
from compress.stage import Signals

if TYPE_CHECKING:
    from codecmeta import VideoMeta


class GridSignals(Protocol):
    """Signals of one video's metadata on the grids of a model."""

    @property
    def maps(self) -> StageMaps:
        """The maps by which patches merge and tokens are ranked."""
        ...

    def check_frames(self, frames: int) -> None:
        """Raise SignalError unless the video was sampled with as many frames as the model sees."""
        ...

    def density(self, grid: VideoGrid, *, stage: DensityStage = "tokens") -> NDArray[np.float32]:
        """Return the density of the patches of a grid by the map of a stage, float32 (T, rows, cols)."""
        ...

    def packet_size(self, kind: Any) -> NDArray[np.float64]:
        """Return the complexity of each encoder frame, float64 (T,)."""
        ...

    def of_tokens(self, video: VideoTokens) -> NDArray[np.float32]:
        """Return the density of a video's tokens, float32 (T, N)."""
        ...


class MetaSignals:
    """See `GridSignals`; measured when they are asked for.

    Attributes:
        meta: the metadata.
        adapter: layout of the model's tokens.
        maps: by which patches merge and tokens are ranked.
    """

    def __init__(self, meta: VideoMeta, adapter: TokenLayout, choice: MapChoice, *, whole: str = "") -> None:
        self.meta = meta
        self.adapter = adapter
        self.maps = choose_maps(meta, choice, whole=whole)
        self._density: dict[tuple[int, int, str | None], NDArray[np.float32]] = {}

    @property
    def frames(self) -> int:
        """Encoder frames of this video: sampled frames over the temporal patch, rounded up."""
        return -(-len(self.meta.frame_pts) // self.adapter.temporal)

    @property
    def frame_seconds(self) -> NDArray[np.float64]:
        """When each encoder frame is shown, float64 (T,)."""
        return group_frames(self.meta.frame_seconds, self.adapter.temporal)

    def check_frames(self, frames: int) -> None:
        """Raise SignalError unless the video was sampled with as many frames as the model sees."""
        if frames != self.frames:
            raise SignalError(
                f"the model sees {frames} frames of {self.meta.info['source']['name']}, the metadata has "
                f"{self.frames} (of {len(self.meta.frame_pts)} sampled ones); give the model the frames of the "
                "metadata, for example by compress.models.inputs.prompt.prepare"
            )

    def density(self, grid: VideoGrid, *, stage: DensityStage = "tokens") -> NDArray[np.float32]:
        """Measure the density of the patches of a grid by the map of a stage, float32 (T, rows, cols).

        Raises:
            SignalError: the video was sampled with another number of frames.
        """
        frames, rows, cols = grid
        self.check_frames(frames)
        name = self.maps.tokens if stage == "tokens" else self.maps.patches
        if (rows, cols, name) not in self._density:
            single = measure_density(self.meta, name, (rows, cols), covered=self.adapter.covered)
            self._density[rows, cols, name] = group_frames(single, self.adapter.temporal)
        return self._density[rows, cols, name]

    def packet_size(self, kind: Any) -> NDArray[np.float64]:
        """Return the complexity of each encoder frame, float64 (T,)."""
        return group_frames(self.meta.gop_packet_size(kind=kind), self.adapter.temporal)

    def of_tokens(self, video: VideoTokens) -> NDArray[np.float32]:
        """Pool the density of the patches to a video's tokens, float32 (T, N), as the model pools features."""
        pooled = self.adapter.pool(torch.from_numpy(self.density((video.frames, *video.patches))))
        return pooled.reshape(video.frames, -1).numpy()


def gather_signals(
    video: VideoTokens,
    meta: GridSignals | None,
    *,
    reads: Collection[str],
    gop: Any,
    saliency: Tensor | None,
    frame_features: Tensor | None,
    saliency_source: str,
    merged: EncoderResult | None = None,
) -> Signals:
    """Gather the signals of one video.

    Args:
        video: its tokens.
        meta: its metadata, if any.
        reads: names of the signals that the method reads.
        gop: measure of a frame's complexity, see `GopKind`.
        saliency: (T, N), if measured.
        frame_features: (T, D), if measured.
        saliency_source: where the saliency comes from.
        merged: what its patches became inside the encoder.
    """
    known: dict[str, Any] = {}
    if meta is not None:
        meta.check_frames(video.frames)
        if "packet_size" in reads:
            known["packet_size"] = meta.packet_size(gop)
        if "density" in reads:
            known |= {"density": meta.of_tokens(video), "density_source": str(meta.maps.tokens)}
    if merged is not None and merged.segments is not None:
        known |= {"frame_groups": merged.frame_groups, "frame_segments": merged.segments}
    return Signals(
        saliency=saliency,
        frame_features=frame_features,
        grid=video.grid,
        saliency_source=saliency_source,
        **known,
    )


def group_frames(values: NDArray[Any], temporal: int) -> NDArray[Any]:
    """Average over the frames of each temporal patch; the last frame is repeated to fill the last patch."""
    if temporal == 1:
        return values
    missing = -len(values) % temporal
    filled = np.concatenate((values, np.repeat(values[-1:], missing, axis=0)))
    means: NDArray[Any] = filled.reshape(-1, temporal, *values.shape[1:]).mean(axis=1)
    return means.astype(values.dtype)
