"""What `generate` can do besides greedy steps over one prompt: batches, beams, samples, drafts, further turns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from compress.compressor import Pipeline
from compress.errors import ConfigError, ShapeError
from compress.infomerge import InfoMerge
from compress.metom import BTM, MATM, MeToM
from compress.models.inputs.prompt import pad_batch
from compress.models.session.kv_cache import CACHE, cache_of
from tests.compress.models.material import BACKBONES, TOKENIZER, generate, inputs_of, sharp_model, video_meta
from tests.compress.models.oracle import Oracle, record_prompt

CLOSE = 2e-5
METOM = MeToM(retention=0.4, target_keep=0.7, layers=(1, 2), merge_percent=50.0)
WHOLE = MeToM(retention=1.0, tau_tem=1.0, target_keep=1.0, layers=(1, 2), merge_percent=0.0)
INFOMERGE = Pipeline(InfoMerge(retention=0.3), MATM(layers=(2,), merge_percent=40.0, query="text"))


@pytest.fixture(scope="module", params=BACKBONES)
def model(request: pytest.FixtureRequest) -> Any:
    return sharp_model(str(request.param))


@pytest.mark.parametrize("attention", ("sdpa", "eager"))
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("compressor", (METOM, INFOMERGE), ids=("metom", "infomerge"))
def test_a_batch_equals_its_rows(backbone: str, attention: str, compressor: Any) -> None:
    model = sharp_model(backbone, attention=attention)
    metas = [video_meta(0), video_meta(1)]
    prompts = [inputs_of(model, metas[0], "What moves?"), inputs_of(model, metas[1], "Where does the square go now?")]
    batch = pad_batch(prompts)
    assert (batch["attention_mask"] == 0).any()
    with compressor.attach(model, metas):
        together = torch.stack(generate(model, batch, steps=5).logits, dim=1)
    for row, (prompt, meta) in enumerate(zip(prompts, metas, strict=True)):
        with compressor.attach(model, meta):
            alone = torch.cat(generate(model, prompt, steps=5).logits)
        torch.testing.assert_close(together[row], alone, rtol=0, atol=CLOSE)
        assert (together[1 - row] - alone).abs().max() > 100 * CLOSE


def test_beams_and_samples(model: Any) -> None:
    meta = video_meta()
    inputs = inputs_of(model, meta)
    for options in ({"num_beams": 2}, {"do_sample": True, "num_return_sequences": 2}):
        sequences, logits = [], []
        for compressor in (None, WHOLE, METOM, METOM):
            torch.manual_seed(5)
            if compressor is None:
                output = generate(model, inputs, steps=4, **options)
            else:
                with compressor.attach(model, meta):
                    output = generate(model, inputs, steps=4, **options)
            sequences.append(output.sequences)
            logits.append(torch.cat(output.logits))
        assert torch.equal(sequences[0], sequences[1])
        assert torch.equal(sequences[2], sequences[3])
        assert (logits[0] - logits[2]).abs().max() > 100 * CLOSE


def test_scores_of_beams_are_those_of_the_oracle(model: Any) -> None:
    meta = video_meta()
    inputs = inputs_of(model, meta)
    prompt = record_prompt(model, inputs)
    with INFOMERGE.attach(model, meta) as session:
        output = generate(model, inputs, steps=5, num_beams=2, length_penalty=0.0, output_scores=True)
    outer = session.results[0].before_llm
    assert outer is not None
    tail = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    inner = session.inside[0].plan

    def score(**changes: int) -> float:
        settings = {"plan": outer.plan, "inner": inner, "merge_layer": 3}
        oracle = Oracle(model=model, ids=inputs["input_ids"][0], prompt=prompt, **settings, **changes)
        likely = oracle.logits(tail[:-1]).log_softmax(-1)
        return float(likely[torch.arange(len(tail)), tail].sum())

    assert abs(score() - float(output.sequences_scores[0])) < 2 * CLOSE
    assert abs(score() - score(positions_shift=9)) > 10 * CLOSE


def test_drafts_change_nothing(model: Any) -> None:
    meta = video_meta()
    inputs = inputs_of(model, meta)
    for compressor in (METOM, INFOMERGE):
        with compressor.attach(model, meta):
            plain = generate(model, inputs, steps=12)
            drafted = generate(model, inputs, steps=12, prompt_lookup_num_tokens=3)
        assert len(drafted.logits) == len(plain.logits)
        assert torch.equal(plain.sequences, drafted.sequences)
        assert (torch.cat(plain.logits) - torch.cat(drafted.logits)).abs().max() < CLOSE


def test_a_loop_over_forward_equals_generate(model: Any) -> None:
    meta = video_meta()
    inputs = inputs_of(model, meta)
    with torch.no_grad(), METOM.attach(model, meta):
        expected = generate(model, inputs, steps=5)
        output = model(**inputs, use_cache=True)
        logits = [output.logits[:, -1]]
        for _ in range(4):
            output = model(input_ids=logits[-1].argmax(-1)[:, None], **{CACHE: cache_of(output)})
            logits.append(output.logits[:, -1])
        uncached = model(**inputs, use_cache=False).logits[:, -1]
    torch.testing.assert_close(torch.cat(logits), torch.cat(expected.logits), rtol=0, atol=CLOSE)
    torch.testing.assert_close(uncached, expected.logits[0], rtol=0, atol=CLOSE)


def test_gaps_between_positions_are_no_packed_sequences(model: Any) -> None:
    """Without cache and mask, position ids that jump would be taken for several sequences in one."""
    meta = video_meta()
    inputs = inputs_of(model, meta)
    bare = {name: tensor for name, tensor in inputs.items() if name != "attention_mask"}
    with torch.no_grad(), InfoMerge(retention=0.3).attach(model, meta) as session:
        expected = model(**inputs).logits[:, -1]
        found = model(**bare, use_cache=False).logits[:, -1]
    assert session.results[0].before_llm.positions == "original"
    torch.testing.assert_close(found, expected, rtol=0, atol=CLOSE)


def test_further_turns_equal_the_oracle(model: Any) -> None:
    meta = video_meta()
    inputs = inputs_of(model, meta, "What moves?")
    prompt = record_prompt(model, inputs)
    spoken: list[list[int]] = []

    class Recording:
        """The tokenizer, which also notes what is decoded."""

        encode = staticmethod(TOKENIZER.encode)

        def decode(self, ids: list[int], *, skip_special_tokens: bool = True) -> str:
            spoken.append(list(ids))
            return TOKENIZER.decode(ids)

    with INFOMERGE.attach(model, meta) as session:
        chat = session.chat(meta, tokenizer=Recording(), max_new_tokens=4, do_sample=False)
        for question in ("What moves?", "Where?", "Why?"):
            chat.ask(question)
        outer, inner = session.results[0].before_llm, session.inside[0].plan
    assert outer is not None
    tail: list[int] = []
    for number, answer in enumerate(spoken):
        if number:
            tail += TOKENIZER.encode(session.adapter.write_turn(("What moves?", "Where?", "Why?")[number]))
        for one in answer:
            settings = {"plan": outer.plan, "inner": inner, "merge_layer": 3}
            oracle = Oracle(model=model, ids=inputs["input_ids"][0], prompt=prompt, **settings)
            assert int(oracle.logits(tail)[-1].argmax()) == one
            tail.append(one)
    assert len(tail) > 30
    with pytest.raises(ConfigError, match="left"):
        chat.ask("Still there?")


def test_whole_conversation_over_a_shortened_cache_is_refused(model: Any) -> None:
    meta = video_meta()
    inputs = inputs_of(model, meta)
    with METOM.attach(model, meta):
        output = generate(model, inputs, steps=4)
        ids = torch.cat((output.sequences, torch.tensor([TOKENIZER.encode(" and then? tell me more")])), dim=1)
        with pytest.raises(ConfigError, match="chat"):
            model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                **{CACHE: cache_of(output)},
                max_new_tokens=2,
            )


def test_beams_of_one_video_share_metadata_but_two_videos_do_not(model: Any) -> None:
    metas = [video_meta(0), video_meta(1)]
    batch = pad_batch([inputs_of(model, meta) for meta in metas])
    with BTM(retention=0.5).attach(model, metas[0]), pytest.raises(ShapeError, match="one per video"):
        generate(model, batch, steps=1)
