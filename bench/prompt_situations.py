"""Situations of prompts: batches, beams, images, turns, caches, threads, chunks, features, ways of decoding."""

from __future__ import annotations

import copy
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from bench.comparison import (
    ALL_STAGES,
    BEFORE,
    BOTH,
    BUDGETED,
    WHOLE,
    Inputs,
    Outcome,
    after,
    compare,
    compressed,
    encode,
    logits,
    material,
    text_of,
    two_videos,
    without_pixels,
    worst,
)
from compress.models.inputs.prompt import pad_batch
from compress.models.session.kv_cache import CACHE, cache_of
from tests.compress.models.material import generate, inputs_of, video_meta


def batch(backbone: str) -> Outcome:
    """Two videos in two rows of different length: each row by itself."""
    model, first, one = material(backbone)
    second = video_meta(1)
    other = inputs_of(model, second, "Where does the square go now?")
    found = compressed(BOTH, model, [first, second], pad_batch([one, other]))
    return worst(
        compare(found[:, :1], compressed(BOTH, model, first, one)),
        compare(found[:, 1:], compressed(BOTH, model, second, other)),
    )


def several_videos(backbone: str) -> Outcome:
    """Two videos in one prompt: what is merged of each is what is merged of it by itself."""
    model, metas, inputs = two_videos(backbone)
    alone = []
    for meta in metas:
        with BUDGETED.attach(model, meta) as session:
            generate(model, inputs_of(model, meta), steps=1)
        alone.append(session.results[0])
    with BUDGETED.attach(model, metas) as session:
        generate(model, inputs, steps=1)
    same = all(
        torch.equal(one.before_llm.plan.keep, other.before_llm.plan.keep)
        for one, other in zip(session.results, alone, strict=True)
    )
    whole = compare(compressed(WHOLE, model, metas, inputs), logits(model, inputs))
    return whole if same else Outcome(exact=False, reason="other tokens stay")


def beams(backbone: str) -> Outcome:
    """Beams over two videos: the first step of every beam is that of the prompt."""
    return _repeated(backbone, num_beams=2)


def samples(backbone: str) -> Outcome:
    """Two samples of a prompt with two videos: likewise."""
    return _repeated(backbone, do_sample=True, num_return_sequences=2)


def _repeated(backbone: str, **options: Any) -> Outcome:
    model, metas, inputs = two_videos(backbone)
    outcomes = []
    for compressor, meta in ((BEFORE, None), (BUDGETED, metas), (ALL_STAGES, metas)):
        found = compressed(compressor, model, meta, inputs, steps=2, **options)
        outcomes.append(compare(found[0], compressed(compressor, model, meta, inputs, steps=1)[0].expand(2, -1)))
    return worst(*outcomes)


def with_image(model: Any, inputs: Inputs) -> Inputs:
    """Return a prompt that begins with an image."""
    image = model.config.image_token_id
    if "qwen" in model.config.model_type:
        torch.manual_seed(0)
        pixels = torch.randn(64, inputs["pixel_values_videos"].shape[1])
        more = {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, 8, 8]])}
        count = 16
    else:
        side = model.config.vision_config.image_size
        torch.manual_seed(0)
        # Several images are not cut into parts, which the sizes of tiny models do not go with.
        more = {
            "pixel_values": torch.randn(2, 1, 3, side, side),
            "image_sizes": torch.tensor([[side, side]] * 2),
            "batch_num_images": torch.tensor([2]),
        }
        with torch.no_grad():
            count = sum(map(len, model.model.get_image_features(**more).pooler_output))
    head = torch.tensor([[20, 30, 4] + [image] * count + [5, 40]])
    added = {"input_ids": head, "attention_mask": torch.ones_like(head)}
    if "qwen" in model.config.model_type:
        added["mm_token_type_ids"] = (head == image).int()
    return {
        **{
            name: torch.cat((added[name], inputs[name]), dim=1) if name in added else one
            for name, one in inputs.items()
        },
        **{name: one for name, one in added.items() if name not in inputs},
        **more,
    }


def images_beside(backbone: str) -> Outcome:
    """Compare an image before the video with none: the video's plan is the same, and keeping all changes nothing."""
    model, meta, inputs = material(backbone)
    mixed = with_image(model, inputs)
    plans = []
    for one in (inputs, mixed):
        with ALL_STAGES.attach(model, meta) as session:
            generate(model, one, steps=2)
        plans.append(session.results[0])
    same = torch.equal(plans[0].before_llm.plan.keep, plans[1].before_llm.plan.keep)
    if not same or plans[1].before_encoder is None:
        return Outcome(exact=False, reason="other tokens stay")
    return compare(compressed(WHOLE, model, meta, mixed), logits(model, mixed))


