"""What is done to a video under each control, and the controls of the trained model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.accuracy import controls
from bench.accuracy.controls import EXPECTED, answer_under, find, flip, shuffle
from compress.accuracy.answering import Examinee, Sheet
from compress.accuracy.clips import Clip, open_clip
from compress.accuracy.questions import CHANCE, FAMILIES, Question
from compress.accuracy.tower import TowerMemory, TowerOutput
from compress.demo import WEIGHTS, load
from compress.models.adapters.adapter import VisionView

CLIPS = 28
"""Of the trained model's controls; resampled intervals of fewer are too narrow, the published ones are of more."""


def test_frames_move_as_wholes() -> None:
    features = torch.arange(13.0)[None, :, None]
    output = TowerOutput(features=features, view=VisionView(saliency=torch.zeros(4, 3)))
    turned = shuffle(output, frames=4, order=[3, 2, 1, 0]).features.flatten().tolist()
    assert turned == [9, 10, 11, 6, 7, 8, 3, 4, 5, 0, 1, 2, 12]
    one = shuffle(output, frames=4, order=[2] * 4).features.flatten().tolist()
    assert one == [6, 7, 8] * 4 + [12]


def test_answers_of_reversed_time() -> None:
    motion = Question(family="motion", text="", options=("left", "right", "up", "down"), answer="up")
    order = Question(family="order", text="", options=("star", "moon"), answer="moon")
    colour = Question(family="colour", text="", options=("red", "blue"), answer="red")
    assert [flip(question) for question in (motion, order, colour)] == ["down", "star", None]


def test_what_a_control_shows_is_what_the_tower_sees(examinee: Examinee, sheet: Sheet, memory: TowerMemory) -> None:
    """Reordering tokens equals reordering frames, and another clip's tokens are that clip."""
    other = TowerMemory(examinee.adapter, memory.pixels.flip(-1))
    for control, pixels in (
        ("full", memory.pixels),
        ("reversed", memory.pixels.flip(1)),
        ("one-frame", memory.pixels[:, 8:9].expand(-1, 16, -1, -1, -1)),
        ("other-clip", memory.pixels.flip(-1)),
    ):
        ours = answer_under(control, examinee, sheet, memory, other=other, seed=0)
        plain = examinee.answer_plain(sheet, TowerMemory(examinee.adapter, pixels.contiguous()))
        assert np.abs(ours - plain).max() < 1e-4
    full = examinee.answer_plain(sheet, memory)
    for control in ("reversed", "one-frame", "other-clip", "shuffled", "masked"):
        ours = answer_under(control, examinee, sheet, memory, other=other, seed=0)
        assert np.abs(ours - full).max() > 1e-3


def test_findings_tell_failures_from_success(examinee: Examinee, clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that sees is imitated by logits that point at the answer, a blind one by logits that point nowhere."""
    clips = [replace(clip, seed=seed) for seed in range(4)]

    def answer(knows: bool, turned: bool = False):
        def answers(control, examinee, sheet, memory, *, other, seed):
            logits = np.zeros((len(sheet.answers), 120), np.float32)
            for row, (options, right) in enumerate(zip(sheet.options, sheet.answers, strict=True)):
                flipped = flip(clip.questions[row])
                told = examinee.write_sheet(clip.meta, clip.questions[row : row + 1]).options[0]
                wrong = told[clip.questions[row].options.index(flipped)] if flipped else right
                if control in ("full", "one-frame") or knows:
                    logits[row, right] = 1
                elif control == "reversed" and turned:
                    logits[row, wrong] = 1
                elif control in ("shuffled", "reversed") and flipped is None:
                    logits[row, right] = 1
                else:
                    logits[row, options[(seed + row) % len(options)]] = 1
            return logits

        return answers

    monkeypatch.setattr(controls, "answer_under", answer(knows=True))
    leaking = {(one.control, one.family): one.holds for one in find(examinee, clips)}
    assert not any(holds for (control, _), holds in leaking.items() if control in ("other-clip", "masked"))
    assert not any(leaking[control, family] for control in ("shuffled", "reversed") for family in ("motion", "order"))
    monkeypatch.setattr(controls, "answer_under", answer(knows=False, turned=True))
    sound = find(examinee, clips)
    assert all(one.holds for one in sound if one.control in ("reversed", "full", "one-frame"))
    assert all(one.holds for one in sound if one.expected == "kept")
    (motion,) = [one for one in sound if (one.control, one.family) == ("reversed", "motion")]
    assert motion.flipped is not None and motion.flipped.value == 1


@pytest.mark.slow
@pytest.mark.skipif(not (WEIGHTS / "model.safetensors").is_file(), reason="the demo model's weights are not here")
def test_the_trained_model_passes_its_controls(cache) -> None:
    examinee = Examinee(*load())
    findings = find(examinee, (open_clip(cache, "test", seed) for seed in range(CLIPS)))
    assert {one.family for one in findings} == set(FAMILIES)
    assert [one for one in findings if not one.holds] == []
    full = {one.family: one.accuracy.value for one in findings if one.control == "full"}
    assert all(full[name] > CHANCE[name] + 0.2 for name in FAMILIES)
    assert EXPECTED["masked"].keys() == full.keys()
