"""Inputs of the published processors go through a session like our own; they need torchvision, which we do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("torchvision")

import transformers

from compress.compressor import Pipeline
from compress.metom import BTM, MATM, RPM
from tests.compress.models.material import inputs_of, moving_frames, sharp_model, video_meta

WORDS = ["[UNK]", "[PAD]", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<image>", "<video>"]
"""Ids 4 to 7 are those of the tiny models."""


def build_processor(backbone: str, model: Any) -> Any:
    """Build the published processor around a tokenizer of few words, with the sizes of the tiny model."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = dict(zip(("<image>", "<video>"), ("<|image_pad|>", "<|video_pad|>"), strict=True))
    words = WORDS if backbone.startswith("llava") else [names.get(word, word) for word in WORDS]
    words = [*words, "What", "moves", "?"]
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", additional_special_tokens=words[2:8]
    )
    vision = model.config.vision_config
    if backbone.startswith("llava"):
        size = {"height": vision.image_size, "width": vision.image_size}
        side = vision.image_size // vision.patch_size
        return transformers.LlavaOnevisionProcessor(
            transformers.LlavaOnevisionImageProcessor(size=size),
            tokenizer,
            transformers.LlavaOnevisionVideoProcessor(
                size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_sample_frames=False
            ),
            num_image_tokens=side**2,
            vision_feature_select_strategy="full",
        )
    area = (vision.patch_size * vision.spatial_merge_size) ** 2
    settings = {
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "merge_size": vision.spatial_merge_size,
        "size": {"shortest_edge": 16 * area, "longest_edge": 10**6 * area},
    }
    return transformers.Qwen2VLProcessor(
        transformers.Qwen2VLImageProcessor(**settings),
        tokenizer,
        transformers.Qwen2VLVideoProcessor(**settings, do_sample_frames=False),
    )


@pytest.mark.parametrize("backbone", ["llava-onevision-tiny", "qwen2-vl-tiny"])
def test_inputs_of_a_processor(backbone: str) -> None:
    model, meta = sharp_model(backbone), video_meta()
    processor = build_processor(backbone, model)
    video = "<video>" if backbone.startswith("llava") else "<|vision_start|> <|video_pad|> <|vision_end|>"
    frames = torch.from_numpy(moving_frames()).permute(0, 3, 1, 2)
    inputs = processor(text=[f"<|im_start|> {video} What moves ?"], videos=[frames], return_tensors="pt")
    ours = inputs_of(model, meta)
    assert inputs["pixel_values_videos"].shape == ours["pixel_values_videos"].shape
    difference = (inputs["pixel_values_videos"] - ours["pixel_values_videos"]).abs()
    assert float(difference.max()) < 1e-5

    method = Pipeline(RPM(target_keep=0.6), BTM(retention=0.5), MATM(layers=(1, 2)))
    with torch.no_grad():
        plain = model(**inputs).logits[:, -1]
        with method.attach(model, meta) as session:
            found = model(**inputs).logits[:, -1]
            (result,) = session.results
            with_ours = model(**ours)
            (expected,) = session.results
    assert with_ours.logits.shape[1] < ours["input_ids"].shape[1]
    assert result.before_llm is not None and expected.before_llm is not None
    assert result.tokens_in == expected.tokens_in > result.tokens_out
    np.testing.assert_array_equal(result.before_llm.plan.keep.numpy(), expected.before_llm.plan.keep.numpy())
    assert float((found - plain).abs().max()) > 0.01 * float(plain.abs().max())
