"""The comparison methods inside the language model and at decoding on every backbone, against the oracle."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from compress.baselines import (
    D2Pruner,
    DyCoke,
    DyCokeDecoding,
    FastV,
    HoliTomInner,
    PositionPrior,
    PruneVid,
    PruneVidInner,
    PyramidDrop,
    STTMInner,
    ToMeVideoInner,
    UnifiedSTTCInner,
)
from compress.compressor import Pipeline
from compress.errors import ConfigError
from compress.infomerge import InfoMerge
from compress.models.inputs.prompt import pad_batch
from compress.models.session.decoding_reads import ChoosingLayer
from compress.models.session.kv_cache import CACHE, cache_of
from compress.plan import MergePlan
from compress.stage import Compression, InnerTokens, cuts_of
from tests.compress.models.material import BACKBONES, TOKENIZER, generate, inputs_of, sharp_model, video_meta
from tests.compress.models.oracle import Oracle, record_prompt, token_layout
from tests.oracle import inner as oracle

CLOSE = 2e-5
METHODS: dict[str, Any] = {
    "fastv": FastV(retention=0.4),
    "fastv-reference": FastV(K=2, R=0.6, fidelity="reference"),
    "prunevid-inner": PruneVidInner(K=3, retention=0.4),
    "unified-sttc-inner": UnifiedSTTCInner(retention=0.4),
    "holitom-inner": HoliTomInner(retention=0.4),
    "tome-video-inner": ToMeVideoInner(retention=0.4),
    "d2pruner": D2Pruner(K=2, retention=0.4, alpha=0.5, debias="frames", theta=0.3),
    "pyramiddrop": PyramidDrop(layer_list=(2, 3), retention=0.25),
    "pyramiddrop-reference": PyramidDrop(layer_list=(2, 3), image_token_ratio_list=(0.5, 0.2), fidelity="reference"),
}
OUTER = InfoMerge(retention=0.7)


def listening(method: Any, plans: list[MergePlan]) -> Any:
    """Return the method, which also notes its plans."""
    kind = type(method)

    class Listening(kind):  # type: ignore[misc, valid-type]
        def inside_llm(
            self, scores: torch.Tensor, hidden: torch.Tensor, tokens: InnerTokens | None = None
        ) -> Compression:
            found: Compression = super().inside_llm(scores, hidden, tokens)
            plans.append(found.plan)
            return found

    return Listening(**{name: getattr(method, name) for name in (one.name for one in fields(method))})


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", METHODS)
def test_after_a_method_before_the_model_steps_and_beams_equal_the_oracle(backbone: str, name: str) -> None:
    model, meta = sharp_model(backbone), video_meta()
    inputs = inputs_of(model, meta)
    ids = inputs["input_ids"][0]
    plans: list[MergePlan] = []
    with Pipeline(OUTER, listening(METHODS[name], plans)).attach(model, meta) as session:
        output = generate(model, inputs, steps=4)
        steps = list(plans)
        plans.clear()
        beams = generate(model, inputs, steps=3, num_beams=2, length_penalty=0.0, output_scores=True)
    result = session.results[0]
    cuts = cuts_of(session.compressor) or ()
    oracle_ = Oracle(model=model, ids=ids, prompt=record_prompt(model, inputs), plan=result.before_llm.plan)
    oracle_.caches = any(cut.caches for cut in cuts)
    llava = type(model).__name__.startswith("Llava")

    def logits(made: list[MergePlan], tail: list[int]) -> torch.Tensor:
        oracle_.cuts = [
            (cut.layer, plan, llava and cut.positions == "contiguous") for cut, plan in zip(cuts, made, strict=True)
        ]
        return oracle_.logits(tail)

    tail = output.sequences[0, len(ids) : -1].tolist()
    torch.testing.assert_close(torch.cat(output.logits), logits(steps, tail), rtol=0, atol=CLOSE)
    wrong = [MergePlan.selection(plan.count_in - 1 - plan.keep.flip(0), count_in=plan.count_in) for plan in steps]
    assert (torch.cat(output.logits) - logits(wrong, tail)).abs().max() > 5 * CLOSE
    left = [result.tokens_out, *(plan.count_out for plan in steps)]
    expected = [METHODS[name].at_depth(4, first=2).count(left[0], cut) for cut in range(len(cuts))]
    assert left[1:] == expected
    bounds = [0, *(cut.layer for cut in cuts), 4]
    lengths = [
        len(ids) - result.tokens_in + left[part] + 3
        for part in range(len(left))
        for _ in range(*bounds[part : part + 2])
    ]
    if oracle_.caches:
        lengths = [lengths[-1]] * 4
        oracle_.caches = False
        assert (torch.cat(output.logits) - logits(steps, tail)).abs().max() > CLOSE
        oracle_.caches = True
    if not llava:
        assert [cache_of(output).get_seq_length(layer) for layer in range(4)] == lengths
    tail = beams.sequences[0, len(ids) :].tolist()
    likely = logits(plans[::2], tail[:-1]).log_softmax(-1)
    assert abs(float(likely[torch.arange(len(tail)), tail].sum()) - float(beams.sequences_scores[0])) < 2 * CLOSE


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_equals_its_rows_and_retention_1_changes_nothing(name: str) -> None:
    model = sharp_model(BACKBONES[list(METHODS).index(name) % len(BACKBONES)])
    metas = [video_meta(0), video_meta(1)]
    prompts = [inputs_of(model, metas[0], "What moves?"), inputs_of(model, metas[1], "Where does the square go now?")]
    method = METHODS[name]
    with method.attach(model, metas):
        together = torch.stack(generate(model, pad_batch(prompts), steps=2).logits, dim=1)
    for row, (prompt, meta) in enumerate(zip(prompts, metas, strict=True)):
        with method.attach(model, meta):
            alone = torch.cat(generate(model, prompt, steps=2).logits)
        torch.testing.assert_close(together[row], alone, rtol=0, atol=CLOSE)
        assert (together[1 - row] - alone).abs().max() > 100 * CLOSE
    plain = torch.cat(generate(model, prompts[0], steps=2).logits)
    layers = {one: getattr(method, one) for one in ("K", "layer_list") if hasattr(method, one)}
    with type(method)(retention=1.0, **layers).attach(model, metas[0]):
        assert torch.equal(torch.cat(generate(model, prompts[0], steps=2).logits), plain)


def test_two_videos_share_a_cut() -> None:
    model = sharp_model("llava-video-tiny")
    metas = [video_meta(0), video_meta(1)]
    prompts = [inputs_of(model, meta) for meta in metas]
    along_text = {"input_ids", "attention_mask", "mm_token_type_ids"}
    both = {
        key: torch.cat([prompt[key] for prompt in prompts], dim=1 if key in along_text else 0) for key in prompts[0]
    }
    for method in METHODS.values():
        with Pipeline(OUTER, method).attach(model, metas) as session:
            generate(model, both, steps=1)
        entered = sum(result.tokens_out for result in session.results)
        assert session.inside[0].plan.count_in == entered
        cuts = len(cuts_of(session.compressor) or ())
        assert session.inside[0].achieved == method.count(entered, cuts - 1)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_sttm_merges_whole_grids_of_several_videos(backbone: str) -> None:
    model = sharp_model(backbone)
    metas = [video_meta(0), video_meta(1)]
    prompts = [inputs_of(model, meta) for meta in metas]
    along_text = {"input_ids", "attention_mask", "mm_token_type_ids"}
    both = {
        key: torch.cat([prompt[key] for prompt in prompts], dim=1 if key in along_text else 0) for key in prompts[0]
    }
    plans: list[MergePlan] = []
    method = listening(STTMInner(retention=0.3), plans)
    with method.attach(model, metas) as session:
        generate(model, both, steps=1)
    entered = [result.tokens_out for result in session.results]
    assert plans[0].count_in == sum(entered)
    assert plans[0].count_out == round(0.3 * sum(entered) + 1e-9)
    assert {int(plans[0].assign[i]) for i in range(entered[0])} & {
        int(plans[0].assign[i]) for i in range(entered[0], sum(entered))
    } == set()
    inputs = prompts[0]
    with method.attach(model, metas[0]) as session:
        output = generate(model, inputs, steps=3)
    oracle_ = Oracle(
        model=model,
        ids=inputs["input_ids"][0],
        prompt=record_prompt(model, inputs),
        plan=MergePlan.identity(session.results[0].tokens_in),
    )
    oracle_.cuts = [(2, plans[-1], False)]
    tail = output.sequences[0, inputs["input_ids"].shape[1] : -1].tolist()
    torch.testing.assert_close(torch.cat(output.logits), oracle_.logits(tail), rtol=0, atol=CLOSE)
    oracle_.cuts = []
    assert (torch.cat(output.logits) - oracle_.logits(tail)).abs().max() > 10 * CLOSE
    with Pipeline(OUTER, method).attach(model, metas[0]), pytest.raises(ConfigError, match="whole grids"):
        generate(model, inputs, steps=1)


class Loop:
    """DyCoke's second stage step by step: no cache, every step of the whole sequence again, layer by layer."""

    def __init__(self, model: Any, inputs: dict[str, Any], method: Any, plan: MergePlan | None = None) -> None:
        visual, _ = token_layout(model, inputs["input_ids"][0])
        self.oracle = Oracle(
            model=model,
            ids=inputs["input_ids"][0],
            prompt=record_prompt(model, inputs),
            plan=MergePlan.identity(len(visual)) if plan is None else plan,
        )
        self.method = method
        self.read: list[int] = []

    @torch.no_grad()
    def logits(self, tail: list[int]) -> torch.Tensor:
        """Logits after the prompt and each further id, with the choices that the definition makes."""
        oracle_, method = self.oracle, self.method
        decoder = oracle_.model.model.language_model
        hidden = torch.cat((oracle_.embeddings, decoder.embed_tokens(torch.tensor(tail))))
        first, prompt = int(oracle_.positions.max()) + 1, len(oracle_.embeddings)
        later = torch.arange(first, first + len(tail)).expand(len(oracle_.positions), -1)
        positions = torch.cat((oracle_.positions, later), dim=1)
        rotary = decoder.rotary_emb(hidden[None], positions[0][None] if len(positions) == 1 else positions[:, None])
        mask = torch.full((len(hidden), len(hidden)), -torch.inf).triu(1)[None, None]
        for number, layer in enumerate(decoder.layers):
            if number == method.decode_layer - 1:
                _, weights = layer.self_attn(
                    hidden_states=layer.input_layernorm(hidden[None]), attention_mask=mask, position_embeddings=rotary
                )
                scores = weights[0].mean(dim=0)[prompt:][:, oracle_.visual].double().numpy()
                kept = max(1, int(method.share * len(oracle_.visual) + (0.5 if method.fidelity == "fixed" else 0)))
                choices = oracle.steps(scores, kept, method.tau, everything=method.fidelity == "reference")
                self.read = list(map(len, choices))
                narrow = mask.clone()
                for step, choice in enumerate(choices):
                    for token, place in enumerate(oracle_.visual):
                        if token not in choice:
                            narrow[0, 0, prompt + step, place] = -torch.inf
            if number == method.decode_layer:
                mask = narrow
            output = layer(hidden[None], attention_mask=mask, position_embeddings=rotary)
            hidden = (output if isinstance(output, torch.Tensor) else output[0])[0]
            if number < len(oracle_.deepstack):
                hidden[oracle_.visual] += oracle_.deepstack[number]
        return oracle_.model.lm_head(decoder.norm(hidden[prompt - 1 :]))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(("fidelity", "tau"), [("fixed", 0.9), ("reference", 0.2), ("fixed", 0.2)])
