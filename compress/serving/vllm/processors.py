"""Front end of a served model: placeholders of shortened videos, and signals of their codec metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from vllm.multimodal.hasher import MultiModalHasher
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import MultiModalDataItems, VideoProcessorItems
from vllm.multimodal.processing import PromptReplacement

from codecmeta import CodecMetaError, VideoMeta
from compress.errors import SignalError
from compress.models.adapters.adapter import TokenLayout, VideoGrid
from compress.models.session.session import signals_read
from compress.serving.vllm import codec
from compress.serving.vllm.codec import CodecSignals
from compress.serving.vllm.metrics import VideoCounters
from compress.serving.vllm.planning import LOG
from compress.serving.vllm.settings import KEY, ServedMethod


class CompressingProcessor:
    """Mixin of vLLM's processors, before the model's own class.

    A subclass gives the grid of a video (`video_grid`, `item_grid`), the layout of its tokens (`layout`) and its
    placeholders in a prompt (`placeholders`).
    """

    info: Any

    @cached_property
    def served(self) -> ServedMethod:
        """The served method, from the configuration of the server."""
        context = self.info.ctx
        return ServedMethod.parse(
            getattr(context.model_config.hf_config, KEY, None), context.get_mm_config().video_pruning_rate
        )

    @cached_property
    def layout(self) -> TokenLayout:
        """Layout of the model's tokens."""
        raise NotImplementedError

    def video_grid(self, fields: Mapping[str, Any], index: int) -> VideoGrid:
        """Return frames, rows and columns of a video's patches.

        Args:
            fields: output of the model's own processor.
            index: of the video.
        """
        raise NotImplementedError

    def placeholders(self, item: Mapping[str, Any]) -> Any:
        """Return the placeholders of a shortened video in a prompt.

        Args:
            item: its fields.
        """
        raise NotImplementedError

    def per_frame(self, grid: VideoGrid) -> int:
        """Count the tokens of a frame."""
        return self.layout.pool(torch.empty(1, *grid[1:], device="meta")).shape[1]

    def count(self, grid: VideoGrid) -> int:
        """Count the tokens that leave of a video."""
        return self.served.count(grid[0], self.per_frame(grid))

    def kept(self, placeholders: Sequence[int]) -> int:
        """Count the tokens of a shortened video among the ids that its placeholders have in a prompt."""
        return list(placeholders).count(self.info.get_hf_config().video_token_id)

    def item_grid(self, item: Mapping[str, Any]) -> VideoGrid:
        """Return frames, rows and columns of a video's patches by its fields."""
        raise NotImplementedError

    @cached_property
    def _counters(self) -> VideoCounters:
        return VideoCounters()

    def apply(self, inputs: Any, timing_ctx: Any) -> Any:
        """Process a request, and count its videos and their tokens."""
        plain: Any = super()
        made = plain.apply(inputs, timing_ctx)
        if made["mm_placeholders"].get("video"):
            columns = (made[name]["video"] for name in ("mm_hashes", "mm_kwargs", "mm_placeholders"))
            for key, item, place in zip(*columns, strict=True):
                encoded = None
                if item is not None:
                    grid = self.item_grid(item)
                    encoded = grid[0] * self.per_frame(grid)
                written = made["prompt_token_ids"][place.offset : place.offset + place.length]
                self._counters.count(key, kept=self.kept(written), encoded=encoded)
        return made

    def _get_mm_hashes(self, inputs: Any) -> dict[str, Any]:
        """Add the method's settings to vLLM's keys of videos, which hold their codec metadata already."""
        plain: Any = super()
        hashes = dict(plain._get_mm_hashes(inputs))
        if "video" in hashes:
            algorithm = self.info.ctx.get_mm_config().mm_hasher_algorithm
            hashes["video"] = [
                MultiModalHasher.hash_kwargs(algorithm, video=one, compress=self.served.key) for one in hashes["video"]
            ]
        return hashes

    def _get_hf_mm_inputs(self, mm_items: Any, hf_kwargs: Mapping[str, object]) -> Any:
        """Leave out what transformers' processor does not know."""
        plain: Any = super()
        return plain._get_hf_mm_inputs(_without_codec(mm_items), hf_kwargs)

    def _apply_hf_processor_main(self, mm_items: Any, hf_kwargs: Mapping[str, object]) -> Any:
        """Add the signals of each video's codec to the processed fields."""
        plain: Any = super()
        fields = plain._apply_hf_processor_main(mm_items, hf_kwargs)
        videos = mm_items.get("video")
        if isinstance(videos, VideoProcessorItems) and len(videos):
            measured = []
            for index in range(len(videos)):
                video = videos.get(index)
                meta = _record(video)
                measured.append(self._measure(video, meta, self.video_grid(fields, index)))
                if meta is not None:
                    self.set_times(fields, index, meta)
            for name, column in zip(codec.FIELDS, zip(*measured, strict=True), strict=True):
                fields[name] = list(column)
        return fields

    def _measure(self, video: Any, meta: VideoMeta | None, grid: VideoGrid) -> tuple[torch.Tensor, ...]:
        """Measure what the method reads of a video's metadata.

        Raises:
            ValueError: the metadata is that of another video, or lacks what the method needs.
        """
        pixels = _pixels(video[0] if isinstance(video, tuple) else video)
        compressor, choice = self.served.compressor, self.served.map
        reads, merges = signals_read(compressor), self.served.rpm is not None
        if meta is None and (merges or {"packet_size", "density"}.intersection(reads)):
            LOG.info("compress: a video has no codec metadata; frames count equally, and density is their texture")
        try:
            if meta is None:
                if not merges and "density" not in reads:
                    return CodecSignals.absent()
                meta, choice = codec.describe_frames(pixels), "auto"
            return CodecSignals.measure(
                meta,
                self.layout,
                grid,
                reads=reads,
                gop=getattr(compressor, "gop", "mean"),
                choice=choice,
                pixels=pixels,
                merges=merges,
            ).tensors()
        except (SignalError, CodecMetaError) as error:
            # of these errors, only a ValueError is answered as one of the request (400)
            raise ValueError(str(error)) from error

    def set_times(self, fields: Any, index: int, meta: VideoMeta) -> None:
        """Set times that the model reads from the record, which knows them exactly.

        Args:
            fields: output of the model's own processor.
            index: of the video.
            meta: its record.
        """

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Mapping[str, object]) -> dict[str, Any]:
        """Declare the signals as fields of each video."""
        plain: Any = super()
        configured = dict(plain._get_mm_fields_config(hf_inputs, hf_processor_mm_kwargs))
        return configured | {name: MultiModalFieldConfig.batched("video", keep_on_cpu=True) for name in codec.FIELDS}

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, Any], out_mm_kwargs: Any
    ) -> Sequence[Any]:
        """Replace videos by as many placeholders as tokens leave."""
        plain: Any = super()
        return [
            PromptReplacement(
                modality="video",
                target=update.target,
                replacement=lambda index: self.placeholders(out_mm_kwargs["video"][index]),
            )
            if update.modality == "video"
            else update
            for update in plain._get_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)
        ]


