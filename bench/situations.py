"""Situations that users of token compressors reported, on every backbone: exact, or refused with the reason.

    python -m bench.situations                   # prints the table of docs/models.md
    python -m bench.situations threads beams     # only these

Each situation compares a compressed run with another that must say the same: the prompt in one go, the row by itself,
the same call without the situation, or the plain model where every token is kept. Models are tiny and random, with
sharpened attention, on the CPU.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from compress import BTM, MATM, InfoMerge, MeToM, Pipeline
from compress.errors import CompressError
from compress.models.inputs.prompt import pad_batch, prepare
from compress.models.session.kv_cache import CACHE, cache_of
from tests.compress.models.material import BACKBONES, TOKENIZER, generate, inputs_of, sharp_model, video_meta

CLOSE: Final = 5e-5
BEFORE: Final = InfoMerge(retention=0.3)
BUDGETED: Final = BTM(retention=0.4)
BOTH: Final = Pipeline(InfoMerge(retention=0.3), MATM(layers=(2,), merge_percent=40.0))
ALL_STAGES: Final = MeToM(retention=0.4, target_keep=0.7, layers=(1, 2))
WHOLE: Final = MeToM(retention=1.0, tau_tem=1.0, target_keep=1.0, layers=(1, 2), merge_percent=0.0)

Inputs = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a situation.

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
    """The same with a compressor."""
    with compressor.attach(model, meta):
        return logits(model, inputs, **options)


def compare(found: Tensor, expected: Tensor) -> Outcome:
    """Whether two runs say the same."""
    difference = float((found.float() - expected.float()).abs().max())
    return Outcome(exact=difference <= CLOSE, reason=f"{difference:.1e}")


def worst(*outcomes: Outcome) -> Outcome:
    """The outcome of several comparisons."""
    return next((one for one in outcomes if not one.exact), outcomes[0])


def material(backbone: str, question: str = "What moves?", *, seed: int = 0) -> tuple[Any, Any, Inputs]:
    """A model, a video's metadata and a prompt about it."""
    model, meta = sharp_model(backbone), video_meta(seed)
    return model, meta, inputs_of(model, meta, question)


def joined(*prompts: Inputs) -> Inputs:
    """Prompts of one row, one after the other, as one."""
    along = {"input_ids": 1, "attention_mask": 1, "mm_token_type_ids": 1}
    return {name: torch.cat([one[name] for one in prompts], dim=along.get(name, 0)) for name in prompts[0]}


def text_of(model: Any, text: str) -> Inputs:
    """A prompt without a video."""
    ids = torch.tensor([TOKENIZER.encode(text)])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return inputs | ({"mm_token_type_ids": torch.zeros_like(ids)} if "qwen" in model.config.model_type else {})


