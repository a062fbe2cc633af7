"""Further situations from public reports, against the prompt by itself."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from bench.comparison import (
    ALL_STAGES,
    BEFORE,
    BOTH,
    BUDGETED,
    after,
    compare,
    compressed,
    encode,
    logits,
    material,
    text_of,
    two_videos,
    without_pixels,
)
from compress import InfoMerge
from compress.errors import ConfigError, ShapeError
from compress.models.inputs.prompt import pad_batch
from compress.models.session.kv_cache import CACHE, cache_of
from tests.compress.models.material import BACKBONES, generate, inputs_of, sharp_model, video_meta

PER_COLUMN = ("input_ids", "attention_mask", "mm_token_type_ids")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_row_of_text_beside_a_row_with_a_video(backbone: str) -> None:
    model, meta, inputs = material(backbone)
    text = text_of(model, "Say something")
    nothing = {name: one[:0] for name, one in inputs.items() if name not in text}
    expected = compressed(ALL_STAGES, model, meta, inputs), logits(model, text)
    for order in ((0, 1), (1, 0)):
        rows = [(inputs, {**text, **nothing})[number] for number in order]
        found = compressed(ALL_STAGES, model, meta, pad_batch(rows))
        for row, number in enumerate(order):
            assert compare(found[:, row : row + 1], expected[number]).exact


@pytest.mark.parametrize("backbone", BACKBONES)
def test_prompts_of_other_sizes_one_after_the_other(backbone: str) -> None:
    """Positions are those of the prompt, not of the one before (transformers 43952)."""
    model, _, first = material(backbone)
    second = inputs_of(model, video_meta(3, size=(96, 48)), "And this?")
    expected = [compressed(BOTH, model, None, inputs) for inputs in (first, second)]
    with BOTH.attach(model):
        for number in (0, 1, 0):
            assert compare(logits(model, (first, second)[number]), expected[number]).exact


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_failure_in_the_encoder_leaves_nothing(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts after one that failed, with a video and without (mlx-vlm 988)."""
    model, meta, inputs = material(backbone)
    text = text_of(model, "Hello there")
    with ALL_STAGES.attach(model, meta) as session:
        expected = logits(model, inputs), logits(model, text)
        encoder: Any = getattr(session.adapter, "tower", None) or session.adapter.visual

        def fail(*_: Any) -> None:
            raise torch.OutOfMemoryError("simulated")

        handle = encoder.register_forward_hook(fail)
        with pytest.raises(torch.OutOfMemoryError):
            generate(model, inputs, steps=1)
        handle.remove()
        assert compare(logits(model, text), expected[1]).exact
        assert compare(logits(model, inputs), expected[0]).exact


@pytest.mark.parametrize("backbone", BACKBONES)
def test_padding_in_a_batch_of_one_with_drafts(backbone: str) -> None:
    model, meta, inputs = material(backbone)
    padded = {name: torch.nn.functional.pad(one, (5, 0)) if name in PER_COLUMN else one for name, one in inputs.items()}
    expected = compressed(BOTH, model, meta, inputs, steps=6)
    assert compare(compressed(BOTH, model, meta, padded, steps=6), expected).exact
    assert compare(compressed(BOTH, model, meta, padded, steps=6, prompt_lookup_num_tokens=3), expected).exact


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_cache_is_cut_back_to_the_text_before_the_video(backbone: str) -> None:
    model, meta, inputs = material(backbone)
    first = int((inputs["input_ids"][0] == model.config.video_token_id).nonzero().min()) - 1
    head = {name: inputs[name][:, :first] for name in PER_COLUMN if name in inputs}
    for compressor in (BUDGETED, BOTH):
        expected = compressed(compressor, model, meta, inputs)
        with compressor.attach(model, meta):
            cache = cache_of(generate(model, head, steps=1))
            for _ in range(2):
                assert compare(logits(model, {**inputs, CACHE: cache}), expected).exact
                for layer in cache.layers:
                    layer.keys, layer.values = layer.keys[:, :, :first], layer.values[:, :, :first]
            logits(model, {**inputs, CACHE: cache})
            for layer in cache.layers:
                layer.keys, layer.values = layer.keys[:, :, : first + 4], layer.values[:, :, : first + 4]
            with pytest.raises(ConfigError, match="cut back"):
                generate(model, after(cache, text_of(model, "And?")), steps=1)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_placeholders_without_a_video_are_refused(backbone: str) -> None:
    """In a prompt, and after cached text, where they would pass as words."""
    model, meta, inputs = material(backbone)
    text = text_of(model, "Look at this")
    bare = {name: inputs[name] for name in text}
    with BOTH.attach(model, meta):
        with pytest.raises(ShapeError):
            generate(model, bare, steps=1)
        cache = cache_of(generate(model, text, steps=1))
        with pytest.raises(ShapeError, match="no video was passed"):
            generate(model, after(cache, bare), steps=1)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_cache_is_filled_in_inference_mode(backbone: str) -> None:
    model, meta, inputs = material(backbone)
    more = text_of(model, "And why is that so?")
    found = []
    with BOTH.attach(model, meta):
        for mode in (torch.inference_mode, torch.no_grad):
            with mode():
                output = model(**inputs, use_cache=True)
            with torch.no_grad():
                found.append(model(**after(cache_of(output), more)).logits)
    assert compare(*found).exact


@pytest.mark.parametrize("backbone", BACKBONES)
def test_features_of_one_of_two_videos(backbone: str) -> None:
    """Known where each video has a tensor of its own; refused where one tensor was cut."""
    model, _, both = two_videos(backbone)
    one = inputs_of(model, video_meta(0))
    with BEFORE.attach(model), torch.no_grad():
        expected = logits(model, one)
        encoded = encode(model, both)
        encoded.pooler_output = encoded.pooler_output[:1]
        if "deepstack_features" in encoded:
            encoded.deepstack_features = [layer[:1] for layer in encoded.deepstack_features]
        if backbone.startswith("qwen"):
            assert compare(logits(model, without_pixels(one, encoded)), expected).exact
        else:
            with pytest.raises(ShapeError, match="1 videos, but the features that come with it are of 2"):
                logits(model, without_pixels(one, encoded))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_copies_of_an_attached_model_are_refused(backbone: str) -> None:
    model = sharp_model(backbone)
    attached = InfoMerge(retention=0.3).attach(model)
    with pytest.warns(match="was not called"), attached, pytest.raises(ConfigError, match="cannot be copied"):
        copy.deepcopy(model)
    assert copy.deepcopy(model) is not model


def test_hooks_inside_a_compiled_module_are_refused() -> None:
    model = copy.deepcopy(sharp_model(BACKBONES[0]))
    layer = model.model.language_model.layers[3]
    layer.compile(backend="eager")
    with pytest.warns(UserWarning, match="was not called"):
        InfoMerge(retention=0.3).attach(model).__enter__().__exit__()
    with pytest.raises(ConfigError, match=r"layers\.3 is inside a compiled graph"):
        BOTH.attach(model).__enter__()
    assert not layer._forward_pre_hooks
