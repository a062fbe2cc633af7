"""Worker side of a served model: videos are shortened as they leave the vision encoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary
from vllm.utils.gpu_sync_debug import gpu_sync_allowed

from compress.errors import ConfigError
from compress.models.adapters.adapter import TokenLayout, VideoGrid
from compress.serving.vllm import codec
from compress.serving.vllm.attention import AttentionTap
from compress.serving.vllm.codec import CodecSignals
from compress.serving.vllm.families import PREFIX, check_patch_merging, find
from compress.serving.vllm.planning import MergedPatches, VideoPlanner
from compress.serving.vllm.prompt_positions import PlacedItem, PromptLayout, lay_out, take_positions
from compress.serving.vllm.settings import KEY, ServedMethod
from compress.stage import Compression


class CompressingModel:
    """Mixin of vLLM's models, before the model's own class.

    A subclass calls `prepare` in its constructor, embeds inside `arriving`, and places the images and videos of a
    prompt (`place_items`).
    """

    def prepare(self, vllm_config: Any, layout: TokenLayout) -> None:
        """Read the served method from the configuration of the engine.

        Raises:
            ConfigError: it cannot be served, or the engine runs in a way that is not supported.
        """
        check_engine(vllm_config)
        config = vllm_config.model_config
        served = ServedMethod.parse(
            getattr(config.hf_config, KEY, None), config.get_multimodal_config().video_pruning_rate
        )
        self.planner = VideoPlanner(served, layout)
        self.tap: AttentionTap | None = None
        self._layouts: Any = WeakTensorKeyDictionary()
        if served.rpm is not None:
            check_patch_merging(find(type(self).__name__.removeprefix(PREFIX)))
        self._codecs: list[CodecSignals | None] = []
        self._saliency: list[Tensor] = []
        self._merged: MergedPatches | None = None

    def tap_attention(self, attention: torch.nn.Module, heads: int) -> None:
        """Tap the attention of the encoder's block whose attention is the saliency, if the method reads it."""
        if self.planner.wants_saliency:
            self.tap = AttentionTap(attention, heads=heads)

    @contextmanager
    def arriving(self, fields: Mapping[str, Any]) -> Iterator[None]:
        """Hold the codec signals of a batch of videos while it is embedded.

        Args:
            fields: of the batch, those of `codec.FIELDS` among them.
        """
        self._saliency, self._merged, self._codecs = [], None, []
        columns = [fields.get(name) for name in codec.FIELDS]
        if all(column is not None for column in columns):
            self._codecs = [CodecSignals.read(self.planner.layout, *row) for row in zip(*columns, strict=True)]
        try:
            yield
        finally:
            self._saliency, self._merged, self._codecs = [], None, []

    def codec_of(self, index: int) -> CodecSignals | None:
        """Return the codec signals of a video of the batch; None without any."""
        return self._codecs[index] if self._codecs else None

    def plan_tokens(
        self, tokens: Tensor, grid: VideoGrid, token_grid: tuple[int, int], saliency: Tensor | None, index: int
    ) -> Compression:
        """Plan over the tokens of a video of the batch."""
        with gpu_sync_allowed():
            return self.planner.plan(
                tokens,
                grid,
                token_grid=token_grid,
                saliency=saliency,
                codec=self.codec_of(index),
                patches=None if self._merged is None else self._merged.compressions[index],
            )

    def place_items(self, input_tokens: list[int], mm_features: Sequence[Any]) -> list[PlacedItem]:
        """Return the images and videos of a prompt, in order."""
        raise NotImplementedError

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[Tensor, int]:
        """Return positions int64 (3, n) of a prompt, final except those of video tokens, and their delta."""
        positions, layout = lay_out(len(input_tokens), self.place_items(input_tokens, mm_features))
        self._layouts[positions] = layout
        return positions, layout.delta

    def recompute_mrope_positions(
        self,
        input_ids: list[int] | Tensor,
        multimodal_embeddings: Sequence[Tensor],
        mrope_positions: Tensor,
        num_computed_tokens: int,
    ) -> tuple[Sequence[Tensor], Tensor, int]:
        """Move the positions of video tokens from their embeddings into those of the prompt."""
        layout: PromptLayout | None = self._layouts.get(mrope_positions)
        if layout is None:
            raise ConfigError(
                "vLLM copied the positions of a prompt, so that those of its videos are unknown; this engine is not "
                "supported"
            )
        with gpu_sync_allowed():
            bare = take_positions(layout, mrope_positions, multimodal_embeddings, num_computed_tokens)
        return bare, mrope_positions, layout.delta


def check_engine(vllm_config: Any) -> None:
    """Raise ConfigError for engines in which shortened videos were not tried, or go wrong."""
    parallel = vllm_config.parallel_config
    reasons = {
        "tensor parallelism, in which every rank would plan by itself": parallel.tensor_parallel_size > 1,
        "pipeline parallelism": parallel.pipeline_parallel_size > 1,
        "speculative decoding": vllm_config.speculative_config is not None,
        "LoRA": vllm_config.lora_config is not None,
        "the V2 model runner (set VLLM_USE_V2_MODEL_RUNNER=0)": vllm_config.use_v2_model_runner,
        "a compiled vision encoder (compile_mm_encoder)": vllm_config.compilation_config.compile_mm_encoder,
    }
    if found := [reason for reason, given in reasons.items() if given]:
        raise ConfigError(f"compress serves no engine with {'; '.join(found)}")
