"""Comparison of compressed runs with runs that must say the same: tiny models, prompts and outcomes of situations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from compress import BTM, MATM, InfoMerge, MeToM, Pipeline
from compress.models.session.kv_cache import CACHE
from tests.compress.models.material import TOKENIZER, generate, inputs_of, sharp_model, video_meta

CLOSE: Final = 5e-5
BEFORE: Final = InfoMerge(retention=0.3)
BUDGETED: Final = BTM(retention=0.4)
BOTH: Final = Pipeline(InfoMerge(retention=0.3), MATM(layers=(2,), merge_percent=40.0))
ALL_STAGES: Final = MeToM(retention=0.4, target_keep=0.7, layers=(1, 2))
WHOLE: Final = MeToM(retention=1.0, tau_tem=1.0, target_keep=1.0, layers=(1, 2), merge_percent=0.0)

Inputs = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a situation.

    Attributes:
        exact: whether the runs agreed; None where one was refused.
        reason: why it was refused, or by how much they differ.
    """

    exact: bool | None
    reason: str = ""

    def __str__(self) -> str:
        return "exact" if self.exact else "refused" if self.exact is None else f"**differs**: {self.reason}"


def logits(model: Any, inputs: Mapping[str, Any], *, steps: int = 3, **options: Any) -> Tensor:
    """Logits of some steps, (steps, rows, vocabulary)."""
    return torch.stack(generate(model, dict(inputs), steps=steps, **options).logits)


def compressed(compressor: Any, model: Any, meta: Any, inputs: Mapping[str, Any], **options: Any) -> Tensor:
    """Return logits of the same steps with a compressor attached."""
    with compressor.attach(model, meta):
        return logits(model, inputs, **options)


def compare(found: Tensor, expected: Tensor) -> Outcome:
    """Whether two runs say the same."""
    difference = float((found.float() - expected.float()).abs().max())
    return Outcome(exact=difference <= CLOSE, reason=f"{difference:.1e}")


def worst(*outcomes: Outcome) -> Outcome:
    """Return the outcome of several comparisons: the worst of them."""
    return next((one for one in outcomes if not one.exact), outcomes[0])


def material(backbone: str, question: str = "What moves?", *, seed: int = 0) -> tuple[Any, Any, Inputs]:
    """Make a model, a video's metadata and a prompt about it."""
    model, meta = sharp_model(backbone), video_meta(seed)
    return model, meta, inputs_of(model, meta, question)


def joined(*prompts: Inputs) -> Inputs:
    """Prompts of one row, one after the other, as one."""
    along = {"input_ids": 1, "attention_mask": 1, "mm_token_type_ids": 1}
    return {name: torch.cat([one[name] for one in prompts], dim=along.get(name, 0)) for name in prompts[0]}


def text_of(model: Any, text: str) -> Inputs:
    """Make a prompt without a video."""
    ids = torch.tensor([TOKENIZER.encode(text)])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return inputs | ({"mm_token_type_ids": torch.zeros_like(ids)} if "qwen" in model.config.model_type else {})


def after(cache: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Make the inputs of a later turn: its own ids, and a mask over the cache and them."""
    length = cache.get_seq_length() + inputs["input_ids"].shape[1]
    return {**inputs, "attention_mask": torch.ones(1, length, dtype=torch.int64), CACHE: cache}


def two_videos(backbone: str) -> tuple[Any, list[Any], Inputs]:
    """Make a prompt with two videos."""
    model, first, one = material(backbone)
    second = video_meta(1)
    return model, [first, second], joined(one, inputs_of(model, second, "And here?"))


def encode(model: Any, inputs: Inputs) -> Any:
    """Encode the features of a prompt's videos."""
    grid = {name: inputs[name] for name in ("video_grid_thw",) if name in inputs}
    return model.model.get_video_features(inputs["pixel_values_videos"], **grid)


def without_pixels(inputs: Inputs, encoded: Any) -> dict[str, Any]:
    """Return the prompt with features in place of pixels."""
    return {**{k: v for k, v in inputs.items() if k != "pixel_values_videos"}, "mm_encoder_outputs": {"video": encoded}}
