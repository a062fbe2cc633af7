"""The world: what is drawn is what the labels say, what is asked has balanced answers, and both are frozen."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from scipy.stats import chisquare

from bench.accuracy.balance import classify, compare, find_pairs
from bench.accuracy.controls import OPPOSITE
from bench.accuracy.freeze import (
    CHECKED,
    FROZEN,
    SHOWN,
    SPRITES,
    digest_clips,
    digest_questions,
    encoder_versions,
)
from compress.accuracy.drawing import KINDS, RGB
from compress.accuracy.labels import GRID, label
from compress.accuracy.questions import CHANCE, FAMILIES, WORDS, Question, ask, ask_steps
from compress.accuracy.scene import COLOURS, FPS, SHAPES, SIDE, Scene, Thing, make_scene, sample_frames
from compress.accuracy.world import decode, draw, encode

SCENES = 1500


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(seed, split="train") for seed in range(SCENES)]


@pytest.fixture(scope="module")
def questions(scenes: list[Scene]) -> list[Question]:
    return [question for scene in scenes for question in ask(scene, scene.sampled)]


def test_a_seed_is_a_scene() -> None:
    assert make_scene(5, split="test") == make_scene(5, split="test")
    assert make_scene(5, split="test") != make_scene(5, split="val")
    assert make_scene(5, split="test") != make_scene(6, split="test")


def test_splits_differ_in_what_is_held_out(scenes: list[Scene]) -> None:
    held = [make_scene(seed, split="test") for seed in range(200)]
    assert max(scene.noise for scene in scenes) <= 3.0 <= min(scene.noise for scene in held)
    speeds = [np.hypot(*shot.pan) * FPS for scene in held for shot in scene.shots if any(shot.pan)]
    trained = [np.hypot(*shot.pan) * FPS for scene in scenes for shot in scene.shots if any(shot.pan)]
    assert min(speeds) >= 14 and max(speeds) <= 20
    assert not any(14 < speed < 20 for speed in trained)
    assert {scene.encoding.preset for scene in scenes} == {"veryfast"}
    assert {scene.encoding.preset for scene in held} == {"medium"}
    assert make_scene(0, split="stress").encoding.bframes == 0
    assert make_scene(0, split="gops").encoding.keyint < 50


def test_objects_never_touch_in_a_sampled_frame(scenes: list[Scene]) -> None:
    for scene in scenes[:200]:
        frames = scene.sampled
        for number, thing in enumerate(scene.things):
            place = thing.place(frames)[thing.seen(frames)]
            assert place.min() >= thing.radius and place.max() <= SIDE - thing.radius
            for other in scene.things[:number]:
                both = thing.seen(frames) & other.seen(frames)
                apart = np.hypot(*(thing.place(frames) - other.place(frames))[both].T)
                assert not both.any() or apart.min() >= thing.radius + other.radius


def test_cells_hold_few_objects(scenes: list[Scene]) -> None:
    share = np.mean([label(scene, scene.sampled).occupied.mean() for scene in scenes[:60]])
    assert 0.08 < share < 0.2


def test_labels_agree_with_decoded_pixels() -> None:
    """Where a label says a colour, the decoded file shows more of it than elsewhere; a shifted label does not."""
    near, off = [], []
    for seed in range(6):
        scene = make_scene(seed, split="test")
        frames = scene.sampled
        pictures = decode(encode(scene), frames).astype(float)
        labels = label(scene, frames)
        for number, name in enumerate(COLOURS):
            distance = np.abs(pictures - np.array(RGB[name])).sum(-1)
            side = SIDE // GRID
            cells = distance[:, : side * GRID, : side * GRID].reshape(len(frames), GRID, side, GRID, side)
            share = (cells < 90).mean((2, 4))
            for colour, into in ((labels.colour, near), (np.roll(labels.colour, 3, axis=2), off)):
                into.extend(share[(colour == number)].tolist())
    assert np.mean(near) > max(0.15, 3 * np.mean(off))


def test_every_kind_is_drawn(scenes: list[Scene]) -> None:
    seen = {int(kind) for scene in scenes[:120] for kind in np.unique(label(scene, scene.sampled).kind)}
    assert seen == {-1, *range(len(KINDS))}


def test_no_two_frames_are_equal() -> None:
    pictures = [picture for _, picture in zip(range(40), draw(make_scene(1, split="train")), strict=False)]
    assert len({picture.tobytes() for picture in pictures}) == 40


def test_answers_are_balanced(questions: list[Question]) -> None:
    for family in FAMILIES:
        asked = [question for question in questions if question.family == family]
        if family != "order":
            answers = Counter(question.answer for question in asked)
            assert chisquare(list(answers.values())).pvalue > 0.001, (family, answers)
        slots = Counter(question.options.index(question.answer) for question in asked)
        assert len(slots) == round(1 / CHANCE[family])
        assert chisquare(list(slots.values())).pvalue > 0.001, (family, slots)


def test_order_does_not_depend_on_names(questions: list[Question]) -> None:
    firsts = Counter(question.answer for question in questions if question.family == "order")
    named = Counter(name for question in questions if question.family == "order" for name in question.options)
    shares = {name: firsts[name] / named[name] for name in SHAPES}
    assert all(0.4 < share < 0.6 for share in shares.values()), shares


def reverse(scene: Scene) -> Scene:
    """Return the scene as it is when time runs backwards."""

    def turn(thing: Thing) -> Thing:
        x, y = thing.place(np.array([scene.frames]))[0].tolist()
        back = replace(thing, start=scene.frames - thing.stop, stop=scene.frames - thing.start, x=x, y=y)
        if not thing.direction:
            return back
        leaves, arrives = scene.frames - thing.arrives, scene.frames - thing.leaves
        return replace(back, direction=OPPOSITE[thing.direction], leaves=leaves, arrives=arrives)

    shots = [replace(one, start=scene.frames - one.stop, stop=scene.frames - one.start) for one in scene.shots[::-1]]
    return replace(scene, things=tuple(map(turn, scene.things)), shots=tuple(shots), fade=1 / scene.fade)


def test_reversed_time_turns_motion_and_order_and_nothing_else(scenes: list[Scene]) -> None:
    """So that whatever forgets the order of frames, and is right of a clip, is wrong of the reversed one."""
    turned = 0
    for scene in scenes[:300]:
        ways = [
            {question.text: (question.family, question.answer, set(question.options)) for question in asked}
            for asked in (ask(scene, scene.sampled), ask(reverse(scene), scene.frames - 1 - scene.sampled[::-1]))
        ]
        pairs = [
            {(text.split()[2], frozenset(options)): answer for text, (family, answer, options) in way.items()
             if family == "order"}
            for way in ways
        ]  # fmt: skip
        assert pairs[0].keys() == pairs[1].keys()
        assert all(pairs[1][key] != answer for key, answer in pairs[0].items())
        turned += len(pairs[0])
        forwards, backwards = (
            {text: answer for text, (family, answer, _) in way.items() if family == kind}
            for way, kind in zip(ways, ("motion", "motion"), strict=True)
        )
        assert forwards.keys() == backwards.keys()
        assert all(backwards[text] == OPPOSITE[answer] for text, answer in forwards.items())
        for kind in ("colour", "count", "digit", "place", "event"):
            there, here = ({text: found[1] for text, found in way.items() if found[0] == kind} for way in ways)
            assert there == here
    assert turned > 300


def test_a_shape_around_another_is_not_asked_about(scenes: list[Scene]) -> None:
    """It is in all frames of the other and in more, which tells without their order that it came first."""
    around = asked = 0
    for scene in scenes[:300]:
        shapes = {thing.name: thing.seen(scene.sampled) for thing in scene.things if thing.kind == "shape"}
        pairs = {frozenset(one.options) for one in ask(scene, scene.sampled) if one.family == "order"}
        asked += len(pairs)
        for first, second in permutations(shapes, 2):
            if not (shapes[second] & ~shapes[first]).any():
                around += 1
                assert frozenset((first, second)) not in pairs
    assert around > 100 and asked > 200


def test_order_does_not_show_in_frames_without_their_order(scenes: list[Scene]) -> None:
    """Of what any frames tell, the one that came first has more as often as less: sign tests at 4 sigma."""
    found = [compare(*pair) for pair in find_pairs(scenes)]
    table = np.array([list(one.values()) for one in found])
    assert table.shape[0] > 2000 and table.shape[1] == 14
    for name, column in zip(found[0], table.T, strict=True):
        signs = column[column != 0] > 0
        assert abs(signs.mean() - 0.5) < 2 / np.sqrt(len(signs)), (name, signs.mean(), len(signs))
    right, asked = classify(table)
    assert abs(right - 0.5) < 2 / np.sqrt(asked)


def test_stays_that_are_never_ended_would_tell_the_order(scenes: list[Scene]) -> None:
    """The same counts find it when shapes stay once they have come."""
    found = []
    for scene, early, late in find_pairs(scenes[:600]):
        things = {thing: replace(thing, stop=scene.frames) for thing in scene.things if thing.kind == "shape"}
        staying = replace(scene, things=tuple(things.get(thing, thing) for thing in scene.things))
        found.append(compare(staying, things[early], things[late]))
    assert np.mean([one["frames"] > 0 for one in found]) == 1
    right, asked = classify(np.array([list(one.values()) for one in found]))
    assert right - 0.5 > 6 / np.sqrt(asked)


def test_every_kind_of_thing_is_there_early_as_often_as_late(scenes: list[Scene]) -> None:
    for kind in ("shape", "count", "digit", "letter", "event"):
        things = [(thing, scene.sampled) for scene in scenes for thing in scene.things if thing.kind == kind]
        seen = np.mean([thing.seen(frames) for thing, frames in things], axis=0)
        assert np.abs(seen - seen[::-1]).max() < 4 * np.sqrt(2 * seen.max() / len(things)), (kind, seen)


def test_every_word_is_known_and_answers_are_options(questions: list[Question], scenes: list[Scene]) -> None:
    for question in [*questions, *(one for scene in scenes[:100] for one in ask_steps(scene, scene.sampled))]:
        assert set(question.text.split()) <= set(WORDS)
        assert question.answer in question.options
        assert len(set(question.options)) == len(question.options)
        assert set(question.options) <= set(WORDS)


def test_answers_follow_from_the_scene() -> None:
    """Read off the scene by hand: a digit's corner, the first background, a direction, a count."""
    scene = make_scene(SHOWN[0], split="val")
    found = {question.text: question.answer for question in ask(scene, scene.sampled)}
    digit = next(thing for thing in scene.things if thing.kind == "digit")
    assert found["which digit was shown ?"] == digit.name
    corner = ("n" if digit.y < SIDE / 2 else "s") + ("w" if digit.x < SIDE / 2 else "e")
    assert found["in which corner was the digit ?"] == corner
    assert found["what was the background at the start ?"] == scene.shots[0].texture
    assert found["what was the background at the end ?"] == scene.shots[-1].texture
    copies = [thing for thing in scene.things if thing.kind == "count"]
    assert found[f"how many {copies[0].name} were there ?"] == ("one", "two", "three", "four")[len(copies) - 1]


