"""Qwen3-VL, served compressed: time stamps between frames, and features of DeepStack that merge as tokens do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models.qwen3_vl import (
    Qwen3VLDummyInputsBuilder,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMultiModalProcessor,
    Qwen3VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.processing import PromptUpdateDetails

from codecmeta import VideoMeta
from compress.models.adapters.adapter import VideoGrid
from compress.models.session.signals import group_frames
from compress.serving.vllm.prompt_positions import PlacedItem, append_positions
from compress.serving.vllm.qwen import QwenModel, QwenProcessor, grid_of, grid_positions, layout_of
from compress.serving.vllm.version import check_version

check_version()


def write_frames(config: Any, tokenizer: Any, timestamps: Sequence[float], counts: Sequence[int]) -> list[int]:
    """Write the placeholders of a video: the time of each frame, and its tokens between two marks.

    Args:
        config: of the checkpoint.
        tokenizer: of the checkpoint.
        timestamps: of each frame, in seconds.
        counts: tokens of each frame.
    """
    written: PromptUpdateDetails = Qwen3VLMultiModalProcessor.get_video_repl(
        tokens_per_frame=list(counts),
        timestamps=timestamps,
        tokenizer=tokenizer,
        vision_start_token_id=config.vision_start_token_id,
        vision_end_token_id=config.vision_end_token_id,
        video_token_id=config.video_token_id,
    )
    return list(written.full)


class CompressQwen3VLProcessor(QwenProcessor, Qwen3VLMultiModalProcessor):
    """See `compress.serving.vllm.processors.CompressingProcessor`."""

    def set_times(self, fields: Any, index: int, meta: VideoMeta) -> None:
        """See `CompressingProcessor.set_times`: a frame's is written in front of it, to a tenth of a second."""
        seconds = group_frames(meta.frame_seconds - meta.frame_seconds[0], self.layout.temporal)
        fields["timestamps"][index] = seconds.tolist()

    def placeholders(self, item: Mapping[str, Any]) -> Any:
        """See `CompressingProcessor.placeholders`; which frame keeps how many tokens is not known yet."""
        grid = self.item_grid(item)
        counts = [self.count(grid)] + [0] * (grid[0] - 1)
        config = self.info.get_hf_config()
        # the model embeds time stamps too: their places follow from how many tokens each frame keeps
        return PromptUpdateDetails.from_seq(
            write_frames(config, self.info.get_tokenizer(), item["timestamps"].data, counts)
        )


@MULTIMODAL_REGISTRY.register_processor(
    CompressQwen3VLProcessor, info=Qwen3VLProcessingInfo, dummy_inputs=Qwen3VLDummyInputsBuilder
)
class CompressQwen3VLForConditionalGeneration(QwenModel, Qwen3VLForConditionalGeneration):
    """See `compress.serving.vllm.models.CompressingModel`."""

    def __init__(self, *, vllm_config: Any, prefix: str = "model") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.prepare(vllm_config, layout_of(self.config))
        self.tap_attention(self.visual.blocks[-1].attn.attn, self.visual.num_heads)

    def _postprocess_video_embeds_evs(self, video_embeds_split: Any, video_input: Any) -> Any:
        """Shorten videos, write the time stamps between what is left of their frames, and append positions."""
        rows = []
        for index, (tokens, size) in enumerate(zip(video_embeds_split, video_input["video_grid_thw"], strict=True)):
            grid, timestamps = grid_of(size), video_input["timestamps"][index]
            # the planes for DeepStack follow the columns that the language model sees
            compression = self.plan_video(tokens[:, : self.visual_dim], grid, index)
            rows.append(
                self._interleave(
                    compression.plan.apply(tokens),
                    compression.plan.keep.cpu(),
                    compression.frame_counts.tolist(),
                    grid,
                    timestamps,
                )
            )
        self._saliency = []
        return tuple(rows)

    def _interleave(
        self, tokens: Tensor, keep: Tensor, counts: Sequence[int], grid: VideoGrid, timestamps: Sequence[float]
    ) -> Tensor:
        """Put tokens between time stamps, with positions.

        Args:
            tokens: (V', D), what stays, with its planes.
            keep: int64 (V',), the tokens whose positions they take.
            counts: how many of them each frame has.
            grid: frames, rows and columns of patches.
            timestamps: of each frame, in seconds.
        """
        ids = torch.tensor(write_frames(self.config, self._tokenizer, timestamps, counts))
        is_video = ids == self.config.video_token_id
        rows = tokens.new_zeros(len(ids), tokens.shape[1])
        words = self.language_model.embed_input_ids(ids[~is_video].to(tokens.device))
        rows[(~is_video).to(tokens.device), : self.visual_dim] = words.to(tokens.dtype)
        rows[is_video.to(tokens.device)] = tokens
        whole, is_token = self._whole_positions(grid, timestamps)
        positions = torch.empty(3, len(ids), dtype=torch.int64)
        positions[:, is_video] = whole[:, is_token][:, keep]
        positions[:, ~is_video] = whole[:, ~is_token]
        return append_positions(rows, positions.to(tokens.device))

    def _whole_positions(self, grid: VideoGrid, timestamps: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Return positions (3, n) of the whole video with its time stamps, and which of them are tokens of it."""
        per_frame = (grid[1] // self.merge) * (grid[2] // self.merge)
        ids = torch.tensor(write_frames(self.config, self._tokenizer, timestamps, [per_frame] * grid[0]))
        is_token = ids == self.config.video_token_id
        frame = grid_positions((1, *grid[1:]), self.merge)
        extent = int(frame.amax()) + 1
        # positions of words count on; a frame takes as many as its longer side
        step = (~is_token).long()
        first = is_token & ~torch.cat((torch.zeros(1, dtype=torch.bool), is_token[:-1]))
        step[first] = extent
        after = step.cumsum(0)
        start = after - step
        positions = start.repeat(3, 1)
        begins = start[first].repeat_interleave(per_frame)
        positions[:, is_token] = begins + frame.repeat(1, grid[0])
        return positions, is_token

    def place_items(self, input_tokens: list[int], mm_features: Sequence[Any]) -> list[PlacedItem]:
        """See `CompressingModel.place_items`."""
        items = super().place_items(input_tokens, mm_features)
        videos = {one.mm_position.offset: one.data for one in mm_features if one.modality == "video"}
        for index, item in enumerate(items):
            if item.offset in videos:
                fields = videos[item.offset]
                whole, _ = self._whole_positions(grid_of(fields["video_grid_thw"].data), fields["timestamps"].data)
                items[index] = PlacedItem(offset=item.offset, length=item.length, extent=int(whole.amax()) + 1)
        return items