def _record(video: Any) -> VideoMeta | None:
    """Return the record of a request's video; None without one."""
    metadata = video[1] if isinstance(video, tuple) else None
    value = (metadata or {}).get(codec.KEY)
    return None if value is None else codec.decode_record(value)


def _pixels(frames: Any) -> NDArray[np.uint8] | None:
    """Return frames as uint8 (T, h, w, 3); None where they are something else."""
    array = np.asarray(frames)
    dimensions, channels = 4, 3
    if array.ndim != dimensions or array.shape[-1] != channels or not np.issubdtype(array.dtype, np.integer):
        return None
    return array.astype(np.uint8, copy=False)


def _without_codec(mm_items: Any) -> Any:
    """Return the items of a request with videos whose metadata lacks the codec's."""
    videos = mm_items.get("video")
    if not isinstance(videos, VideoProcessorItems):
        return mm_items

    def bare(metadata: Mapping[str, Any] | None) -> dict[str, Any] | None:
        return None if metadata is None else {name: one for name, one in metadata.items() if name != codec.KEY}

    data = [(one[0], bare(one[1])) if isinstance(one, tuple) else one for one in videos.data]
    return MultiModalDataItems({**mm_items, "video": VideoProcessorItems(data, metadata=videos.metadata)})


class KeepsMetadata:
    """Mixin of request parsers, before the model's own class, which would drop the metadata of videos."""

    def _get_video_with_metadata(self, video: Any) -> tuple[Any, dict[str, Any]]:
        """Return frames and metadata, empty where a video has none."""
        plain: Any = super()
        frames, metadata = plain._get_video_with_metadata(video)
        return frames, {} if metadata is None else metadata


class PlainVideos:
    """Mixin of processors, after `CompressingProcessor`: transformers receives frames only."""

    def _get_hf_mm_inputs(self, mm_items: Any, hf_kwargs: Mapping[str, object]) -> Any:
        """Leave out the metadata of videos."""
        plain: Any = super()
        inputs = plain._get_hf_mm_inputs(mm_items, hf_kwargs)
        if videos := inputs.hf_data.get("videos"):
            inputs.hf_data["videos"] = [one[0] if isinstance(one, tuple) else one for one in videos]
        return inputs