def test_decoding_steps_equal_the_loop(backbone: str, fidelity: Any, tau: float) -> None:
    model, eager, meta = sharp_model(backbone), sharp_model(backbone, attention="eager"), video_meta()
    inputs = inputs_of(model, meta)
    method = DyCokeDecoding(L=2, retention=0.3, tau=tau, fidelity=fidelity)
    for chosen in (model, eager) if fidelity == "reference" else (model,):
        with method.attach(chosen, meta) as session:
            output = generate(chosen, inputs, steps=6)
        loop = Loop(eager, inputs, method)
        tail = output.sequences[0, inputs["input_ids"].shape[1] : -1].tolist()
        logits = torch.cat(output.logits)
        torch.testing.assert_close(logits, loop.logits(tail), rtol=0, atol=CLOSE)
        assert [row for (row,) in session.decoding] == loop.read
        loop.method = DyCokeDecoding(L=2, retention=1.0)
        assert (logits - loop.logits(tail)).abs().max() > 10 * CLOSE
    assert {cache_of(output).get_seq_length(layer) for layer in range(4)} == {inputs["input_ids"].shape[1] + 5}


def test_decoding_after_cuts_in_batches_beams_copies_and_turns() -> None:
    metas = [video_meta(0), video_meta(1)]
    compressor = Pipeline(DyCoke(retention=0.6), FastV(K=2, retention=0.8), DyCokeDecoding(L=3, retention=0.25))
    for backbone, attention in (("llava-onevision-tiny", "sdpa"), ("qwen2-vl-tiny", "eager")):
        model = sharp_model(backbone, attention=attention)
        prompts = [inputs_of(model, metas[0], "What moves?"), inputs_of(model, metas[1], "Where does the square go?")]
        with compressor.attach(model, metas) as session:
            together = torch.stack(generate(model, pad_batch(prompts), steps=4).logits, dim=1)
        assert len(session.decoding) == 3
        for row, (prompt, meta) in enumerate(zip(prompts, metas, strict=True)):
            with torch.no_grad(), compressor.attach(model, meta) as session:
                alone = generate(model, prompt, steps=4)
                entered = session.results[0].tokens_out
                assert {row for (row,) in session.decoding} == {round(0.25 * int(0.8 * entered + 0.5) + 1e-9)}
                torch.testing.assert_close(together[row], torch.cat(alone.logits), rtol=0, atol=CLOSE)
                # A loop over forward, from a copy of the cache at every step
                output = model(**prompt, use_cache=True)
                logits = [output.logits[:, -1]]
                for _ in range(3):
                    cache = copy.deepcopy(cache_of(output))
                    output = model(input_ids=logits[-1].argmax(-1)[:, None], **{CACHE: cache})
                    logits.append(output.logits[:, -1])
                torch.testing.assert_close(torch.cat(logits), torch.cat(alone.logits), rtol=0, atol=CLOSE)


