"""Training on whole clips: no prefix lacks a token, and what tokens are asked is what their clip shows up to there."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.accuracy import train_whole, whole_steps
from bench.accuracy.bank import digest_tower
from bench.accuracy.corpus import KINDS_ASKED, LONGEST, Corpus, render_clip
from bench.accuracy.packed_decoder import Reading, read_packed
from bench.accuracy.train_decoder import block_mask, read_answers
from bench.accuracy.whole_clips import (
    OPPOSITE,
    UNKNOWN,
    WholeClips,
    ask_order,
    cache_tokens,
    choose_frames,
    dense_targets,
    look_up,
    reverse,
)
from bench.accuracy.whole_steps import LEARNT, SOLVED, DenseHeads, Progress
from compress.accuracy.drawing import KINDS
from compress.accuracy.labels import label
from compress.accuracy.questions import FAMILIES, NUMBERS, WORDS, ask
from compress.accuracy.scene import DIRECTIONS, SAMPLED, SHAPES, make_scene
from compress.demo import WEIGHTS, load

CELLS = 49
THINNED = Path(train_whole.__file__).parent / "weights" / "thinned"
EVERY = np.array([float(name in FAMILIES) for name in KINDS_ASKED])


@pytest.fixture(scope="module")
def trained() -> Any:
    return load()[0]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, trained: Any) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for split, count in (("train", 6), ("val", 2)):
        rows = [render_clip(seed, split) for seed in range(count)]
        np.savez(folder / f"{split}-00000", **{one.name: np.stack([row[one.name] for row in rows])
                                               for one in fields(Corpus)})  # fmt: skip
        cache_tokens(folder, split, trained, folder / "tokens")
    return folder


@pytest.fixture(scope="module")
def clips(corpus: Path) -> WholeClips:
    return WholeClips(corpus, "train", corpus / "tokens")


def frames_of(tokens: Tensor, clips: WholeClips) -> list[int] | None:
    """Which frames of which cached clip these tokens are, all of each; None where a token is missing."""
    if len(tokens) % CELLS:
        return None
    for clip in torch.from_numpy(np.array(clips.tokens[0])):
        found = [[int(n) for n in range(SAMPLED) if torch.equal(clip[n], one)] for one in tokens.split(CELLS)]
        if all(len(places) == 1 for places in found):
            return [places[0] for places in found]
    return None


@pytest.mark.parametrize("frames", [2, 4, 16])
def test_a_training_prefix_holds_every_token_of_its_frames(
    frames: int, clips: WholeClips, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Tensor] = []

    def spy(model: Any, tokens: Tensor, *rest: Any, **options: Any) -> Reading:
        shown.extend(tokens)
        return read_packed(model, tokens, *rest, **options)

    monkeypatch.setattr(whole_steps, "read_packed", spy)
    heads = DenseHeads(192)
    pupil = whole_steps.Pupil(trained, heads, clips, Progress([FAMILIES], {}), np.random.default_rng(0), dense=0.5)
    pupil.step(frames, 3, rate=0.0)
    assert len(shown) == 3
    for tokens in shown:
        found = frames_of(tokens, clips)
        assert found is not None and len(found) == frames
        assert found in (sorted(set(found)), sorted(set(found), reverse=True))  # time may run backwards
        assert frames_of(tokens[:-1], clips) is None
        thinned = torch.cat([tokens[:7], tokens[8:], tokens[-1:]])
        assert frames_of(thinned, clips) is None


def test_only_what_the_frames_show_is_asked(clips: WholeClips) -> None:
    rng = np.random.default_rng(1)
    chosen = [choose_frames(rng, 4) for _ in range(6)]
    batch = clips.draw(range(6), chosen, 12, EVERY, rng, apart=1)
    words = clips._tokenizer
    for row, frames in enumerate(chosen):
        scene = make_scene(row, split="train")
        at = scene.sampled[frames]
        known = {(one.text, one.answer) for one in [*ask(scene, at), *ask_order(scene, at, 1)]}
        for ids, length in zip(batch.words[row], batch.length[row], strict=True):
            if length:
                text, answer = words.decode(ids[:length].tolist()).split(" answer ")
                assert (text, answer) in known
    assert (batch.family >= 0).sum() > 20
    assert all(len(set(one.tolist())) == 4 and one.max() < SAMPLED for one in chosen)


def test_cells_are_asked_what_the_clip_has_shown_up_to_there() -> None:
    asked = dict.fromkeys(("entry", "way", "copies", "earlier", "peers"), 0)
    for seed in range(25):
        scene = make_scene(seed, split="train")
        frames = np.array([1, 5, 9, 13])
        at = scene.sampled[frames]
        kind = label(scene, at).kind
        found = {name: value.reshape(4, CELLS, -1) for name, value in dense_targets(scene, at, kind).items()}
        assert (found["time"][..., 0] == np.arange(4)[:, None]).all()
        cells = kind.reshape(4, CELLS)
        shapes = {thing.name: thing for thing in scene.things if thing.kind == "shape"}
        for t, cell in np.argwhere(cells >= 0):
            name = KINDS[cells[t, cell]]
            before = [n for n in range(4) if (cells[n] == cells[t, cell]).any()]
            entry = int(found["entry"][t, cell, 0])
            assert entry <= min(before)  # it may be seen before any cell holds enough of it
            asked["entry"] += 1
            if name not in shapes:
                assert found["way"][t, cell, 0] == UNKNOWN
                continue
            way = int(found["way"][t, cell, 0])
            x, y = (shapes[name].place(at)[t] - shapes[name].place(at)[entry]).tolist()
            if way not in (UNKNOWN, len(DIRECTIONS)):
                expected = ("right" if x > 0 else "left") if abs(x) > abs(y) else ("down" if y > 0 else "up")
                assert DIRECTIONS[way] == expected
                asked["way"] += 1
            for bit, other in enumerate(SHAPES):
                came = other in shapes and shapes[other].seen(at)[:entry].any()
                assert bool(found["earlier"][t, cell, bit]) == came
                asked["earlier"] += came
        asked["copies"] += int((found["copies"] >= 0).sum())
        copies = [thing for thing in scene.things if thing.kind == "count"]
        for t in range(4):
            for mate in np.unique(cells[t][found["peers"][t, :, 0] >= 0]):
                counted = found["peers"][t, cells[t] == mate, 0]
                several = len(copies) if copies and KINDS[mate] == copies[0].name else 1
                assert (np.diff(counted) >= 0).all() and 0 <= counted.min() <= counted.max() <= several
                asked["peers"] += int(counted.max() == several)
        assert set(np.unique(found["copies"])) <= {UNKNOWN, len(copies) - 1}
    assert min(asked.values()) > 30, asked


def test_time_runs_backwards_with_its_answers(clips: WholeClips) -> None:
    chosen = [np.array([0, 5, 10, 15])] * 6
    draws = [
        clips.draw(range(6), chosen, 24, EVERY, np.random.default_rng(0), apart=1, backwards=[turned] * 6)
        for turned in (False, True)
    ]
    there, back = draws
    assert torch.equal(there.tokens.unflatten(1, (4, -1)), back.tokens.unflatten(1, (4, -1)).flip(1))
    answers: list[dict[tuple[int, str], str]] = []
    for batch in draws:
        said = {}
        for row in range(6):
            for ids, length in zip(batch.words[row], batch.length[row], strict=True):
                if length:
                    text, answer = clips._tokenizer.decode(ids[:length].tolist()).split(" answer ")
                    said[row, text] = answer
        answers.append(said)
    turned = kept = 0
    for (row, text), answer in answers[0].items():
        other = answers[1].get((row, text))
        if "move" in text:
            assert other == OPPOSITE[answer]
            turned += 1
        elif "start" not in text and "end" not in text and "first" not in text and "last" not in text:
            assert other == answer
            kept += 1
    assert turned > 3 and kept > 10
    for seed in range(20):
        scene = make_scene(seed, split="train")
        at = scene.sampled
        kinds = label(scene, at).kind
        entry = dense_targets(scene, at, kinds)["entry"].reshape(SAMPLED, -1)
        turned_entry = dense_targets(reverse(scene), scene.frames - 1 - at[::-1], kinds[::-1])["entry"]
        last = SAMPLED - 1 - turned_entry.reshape(SAMPLED, -1)[::-1]
        assert (last[entry != UNKNOWN] >= entry[entry != UNKNOWN]).all()


def test_targets_are_read_by_the_words_that_name_them(clips: WholeClips) -> None:
    """A token that points to the right word has no loss; one that points to another has."""
    batch = clips.draw(range(6), [np.arange(4)] * 6, 4, EVERY, np.random.default_rng(0), apart=1)
    words = torch.nn.functional.normalize(torch.randn(len(WORDS), 192, generator=torch.Generator().manual_seed(0)))
    heads, target = DenseHeads(192), batch.dense["copies"]
    losses = []
    for shift in (0, 1):
        named = words[[WORDS.index(NUMBERS[(max(int(one), 0) + shift) % 4]) for one in target.flatten()]]
        seen = dict.fromkeys(whole_steps.DEPTHS, named.unflatten(0, target.shape))
        asked = dict.fromkeys(whole_steps.DEPTHS, torch.zeros(*batch.words.shape, 192))
        reading = Reading(answers=torch.zeros(0), visual=seen, asked=asked)
        losses.append(float(heads(reading, words, batch)["copies"]))
    assert (target >= 0).any() and losses[0] < 0.01 and losses[1] > 5


def test_words_of_a_question_are_asked_when_their_shapes_came() -> None:
    came = {"star": 3, "moon": 1}
    found = look_up("which came first : star or moon ?", came)
    assert found["came"] == [UNKNOWN] * 4 + [3, UNKNOWN, 1, UNKNOWN]
    assert found["sooner"] == [UNKNOWN] * 6 + [1, UNKNOWN]
    assert look_up("which came last : moon or star ?", came)["sooner"][6] == 0
    assert {*look_up("what colour is the star ?", came)["sooner"]} == {UNKNOWN}


def test_the_packed_decoder_is_the_models_own(clips: WholeClips, trained: Any) -> None:
    rng = np.random.default_rng(2)
    batch = clips.draw(range(2), [np.arange(16), np.arange(16)], 6, EVERY, rng, apart=1)
    visual = batch.tokens.shape[1]
    places = torch.arange(visual).expand(2, -1)
    mask = block_mask(visual + 2, 6, torch.device("cpu"))
    with torch.no_grad():
        ours = read_packed(trained, batch.tokens, batch.words, batch.length, depths=(2, 4))
        theirs = read_answers(trained, batch.tokens, places, visual, batch.words, batch.length, mask)
        asked = batch.length > 0
        assert (ours.answers - theirs)[asked].abs().max() < 1e-3
        assert (ours.answers[:, 1:] - theirs[:, :-1])[asked[:, 1:]].abs().max() > 0.1
        first = trained.model.language_model.embed_tokens.weight[1].expand(2, 1, -1)
        hidden = trained.model.language_model(
            inputs_embeds=torch.cat([first, batch.tokens.float()], 1), output_hidden_states=True
        ).hidden_states
    for depth, found in ours.visual.items():
        assert (found - hidden[depth][:, 1:]).abs().max() < 1e-4 * found.abs().max()
        assert (found - hidden[depth - 1][:, 1:]).abs().max() > 0.1 * found.abs().max()
    assert batch.words.shape[-1] == LONGEST


def test_training_goes_on_from_its_export_and_from_no_other(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = ["train_whole", "--corpus", str(corpus), "--out", str(tmp_path / "out"), "--frames", "2x2", "--val", "2"]
    monkeypatch.setattr("sys.argv", [*told, "--from", str(THINNED), "--minutes", "1"])
    with pytest.raises(SystemExit, match="prefixes that lack tokens"):
        train_whole.main()
    monkeypatch.setattr(train_whole.FrameBank, "from_corpus", lambda corpus, device: None)
    monkeypatch.setattr("bench.accuracy.train_whole.point_words", lambda model, frames: None)
    monkeypatch.setattr("sys.argv", [*told, "--from", str(THINNED), "--anew", "--minutes", "0.001"])
    train_whole.main()
    first = json.loads((tmp_path / "out" / "training.json").read_text())
    monkeypatch.setattr("sys.argv", [*told, "--from", str(tmp_path / "out"), "--minutes", "0.001"])
    train_whole.main()
    second = json.loads((tmp_path / "out" / "training.json").read_text())
    assert second["steps"] > first["steps"] >= 1
    assert second["cpu_hours"] > first["cpu_hours"]
    assert len(second["log"]) == len(first["log"]) + 1
    assert second["whole_clips_only"] and second["tower_of"] == first["tower_of"]
    old, new = load()[0], load(tmp_path / "out")[0]
    for name, value in old.named_parameters():
        same = torch.equal(new.get_parameter(name), value)
        assert same == ("vision_tower" in name or "projector" in name), name
    assert new.config.text_config.rope_parameters["rope_theta"] == 1e6


def test_families_are_taken_up_once_those_before_are_learnt() -> None:
    progress = Progress([["colour"], ["motion", "count"]], {})
    assert progress.active == ["colour"]
    for _ in range(3):
        progress.observe("colour", 0.9 * LEARNT)
    progress.advance()
    assert progress.active == ["colour", "motion", "count"]
    for name, loss in (("colour", 0.5 * SOLVED), ("motion", 0.1), ("count", 2.0)):
        for _ in range(400):
            progress.observe(name, loss)
    weight = dict(zip(KINDS_ASKED, progress.weight().tolist(), strict=True))
    assert 0 < weight["colour"] < weight["motion"] == weight["count"] == 1
    assert weight["order"] == 0
    assert not progress.learnt
    progress.begin_again()
    assert progress.loss["colour"] == LEARNT and progress.loss["count"] > 1.9


def test_the_tower_is_that_of_the_thinned_decoder(trained: Any) -> None:
    record = json.loads((WEIGHTS / "training.json").read_text())
    thinned = json.loads((THINNED / "training.json").read_text())
    assert record["tower_of"] == thinned["weights_sha256"] and record["tower"] == thinned["tower"]
    assert digest_tower(load(THINNED)[0]) == digest_tower(trained)
    assert not thinned.get("whole_clips_only")
