"""Models from checkpoints: those of Hugging Face, and LLaVA-Video's in the layout of LLaVA-NeXT."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from compress.errors import ConfigError, on_one_line
from compress.models.inputs.random_weights import SIGLIP_SIZES

RENAMED: Final = (
    (r"^model\.vision_tower\.vision_tower\.vision_model\.", "model.vision_tower."),
    (r"^model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
    (r"^model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
    (r"^model\.(layers|embed_tokens|norm)\b", r"model.language_model.\1"),
)
"""Patterns of LLaVA-NeXT's weight names, and what transformers calls them."""

VIDEO_TOKEN: Final = 151647
IMAGE_TOKEN: Final = 151646
"""Ids beyond the words of Qwen2's tokenizer that stand for pictures; LLaVA-NeXT marks them outside the vocabulary."""

TEXT_FIELDS: Final = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "vocab_size",
    "bos_token_id",
    "eos_token_id",
)


def load_model(
    name: str, *, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu", attention: str = "sdpa"
) -> Any:
    """Load a supported model from a checkpoint, in evaluation mode.

    Args:
        name: of a Hugging Face repository, or a folder.
        dtype: of the weights.
        device: where to put it.
        attention: name of the attention kernel.

    Raises:
        ConfigError: the checkpoint cannot be read, or its model has no adapter.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText
    from transformers.utils import cached_file

    try:
        file = cached_file(name, "config.json")
        if file is None:
            raise OSError("it has no config.json")
        fields = json.loads(Path(file).read_text())
        if "mm_projector_type" in fields:
            return load_llava_next(Path(file).parent, dtype=dtype, device=device, attention=attention)
        config = AutoConfig.from_pretrained(name)
        model = AutoModelForImageTextToText.from_pretrained(
            name, config=config, dtype=dtype, attn_implementation=attention
        )
    except Exception as error:  # checks of fields and of weights raise errors of any type
        raise ConfigError(f"{name!r} cannot be loaded: {type(error).__name__}: {on_one_line(error)}") from error
    return model.to(device).eval()


def load_llava_next(
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    attention: str = "sdpa",
) -> Any:
    """Load LLaVA-Video from a checkpoint in the layout of LLaVA-NeXT.

    The tower's last layer and its head are left out, as its original code does not use them.

    Args:
        folder: with config.json and safetensors files.
        dtype: of the weights.
        device: where to put it.
        attention: name of the attention kernel.

    Raises:
        ConfigError: the folder does not hold such a checkpoint, or weights are missing or left over.
    """
    from compress.models.adapters.llava_video import LlavaVideoForConditionalGeneration

    root = Path(folder)
    try:
        fields = json.loads((root / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{root} has no readable config.json: {error}") from error
    config = llava_video_config(fields)
    config._name_or_path = str(root)
    with torch.device("meta"):
        model = LlavaVideoForConditionalGeneration._from_config(config, dtype=dtype, attn_implementation=attention)
    depth = config.vision_config.num_hidden_layers
    weights = {name: tensor.to(dtype) for name, tensor in _renamed_weights(root, depth)}
    if config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    # Rotary frequencies and position ids are not weights: on the meta device they have no values until initialised.
    model = model.to_empty(device="cpu")
    model.init_weights()
    missing, left = model.load_state_dict(weights, strict=False)
    missing = [name for name in missing if not (config.tie_word_embeddings and name == "lm_head.weight")]
    if missing or left:
        raise ConfigError(
            f"{root} is not a LLaVA-Video checkpoint that this version can read: "
            f"{len(missing)} weights are missing {missing[:3]}, {len(left)} are left over {left[:3]}"
        )
    model.tie_weights()
    return model.to(device).eval()


def llava_video_config(fields: dict[str, Any]) -> Any:
    """Build the configuration of LLaVA-Video from that of LLaVA-NeXT.

    Raises:
        ConfigError: a field is missing, or the modules are not supported.
    """
    from transformers import LlavaOnevisionConfig

    if fields.get("mm_projector_type") != "mlp2x_gelu" or "siglip" not in str(fields.get("mm_vision_tower", "")):
        raise ConfigError(
            f"the projector is {fields.get('mm_projector_type')!r} and the tower {fields.get('mm_vision_tower')!r}; "
            "only mlp2x_gelu on SigLIP is supported"
        )
    missing = [name for name in TEXT_FIELDS[:5] if name not in fields]
    if missing:
        raise ConfigError(f"config.json lacks {', '.join(missing)}")
    text: dict[str, Any] = {name: fields[name] for name in TEXT_FIELDS if name in fields}
    rope = {"rope_type": "default", "rope_theta": float(fields.get("rope_theta", 1000000.0))}
    return LlavaOnevisionConfig(
        text_config={**text, "model_type": "qwen2", "rope_parameters": rope},
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **_tower(fields)},
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_token_id=min(IMAGE_TOKEN, text.get("vocab_size", VIDEO_TOKEN + 1) - 2),
        video_token_id=min(VIDEO_TOKEN, text.get("vocab_size", VIDEO_TOKEN + 1) - 1),
        tie_word_embeddings=bool(fields.get("tie_word_embeddings", False)),
    )


def _tower(fields: dict[str, Any]) -> dict[str, Any]:
    """Build the published tower, or the one that the configuration describes."""
    given: dict[str, Any] | None = fields.get("vision_config")
    return dict(SIGLIP_SIZES["so400m"]) if given is None else given


def _renamed_weights(root: Path, depth: int) -> Iterator[tuple[str, Tensor]]:
    from safetensors import safe_open

    files = sorted(root.glob("*.safetensors"))
    if not files:
        raise ConfigError(f"there is no .safetensors in {root}")
    unused = re.compile(r"^model\.vision_tower\.(head\.|encoder\.layers\.(\d+)\.)")
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for original in opened.keys():  # noqa: SIM118 - not a mapping
                name = original
                for pattern, replacement in RENAMED:
                    name = re.sub(pattern, replacement, name)
                found = unused.match(name)
                if found and (found[2] is None or int(found[2]) >= depth):
                    continue
                yield name, opened.get_tensor(original)
