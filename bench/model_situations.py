"""Situations of models: autocast, default dtype, int8, offload, wrappers, compiled parts, their outputs."""

from __future__ import annotations

import copy
import tempfile
import warnings
from contextlib import ExitStack

import torch

from bench.comparison import (
    ALL_STAGES,
    BEFORE,
    BOTH,
    WHOLE,
    Inputs,
    Outcome,
    compare,
    compressed,
    logits,
    material,
    worst,
)
from compress import InfoMerge
from compress.models.inputs.prompt import prepare
from tests.compress.models.material import TOKENIZER, generate, inputs_of, sharp_model, video_meta


def autocast(backbone: str) -> Outcome:
    """Autocast to bfloat16: the plain model under it where all is kept; fewer tokens run."""
    model, meta, inputs = material(backbone)
    with torch.autocast("cpu", torch.bfloat16):
        compressed(ALL_STAGES, model, meta, inputs)
        compressed(BOTH, model, meta, inputs)
        return compare(compressed(WHOLE, model, meta, inputs), logits(model, inputs))


def default_dtype(backbone: str) -> Outcome:
    """Compare a default dtype of bfloat16 and of float64 with float32: the logits are the same."""
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
    """Compare decoder layers on disk (`dispatch_model`) with the model in memory."""
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
    """Compare decoder layers whose forward is compiled with plain ones."""
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
    """Compare the logits of a column that was merged away with those of the last column."""
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


def static_cache(backbone: str) -> Outcome:
    """`cache_implementation="static"`."""
    model, meta, inputs = material(backbone)
    expected = compressed(BEFORE, model, meta, inputs)
    return compare(compressed(BEFORE, model, meta, inputs, cache_implementation="static"), expected)
