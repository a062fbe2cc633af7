"""Training on whole clips: no prefix lacks a token, and what tokens are asked is what their clip shows up to there."""

from __future__ import annotations

import hashlib
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
from bench.accuracy.whole_clips import UNKNOWN, WholeClips, ask_order, cache_tokens, choose_frames, dense_targets
from bench.accuracy.whole_steps import LEARNT, SOLVED, DenseHeads, Progress
from compress.accuracy.drawing import KINDS
from compress.accuracy.labels import label
from compress.accuracy.questions import FAMILIES, ask
from compress.accuracy.scene import DIRECTIONS, SAMPLED, SHAPES, make_scene
from compress.demo import WEIGHTS, load

CELLS = 49
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
        assert found is not None and len(found) == frames and found == sorted(set(found))
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
    asked = dict.fromkeys(("entry", "way", "copies", "earlier"), 0)
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
        assert set(np.unique(found["copies"])) <= {UNKNOWN, len(copies) - 1}
    assert min(asked.values()) > 30, asked


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
        assert torch.allclose(found, hidden[depth][:, 1:], atol=1e-3)
    assert batch.words.shape[-1] == LONGEST


def test_training_goes_on_from_its_export_and_from_no_other(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = ["train_whole", "--corpus", str(corpus), "--out", str(tmp_path / "out"), "--frames", "2x2", "--val", "2"]
    monkeypatch.setattr("sys.argv", [*told, "--from", str(WEIGHTS), "--minutes", "1"])
    with pytest.raises(SystemExit, match="prefixes that lack tokens"):
        train_whole.main()
    monkeypatch.setattr(train_whole.FrameBank, "from_corpus", lambda corpus, device: None)
    monkeypatch.setattr("bench.accuracy.train_whole.point_words", lambda model, frames: None)
    monkeypatch.setattr("sys.argv", [*told, "--from", str(WEIGHTS), "--anew", "--minutes", "0.001"])
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


def test_the_export_that_training_goes_on_from_is_its_logs(trained: Any) -> None:
    folder = Path(train_whole.__file__).parent / "weights" / "whole"
    record = json.loads((folder / "training.json").read_text())
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert record["weights_sha256"] == digest
    assert record["whole_clips_only"] and record["steps"] > 0 and record["log"]
    assert digest_tower(load(folder)[0]) == digest_tower(trained)
