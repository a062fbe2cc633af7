"""Tiny random models with sharpened weights, synthetic videos and their metadata."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from codecmeta import VideoMeta
from compress.models.inputs.prompt import prepare
from compress.models.inputs.random_weights import ByteTokenizer, build_random

BACKBONES = ("llava-onevision-tiny", "llava-video-tiny", "qwen2-vl-tiny", "qwen2.5-vl-tiny", "qwen3-vl-tiny")
TOKENIZER = ByteTokenizer()
FRAMES = 4


@cache
def sharp_model(name: str, *, attention: str = "sdpa") -> Any:
    """Build a tiny model with far from uniform attention, so that wrong positions and masks change its answers."""
    model = build_random(name, attention=attention)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if key.endswith(("q_proj.weight", "k_proj.weight", "attn.qkv.weight")):
                weight *= 6
            elif "embed_tokens" in key or "multi_modal_projector" in key or "patch_embed" in key:
                weight *= 5
            elif key.endswith("bias"):
                weight += torch.linspace(-0.3, 0.3, weight.numel()).view_as(weight)
    return model


def moving_frames(seed: int = 0, *, frames: int = FRAMES, size: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    """Return a static textured background with a bright square that moves."""
    rng = np.random.default_rng(seed)
    background = rng.integers(0, 160, (*size, 3), dtype=np.uint8)
    clip = np.repeat(background[None], frames, axis=0)
    for t in range(frames):
        left = 4 + 9 * t % 40
        clip[t, 10:26, left : left + 16] = rng.integers(160, 256, (16, 16, 3), dtype=np.uint8)
    return clip


def video_meta(seed: int = 0, *, frames: int = FRAMES, size: tuple[int, int] = (48, 64)) -> VideoMeta:
    """Metadata of such a video: energy where the square moves, GoPs of different size."""
    rng = np.random.default_rng(seed + 100)
    height, width = size
    block = 4
    energy = rng.random((frames, height // block, width // block), dtype=np.float32) * 0.2
    for t in range(frames):
        left = (4 + 9 * t % 40) // block
        energy[t, 2:7, left : left + 4] += 2
    info = {
        "source": {"name": f"square{seed}.mp4"},
        "stream": {
            "width": width,
            "height": height,
            "orientation": [[1, 0, 0], [0, 1, 0]],
            "time_base": [1, 2],
            "duration_s": frames / 2,
        },
        "extraction": {"block": block},
        "signals": {"carried": {"source": "bitstream"}},
        "verdict": {"state": "complete"},
    }
    return VideoMeta(
        info=info,
        packet_pts=np.arange(frames, dtype=np.int64),
        packet_dts=np.arange(frames, dtype=np.int64),
        packet_size=np.array([9000, 400, 3000, 700] * frames, np.uint32)[:frames],
        packet_key=np.array([True, False] * frames)[:frames],
        frame_packet=np.arange(frames, dtype=np.int32),
        frame_pts=np.arange(frames, dtype=np.int64),
        frame_type=np.array(["I", "P"] * frames)[:frames],
        energy_carried=energy,
        range_carried=np.stack((energy.min((1, 2)), energy.max((1, 2))), axis=1),
        frames=moving_frames(seed, frames=frames, size=size),
    )


def inputs_of(model: Any, meta: VideoMeta, question: str = "What moves?") -> dict[str, torch.Tensor]:
    """Make a prompt for a model."""
    return prepare(model, meta, question, tokenizer=TOKENIZER)


def generate(model: Any, inputs: dict[str, torch.Tensor], *, steps: int = 8, **options: Any) -> Any:
    """Logits and ids of some steps."""
    options = {"do_sample": False, **options}
    return model.generate(
        **inputs,
        max_new_tokens=steps,
        min_new_tokens=steps,
        return_dict_in_generate=True,
        output_logits=True,
        **options,
    )
