"""Whether the benchmark measures seeing: what the full model answers when the video is wrong, hidden or out of order.

    python -m bench.accuracy.controls [--slice 200] [--out bench/results/accuracy_controls.json]

Another clip's tokens and hidden tokens must take every family to chance. Shuffled frames must leave alone what one
frame tells, and take its direction from time: the axis of a motion can still be seen, so that right answers and those
of reversed time must become equally frequent. Reversed frames must turn left into right, and first into last. A single
frame in place of all is a floor.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from compress.accuracy.answering import Examinee, Sheet, mark
from compress.accuracy.clips import Clip, default_cache, open_clip
from compress.accuracy.questions import CHANCE, FAMILIES, Question
from compress.accuracy.scene import Split
from compress.accuracy.statistics import Figure, Tally, draw_weights, summarise
from compress.accuracy.tower import TowerMemory, TowerOutput

Item = TypeVar("Item")
Control = Literal["full", "other-clip", "masked", "shuffled", "reversed", "one-frame"]
Expectation = Literal["chance", "kept", "undirected", "flipped", "free"]

OPPOSITE: Final = {"left": "right", "right": "left", "up": "down", "down": "up"}
STATIC: Final = ("colour", "digit", "place")
"""Families that one frame can tell."""
IN_TIME: Final = ("motion", "order")
LEVEL: Final = 0.99
SLACK: Final = 0.03
"""By how much a family may lose and still count as kept."""

EXPECTED: Final[Mapping[Control, Mapping[str, Expectation]]] = {
    "other-clip": dict.fromkeys(FAMILIES, "chance"),
    "masked": dict.fromkeys(FAMILIES, "chance"),
    "shuffled": {**dict.fromkeys(IN_TIME, "undirected"), **dict.fromkeys(STATIC, "kept")},
    "reversed": {**dict.fromkeys(IN_TIME, "flipped"), **dict.fromkeys(STATIC, "kept")},
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A family under a control.

    Attributes:
        control: what was done to the video.
        family: what was asked about.
        accuracy: share of right answers, with an interval of 99 %.
        flipped: share of answers that would be right if time ran backwards; None where nothing changes then.
        full: accuracy of the model that sees the video.
        expected: what should come of it.
        holds: whether it does.
    """

    control: Control
    family: str
    accuracy: Figure
    flipped: Figure | None
    full: float
    expected: Expectation
    holds: bool


