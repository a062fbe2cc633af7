"""Architectures with random weights, for timing, for tests and for trials without a download."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from compress.errors import ConfigError, on_one_line

QWEN2_SIZES: Final[Mapping[str, dict[str, Any]]] = {
    "tiny": {
        "vocab_size": 400,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "mid": {
        "vocab_size": 8000,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
    },
    "0.5b": {
        "vocab_size": 152000,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "7b": {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
    "72b": {
        "vocab_size": 152064,
        "hidden_size": 8192,
        "intermediate_size": 29568,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
    },
}
"""Decoders, without what differs between the families."""

SIGLIP_SIZES: Final[Mapping[str, dict[str, Any]]] = {
    "tiny": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 72,
        "patch_size": 14,
    },
    "mid": {
        "hidden_size": 288,
        "intermediate_size": 1076,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": 384,
        "patch_size": 14,
    },
    "so400m": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 26,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    },
}

CONTEXT: Final = 32768
TOKENS: Final = {"image_token_id": 6, "video_token_id": 7}
VISION_TOKENS: Final = {"vision_start_token_id": 4, "vision_end_token_id": 5, **TOKENS}
TINY_QWEN_VISION: Final = {
    "depth": 2,
    "num_heads": 2,
    "patch_size": 4,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
}


def names() -> tuple[str, ...]:
    """List the architectures that are known by name."""
    return tuple(_CONFIGS)


def configure(config: str) -> Any:
    """Read the configuration of an architecture.

    Args:
        config: a name of `names`, a ``config.json`` of the Hugging Face layout or a folder with one. A configuration
            with ``"model_type": "llava_video"`` is LLaVA-Video in LLaVA-OneVision's fields.

    Raises:
        ConfigError: the name or file is unknown, or its model has no adapter.
    """
    if config in _CONFIGS:
        return _CONFIGS[config]()
    path = Path(config)
    file = path / "config.json" if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise ConfigError(f"the folder {config!r} has no config.json; give the file, or a folder that holds one")
    if not file.is_file():
        raise ConfigError(f"unknown architecture {config!r}; give a config.json, or choose from {', '.join(names())}")
    from transformers import AutoConfig, LlavaOnevisionConfig

    try:
        fields = json.loads(file.read_text())
        if not isinstance(fields, dict):
            raise ValueError("it is not a JSON object")
        if fields.get("model_type") == "llava_video":
            fields.pop("model_type")
            return _as_llava_video(LlavaOnevisionConfig.from_dict(fields))
        made = AutoConfig.from_pretrained(file)
    except Exception as error:  # checks of fields raise errors of any type
        raise ConfigError(
            f"{file} is not a configuration that transformers can read: {type(error).__name__}: {on_one_line(error)}"
        ) from error
    # where the checkpoint's settings of pixels are, if any; a file's own path would be taken for a repository
    made.name_or_path = str(file.parent)
    return made


def build_random(
    config: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    attention: str = "sdpa",
    seed: int = 0,
) -> Any:
    """Build a model with random weights, in evaluation mode, the same for the same seed.

    Args:
        config: see `configure`.
        dtype: of the weights; rotary frequencies stay in float32.
        device: where to build it.
        attention: name of the attention kernel.
        seed: of the weights.

    Raises:
        ConfigError: see `configure`, or the configuration cannot be built.
    """
    made = configure(config)
    kind = _model_class(made)
    with torch.random.fork_rng(devices=[device] if torch.device(device).type == "cuda" else []):
        torch.manual_seed(seed)
        try:
            with torch.device(device):
                model = kind._from_config(made, dtype=dtype, attn_implementation=attention)
        except Exception as error:  # sizes that do not go together fail wherever they meet
            raise ConfigError(f"{config!r} cannot be built: {type(error).__name__}: {on_one_line(error)}") from error
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model.eval()


class ByteTokenizer:
    """Text as bytes, for models without weights, whose words mean nothing.

    Attributes:
        eos_token_id: none: generation stops at its length.
        size: ids that a model must know.
    """

    eos_token_id = None
    offset = 16
    size = offset + 256
    special = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Return one id per byte, past the special ones; ``special`` begin at id 2."""
        ids: list[int] = []
        for piece in re.split("(" + "|".join(map(re.escape, self.special)) + ")", text):
            if piece in self.special:
                ids.append(2 + self.special.index(piece))
            else:
                ids += [byte + self.offset for byte in piece.encode()]
        return ids

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """Return the text of ids; those that stand for no byte are left out."""
        kept = bytes(int(one) - self.offset for one in ids if 0 <= int(one) - self.offset < 256)
        return kept.decode(errors="replace")


