"""Ceilings of a machine and the floors that follow: what a prefill or an encoder takes at least."""

from __future__ import annotations

import time
from typing import Any

import torch


def time_best(run: Any, device: torch.device, *, repeats: int = 8) -> float:
    """Seconds of the fastest of some runs."""
    seconds = []
    for _ in range(repeats):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure_ceilings(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """FLOP/s of a large matrix product, and bytes/s of reading memory."""
    side = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    product = time_best(lambda: a @ b, device)
    block = torch.empty((1 << 30) if device.type == "cuda" else (1 << 24), dtype=torch.uint8, device=device)
    copy = torch.empty_like(block)
    moved = time_best(lambda: copy.copy_(block), device)
    return {"flops": 2 * side**3 / product, "bytes_per_second": 2 * block.numel() / moved}


def prefill_floor(model: Any, columns: int, inner: int, merge_layer: int, ceilings: dict[str, float]) -> float:
    """Seconds that the decoder's operations or its weights take at the measured ceilings; attention is causal."""
    text = model.config.text_config
    d, ff, layers = text.hidden_size, text.intermediate_size, text.num_hidden_layers
    kv = text.num_key_value_heads / text.num_attention_heads

    def flops(n: int) -> float:
        return float(2 * n * d * d * (2 + 2 * kv) + 2 * 3 * n * d * ff + 2 * n * n * d)

    work = merge_layer * flops(columns) + (layers - merge_layer) * flops(inner)
    weights = sum(weight.numel() * weight.element_size() for weight in model.model.language_model.layers.parameters())
    return float(max(work / ceilings["flops"], weights / ceilings["bytes_per_second"]))


def tower_floor(model: Any, frames: int, share: float, ceilings: dict[str, float]) -> float | None:
    """Seconds that a SigLIP tower's operations take at the ceiling; None for other towers."""
    vision = model.config.vision_config
    if not hasattr(vision, "intermediate_size") or not hasattr(model.model, "vision_tower"):
        return None
    n = (vision.image_size // vision.patch_size) ** 2 * share
    d, ff = vision.hidden_size, vision.intermediate_size
    per_layer = 2 * n * (4 * d * d + 2 * d * ff) + 4 * n * n * d
    return float(frames * vision.num_hidden_layers * per_layer / ceilings["flops"])