def test_beams_choose_by_their_own_history(monkeypatch: pytest.MonkeyPatch) -> None:
    method = DyCokeDecoding(L=2, retention=0.2, tau=0.95)
    gaps: dict[bool, list[float]] = {True: [], False: []}
    for reorders in (True, False):
        if not reorders:  # the control
            monkeypatch.setattr(ChoosingLayer, "_select", lambda layer, rows: None)
        for backbone in BACKBONES[:3]:
            model, eager, meta = sharp_model(backbone), sharp_model(backbone, attention="eager"), video_meta()
            inputs = inputs_of(model, meta)
            with method.attach(model, meta):
                beams = generate(model, inputs, steps=8, num_beams=4, length_penalty=0.0, output_scores=True)
            tail = beams.sequences[0, inputs["input_ids"].shape[1] :].tolist()
            likely = Loop(eager, inputs, method).logits(tail[:-1]).log_softmax(-1)
            score = float(likely[torch.arange(len(tail)), tail].sum())
            gaps[reorders].append(abs(score - float(beams.sequences_scores[0])))
    assert max(gaps[True]) < 2 * CLOSE
    assert max(gaps[False]) > 5 * CLOSE


def test_what_decoding_cannot_do_is_refused() -> None:
    model, meta = sharp_model("llava-onevision-tiny"), video_meta()
    inputs = inputs_of(model, meta)
    method = DyCokeDecoding(L=2)
    with method.attach(model, meta):
        with pytest.raises(ConfigError, match="prompt_lookup_num_tokens"):
            generate(model, inputs, steps=8, prompt_lookup_num_tokens=3)
        with pytest.raises(ConfigError, match="use_cache=True"):
            generate(model, inputs, steps=3, use_cache=False)
        with torch.no_grad():
            model(**inputs, use_cache=False)
    with pytest.raises(
        ConfigError, match="leave before layer 3, after decoding steps have chosen among them at layer 1"
    ):
        Pipeline(FastV(K=3), method).attach(model, meta)
    with pytest.raises(ConfigError, match="decode_layer of DyCokeDecoding is 4"):
        DyCokeDecoding(L=4).attach(model, meta)