def _model_class(config: Any) -> Any:
    import transformers

    if getattr(config, "video_layout", None) == "llava_video":
        from compress.models.adapters.llava_video import LlavaVideoForConditionalGeneration

        return LlavaVideoForConditionalGeneration
    classes = {
        "llava_onevision": transformers.LlavaOnevisionForConditionalGeneration,
        "qwen2_vl": transformers.Qwen2VLForConditionalGeneration,
        "qwen2_5_vl": transformers.Qwen2_5_VLForConditionalGeneration,
        "qwen3_vl": transformers.Qwen3VLForConditionalGeneration,
    }
    if config.model_type not in classes:
        raise ConfigError(f"unknown model_type {config.model_type!r}; choose from {', '.join(classes)}")
    return classes[config.model_type]


def _as_llava_video(config: Any) -> Any:
    config.video_layout = "llava_video"
    return config


def _llava(size: str, tower: str) -> Any:
    from transformers import LlavaOnevisionConfig

    text = {"model_type": "qwen2", "max_position_embeddings": CONTEXT, **QWEN2_SIZES[size]}
    tokens = TOKENS if size in ("tiny", "mid") else {"image_token_id": 151646, "video_token_id": 151647}
    return LlavaOnevisionConfig(
        text_config={**text, "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}},
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **SIGLIP_SIZES[tower]},
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=bool(text.get("tie_word_embeddings")),
        image_token_index=tokens["image_token_id"],
        video_token_index=tokens["video_token_id"],
        **tokens,
    )


def _qwen2_vl(size: str) -> Any:
    from transformers import Qwen2VLConfig

    tiny = size == "tiny"
    return Qwen2VLConfig(
        text_config=_qwen_text(size, [4, 2, 2] if tiny else [16, 24, 24]),
        vision_config={"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2, **TINY_QWEN_VISION}
        if tiny
        else {"embed_dim": 1280, "hidden_size": QWEN2_SIZES[size]["hidden_size"], "depth": 32, "num_heads": 16},
        **(VISION_TOKENS if tiny else {}),
    )


def _qwen2_5_vl() -> Any:
    from transformers import Qwen2_5_VLConfig

    vision = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 64, "window_size": 16}
    return Qwen2_5_VLConfig(
        text_config=_qwen_text("tiny", [4, 2, 2]),
        vision_config={**TINY_QWEN_VISION, **vision, "fullatt_block_indexes": [1], "in_chans": 3},
        **VISION_TOKENS,
    )


def _qwen3_vl() -> Any:
    from transformers import Qwen3VLConfig

    vision = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 64, "num_position_embeddings": 64}
    return Qwen3VLConfig(
        text_config={**_qwen_text("tiny", [4, 2, 2]), "head_dim": 16},
        vision_config={**TINY_QWEN_VISION, **vision, "deepstack_visual_indexes": [0, 1]},
        **VISION_TOKENS,
    )


def _qwen_text(size: str, section: list[int]) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": section}
    tokens = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
    return {**QWEN2_SIZES[size], "max_position_embeddings": CONTEXT, "rope_parameters": rope, **tokens}


_CONFIGS: Final[Mapping[str, Callable[[], Any]]] = {
    "llava-onevision-tiny": lambda: _llava("tiny", "tiny"),
    "llava-onevision-mid": lambda: _llava("mid", "mid"),
    "llava-onevision-0.5b": lambda: _llava("0.5b", "so400m"),
    "llava-onevision-7b": lambda: _llava("7b", "so400m"),
    "llava-onevision-72b": lambda: _llava("72b", "so400m"),
    "llava-video-tiny": lambda: _as_llava_video(_llava("tiny", "tiny")),
    "llava-video-7b": lambda: _as_llava_video(_llava("7b", "so400m")),
    "llava-video-72b": lambda: _as_llava_video(_llava("72b", "so400m")),
    "qwen2-vl-tiny": lambda: _qwen2_vl("tiny"),
    "qwen2-vl-7b": lambda: _qwen2_vl("7b"),
    "qwen2.5-vl-tiny": _qwen2_5_vl,
    "qwen3-vl-tiny": _qwen3_vl,
}