def images_alone(backbone: str) -> Outcome:
    """Images and no video: the plain model, and a warning."""
    model, meta, inputs = material(backbone)
    alone = with_image(model, {**text_of(model, "What is it?"), "pixel_values_videos": inputs["pixel_values_videos"]})
    del alone["pixel_values_videos"]
    expected = logits(model, alone)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = compressed(ALL_STAGES, model, meta, alone)
    if not any("nothing was merged" in str(one.message) for one in caught):
        return Outcome(exact=False, reason="no warning")
    return compare(found, expected)


def text_turn(backbone: str) -> Outcome:
    """Compare a further question over the cache with the conversation in one prompt."""
    model, _, inputs = material(backbone)
    more = text_of(model, "And why is that so?")
    with BEFORE.attach(model):
        cache = cache_of(generate(model, inputs, steps=1))
        found = logits(model, after(cache, more))
        whole = {**inputs, **{name: torch.cat((inputs[name], more[name]), dim=1) for name in more}}
        return compare(found, logits(model, whole))


def video_after_text(backbone: str) -> Outcome:
    """Compare a video after cached text, the whole prompt passed again, with the prompt without a cache."""
    model, meta, inputs = material(backbone)
    outcomes = []
    first = int((inputs["input_ids"][0] == model.config.video_token_id).nonzero().min()) - 1
    head = {
        name: inputs[name][:, :first] for name in ("input_ids", "attention_mask", "mm_token_type_ids") if name in inputs
    }
    for compressor in (BOTH, BUDGETED, ALL_STAGES):
        expected = compressed(compressor, model, meta, inputs)
        with compressor.attach(model, meta):
            cache = cache_of(generate(model, head, steps=1))
            outcomes.append(compare(logits(model, {**inputs, CACHE: cache}), expected))
    return worst(*outcomes)


def second_video(backbone: str) -> Outcome:
    """Compare a second video in a later turn, its own ids only, with both turns in one prompt."""
    model, metas, whole = two_videos(backbone)
    one, other = inputs_of(model, metas[0], "What moves?"), inputs_of(model, metas[1], "And here?")
    outcomes = []
    for compressor, meta in ((BEFORE, None), (BUDGETED, metas)):
        with compressor.attach(model, meta):
            expected = logits(model, whole)
            cache = cache_of(generate(model, one, steps=1))
            outcomes.append(compare(logits(model, after(cache, other)), expected))
    return worst(*outcomes)


def several_caches(backbone: str) -> Outcome:
    """Two prompts decoded in turn, step by step: each by itself."""
    model, meta, one = material(backbone)
    other = inputs_of(model, meta, "Where does it go?")
    with torch.no_grad(), BOTH.attach(model, meta):
        expected = [logits(model, inputs)[:, 0] for inputs in (one, other)]
        outputs = [model(**inputs, use_cache=True) for inputs in (one, other)]
        found = [[output.logits[:, -1]] for output in outputs]
        for _ in range(2):
            for number, output in enumerate(outputs):
                ids = found[number][-1].argmax(-1)[:, None]
                outputs[number] = model(input_ids=ids, **{CACHE: cache_of(output)})
                found[number].append(outputs[number].logits[:, -1])
    return worst(*(compare(torch.cat(a), b) for a, b in zip(found, expected, strict=True)))


def copied_cache(backbone: str) -> Outcome:
    """Compare copies of a cache, filled once and copied for every question, with the cache itself."""
    model, _, inputs = material(backbone)
    more = text_of(model, "And why is that so?")
    with BOTH.attach(model):
        cache = cache_of(generate(model, inputs, steps=1))
        copies = [copy.deepcopy(cache) for _ in range(2)]
        expected = logits(model, after(cache, more))
        return worst(*(compare(logits(model, after(one, more)), expected) for one in copies))


def threads(backbone: str) -> Outcome:
    """Two threads ask at once: each question by itself."""
    model, meta, one = material(backbone)
    other = inputs_of(model, meta, "Where to go")
    outcomes = []
    for compressor in (BOTH, ALL_STAGES):
        with compressor.attach(model, meta):
            expected = [logits(model, inputs) for inputs in (one, other)]
            together = threading.Barrier(2)

            def ask(inputs: Inputs, together: threading.Barrier = together) -> list[Tensor]:
                together.wait()
                return [logits(model, inputs) for _ in range(3)]

            with ThreadPoolExecutor(2) as pool:
                for found, alone in zip(pool.map(ask, (one, other)), expected, strict=True):
                    outcomes += [compare(answer, alone) for answer in found]
    return worst(*outcomes)