def test_sampling_is_that_of_uniform() -> None:
    assert sample_frames(100).tolist() == [3, 9, 15, 21, 28, 34, 40, 46, 53, 59, 65, 71, 78, 84, 90, 96]


def test_the_test_set_is_frozen() -> None:
    frozen = json.loads(FROZEN.read_text())
    assert digest_questions(range(CHECKED)) == frozen["checked_questions_sha256"]
    assert digest_questions(range(1, CHECKED + 1)) != frozen["checked_questions_sha256"]


def test_files_and_pictures_are_frozen() -> None:
    frozen = json.loads(FROZEN.read_text())
    if encoder_versions() != frozen["encoder"]:
        pytest.skip(f"another encoder: {encoder_versions()}, the digests are of {frozen['encoder']}")
    assert digest_clips(range(CHECKED)) == (frozen["checked_files_sha256"], frozen["checked_pictures_sha256"])


def test_the_clips_of_the_demo_are_of_this_world() -> None:
    asked = json.loads((SPRITES / "questions.json").read_text())
    frozen = json.loads(FROZEN.read_text())
    for seed in SHOWN:
        scene = make_scene(seed, split="val")
        name = f"sprites_{seed % 1000:02d}.mp4"
        assert [(one["question"], one["answer"]) for one in asked[name]] == [
            (one.text, one.answer) for one in ask(scene, scene.sampled)
        ]
        if encoder_versions() == frozen["encoder"]:
            assert (SPRITES / name).read_bytes() == encode(scene)
