"""Models by name: a checkpoint, the demo model that comes with the package, or an architecture with random weights."""

from __future__ import annotations

from typing import Any

import torch

from compress.errors import ConfigError, on_one_line
from compress.models.inputs.prompt import Tokenizer
from compress.video import check_device

DEMO = "demo"
"""Name of the small trained model that comes with the package; a folder of that name is ./demo."""


def open_model(
    *,
    checkpoint: str | None = None,
    random_config: str | None = None,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
) -> tuple[Any, Tokenizer]:
    """Open a model and its tokenizer.

    Args:
        checkpoint: name or folder, or `DEMO`; exclusive with the next.
        random_config: architecture to fill with random weights.
        device: where to put it.
        dtype: of the weights; None for bfloat16 on an accelerator and float32 elsewhere, which `DEMO` has everywhere.

    Raises:
        ConfigError: both or none are given, one cannot be loaded, or the device cannot be used.
    """
    from compress.models.inputs.checkpoint import load_model
    from compress.models.inputs.random_weights import ByteTokenizer, build_random

    check_device(device)
    chosen = dtype or (torch.bfloat16 if device.startswith("cuda") else torch.float32)
    if random_config is not None and checkpoint is None:
        built, letters = build_random(random_config, dtype=chosen, device=device), ByteTokenizer()
        words = built.config.text_config.vocab_size
        if words < letters.size:
            raise ConfigError(f"{random_config!r} has a vocabulary of {words}; text as bytes takes {letters.size}")
        return built, letters
    if checkpoint is None or random_config is not None:
        raise ConfigError("give either --model with a checkpoint or --random-weights with an architecture")
    if checkpoint == DEMO:
        from compress.demo import load as load_demo

        return load_demo(device=device, dtype=dtype or torch.float32)
    from transformers import AutoTokenizer

    model = load_model(checkpoint, dtype=chosen, device=device)
    try:
        return model, AutoTokenizer.from_pretrained(checkpoint)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the tokenizer of {checkpoint!r} cannot be loaded: {on_one_line(error)}") from error


def sample_question(checkpoint: str | None) -> str:
    """Return a question that a model understands, for measurements; the demo model knows few words."""
    return "which digit was shown ?" if checkpoint == DEMO else "What happens in the video?"
