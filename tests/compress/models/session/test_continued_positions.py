"""Positions after a video whose frames outnumber its rows and columns: as the installed transformers counts them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from compress import MATM, InfoMerge, Pipeline
from compress.models.session.kv_cache import CACHE, cache_of
from tests.compress.models.material import generate, inputs_of, sharp_model, video_meta

QWEN = ("qwen2-vl-tiny", "qwen2.5-vl-tiny", "qwen3-vl-tiny")
WHOLE = Pipeline(InfoMerge(retention=1.0), MATM(layers=(2,), merge_percent=0.0))
LESS = InfoMerge(retention=0.3)


def seen_positions(model: Any, run: Any) -> list[torch.Tensor]:
    """Position ids of the three axes that the decoder is given in every pass."""
    seen: list[torch.Tensor] = []

    def see(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["position_ids"][-3:])

    handle = model.model.language_model.register_forward_pre_hook(see, with_kwargs=True)
    try:
        run()
    finally:
        handle.remove()
    return seen


@pytest.mark.parametrize("backbone", QWEN)
def test_text_goes_on_as_in_transformers(backbone: str) -> None:
    """In the prompt after the larger of rows and columns; vLLM counts on after the largest of all axes."""
    model, meta = sharp_model(backbone), video_meta(frames=24)
    inputs = inputs_of(model, meta)
    frames, rows, cols = inputs["video_grid_thw"][0].tolist()
    (prompt,) = seen_positions(model, lambda: model(**inputs, use_cache=False))
    video = inputs["input_ids"][0] == model.config.video_token_id
    after = int(video.nonzero().max()) + 1
    start, last = prompt[:, 0, int(video.nonzero().min())], prompt[:, 0, after - 1]
    if backbone == "qwen3-vl-tiny":  # every frame has placeholders of its own
        start = last[:1].expand(3)
    else:
        assert int(last[0]) > int(last[1:].max())
    assert prompt[:, 0, after].tolist() == [int(start[0]) + max(rows, cols) // 2] * 3
    assert frames > max(rows, cols) // 2

    def steps() -> None:
        generate(model, inputs, steps=4)

    plain = seen_positions(model, steps)
    for compressor in (WHOLE, LESS):
        with compressor.attach(model):
            found = seen_positions(model, steps)
        for one, other in zip(found[1:], plain[1:], strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("backbone", QWEN)
def test_a_loop_over_forward_counts_as_the_model_does(backbone: str) -> None:
    model, meta = sharp_model(backbone), video_meta(frames=24)
    inputs = inputs_of(model, meta)

    def loop() -> None:
        output = model(**inputs, use_cache=True)
        for _ in range(3):
            ids = output.logits[:, -1].argmax(-1)[:, None]
            output = model(input_ids=ids, **{CACHE: cache_of(output)})

    with torch.no_grad():
        plain = seen_positions(model, loop)
        for compressor in (WHOLE, LESS):
            with compressor.attach(model):
                found = seen_positions(model, loop)
            for one, other in zip(found[1:], plain[1:], strict=True):
                assert torch.equal(one, other)


@pytest.mark.parametrize("backbone", QWEN)
def test_all_tokens_of_a_long_video_are_those_of_the_plain_model(backbone: str) -> None:
    model, meta = sharp_model(backbone), video_meta(frames=24)
    inputs = inputs_of(model, meta)
    plain = torch.cat(generate(model, inputs, steps=4).logits)
    with WHOLE.attach(model):
        assert torch.equal(torch.cat(generate(model, inputs, steps=4).logits), plain)
