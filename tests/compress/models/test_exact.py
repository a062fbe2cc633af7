"""A compressed model against the plain one (100 %) and against the oracle (less)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from compress.compressor import Pipeline
from compress.infomerge import InfoMerge
from compress.metom import BTM, MATM, MeToM
from compress.models.session.kv_cache import cache_of
from compress.plan import MergePlan
from tests.compress.models.material import BACKBONES, generate, inputs_of, sharp_model, video_meta
from tests.compress.models.oracle import Oracle, record_prompt, token_layout

STEPS = 8
CLOSE = 2e-5
"""Different summation orders in float32; logits have a standard deviation of 0.15, and controls differ by 50 times."""

WHOLE = {
    "metom": MeToM(retention=1.0, tau_tem=1.0, target_keep=1.0, layers=(1, 2), merge_percent=0.0),
    "infomerge": Pipeline(InfoMerge(retention=1.0), MATM(layers=(2,), merge_percent=0.0)),
}
REDUCED = {
    "btm": BTM(retention=0.3, refill=False, positions="contiguous"),
    "infomerge": InfoMerge(retention=0.25),
    "matm": MATM(layers=(1, 2), merge_percent=60.0),
    "both": Pipeline(BTM(retention=0.5), MATM(layers=(2,), merge_percent=50.0, query="text")),
}


@pytest.fixture(scope="module", params=BACKBONES)
def backbone(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=("sdpa", "eager"))
def model(request: pytest.FixtureRequest, backbone: str) -> Any:
    return sharp_model(backbone, attention=request.param)


@pytest.mark.parametrize("method", WHOLE)
def test_all_tokens_bitwise(model: Any, method: str) -> None:
    meta = video_meta()
    inputs = inputs_of(model, meta)
    plain = generate(model, inputs, steps=STEPS)
    with WHOLE[method].attach(model, meta) as session:
        whole = generate(model, inputs, steps=STEPS)
    assert torch.equal(torch.stack(whole.logits), torch.stack(plain.logits))
    assert session.results[0].tokens_in == session.results[0].tokens_out > 0
    for ours, theirs in zip(cache_of(whole).layers, cache_of(plain).layers, strict=True):
        assert torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)


@pytest.mark.parametrize("method", REDUCED)
def test_fewer_tokens_equal_oracle(model: Any, method: str) -> None:
    meta = video_meta()
    inputs = inputs_of(model, meta)
    prompt = record_prompt(model, inputs)
    compressor = REDUCED[method]
    with compressor.attach(model, meta) as session:
        output = generate(model, inputs, steps=STEPS)
        outer = session.results[0].before_llm
        inner = session.inside[0].plan if session.inside else None
    ids = inputs["input_ids"][0]
    tail = output.sequences[0, len(ids) : -1].tolist()
    plan = outer.plan if outer is not None else MergePlan.identity(session.results[0].tokens_in)
    contiguous = outer is not None and outer.positions == "contiguous" and not session.adapter.multi_axis

    def oracle(**changes: Any) -> torch.Tensor:
        settings = {
            "plan": plan,
            "contiguous": contiguous,
            "inner": inner,
            "merge_layer": getattr(compressor, "merge_layer", 0),
        }
        return Oracle(model=model, ids=ids, prompt=prompt, **{**settings, **changes}).logits(tail)

    logits = torch.cat(output.logits)
    assert len(logits) == STEPS
    torch.testing.assert_close(logits, oracle(), rtol=0, atol=CLOSE)
    assert (logits - oracle(positions_shift=3)).abs().max() > 10 * CLOSE
    if inner is not None:
        assert inner.count_out < inner.count_in
        assert (logits - oracle(inner=None)).abs().max() > 10 * CLOSE
    if outer is not None:
        assert plan.count_out < plan.count_in
        dropped = MergePlan.selection(plan.keep, count_in=plan.count_in)
        if not torch.equal(plan.dense(), dropped.dense()):
            assert (logits - oracle(plan=dropped)).abs().max() > 2 * CLOSE


def test_scores_are_the_attention_of_the_plain_model(backbone: str) -> None:
    model, meta = sharp_model(backbone, attention="eager"), video_meta()
    inputs = inputs_of(model, meta)
    places, _ = token_layout(model, inputs["input_ids"][0])
    attentions = generate(model, inputs, steps=1, output_attentions=True).attentions[0]
    received: list[torch.Tensor] = []

    class Listening(MATM):
        def inside_llm(self, scores: torch.Tensor, hidden: torch.Tensor) -> Any:
            received.append(scores)
            return super().inside_llm(scores, hidden)

    for query, rows in (("last", slice(-1, None)), ("text", slice(places[-1] + 1, None))):
        received.clear()
        sdpa = sharp_model(backbone, attention="sdpa")
        with Listening(layers=(0, 2), merge_percent=50.0, query=query).attach(sdpa, meta):
            generate(sdpa, inputs, steps=1)
        start = rows.start
        if type(model).__name__.startswith("Llava") and query == "text":
            start = int((inputs["input_ids"][0] == model.config.video_token_id).nonzero().max()) + 1
        expected = torch.stack([attentions[layer][0, :, start:, places].mean(dim=(0, 1)) for layer in (0, 2)])
        torch.testing.assert_close(received[0], expected, rtol=1e-4, atol=1e-7)
        assert (received[0] - expected.flip(1)).abs().max() > 1e-4
