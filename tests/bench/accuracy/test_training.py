"""Training, in small: it learns from nothing, packed questions are single ones, the shipped weights are its work."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.accuracy import blind, train
from bench.accuracy.bank import TokenBank, open_bank
from bench.accuracy.corpus import Corpus, find_files, render_clip, render_frame
from bench.accuracy.freeze import FROZEN
from bench.accuracy.train import open_model, save
from bench.accuracy.train_decoder import (
    Curriculum,
    Phase,
    block_mask,
    judge_decoder,
    read_answers,
    train_decoder,
)
from bench.accuracy.train_tower import FrameBank, encode_frames, judge_tower, rate, train_tower
from bench.accuracy.train_whole import begin_anew
from compress.accuracy.clips import digest_world
from compress.accuracy.questions import CHANCE, FAMILIES, WORDS
from compress.demo import WEIGHTS, build, load

CPU = torch.device("cpu")


def stack(rows: list[dict[str, Any]]) -> Corpus:
    arrays = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    missing = {field.name: np.zeros((len(rows), 0)) for field in fields(Corpus) if field.name not in arrays}
    return Corpus(**arrays, **missing)


@pytest.fixture(scope="module")
def clips() -> Corpus:
    return stack([render_clip(seed, "train") for seed in range(48)])


@pytest.fixture(scope="module")
def unseen() -> Corpus:
    return stack([render_clip(seed, "val") for seed in range(16)])


@pytest.fixture(scope="module")
def trained() -> Any:
    return load()[0]


def part(bank: TokenBank, count: int) -> TokenBank:
    return TokenBank(**{field.name: getattr(bank, field.name)[:count] for field in fields(TokenBank)})


def test_the_tower_is_the_models_own(trained: Any, unseen: Corpus) -> None:
    frames = torch.from_numpy(unseen.frames[0])
    with torch.inference_mode():
        ours = encode_frames(trained, frames)
        theirs = trained.model.get_video_features(
            (frames.float() / 255 * 2 - 1)[None], vision_feature_layer=-1, vision_feature_select_strategy="full"
        )
    theirs = getattr(theirs, "pooler_output", theirs)[0, :-1]
    assert torch.equal(ours.flatten(0, 1), theirs)


def test_packed_questions_are_single_ones(trained: Any, unseen: Corpus) -> None:
    bank = TokenBank.from_corpus(unseen, trained)
    words, length = bank.words[:1], bank.length[:1]
    mask = block_mask(bank.visual + 2, words.shape[1], CPU)
    places = torch.arange(bank.visual)[None]
    with torch.inference_mode():
        packed = read_answers(trained, bank.tokens[:1].float(), places, bank.visual, words, length, mask)
        pixels = torch.from_numpy(unseen.frames[:1]).float() / 255 * 2 - 1
        for row in range(3):
            text = words[0, row, : int(length[0, row]) - 1].tolist()
            ids = torch.tensor([[WORDS.index("<bos>"), *[WORDS.index("<video>")] * 785, *text]])
            alone = trained(input_ids=ids, pixel_values_videos=pixels, attention_mask=torch.ones_like(ids)).logits[
                0, -1
            ]
            assert (packed[0, row, 0] - alone).abs().max() < 0.02  # tokens are stored in half precision
            assert (packed[0, row, 0] - packed[0, row + 1, 0]).abs().max() > 0.1


def test_the_mask_lets_a_question_see_the_prefix_and_itself() -> None:
    mask = block_mask(3, 2, CPU)[0, 0]
    first, second = range(3, 16), range(16, 29)
    assert mask[2].nonzero().flatten().tolist() == [0, 1, 2]
    assert mask[15].nonzero().flatten().tolist() == [0, 1, 2, *first]
    assert mask[28].nonzero().flatten().tolist() == [0, 1, 2, *second]


def test_the_tower_learns_from_nothing() -> None:
    """In a minute it tells colours apart, on frames that it has not seen."""
    rng = np.random.default_rng(0)
    bank = FrameBank.from_corpus(stack([render_frame(rng) for _ in range(240)]), CPU)
    judged = FrameBank.from_corpus(stack([render_frame(rng) for _ in range(40)]), CPU)
    torch.manual_seed(0)
    model = build(WORDS).train()
    before = judge_tower(model, judged)
    lines: list[dict[str, float]] = []
    train_tower(model, bank, bank, steps=70, batch=16, seed=0, learning_rate=2e-3, limit=600, log=lines.append,
                keep=lambda: None)  # fmt: skip
    after = judge_tower(model, judged)
    assert lines[-1]["loss"] < 0.85 * lines[0]["loss"]
    assert after["colour"] > max(0.25, before["colour"] + 0.05)


def test_the_decoder_learns_from_nothing(trained: Any, clips: Corpus, unseen: Corpus, tmp_path: Path) -> None:
    """On the shipped tower's tokens, within a minute, it answers better than by guessing on clips it has not seen."""
    torch.manual_seed(0)
    model = build(WORDS).train()
    model.model.vision_tower.load_state_dict(trained.model.vision_tower.state_dict())
    model.model.multi_modal_projector.load_state_dict(trained.model.multi_modal_projector.state_dict())
    model.model.language_model.embed_tokens.weight.data.copy_(trained.model.language_model.embed_tokens.weight)
    bank, judged = TokenBank.from_corpus(clips, model), TokenBank.from_corpus(unseen, model)
    lines: list[dict[str, Any]] = []
    phases = [Phase(tokens=48, batch=8, steps=200, share=1.0, questions=8)]
    train_decoder(model, bank, part(judged, 1), phases, seed=0, learning_rate=1e-3, patience=10**6, limit=600,
                  log=lines.append, keep=lambda: None)  # fmt: skip
    found = judge_decoder(model, judged)
    taken = ("colour", "scene", "digit", "place")
    assert np.mean([found[name] for name in taken]) > 0.33
    assert lines[0]["step"] == 200
    save(model, tmp_path / "decoder.safetensors")
    (tmp_path / "seed0").mkdir()
    (tmp_path / "decoder.safetensors").rename(tmp_path / "seed0" / "decoder.safetensors")
    again = open_model(tmp_path, "decoder", seed=0, device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_trained_model_learns_on(
    clips: Corpus, unseen: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tower stays, its decoder changes by little, and the record describes both trainings."""
    for name, corpus, count in (("train-00000", clips, 3), ("train-00001", clips, 2), ("val-00000", unseen, 2)):
        np.savez(tmp_path / name, **{field.name: getattr(corpus, field.name)[:count] for field in fields(Corpus)})
    folder = Path(train.__file__).parent / "weights" / "thinned"
    told = f"--folder {tmp_path} --device cpu --decoder-batch 2 --decoder-scale 0.0004 --report 1".split()
    for stage in (["decoder", "--from", str(folder)], ["export", "--out", str(tmp_path / "out")]):
        monkeypatch.setattr("sys.argv", ["train", *stage, *told])
        train.main()
    before, after = load(folder)[0], load(tmp_path / "out")[0]
    for name, value in before.named_parameters():
        moved = (after.get_parameter(name) - value).abs().max()
        assert 0 < moved < 0.01 if "language_model" in name or "newline" in name else moved == 0, name
    old = json.loads((folder / "training.json").read_text())
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["tower"] == old.pop("tower")
    assert record["before"] == old
    assert record["world"] == digest_world()
    assert [line["step"] for line in record["decoder"] if "step" in line] == [1, 2]
    assert record["decoder"][0]["active"] == len(FAMILIES) + 2
    assert record["decoder"][-1]["final"]["macro"] > 0.5

    model = load()[0]
    monkeypatch.setattr(TokenBank, "from_corpus", None)
    kept = open_bank(tmp_path, "train", model, tmp_path / "seed0")
    assert (len(kept.tokens), kept.visual) == (5, 784)
    assert torch.equal(kept.words, torch.from_numpy(np.concatenate([clips.words[:3], clips.words[:2]])).long())
    with torch.no_grad():
        model.model.multi_modal_projector.linear_1.bias += 1
    with pytest.raises(TypeError):
        open_bank(tmp_path, "train", model, tmp_path / "seed0")


@pytest.mark.parametrize("favour", [0.0, 0.45])
def test_thin_prefixes_favour_objects_or_lack_tokens_by_lot(
    trained: Any, unseen: Corpus, favour: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = TokenBank.from_corpus(unseen, trained)
    shown: list[torch.Tensor] = []

    def read(model, tokens, places, visual, words, length, mask):
        shown.append(places)
        kept = zip(bank.tokens[rows], places, tokens, strict=True)
        assert all(torch.equal(row[where], seen) for row, where, seen in kept)
        assert (places.diff(dim=1) > 0).all()
        raise InterruptedError

    rows = torch.randint(len(bank.tokens), (64,), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("bench.accuracy.train_decoder.read_answers", read)
    phase = Phase(tokens=549, batch=64, steps=1, share=1.0, favour=favour)
    with pytest.raises(InterruptedError):
        train_decoder(trained, bank, bank, [phase], seed=0, learning_rate=0, patience=1, learnt=True, limit=60,
                      log=lambda line: None, keep=lambda: None)  # fmt: skip
    assert shown[0].shape == (64, 549)
    kept = (bank.busy[rows] > 0).gather(1, shown[0]).sum() / (bank.busy[rows] > 0).sum()
    assert kept == pytest.approx(0.7, abs=0.03) if favour == 0 else kept > 0.9


def test_words_begin_where_the_tokens_of_what_they_name_lie(trained: Any, clips: Corpus, unseen: Corpus) -> None:
    fresh = begin_anew(trained, FrameBank.from_corpus(clips, CPU), seed=0)
    found = judge_tower(fresh, FrameBank.from_corpus(unseen, CPU))
    assert all(found[name] > 0.8 for name in ("shape", "icon", "colour", "digit", "texture")), found
    table, theirs = (model.model.language_model.embed_tokens.weight for model in (fresh, trained))
    assert not torch.isclose(table, theirs).all(dim=1).any()


def test_families_are_taken_up_one_after_the_other_unless_they_are_learnt() -> None:
    fresh = Curriculum(CPU, patience=100, learnt=False)
    assert fresh.active == ["colour", "scene", "digit", "place", "presence"]
    fresh.advance(101)
    assert fresh.active[5:] == ["event"]
    learnt = Curriculum(CPU, patience=100, learnt=True)
    assert set(FAMILIES) < set(learnt.active)
    motion, digit = FAMILIES.index("motion"), FAMILIES.index("digit")
    for _ in range(20):
        learnt.observe(torch.tensor([1.0, 0.0]), torch.tensor([motion, digit]))
    learnt.advance(1)
    assert learnt.weight[motion] > learnt.weight[digit] > 0


def test_the_shipped_weights_are_the_frozen_ones_and_see(trained: Any, unseen: Corpus) -> None:
    frozen = json.loads(FROZEN.read_text())
    file = WEIGHTS / "model.safetensors"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == frozen["weights_sha256"]
    assert file.stat().st_size < 8_000_000
    found = judge_decoder(trained, TokenBank.from_corpus(unseen, trained))
    assert found["macro"] > 0.9
    assert all(found[name] > CHANCE[name] + 0.3 for name in FAMILIES)


def test_the_training_log_is_that_of_the_weights() -> None:
    record = json.loads((WEIGHTS / "training.json").read_text())
    assert record["weights_sha256"] == hashlib.sha256((WEIGHTS / "model.safetensors").read_bytes()).hexdigest()
    assert record["whole_clips_only"] and record["steps"] > 0
    final = record["log"][-1]["val"]["16"]
    assert final["macro"] > 0.9 and all(final[name] > CHANCE[name] + 0.3 for name in FAMILIES)


def test_questions_alone_teach_nothing() -> None:
    """A decoder without a video stays at chance; one that is given the answer does not."""
    texts = blind.collect("train", 150)
    model, _ = blind.train_blind(texts, steps=40, batch=64, seed=0)
    asked = blind.collect("test", 150)
    found = blind.judge_blind(model, asked)
    assert all(one["accuracy"] < one["chance"] + 2 * one["interval"] for one in found.values())
    telling = {field.name: getattr(texts, field.name) for field in fields(blind.Texts)}
    telling["words"] = texts.words.scatter(1, texts.last[:, None] - 1, texts.answer[:, None])
    told = blind.Texts(**telling)
    model, loss = blind.train_blind(told, steps=120, batch=64, seed=0, learning_rate=2e-3)
    assert blind.judge_blind(model, told)["digit"]["accuracy"] > 0.6
    assert loss < 2


def test_the_learning_rate_rises_and_falls() -> None:
    assert rate(0.0) == 0
    assert rate(0.03) == pytest.approx(1)
    assert rate(1.0) == pytest.approx(0)


def test_a_missing_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="render the corpus first"):
        find_files(tmp_path, "train")