def chunked_before(backbone: str) -> Outcome:
    """`prefill_chunk_size` with a boundary in the text before the video, and none inside it: the prompt at once."""
    model, meta, inputs = material(backbone)
    lead = text_of(model, "x" * (inputs["input_ids"].shape[1] - 1) + "y" * 3)
    mixed = {**inputs, **{name: torch.cat((lead[name], inputs[name]), dim=1) for name in lead}}
    chunk = inputs["input_ids"].shape[1] + 2
    outcomes = []
    for compressor in (BOTH, BUDGETED):
        found = compressed(compressor, model, meta, mixed, prefill_chunk_size=chunk)
        outcomes.append(compare(found, compressed(compressor, model, meta, mixed)))
    return worst(*outcomes)


def chunked_inside(backbone: str) -> Outcome:
    """`prefill_chunk_size` with a boundary inside the video."""
    model, meta, inputs = material(backbone)
    places = (inputs["input_ids"][0] == model.config.video_token_id).nonzero()
    found = compressed(BEFORE, model, meta, inputs, prefill_chunk_size=int(places.min()) + 3)
    return compare(found, compressed(BEFORE, model, meta, inputs))


def no_cache(backbone: str) -> Outcome:
    """`use_cache=False`: the same with a cache."""
    model, meta, inputs = material(backbone)
    outcomes = []
    for compressor in (BOTH, ALL_STAGES):
        expected = compressed(compressor, model, meta, inputs)
        outcomes.append(compare(compressed(compressor, model, meta, inputs, use_cache=False), expected))
    return worst(*outcomes)


def features_passed(backbone: str) -> Outcome:
    """Features encoded once inside the block, two questions over them: pixels with each question."""
    model, meta, one = material(backbone)
    other = inputs_of(model, meta, "Where does it go?")
    outcomes = []
    for compressor in (BOTH, ALL_STAGES):
        with compressor.attach(model, meta), torch.no_grad():
            expected = [logits(model, inputs) for inputs in (one, other)]
            encoded = encode(model, one)
            for inputs, alone in zip((one, other), expected, strict=True):
                outcomes.append(compare(logits(model, without_pixels(inputs, encoded)), alone))
    return worst(*outcomes)


def features_from_outside(backbone: str) -> Outcome:
    """Features encoded before the block, for a method that reads saliency."""
    model, meta, inputs = material(backbone)
    with torch.no_grad():
        encoded = encode(model, inputs)
    return compare(
        compressed(BEFORE, model, meta, without_pixels(inputs, encoded)), compressed(BEFORE, model, meta, inputs)
    )


def assisted(backbone: str) -> Outcome:
    """Prompt-lookup decoding: plain decoding."""
    model, meta, inputs = material(backbone)
    outcomes = []
    for compressor in (BOTH, ALL_STAGES):
        expected = compressed(compressor, model, meta, inputs, steps=8)
        found = compressed(compressor, model, meta, inputs, steps=8, prompt_lookup_num_tokens=3)
        outcomes.append(compare(found, expected))
    return worst(*outcomes)


def guidance(backbone: str) -> Outcome:
    """Classifier-free guidance, which decodes a second cache: both prompts are read again for every step."""
    model, meta, inputs = material(backbone)
    negative = text_of(model, "What?")["input_ids"]
    with torch.no_grad(), BOTH.attach(model, meta):
        output = generate(model, inputs, steps=3, guidance_scale=1.5, negative_prompt_ids=negative, output_scores=True)
        ids = output.sequences[:, inputs["input_ids"].shape[1] :]
        cache, expected = None, []
        for step in range(3):
            fed = inputs if cache is None else {"input_ids": ids[:, step - 1 : step], CACHE: cache}
            asked = model(**fed, use_cache=True)
            cache = cache_of(asked)
            free = model(input_ids=torch.cat((negative, ids[:, :step]), dim=1), use_cache=True).logits[:, -1]
            likely, free = asked.logits[:, -1].log_softmax(-1), free.log_softmax(-1)
            expected.append(1.5 * (likely - free) + free)
    return compare(torch.stack(output.scores), torch.stack(expected))