def shuffle(output: TowerOutput, *, frames: int, order: Sequence[int]) -> TowerOutput:
    """Return the tokens with frames in another order; repeated numbers repeat a frame."""
    count = output.features.shape[1] - 1
    tokens, newline = output.features[:, :count], output.features[:, count:]
    blocks = tokens.reshape(1, frames, count // frames, -1)[:, list(order)]
    return replace(output, features=torch.cat((blocks.flatten(1, 2), newline), dim=1))


def flip(question: Question) -> str | None:
    """Return the answer if time ran backwards; None for families that do not depend on its direction."""
    if question.family == "motion":
        return OPPOSITE[question.answer]
    if question.family == "order":
        return next(option for option in question.options if option != question.answer)
    return None


def answer_under(
    control: Control, examinee: Examinee, sheet: Sheet, memory: TowerMemory, *, other: TowerMemory, seed: int
) -> NDArray[np.float32]:
    """Logits of the answers when the video is not what it was.

    Args:
        control: what to do to it.
        examinee: the model.
        sheet: questions about a clip.
        memory: of that clip.
        other: of another one, with as many frames.
        seed: of the order of frames.
    """
    frames = memory.frames
    orders: dict[Control, Sequence[int]] = {
        "shuffled": np.random.default_rng([seed, frames]).permutation(frames).tolist(),
        "reversed": range(frames - 1, -1, -1),
        "one-frame": [frames // 2] * frames,
    }
    if control == "full":
        return examinee.answer_plain(sheet, memory)
    if control == "masked":
        return examinee.answer_plain(sheet, memory, blind=True)
    if control == "other-clip":
        return examinee.answer_plain(sheet, memory, alter=lambda _: other.recall())
    return examinee.answer_plain(
        sheet, memory, alter=lambda output: shuffle(output, frames=frames, order=orders[control])
    )


def find(examinee: Examinee, clips: Iterable[Clip]) -> list[Finding]:
    """All controls over some clips, at least two; they are read one after the other."""
    marks: dict[Control, list[list[float]]] = {control: [] for control in get_args(Control)}
    flips: dict[Control, list[list[float]]] = {control: [] for control in get_args(Control)}
    families = []
    looked = ((clip, examinee.look(clip.meta)) for clip in clips)
    for (clip, memory), (_, other) in _with_another(looked):
        sheet = examinee.write_sheet(clip.meta, clip.questions)
        turned = _turn(sheet, clip.questions)
        families.append(sheet.families)
        for control in marks:
            logits = answer_under(control, examinee, sheet, memory, other=other, seed=clip.seed)
            marks[control].append(mark(sheet, logits)[0].astype(float).tolist())
            flips[control].append(mark(turned, logits)[0].astype(float).tolist())
    return list(_judge(families, marks, flips))


def _with_another(items: Iterable[Item]) -> Iterator[tuple[Item, Item]]:
    """Each item with the one before it, and last the first with the last."""
    iterator = iter(items)
    first = previous = next(iterator)
    for item in iterator:
        yield item, previous
        previous = item
    yield first, previous


def _judge(
    families: Sequence[Sequence[str]],
    marks: Mapping[Control, Sequence[Sequence[float]]],
    flips: Mapping[Control, Sequence[Sequence[float]]],
) -> Iterator[Finding]:
    names = [name for name in FAMILIES if any(name in kinds for kinds in families)]
    weights = draw_weights(len(families))
    full = Tally.of(families, marks["full"], names).accuracies(weights)
    for control, found in marks.items():
        accuracies = Tally.of(families, found, names).accuracies(weights)
        backwards = Tally.of(families, flips[control], names).accuracies(weights)
        for index, name in enumerate(names):
            accuracy = summarise(accuracies[:, index], level=LEVEL)
            flipped = summarise(backwards[:, index], level=LEVEL) if name in IN_TIME else None
            forwards = summarise(accuracies[:, index] - backwards[:, index], level=LEVEL)
            expected = EXPECTED.get(control, {}).get(name, "free")
            loss = float(full[0, index] - accuracies[0, index])
            holds = {
                "chance": accuracy.low <= CHANCE[name],
                "kept": loss <= SLACK,
                "undirected": forwards.low <= 0,
                "flipped": forwards.high < 0,
                "free": True,
            }[expected]
            yield Finding(
                control=control,
                family=name,
                accuracy=accuracy,
                flipped=flipped,
                full=float(full[0, index]),
                expected=expected,
                holds=bool(holds),
            )


def _turn(sheet: Sheet, questions: Sequence[Question]) -> Sheet:
    """Return the sheet with the answers that are right if time runs backwards, where that makes a difference."""
    ids = {
        option: number
        for question, numbers in zip(questions, sheet.options, strict=True)
        for option, number in zip(question.options, numbers, strict=True)
    }
    answers = [
        ids[turned] if (turned := flip(question)) is not None else answer
        for question, answer in zip(questions, sheet.answers, strict=True)
    ]
    return replace(sheet, answers=tuple(answers))


def main() -> None:
    from compress.demo import load

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slice", type=int, default=200, help="clips")
    parser.add_argument("--split", default="test")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    split: Split = options.split
    examinee = Examinee(*load(options.weights, device=options.device))
    findings = find(examinee, (open_clip(options.cache, split, seed) for seed in range(options.slice)))
    print(f"{'control':12} {'family':8} {'right':>6} {'99 % interval':>16} {'flipped':>8} {'expected':>9}")
    for one in findings:
        flipped = "" if one.flipped is None else f"{100 * one.flipped.value:.1f}"
        interval = f"{100 * one.accuracy.low:.1f} to {100 * one.accuracy.high:.1f}"
        print(
            f"{one.control:12} {one.family:8} {100 * one.accuracy.value:6.1f} {interval:>16} {flipped:>8} "
            f"{one.expected:>9}{'' if one.holds else '  FAILS'}"
        )
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps([asdict(one) for one in findings], indent=1) + "\n")
    raise SystemExit(int(not all(one.holds for one in findings)))


if __name__ == "__main__":
    main()