def after(cache: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A later turn: its own ids, and a mask over the cache and them."""
    length = cache.get_seq_length() + inputs["input_ids"].shape[1]
    return {**inputs, "attention_mask": torch.ones(1, length, dtype=torch.int64), CACHE: cache}


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


def two_videos(backbone: str) -> tuple[Any, list[Any], Inputs]:
    """A prompt with two videos."""
    model, first, one = material(backbone)
    second = video_meta(1)
    return model, [first, second], joined(one, inputs_of(model, second, "And here?"))


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
    """A prompt that begins with an image."""
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
    """An image before the video: the plan of the video is that without it, and nothing changes if all is kept."""
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
    """A further question over the cache: the conversation in one go."""
    model, _, inputs = material(backbone)
    more = text_of(model, "And why is that so?")
    with BEFORE.attach(model):
        cache = cache_of(generate(model, inputs, steps=1))
        found = logits(model, after(cache, more))
        whole = {**inputs, **{name: torch.cat((inputs[name], more[name]), dim=1) for name in more}}
        return compare(found, logits(model, whole))


def video_after_text(backbone: str) -> Outcome:
    """A video after cached text, the whole prompt passed again: the prompt in one go."""
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
    """A second video in a later turn, its own ids only: both turns in one prompt."""
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
    """A cache filled once and copied for every question: the cache itself."""
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


def encode(model: Any, inputs: Inputs) -> Any:
    """The features of a prompt's videos."""
    grid = {name: inputs[name] for name in ("video_grid_thw",) if name in inputs}
    return model.model.get_video_features(inputs["pixel_values_videos"], **grid)


def without_pixels(inputs: Inputs, encoded: Any) -> dict[str, Any]:
    """The prompt with features in place of pixels."""
    return {**{k: v for k, v in inputs.items() if k != "pixel_values_videos"}, "mm_encoder_outputs": {"video": encoded}}


def features_from_outside(backbone: str) -> Outcome:
    """Features encoded before the block, for a method that reads saliency."""
    model, meta, inputs = material(backbone)
    with torch.no_grad():
        encoded = encode(model, inputs)
    return compare(
        compressed(BEFORE, model, meta, without_pixels(inputs, encoded)), compressed(BEFORE, model, meta, inputs)
    )


def autocast(backbone: str) -> Outcome:
    """Autocast to bfloat16: the plain model under it where all is kept; fewer tokens run."""
    model, meta, inputs = material(backbone)
    with torch.autocast("cpu", torch.bfloat16):
        compressed(ALL_STAGES, model, meta, inputs)
        compressed(BOTH, model, meta, inputs)
        return compare(compressed(WHOLE, model, meta, inputs), logits(model, inputs))


def default_dtype(backbone: str) -> Outcome:
    """A default dtype of bfloat16 and of float64: the same as with float32."""
    model, meta, inputs = material(backbone)
    outcomes = []
    for compressor in (ALL_STAGES, BOTH):
        expected = compressed(compressor, model, meta, inputs)
        for dtype in (torch.bfloat16, torch.float64):
            torch.set_default_dtype(dtype)
            try:
                outcomes.append(compare(compressed(compressor, model, meta, inputs), expected))
            finally:
                torch.set_default_dtype(torch.float32)
    return worst(*outcomes)


def int8_weights(backbone: str) -> Outcome:
    """Weights in int8 (torchao): the plain model with them where all is kept; fewer tokens run."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model, meta = copy.deepcopy(sharp_model(backbone)), video_meta()
    quantize_(model.model.language_model, Int8WeightOnlyConfig())
    inputs = inputs_of(model, meta)
    if inputs["pixel_values_videos"].dtype != torch.float32:
        return Outcome(exact=False, reason=f"pixels in {inputs['pixel_values_videos'].dtype}")
    compressed(BOTH, model, meta, inputs)
    return compare(compressed(WHOLE, model, meta, inputs), logits(model, inputs))


def offload(backbone: str) -> Outcome:
    """Decoder layers on disk (`dispatch_model`): the model in memory."""
    from accelerate import dispatch_model

    model, meta, inputs = material(backbone)
    expected = [compressed(one, model, meta, inputs) for one in (BOTH, ALL_STAGES)]
    parts = {
        **{f"model.{name}": "cpu" for name, _ in model.model.named_children() if name != "language_model"},
        **{f"model.{name}": "cpu" for name, _ in model.model.named_parameters(recurse=False)},
        "lm_head": "cpu",
    }
    decoder = model.model.language_model
    parts |= {f"model.language_model.{name}": "cpu" for name, _ in decoder.named_children() if name != "layers"}
    parts |= {f"model.language_model.layers.{number}": "disk" for number in range(len(decoder.layers))}
    with tempfile.TemporaryDirectory() as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a parameter of the model itself is no submodule, but has to be placed
            spread = dispatch_model(
                copy.deepcopy(model), parts, main_device="cpu", offload_dir=folder, force_hooks=True
            )
        asked = prepare(spread, meta, "What moves?", tokenizer=TOKENIZER)
        found = [compressed(one, spread, meta, asked) for one in (BOTH, ALL_STAGES)]
    return worst(*(compare(a, b) for a, b in zip(found, expected, strict=True)))


def peft_adapters(backbone: str) -> Outcome:
    """LoRA adapters, attached to by the wrapper: the model with merged weights."""
    from peft import LoraConfig, get_peft_model

    model, meta = copy.deepcopy(sharp_model(backbone)), video_meta()
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    wrapped = get_peft_model(model, config).eval()
    inputs = prepare(wrapped, meta, "What moves?", tokenizer=TOKENIZER)
    found = [compressed(one, wrapped, meta, inputs) for one in (BOTH, ALL_STAGES)]
    merged = wrapped.merge_and_unload()
    expected = [compressed(one, merged, meta, inputs) for one in (BOTH, ALL_STAGES)]
    return worst(*(compare(a, b) for a, b in zip(found, expected, strict=True)))


def data_parallel(backbone: str) -> Outcome:
    """`DataParallel` without devices, attached to by the wrapper: the model itself."""
    model, meta, inputs = material(backbone)
    wrapped = torch.nn.DataParallel(model)
    with torch.no_grad(), BOTH.attach(wrapped, meta):
        found = wrapped(**inputs).logits[:, -1]
        return compare(found, model(**inputs).logits[:, -1])


def compiled_layers(backbone: str) -> Outcome:
    """Decoder layers whose forward is compiled: as they are."""
    model, meta, inputs = material(backbone)
    expected = [compressed(one, model, meta, inputs) for one in (BOTH, ALL_STAGES)]
    with ExitStack() as stack, torch._dynamo.config.patch(recompile_limit=64):
        for layer in model.model.language_model.layers:
            layer.forward = torch.compile(layer.forward, backend="eager", dynamic=True)
            stack.callback(delattr, layer, "forward")
        found = [compressed(one, model, meta, inputs) for one in (BOTH, ALL_STAGES)]
    torch._dynamo.reset()
    return worst(*(compare(a, b) for a, b in zip(found, expected, strict=True)))


def compiled_whole(backbone: str) -> Outcome:
    """`torch.compile(model)`, attached to by the wrapper."""
    model, meta, inputs = material(backbone)
    whole = torch.compile(model, backend="eager")
    return compare(compressed(BEFORE, whole, meta, inputs), compressed(BEFORE, model, meta, inputs))


def attentions(backbone: str) -> Outcome:
    """`output_attentions=True`: the same logits, and weights over the tokens that are left."""
    model, meta = sharp_model(backbone, attention="eager"), video_meta()
    inputs = inputs_of(model, meta)
    with BOTH.attach(model, meta) as session:
        expected = logits(model, inputs)
        output = generate(model, inputs, steps=3, output_attentions=True)
        left = inputs["input_ids"].shape[1] - session.results[0].tokens_in + session.results[0].tokens_out
        inner = left - session.results[0].tokens_out + session.inside[0].achieved
    shapes = [one.shape[-1] for one in output.attentions[0]]
    newline = backbone == "llava-video-tiny"  # newlines of rows without tokens leave too
    if not newline and shapes != [left] * 3 + [inner] * (len(shapes) - 3):
        return Outcome(exact=False, reason=f"attention over {shapes}")
    return compare(torch.stack(output.logits), expected)


def logits_to_keep(backbone: str) -> Outcome:
    """Columns of the whole prompt by number: those of the text, found in the shortened prompt."""
    model, meta, inputs = material(backbone)
    width = inputs["input_ids"].shape[1]
    outcomes = []
    for compressor in (BEFORE, BOTH, ALL_STAGES):
        with torch.no_grad(), compressor.attach(model, meta):
            last = model(**inputs).logits[:, -3:]
            outcomes.append(compare(model(**inputs, logits_to_keep=3).logits, last))
            places = torch.tensor([width - 3, -2, -1])
            outcomes.append(compare(model(**inputs, logits_to_keep=places).logits, last))
    return worst(*outcomes)


def logits_of_merged(backbone: str) -> Outcome:
    """A column that was merged away."""
    model, meta, inputs = material(backbone)
    middle = int((inputs["input_ids"][0] == model.config.video_token_id).nonzero()[1:-1].float().mean())
    with torch.no_grad(), InfoMerge(retention=0.1).attach(model, meta) as session:
        model(**inputs)
        gone = set(range(session.results[0].tokens_in)) - set(session.results[0].before_llm.plan.keep.tolist())
        visual = session.adapter.locate(inputs["input_ids"], [_grid(inputs)], inputs)[0].index
        column = visual[[sorted(gone)[len(gone) // 2]]] if gone else torch.tensor([middle])
        return compare(model(**inputs, logits_to_keep=column).logits, model(**inputs, logits_to_keep=1).logits)


def _grid(inputs: Inputs) -> tuple[int, int, int]:
    if "video_grid_thw" not in inputs:
        return (0, 0, 0)
    frames, rows, cols = inputs["video_grid_thw"][0].tolist()
    return frames, rows, cols


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
    """Classifier-free guidance, which decodes a second cache: both prompts read anew for every step."""
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


def static_cache(backbone: str) -> Outcome:
    """`cache_implementation="static"`."""
    model, meta, inputs = material(backbone)
    expected = compressed(BEFORE, model, meta, inputs)
    return compare(compressed(BEFORE, model, meta, inputs, cache_implementation="static"), expected)


SITUATIONS: Final[Mapping[str, tuple[str, Callable[[str], Outcome]]]] = {
    "batch": ("rows of different length", batch),
    "beams": ("beams, two videos", beams),
    "samples": ("`num_return_sequences`, two videos", samples),
    "videos": ("several videos in a prompt", several_videos),
    "images": ("images beside videos, all stages", images_beside),
    "images_alone": ("images without a video (a warning says that nothing merged)", images_alone),
    "text_turn": ("a further question", text_turn),
    "video_after_text": ("a video after cached text", video_after_text),
    "second_video": ("a second video in a later turn", second_video),
    "caches": ("several caches in turn", several_caches),
    "copied_cache": ("copies of a cache", copied_cache),
    "guidance": ("classifier-free guidance", guidance),
    "threads": ("two threads", threads),
    "chunks": ("`prefill_chunk_size`, no boundary inside the video", chunked_before),
    "chunk_inside": ("`prefill_chunk_size`, a boundary inside the video", chunked_inside),
    "no_cache": ("`use_cache=False`", no_cache),
    "features": ("features encoded inside the block, passed in", features_passed),
    "foreign_features": ("features encoded before the block, a method that reads saliency", features_from_outside),
    "autocast": ("autocast to bfloat16", autocast),
    "default_dtype": ("default dtype bfloat16, float64", default_dtype),
    "int8": ("int8 weights (torchao)", int8_weights),
    "offload": ("layers on disk (`dispatch_model`)", offload),
    "peft": ("LoRA adapters (PEFT)", peft_adapters),
    "data_parallel": ("`DataParallel` on one device", data_parallel),
    "compiled_layers": ("compiled layers", compiled_layers),
    "compiled_whole": ("`torch.compile(model)`", compiled_whole),
    "attentions": ("`output_attentions`", attentions),
    "logits": ("`logits_to_keep`, a number or columns of text", logits_to_keep),
    "logits_merged": ("`logits_to_keep`, a column that was merged", logits_of_merged),
    "assisted": ("assisted decoding (prompt lookup)", assisted),
    "static_cache": ("static cache", static_cache),
}
"""Name -> what it is in the table, and the situation."""


def try_situation(name: str, backbone: str) -> Outcome:
    """Run a situation on a backbone; a refusal is an outcome, any other error is raised."""
    try:
        return SITUATIONS[name][1](backbone)
    except CompressError as error:
        return Outcome(exact=None, reason=str(error))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("situations", nargs="*", help=f"of {', '.join(SITUATIONS)}; all by default")
    chosen = parser.parse_args().situations or list(SITUATIONS)
    torch.set_num_threads(1)
    print("| situation | " + " | ".join(name.removesuffix("-tiny") for name in BACKBONES) + " |")
    print("|---" * (len(BACKBONES) + 1) + "|")
    reasons = {}
    for name in chosen:
        cells = []
        for backbone in BACKBONES:
            try:
                outcome = try_situation(name, backbone)
            except ImportError as error:
                outcome = Outcome(exact=None, reason=f"not tried here: {error}")
            cells.append(str(outcome))
            if outcome.exact is None:
                reasons[SITUATIONS[name][0]] = outcome.reason
        print(f"| {SITUATIONS[name][0]} | " + " | ".join(cells) + " |", flush=True)
    print()
    for situation, reason in reasons.items():
        print(f"- {situation}: {' '.join(reason.split())}")


if __name__ == "__main__":
    main()
