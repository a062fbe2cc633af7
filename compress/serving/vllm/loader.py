"""Loader of videos, registered with vLLM as ``codecmeta``: frames and codec metadata from the bytes of a request.

    --media-io-kwargs '{"video": {"video_backend": "codecmeta", "sampling": "qwen2_vl"}}'

It chooses frames as one of vLLM's own loaders does, by that loader's code.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from vllm import envs
from vllm.multimodal.video import VIDEO_LOADER_REGISTRY, VideoLoader
from vllm.multimodal.video_decoders import VideoSourceMetadata, VideoTargetMetadata

from codecmeta import CodecMetaError, Limits
from compress.serving.vllm.codec import describe_video
from compress.serving.vllm.request_video import NATIVE_PIXELS, describe_reading, list_shortfalls, read_video
from compress.serving.vllm.video_options import LOADER, check_options

LOG = logging.getLogger("vllm.compress")


class CodecMetaVideoLoader(VideoLoader):
    """See the module."""

    @classmethod
    def load_bytes(
        cls,
        data: bytes,
        num_frames: int = -1,
        *,
        sampling: str | None = None,
        pixels: int = NATIVE_PIXELS,
        **options: Any,
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Read a video.

        Args:
            data: all bytes of the file.
            num_frames: frames to take, where the rule reads it; -1 for all.
            sampling: loader of vLLM whose rule chooses the frames, see `video_options.SAMPLINGS`; the architectures of
                `families` set that of the model.
            pixels: largest short side of the frames.
            options: further options that the rule reads.

        Returns:
            Frames, uint8 (T, h, w, 3), and the metadata that vLLM keeps with them.

        Raises:
            ValueError: the video cannot be read, or an option is not allowed; vLLM answers such requests with 400.
        """
        check_options({"sampling": sampling, "pixels": pixels, "num_frames": num_frames, **options})
        family = VIDEO_LOADER_REGISTRY.load(cast("str", sampling))
        fps = options.pop("fps", None)
        target = VideoTargetMetadata(
            num_frames=num_frames, fps=_default_fps(family) if fps is None else fps, max_duration=0
        )

        def sample(count: int, rate: float, duration: float) -> Sequence[int]:
            source = family._prepare_source(VideoSourceMetadata(count, rate, duration))
            indices: list[int] = family.compute_frames_index_to_sample(source=source, target=target, **options)
            return indices

        try:
            meta = read_video(data, sample, pixels=pixels, limits=_limits())
        except CodecMetaError as error:
            raise ValueError(f"the video cannot be read: {error}") from error
        LOG.info("video: %s", describe_reading(meta))
        if shortfalls := list_shortfalls(meta):
            LOG.warning("video: %s", "; ".join(shortfalls))
        return cast("NDArray[np.uint8]", meta.frames), describe_video(meta)


_MOST_FRAMES = 1 << 22
"""Frames of a day at 48 frames per second: an index of more, in a request of megabytes, would take gigabytes."""


def _default_fps(family: VideoLoader) -> float:
    """Return the frames per second that a loader takes unless it is asked for others."""
    return float(inspect.signature(family.load_bytes).parameters["fps"].default)


def _limits() -> Limits:
    """Return the limits for the video of a request: pictures no larger than vLLM allows, frames of a day at most."""
    pixels = int(envs.VLLM_MAX_IMAGE_PIXELS)
    return Limits(frames=_MOST_FRAMES, pixels=min(pixels, Limits().pixels) if pixels > 0 else Limits().pixels)


def register_loader() -> None:
    """Register the loader with vLLM."""
    VIDEO_LOADER_REGISTRY.register(LOADER)(CodecMetaVideoLoader)
