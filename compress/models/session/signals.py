"""What a method may know about a video inside a model, gathered from its metadata and the vision encoder."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.errors import SignalError
from compress.models.adapters.adapter import Adapter, VideoGrid, VideoTokens
from compress.stage import Signals
from compress.video import MapChoice, choose_map, explain_skipping

if TYPE_CHECKING:
    from codecmeta import VideoMeta


class MetaSignals:
    """The signals of one video's metadata on the grids of a model.

    Attributes:
        meta: the metadata.
        adapter: of the model.
        residual: the map of its density; None where there are no residuals or none are wanted, so that tokens go by
            texture and nothing merges before the encoder.
        skipped: why nothing merges before the encoder, where `residual` is None.
    """

    def __init__(self, meta: VideoMeta, adapter: Adapter, choice: MapChoice) -> None:
        self.meta = meta
        self.adapter = adapter
        self.residual = choose_map(meta, choice)
        self.skipped = explain_skipping(choice)
        self._density: dict[tuple[int, int], NDArray[np.float32]] = {}

    @property
    def frames(self) -> int:
        """Encoder frames of this video: sampled frames over the temporal patch, rounded up."""
        return -(-len(self.meta.frame_pts) // self.adapter.temporal)

    @property
    def density_source(self) -> str:
        """Where the density comes from."""
        return self.residual or "texture"

    def check_frames(self, frames: int) -> None:
        """Raise SignalError unless the video was sampled with as many frames as the model sees."""
        if frames != self.frames:
            raise SignalError(
                f"the model sees {frames} frames of {self.meta.info['source']['name']}, the metadata has "
                f"{self.frames} (of {len(self.meta.frame_pts)} sampled ones); give the model the frames of the "
                "metadata, for example by compress.models.inputs.prompt.prepare"
            )

    def density(self, grid: VideoGrid) -> NDArray[np.float32]:
        """Density of the patches of a grid, float32 (T, rows, cols).

        Raises:
            SignalError: the video was sampled with another number of frames.
        """
        frames, rows, cols = grid
        self.check_frames(frames)
        if (rows, cols) not in self._density:
            single = _measure(self.meta, self.residual or "texture", (rows, cols), self.adapter.covered)
            self._density[rows, cols] = group_frames(single, self.adapter.temporal)
        return self._density[rows, cols]

    def packet_size(self, kind: Any) -> NDArray[np.float64]:
        """Complexity of each encoder frame, float64 (T,)."""
        return group_frames(self.meta.gop_packet_size(kind=kind), self.adapter.temporal)

    def of_tokens(self, video: VideoTokens) -> NDArray[np.float32]:
        """Density of a video's tokens, float32 (T, N): pooled from the patches' as the model pools features."""
        pooled = self.adapter.pool(torch.from_numpy(self.density((video.frames, *video.patches))))
        return pooled.reshape(video.frames, -1).numpy()


def gather_signals(
    video: VideoTokens,
    meta: MetaSignals | None,
    *,
    reads: Collection[str],
    gop: Any,
    saliency: Tensor | None,
    frame_features: Tensor | None,
    saliency_source: str,
) -> Signals:
    """The signals of one video.

    Args:
        video: its tokens.
        meta: its metadata, if any.
        reads: names of the signals that the method reads.
        gop: what stands for a frame's complexity.
        saliency: (T, N), if measured.
        frame_features: (T, D), if measured.
        saliency_source: where the saliency comes from.
    """
    known: dict[str, Any] = {}
    if meta is not None:
        meta.check_frames(video.frames)
        if "packet_size" in reads:
            known["packet_size"] = meta.packet_size(gop)
        if "density" in reads:
            known["density"] = meta.of_tokens(video)
    return Signals(
        saliency=saliency,
        frame_features=frame_features,
        grid=video.grid,
        saliency_source=saliency_source,
        **known,
    )


def group_frames(values: NDArray[Any], temporal: int) -> NDArray[Any]:
    """Means over the frames of each temporal patch; the last frame is repeated to fill the last patch."""
    if temporal == 1:
        return values
    missing = -len(values) % temporal
    filled = np.concatenate((values, np.repeat(values[-1:], missing, axis=0)))
    means: NDArray[Any] = filled.reshape(-1, temporal, *values.shape[1:]).mean(axis=1)
    return means.astype(values.dtype)


def _measure(meta: VideoMeta, name: Any, grid: tuple[int, int], covered: float) -> NDArray[np.float32]:
    """Density of single frames on a patch grid that covers a share of the picture, from its upper left corner."""
    if name == "texture" and meta.frames is None:
        source = meta.info["source"]["name"]
        raise SignalError(
            f"there are neither residuals nor cached frames of {source}; "
            f"run: codecmeta extract PATH/{source} --out META --pixels 384 --overwrite"
        )
    width, height = meta.display_size
    return meta.density(grid, (0.0, 0.0, width * covered, height * covered), map=name)