@pytest.mark.parametrize("name", ["fastv", "pyramiddrop", "dycoke-decoding"])
def test_runs_without_a_question_refuse_them(name: str) -> None:
    from compress.methods import build
    from compress.models.shortener import ModelShortener
    from compress.video import EmbeddedShortener

    for shortener in (EmbeddedShortener(), ModelShortener(random_config="llava-onevision-tiny")):
        with pytest.raises(ConfigError, match=f"compress ask --model MODEL --prompt TEXT --method {name}"):
            shortener.check(build(name), name)


def test_prunevid_keeps_its_share_of_both_parts() -> None:
    model, meta = sharp_model("llava-onevision-tiny"), video_meta()
    inputs = inputs_of(model, meta)
    pipeline = Pipeline(PruneVid(retention=0.6, tau=0.5), PruneVidInner(K=2, retention=0.5), DyCokeDecoding(L=3))
    with pipeline.attach(model, meta) as session:
        generate(model, inputs, steps=3)
        whole = generate(model, inputs, steps=6)
        lengths = {cache_of(whole).get_seq_length(layer) for layer in range(4)}
    outer, inner = session.results[0].before_llm, session.inside[0]
    kinds, kept = outer.kind, outer.kind[inner.plan.keep]
    for kind in (0, 1):
        assert abs(int((kept == kind).sum()) - 0.5 * int((kinds == kind).sum())) <= 0.5
    assert inner.sources["kinds"] == "dynamic and static"
    assert len(lengths) == 1
    with PruneVidInner(K=2).attach(model, meta) as session:
        plain = generate(model, inputs, steps=10)
        drafted = generate(model, inputs, steps=10, prompt_lookup_num_tokens=3)
        assert torch.equal(plain.sequences, drafted.sequences)
    assert session.inside[0].sources["kinds"] == "one part (PruneVid is not before)"
    with PruneVidInner(K=2).attach(model, meta) as session:
        chat = session.chat(meta, tokenizer=TOKENIZER, max_new_tokens=4, do_sample=False)
        answers = [chat.ask(question) for question in ("What moves?", "Where?")]
    assert len(answers) == 2


