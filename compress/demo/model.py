"""Demo model: its configuration, and its weights from the folder that ships with the package."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch

from compress.demo.tokenizer import WordTokenizer
from compress.errors import ConfigError

WEIGHTS: Final = Path(__file__).parent / "weights"
"""config.json, vocab.json, model.safetensors (fp16) and training.json."""

SIDE: Final = 112
PATCH: Final = 8
GRID: Final = SIDE // PATCH // 2
"""Tokens per side of a frame, after pooling."""


THETA: Final = 1000.0
"""Base of the rotary positions, low enough that most of them turn within a clip's 800 tokens."""


def build(words: Sequence[str], *, theta: float = THETA) -> Any:
    """Build the model with random weights, float32, in evaluation mode.

    Args:
        words: the vocabulary, see `WordTokenizer`.
        theta: base of the rotary positions.
    """
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    config = LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": PATCH,
            "vision_use_head": False,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": 8 * -(-len(words) // 8),
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": True,
            "initializer_range": 0.04,
            "rope_parameters": {"rope_type": "default", "rope_theta": theta},
            "bos_token_id": words.index("<bos>"),
            "eos_token_id": words.index("<eos>"),
            "pad_token_id": words.index("<pad>"),
        },
        video_token_id=words.index("<video>"),
        image_token_id=words.index("<pad>"),
        video_token_index=words.index("<video>"),
        image_token_index=words.index("<pad>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )
    model = LlavaOnevisionForConditionalGeneration._from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    model.generation_config.eos_token_id = words.index("<eos>")
    model.generation_config.pad_token_id = words.index("<pad>")
    return model.eval()


def load(
    folder: str | os.PathLike[str] | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[Any, WordTokenizer]:
    """Load the trained model and its tokenizer.

    Args:
        folder: with the weights; None for those of the package.
        device: where to put it.
        dtype: of the weights.

    Raises:
        ConfigError: the folder does not hold them.
    """
    from transformers import LlavaOnevisionForConditionalGeneration
    from transformers.utils import logging

    root = WEIGHTS if folder is None else Path(folder)
    told = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        words = json.loads((root / "vocab.json").read_text())
        model = LlavaOnevisionForConditionalGeneration.from_pretrained(
            root, dtype=dtype, attn_implementation="sdpa", local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"{root} does not hold the demo model: {error}") from error
    finally:
        if told:
            logging.enable_progress_bar()
    return model.to(device).eval(), WordTokenizer(words)
