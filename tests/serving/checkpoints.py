"""Checkpoints of tiny random models with sharpened weights, as a server loads them: weights, tokenizer, processor.

vLLM's kernels take attention heads of at least 32, which the tiny architectures of the package do not have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from compress.models.inputs.random_weights import ByteTokenizer, build_random, configure

MODELS = ("qwen2.5-vl", "qwen3-vl", "qwen2-vl", "llava-onevision")
HEAD = 32
SPECIAL = (*ByteTokenizer.special, "<|image_pad|>", "<|video_pad|>")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{% if 'video' in c.type %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
HALF = [0.5, 0.5, 0.5]


def write_checkpoint(name: str, folder: Path, *, heads: int = 4, layers: int | None = None) -> Path:
    """Write a checkpoint and return its folder.

    Args:
        name: family.
        folder: created.
        heads: of the language model, which is 32 times as wide.
        layers: of the language model, None for those of the tiny configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = configure(f"{name}-tiny")
    _widen(config, heads)
    if layers is not None:
        config.text_config.num_hidden_layers = layers
        config.text_config.layer_types = ["full_attention"] * layers
    (folder / "config.json").write_text(config.to_json_string(use_diff=False))
    model = build_random(str(folder))
    _sharpen(model)
    model.config.architectures = [type(model).__name__]
    model.generation_config.pad_token_id = None
    model.save_pretrained(folder)
    if name == "llava-onevision":
        # as in the published checkpoints; vLLM knows no other name
        file = folder / "model.safetensors"
        weights = {
            key.replace("vision_tower.", "vision_tower.vision_model."): weight
            for key, weight in load_file(file).items()
        }
        save_file(weights, file, metadata={"format": "pt"})
    _processor(name, config, _tokenizer()).save_pretrained(folder)
    return folder


def _widen(config: Any, heads: int) -> None:
    """Give heads the size that vLLM's kernels take."""
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_attention_heads = heads * HEAD, 48 * heads, heads
    if hasattr(text, "head_dim"):
        text.head_dim = HEAD
    rope = text.rope_parameters
    if "mrope_section" in rope:
        rope["mrope_section"] = [6, 5, 5]
        if config.model_type == "qwen3_vl":
            rope["mrope_interleaved"] = True
    if config.model_type == "qwen2_vl":
        vision.embed_dim, vision.hidden_size = 2 * HEAD, text.hidden_size
        return
    vision.hidden_size, vision.intermediate_size = 2 * HEAD, 96
    if hasattr(vision, "out_hidden_size"):
        vision.out_hidden_size = text.hidden_size
    if config.model_type == "qwen2_5_vl":
        # else vLLM and transformers disagree about the positions in time
        vision.tokens_per_second = 1


def _sharpen(model: Any) -> None:
    """Make attention far from uniform, so that wrong positions and masks change answers."""
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if key.endswith(("q_proj.weight", "k_proj.weight", "attn.qkv.weight")):
                weight *= 6
            elif "embed_tokens" in key or "multi_modal_projector" in key or "patch_embed" in key:
                weight *= 5
            elif key.endswith("bias"):
                weight += torch.linspace(-0.3, 0.3, weight.numel()).view_as(weight)


def _tokenizer() -> Any:
    """Return the tokenizer of bytes, in the format of checkpoints; its ids are those of `ByteTokenizer`."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    vocabulary = {letter: ByteTokenizer.offset + byte for byte, letter in letters.items()}
    vocabulary |= {word: 2 + place for place, word in enumerate(SPECIAL)}
    plain = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    plain.decoder = decoders.ByteLevel()
    plain.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in SPECIAL])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain,
        pad_token="<|im_end|>",
        eos_token="<|im_end|>",
        extra_special_tokens={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
        },
    )


def _processor(name: str, config: Any, tokenizer: Any) -> Any:
    """Return the processor of transformers, which resizes nothing that is a multiple of the patches."""
    vision = config.vision_config
    if name == "llava-onevision":
        side = {"height": vision.image_size, "width": vision.image_size}
        options = {"size": side, "image_mean": HALF, "image_std": HALF}
        return transformers.LlavaOnevisionProcessor(
            image_processor=transformers.LlavaOnevisionImageProcessor(**options),
            tokenizer=tokenizer,
            video_processor=transformers.LlavaOnevisionVideoProcessor(**options),
            num_image_tokens=(vision.image_size // vision.patch_size) ** 2,
            vision_feature_select_strategy="full",
            image_token="<|image_pad|>",
            video_token="<|video_pad|>",
            chat_template=TEMPLATE,
        )
    mean, std = (HALF, HALF) if name == "qwen3-vl" else (MEAN, STD)
    options = {
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "merge_size": vision.spatial_merge_size,
        "size": {"shortest_edge": 64, "longest_edge": 10_000_000},
        "image_mean": mean,
        "image_std": std,
    }
    kinds = {
        "qwen2-vl": (transformers.Qwen2VLProcessor, transformers.Qwen2VLVideoProcessor),
        "qwen2.5-vl": (transformers.Qwen2_5_VLProcessor, transformers.Qwen2VLVideoProcessor),
        "qwen3-vl": (transformers.Qwen3VLProcessor, transformers.Qwen3VLVideoProcessor),
    }
    whole, video = kinds[name]
    return whole(
        image_processor=transformers.Qwen2VLImageProcessor(**options),
        tokenizer=tokenizer,
        video_processor=video(**options),
        chat_template=TEMPLATE,
    )