@pytest.mark.parametrize("backbone", ["llava-video-tiny", "qwen2-vl-tiny"])
def test_a_prior_is_the_mean_attention_of_each_place(backbone: str) -> None:
    model, eager = sharp_model(backbone), sharp_model(backbone, attention="eager")
    meter = PositionPrior(K=2)
    with pytest.raises(ConfigError, match="no video was read"):
        _ = meter.prior
    expected = []
    for meta in (video_meta(0), video_meta(1)):
        inputs = inputs_of(model, meta)
        with meter.attach(model, meta) as session:
            generate(model, inputs, steps=1)
        places, _ = token_layout(model, inputs["input_ids"][0])
        attention = generate(eager, inputs, steps=1, output_attentions=True).attentions[0][1]
        frames = session.results[0].frames
        expected.append(attention[0, :, -1, places].mean(dim=0).view(frames, -1))
    mean = torch.cat(expected).mean(dim=0)
    torch.testing.assert_close(torch.tensor(meter.prior), mean, rtol=1e-4, atol=1e-7)
    meta = video_meta(2)
    with D2Pruner(K=2, retention=0.3, prior=meter.prior).attach(model, meta) as session:
        generate(model, inputs_of(model, meta), steps=1)
    assert session.inside[0].sources["prior"] == "given"
