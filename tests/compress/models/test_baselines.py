"""The comparison methods on every backbone: batches, beams, a merge before and one after."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from compress.budget import round_half_up
from compress.compressor import Pipeline
from compress.methods import METHODS, build
from compress.metom import MATM, RPM
from compress.models.inputs.prompt import pad_batch
from tests.compress.models.material import BACKBONES, generate, inputs_of, sharp_model, video_meta
from tests.compress.models.oracle import Oracle, record_prompt

CLOSE = 2e-5
RETENTION = 0.4
METHODS_HERE = [
    name
    for name, entry in METHODS.items()
    if "before_llm" in entry.stages and entry.target.startswith(("compress.baselines", "compress.cover"))
]
SETTINGS: dict[str, dict[str, str]] = {
    "pool": {"frame_budget": "packets"},
    "visionzip": {"frame_budget": "packets"},
    "fastvid": {"c": "2"},
    "earlytom": {"M": "2"},  # frames that fold in the encoder are the subject of test_inside_encoder
    "flashvid": {"c": "2"},
}


def method_of(name: str) -> Any:
    return build(name, retention=RETENTION, settings=SETTINGS.get(name, {}))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", METHODS_HERE)
def test_a_batch_equals_its_rows_and_meets_the_retention(backbone: str, name: str) -> None:
    model, method = sharp_model(backbone), method_of(name)
    metas = [video_meta(0), video_meta(1)]
    prompts = [inputs_of(model, metas[0], "What moves?"), inputs_of(model, metas[1], "Where does the square go now?")]
    with method.attach(model, metas) as session:
        together = torch.stack(generate(model, pad_batch(prompts), steps=3).logits, dim=1)
    plans = [result.before_llm.plan for result in session.results]
    for row, (prompt, meta) in enumerate(zip(prompts, metas, strict=True)):
        with method.attach(model, meta) as session:
            alone = torch.cat(generate(model, prompt, steps=3).logits)
        (result,) = session.results
        assert result.tokens_out == round_half_up(RETENTION * result.tokens_in) < result.tokens_in
        assert torch.equal(result.before_llm.plan.keep, plans[row].keep)
        torch.testing.assert_close(together[row], alone, rtol=0, atol=CLOSE)
        assert (together[1 - row] - alone).abs().max() > 100 * CLOSE
        if "saliency" in METHODS[name].signals:
            assert "attention" in result.sources["saliency"]
        if "frame_budget" in SETTINGS.get(name, {}):
            assert result.sources["packet_size"] == "mean packet of the frame's GoP"


@pytest.mark.parametrize("name", METHODS_HERE)
def test_logits_are_those_of_the_shortened_prompt(name: str) -> None:
    model, meta = sharp_model("llava-onevision-tiny"), video_meta()
    inputs = inputs_of(model, meta)
    prompt = record_prompt(model, inputs)
    with method_of(name).attach(model, meta) as session:
        output = generate(model, inputs, steps=4)
    tail = output.sequences[0, inputs["input_ids"].shape[1] : -1].tolist()
    plan = session.results[0].before_llm.plan
    oracle = Oracle(model=model, ids=inputs["input_ids"][0], prompt=prompt, plan=plan)
    torch.testing.assert_close(torch.cat(output.logits), oracle.logits(tail), rtol=0, atol=CLOSE)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", METHODS_HERE)
def test_beams_between_rpm_and_matm(backbone: str, name: str) -> None:
    model, meta = sharp_model(backbone), video_meta()
    inputs = inputs_of(model, meta)
    before = () if "inside_encoder" in METHODS[name].stages else (RPM(target_keep=0.6),)
    pipeline = Pipeline(*before, method_of(name), MATM(layers=(2,), merge_percent=50.0))
    with pipeline.attach(model, meta) as session:
        output = generate(model, inputs, steps=2, num_beams=2)
    assert output.sequences.shape[0] == 1
    result = session.results[0]
    assert (result.before_encoder is None) == (not before)
    if result.before_encoder is not None:
        assert result.before_encoder.achieved < result.before_encoder.plan.count_in
    assert result.tokens_out == round_half_up(RETENTION * result.tokens_in)
    assert session.inside[0].plan.count_in == result.tokens_out
    assert session.inside[0].achieved == result.tokens_out - round_half_up(0.5 * result.tokens_out)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", METHODS_HERE)
def test_two_videos_in_a_prompt(backbone: str, name: str) -> None:
    model, method = sharp_model(backbone), method_of(name)
    metas = [video_meta(0), video_meta(1)]
    prompts = [inputs_of(model, meta) for meta in metas]
    along_text = {"input_ids", "attention_mask", "mm_token_type_ids"}
    both = {
        key: torch.cat([prompt[key] for prompt in prompts], dim=1 if key in along_text else 0) for key in prompts[0]
    }
    with method.attach(model, metas) as session:
        generate(model, both, steps=1)
    assert len(session.results) == 2
    for result, prompt, meta in zip(session.results, prompts, metas, strict=True):
        with method.attach(model, meta) as alone:
            generate(model, prompt, steps=1)
        assert torch.equal(result.before_llm.plan.keep, alone.results[0].before_llm.plan.keep)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_sums_of_released_code_reach_the_model(backbone: str) -> None:
    model, meta = sharp_model(backbone), video_meta()
    inputs = inputs_of(model, meta)
    logits = []
    for fidelity in ("fixed", "reference"):
        method = build("visionzip", settings={"fidelity": fidelity, "dominant": "2", "contextual": "1"})
        with method.attach(model, meta) as session:
            logits.append(torch.cat(generate(model, inputs, steps=2).logits))
        assert session.results[0].before_llm.plan.stochastic == (fidelity == "fixed")
    assert (logits[0] - logits[1]).abs().max() > CLOSE


@pytest.mark.parametrize("backbone", BACKBONES)
def test_flashvid_cuts_inside_the_model(backbone: str) -> None:
    from compress.baselines import FlashVID, FlashVIDInner

    model, meta = sharp_model(backbone), video_meta()
    with Pipeline(FlashVID(retention=0.6), FlashVIDInner(K=2, R=0.3)).attach(model, meta) as session:
        generate(model, inputs_of(model, meta), steps=2)
    (result,) = session.results
    assert session.inside[0].achieved == -(-3 * result.tokens_out // 10)
