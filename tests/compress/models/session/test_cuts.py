"""Methods with several cuts inside the language model: scores, positions, caches and steps against the oracle."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from compress.attach import Attachable
from compress.compressor import Pipeline
from compress.errors import ConfigError
from compress.infomerge import InfoMerge
from compress.models.inputs.prompt import pad_batch
from compress.models.session.kv_cache import CACHE, cache_of
from compress.plan import MergePlan
from compress.stage import Compression, Cut, InnerTokens
from tests.compress.models.material import BACKBONES, generate, inputs_of, sharp_model, video_meta
from tests.compress.models.oracle import Oracle, record_prompt, token_layout

CLOSE = 2e-5
READINGS: tuple[tuple[Cut, ...], ...] = (
    (Cut(layer=2, scored=(0, 1)), Cut(layer=3, scored=(2,), query="text", reduce="max")),
    (Cut(layer=2, scored=(2,), query="all"), Cut(layer=3, scored=(3,), query="text")),
    (
        Cut(layer=2, scored=(1, 2), positions="contiguous"),
        Cut(layer=3, scored=(2, 3), query="last", reduce="max", positions="contiguous"),
    ),
)
WHERE = [
    (backbone, cuts)
    for backbone in BACKBONES
    for cuts in READINGS
    if backbone in BACKBONES[:3:2] or cuts is READINGS[2]
]
everywhere = pytest.mark.parametrize(
    ("backbone", "cuts"), WHERE, ids=[f"{backbone}-{READINGS.index(cuts)}" for backbone, cuts in WHERE]
)


@dataclass
class Halves(Attachable):
    """Keeps the half of the visual tokens with the largest scores, at every cut; the next one joins each."""

    cuts: tuple[Cut, ...]
    seen: list[tuple[torch.Tensor, torch.Tensor, InnerTokens, MergePlan]] = field(default_factory=list)

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted({layer for cut in self.cuts for layer in cut.scored}))

    @property
    def merge_layer(self) -> int:
        return self.cuts[0].layer

    def inside_llm(self, scores: torch.Tensor, hidden: torch.Tensor, tokens: InnerTokens | None = None) -> Compression:
        count = len(hidden)
        keep = scores.mean(dim=0).sort(descending=True, stable=True).indices[: count // 2].sort().values
        row = torch.arange(len(keep))
        plan = MergePlan.from_entries(
            torch.cat((row, row)),
            torch.cat((keep, (keep + 1) % count)),
            torch.full((2 * len(keep),), 0.5),
            keep=keep,
            count_in=count,
        )
        assert tokens is not None
        self.seen.append((scores, hidden, tokens, plan))
        return Compression(method="halves", plan=plan, frames=0, nominal=count // 2)


def renumbers(model: Any, cut: Cut) -> bool:
    return cut.positions == "contiguous" and type(model).__name__.startswith("Llava")


def oracle_of(model: Any, inputs: dict[str, Any], method: Halves, outer: MergePlan | None = None) -> Oracle:
    prompt = record_prompt(model, inputs)
    visual, _ = token_layout(model, inputs["input_ids"][0])
    return Oracle(
        model=model,
        ids=inputs["input_ids"][0],
        prompt=prompt,
        plan=MergePlan.identity(len(visual)) if outer is None else outer,
        cuts=[(cut.layer, seen[3], renumbers(model, cut)) for cut, seen in zip(method.cuts, method.seen, strict=False)],
    )


@everywhere
def test_steps_equal_the_oracle(backbone: str, cuts: tuple[Cut, ...]) -> None:
    model, meta = sharp_model(backbone), video_meta()
    inputs = inputs_of(model, meta)
    method = Halves(cuts)
    with method.attach(model, meta) as session:
        output = generate(model, inputs, steps=6)
    ids = inputs["input_ids"][0]
    tail = output.sequences[0, len(ids) : -1].tolist()
    oracle = oracle_of(model, inputs, method)
    logits = torch.cat(output.logits)
    torch.testing.assert_close(logits, oracle.logits(tail), rtol=0, atol=CLOSE)
    for cut in range(2):
        wrong = oracle_of(model, inputs, method)
        layer, plan, renumbered = wrong.cuts[cut]
        wrong.cuts[cut] = (layer, MergePlan.selection(plan.keep, count_in=plan.count_in), renumbered)
        assert (logits - wrong.logits(tail)).abs().max() > 3 * CLOSE
    if any(one[2] for one in oracle.cuts):
        oracle.cuts = [(layer, plan, False) for layer, plan, _ in oracle.cuts]
        assert (logits - oracle.logits(tail)).abs().max() > 10 * CLOSE
    # caches: each part as long as its tokens, in every layer
    entered = session.results[0].tokens_out
    assert session.layer_tokens == [entered, entered, entered // 2, entered // 4]
    lengths = [cache_of(output).get_seq_length(layer) for layer in range(4)]
    assert lengths == [len(ids) + 5 - entered + count for count in session.layer_tokens]
    first, second = (seen[3] for seen in method.seen)
    assert torch.equal(session.inside[0].plan.dense(), (second @ first).dense())


@everywhere
def test_scores_are_the_attention_of_the_oracle(backbone: str, cuts: tuple[Cut, ...]) -> None:
    eager, meta = sharp_model(backbone, attention="eager"), video_meta()
    inputs = inputs_of(eager, meta)
    method = Halves(cuts)
    with method.attach(sharp_model(backbone), meta):
        generate(sharp_model(backbone), inputs, steps=1)
    oracle = oracle_of(eager, inputs, method)
    for cut, (scores, hidden, tokens, _) in zip(cuts, method.seen, strict=True):
        for layer, found in zip(cut.scored, scores, strict=True):
            weights, visual = oracle.weights(layer, cut=layer < cut.layer)
            before, _, _ = oracle.run([], until=cut.layer)
            torch.testing.assert_close(hidden, before[visual], rtol=0, atol=1e-4)
            text = len(weights[0]) - len(tokens.text)
            rows = {"last": slice(-1, None), "text": slice(text, None), "all": slice(None)}[cut.query]
            counted = weights[:, rows][..., visual]
            expected = counted.mean(dim=(0, 1)) if cut.reduce == "mean" else counted.amax(dim=(0, 1))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
            assert (found - expected.flip(0)).abs().max() > 1e-4
            torch.testing.assert_close(tokens.text, before[text:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_places_are_those_of_the_anchors(backbone: str) -> None:
    model, metas = sharp_model(backbone), [video_meta(0), video_meta(1)]
    prompts = [inputs_of(model, meta) for meta in metas]
    along_text = {"input_ids", "attention_mask", "mm_token_type_ids"}
    both = {
        key: torch.cat([prompt[key] for prompt in prompts], dim=1 if key in along_text else 0) for key in prompts[0]
    }
    method = Halves(READINGS[0])
    with Pipeline(InfoMerge(retention=0.4), method).attach(model, metas) as session:
        generate(model, both, steps=1)
    expected = []
    for number, result in enumerate(session.results):
        rows, cols = session.adapter.locate(both["input_ids"], (), both)[number].grid
        for one in result.before_llm.plan.keep.tolist():
            expected.append([number, one // (rows * cols), one % (rows * cols) // cols, one % cols])
    assert method.seen[0][2].place.tolist() == expected
    assert method.seen[1][2].place.tolist() == [expected[one] for one in method.seen[0][3].keep.tolist()]
    assert [seen[2].entered for seen in method.seen] == [len(expected)] * 2
    assert [seen[2].cut for seen in method.seen] == [0, 1]


@everywhere
def test_a_batch_equals_its_rows(backbone: str, cuts: tuple[Cut, ...]) -> None:
    model = sharp_model(backbone)
    metas = [video_meta(0), video_meta(1)]
    prompts = [inputs_of(model, metas[0], "What moves?"), inputs_of(model, metas[1], "Where does the square go now?")]
    compressor = Pipeline(InfoMerge(retention=0.6), Halves(cuts))
    with compressor.attach(model, metas):
        together = torch.stack(generate(model, pad_batch(prompts), steps=4).logits, dim=1)
    for row, (prompt, meta) in enumerate(zip(prompts, metas, strict=True)):
        with compressor.attach(model, meta):
            alone = torch.cat(generate(model, prompt, steps=4).logits)
        torch.testing.assert_close(together[row], alone, rtol=0, atol=CLOSE)
        assert (together[1 - row] - alone).abs().max() > 100 * CLOSE


@everywhere
def test_beams_drafts_and_loops(backbone: str, cuts: tuple[Cut, ...]) -> None:
    model, meta = sharp_model(backbone), video_meta()
    inputs = inputs_of(model, meta)
    method = Halves(cuts)
    with torch.no_grad(), method.attach(model, meta):
        plain = generate(model, inputs, steps=8)
        drafted = generate(model, inputs, steps=8, prompt_lookup_num_tokens=3)
        assert torch.equal(plain.sequences, drafted.sequences)
        assert (torch.cat(plain.logits) - torch.cat(drafted.logits)).abs().max() < CLOSE
        output = model(**inputs, use_cache=True)
        logits = [output.logits[:, -1]]
        for _ in range(3):
            output = model(input_ids=logits[-1].argmax(-1)[:, None], **{CACHE: cache_of(output)})
            logits.append(output.logits[:, -1])
        torch.testing.assert_close(torch.cat(logits), torch.cat(plain.logits[:4]), rtol=0, atol=CLOSE)
        method.seen.clear()
        beams = generate(model, inputs, steps=4, num_beams=2, length_penalty=0.0, output_scores=True)
    method.seen = method.seen[::2]  # of the first beam
    tail = beams.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    likely = oracle_of(model, inputs, method).logits(tail[:-1]).log_softmax(-1)
    score = float(likely[torch.arange(len(tail)), tail].sum())
    assert abs(score - float(beams.sequences_scores[0])) < 2 * CLOSE


def test_cuts_that_cannot_be_made_are_refused() -> None:
    model = sharp_model("qwen3-vl-tiny")
    for cuts, says in (
        ((Cut(layer=1, scored=(0,)),), "allows merging before layers 2 to 3"),
        ((Cut(layer=2, scored=(3,)),), "allows merging before layers 2 to 3"),
        ((Cut(layer=2, scored=(1,)), Cut(layer=3, scored=(1, 2))), "choose layers from 2 on"),
        ((Cut(layer=3, scored=(1,)), Cut(layer=2, scored=(1,))), "choose layers from 3 on"),
    ):
        with pytest.raises(ConfigError, match=says):
            Halves(cuts).attach(model)


def test_positions_with_three_axes_stay() -> None:
    meta = video_meta()
    for backbone, said in (("qwen2-vl-tiny", "original: this model's positions have three axes"), (BACKBONES[0], None)):
        model = sharp_model(backbone)
        with Halves(READINGS[2]).attach(model, meta) as session:
            generate(model, inputs_of(model, meta), steps=1)
        assert session.inside[0].sources.get("positions") == said
